"""Our own player: the daemon's router and fold, driven in process.

For each decision it does what the daemon does, in the same order: score from the newest snapshot,
draw, and fold the quality and the cost of the answer once there is feedback. A budget is billed as
soon as there is an answer, with or without feedback.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import entr

from banditroute.core.policy_identity import PolicyIdentity
from banditroute.core.pool import Model, ModelSpec, default_tau_cost_usd
from banditroute.decide.columns import Decisions, RequestBatch
from banditroute.decide.router import Router
from banditroute.learn.fold import Event, Fold
from policies import Outcome, make_pacing
from policies.base import Float32, Float64
from sim.play.budget import ReplayBudget
from sim.play.candidate import Candidate
from sim.play.player import Choice, ModelsOnOffer

POOL = "replay"


class RouterPlayer:
    """One pool in process: a router, the fold that it scores from, and a budget if there is a rate.

    Parameters
    ----------
    specs : sequence of ModelSpec
        The models and their prices.
    candidate : Candidate
        The policy, with the pool's settings around it.
    dim, embedder : int, str
        Length and origin of the features.
    preference : tuple of float
        Weights of (quality, cost, latency), which sum to 1.
    rng : numpy.random.Generator
        Source of the router's uniforms.
    rate_usd : float, optional
        US dollars per request; None for no budget. Each stretch of requests has a budget of its
        own, the rate times their number; a request that finds no money is refused.
    advance_usd : float, optional
        If given, the number of requests is not known: each adds its own money to this advance.
    """

    def __init__(
        self,
        *,
        specs: Sequence[ModelSpec],
        candidate: Candidate,
        dim: int,
        embedder: str,
        preference: tuple[float, float, float],
        rng: np.random.Generator,
        rate_usd: float | None = None,
        advance_usd: float | None = None,
    ) -> None:
        options = candidate.options
        policy_identity = PolicyIdentity(
            policy=candidate.name,
            params=candidate.params,
            embedder=embedder,
            dim=dim,
            tau_cost_usd=options.tau_cost or default_tau_cost_usd(list(specs)),
            tau_latency_ms=options.tau_latency_ms,
            prior=candidate.prior,
        )
        self.fold = Fold(policy_identity)
        self._append(kind="policy_started", payload=policy_identity.payload())
        self.router = Router(options=options, snapshot=self.fold.snapshot(), models=[], rng=rng)
        self.budget: ReplayBudget | None = None
        self._pacing = candidate.pacing
        self._rate_usd, self._advance_usd = rate_usd, advance_usd
        self._preference = preference
        self._reservation_usd: Float64 | None = None
        self._changed = False
        self.offer(ModelsOnOffer(specs))

    def begin(self, requests: int) -> None:
        """See `Player.begin`."""
        if self._rate_usd is None:
            return
        known = requests if self._advance_usd is None else None
        if self.budget is None:
            pacing, advance_usd = make_pacing(self._pacing), self._advance_usd or 0.0
            self.budget = ReplayBudget(pacing, self._rate_usd, known, advance_usd=advance_usd)
        elif known is not None:
            self.budget = self.budget.next(known)

    def offer(self, offer: ModelsOnOffer) -> None:
        """See `Player.offer`; a new model is added to the log."""
        optimism = self.router.options.newcomer_optimism
        for spec in offer.specs:
            if spec.name not in self.fold.policy.arms:
                self._append(kind="model_added", payload={"name": spec.name})
                if optimism:
                    self._append(kind="prior", payload={"arm": spec.name, "optimism": optimism})
        models = [
            Model(
                spec.name,
                spec.input_price,
                spec.output_price,
                price_id=k,
                draining=spec.name in offer.draining,
            )
            for k, spec in enumerate(offer.specs, start=1)
        ]
        self.router.swap(snapshot=self.fold.snapshot(), models=models)
        self._reservation_usd = None
        if offer.reservation_usd is not None:
            names = [model.name for model in self.router.columns.models]
            self._reservation_usd = np.array([offer.reservation_usd[name] for name in names])
        self._changed = True
        if self.budget is not None:
            self.budget.reprice(self._reservation_usd)

    def decide(self, x: Float32, prompt_bytes: Float64) -> list[Choice]:
        """See `Player.decide`."""
        router = self.updated_router()
        if self.budget is None:
            return _choices(router.decide(self.requests(x, prompt_bytes)))
        choices = []
        for k in range(len(x)):
            request = self.requests(x[k : k + 1], prompt_bytes[k : k + 1])
            choices += _choices(self.budget.decide(router, request, changed=self._changed))
            self._changed = False
        return choices

    def updated_router(self) -> Router:
        """Return the router, which scores from everything learned so far."""
        if self.router.snapshot.version < self.fold.version:
            self.router.swap(snapshot=self.fold.snapshot())
        return self.router

    def requests(self, x: Float32, prompt_bytes: Float64) -> RequestBatch:
        """Return a batch of requests.

        Parameters
        ----------
        x : float32[n, d]
            The features.
        prompt_bytes : float64[n]
            Length of the prompts in UTF-8: four bytes are expected to be a token, each byte may
            be one.
        """
        n, reservation_usd = len(x), self._reservation_usd
        if reservation_usd is not None:
            reservation_usd = np.full((n, len(reservation_usd)), reservation_usd)
        return RequestBatch(
            features=x,
            preference=np.full((n, 3), self._preference),
            input_tokens=prompt_bytes / 4.0,
            input_bound=prompt_bytes,
            reservation_usd=reservation_usd,
        )

    def bill(self, choice: Choice, cost_usd: float) -> None:
        """See `Player.bill`; the reservation of the choice is settled."""
        if self.budget is not None:
            self.budget.settle(choice.note[0], cost_usd)

    def feed(self, choice: Choice, *, quality: float, cost_usd: float) -> None:
        """See `Player.feed`; the outcome is folded as the daemon logs it from one feedback."""
        after_seq = self.fold.version
        for outcome in outcomes(choice, quality=quality, cost_usd=cost_usd, after_seq=after_seq):
            self._append(kind="feedback", outcome=outcome)
        if self.router.options.reset_on_drift:
            for arm, trigger in self.fold.drift.alarms().items():
                self._append(kind="reset", payload={"arm": arm, "trigger_seq": trigger})

    def digest(self) -> str:
        """Return the digest of the fold's state."""
        return self.fold.digest()

    def _append(
        self,
        *,
        kind: str,
        outcome: Outcome | None = None,
        payload: dict[str, object] | None = None,
    ) -> None:
        self.fold.apply(
            Event(
                seq=self.fold.version + 1,
                pool=POOL,
                kind=kind,
                outcome=outcome,
                embedder=self.fold.policy_identity.embedder,
                payload=payload or {},
            )
        )


def outcomes(
    choice: Choice, *, quality: float, cost_usd: float, after_seq: int, decision_id: str = ""
) -> list[Outcome]:
    """Return what the daemon would log of one feedback on a choice of our own player.

    Parameters
    ----------
    choice : Choice
        As `RouterPlayer.decide` returned it.
    quality : float
        As judged, in [0, 1].
    cost_usd : float
        Of the answer.
    after_seq : int
        Log position; the outcomes get the next ones.
    decision_id : str
        Of the decision, where it matters.
    """
    decisions, row = choice.note
    scored, arm = decisions.scored, int(decisions.chosen[row])
    input_cost_usd = float(scored.input_cost_usd[row, arm])
    weights = scored.requests.preference[row].tolist()
    fields = (("quality", quality), ("cost", cost_usd))
    return [
        Outcome(
            seq=seq,
            decision_id=decision_id,
            arm=scored.columns.models[arm].name,
            x=scored.requests.features[row],
            field=field,
            value=value,
            cost_usd=cost_usd,
            propensity=choice.propensity,
            preference=(weights[0], weights[1], weights[2]),
            cost_prior_usd=input_cost_usd + float(scored.columns.output_prior_usd[arm]),
            input_cost_usd=input_cost_usd,
        )
        for seq, (field, value) in enumerate(fields, after_seq + 1)
    ]


def _choices(decisions: Decisions) -> list[Choice]:
    entropy = entr(decisions.pmf).sum(axis=1).tolist()
    choices = []
    for row, arm in enumerate(decisions.chosen.tolist()):
        if arm < 0:
            choices.append(Choice(None))
            continue
        name = decisions.scored.columns.models[arm].name
        propensity = decisions.pmf[row, arm].item()
        choices.append(Choice(name, propensity, entropy[row], (decisions, row)))
    return choices
