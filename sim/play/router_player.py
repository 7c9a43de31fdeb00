"""Our own player: the daemon's router and fold, driven in process.

Per decision it does what the daemon does, in the same order: score from the newest snapshot, draw,
and fold the quality and the cost of an answer once there is feedback. A budget is billed as soon as
there is an answer, feedback or not.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from scipy.special import entr

from banditroute.core.policy_identity import PolicyIdentity
from banditroute.core.pool import Model, ModelSpec, default_tau_cost_usd
from banditroute.decide.columns import Decisions, RequestBatch
from banditroute.decide.router import Router
from banditroute.learn.fold import Event, Fold
from policies import Outcome, make_pacing
from policies.base import Float32, Float64
from sim.play.budget import ReplayBudget, following
from sim.play.candidate import Candidate
from sim.play.player import Choice

POOL = "replay"


class Replayer:
    """One pool in process: a router, the fold that it scores from, and a budget if there is a rate.

    Parameters
    ----------
    specs : the models and their prices.
    contender : the policy.
    dim, embedder : of the features.
    preference : weights of (quality, cost, latency), sum 1.
    rng : source of the router's uniforms.
    rate : US dollars per request, None for no budget. Each stretch then is a budget of its own, of
        the rate times its requests; what it has no money for is refused.
    advance : US dollars; where it is given, nobody knows how many requests a stretch has: each
        brings its own money, beside so much that may be spent ahead of time.
    """

    def __init__(
        self,
        *,
        specs: Sequence[ModelSpec],
        contender: Candidate,
        dim: int,
        embedder: str,
        preference: tuple[float, float, float],
        rng: np.random.Generator,
        rate: float | None = None,
        advance: float | None = None,
    ) -> None:
        options = contender.options
        policy_identity = PolicyIdentity(
            policy=contender.name,
            params=contender.params,
            embedder=embedder,
            dim=dim,
            tau_cost_usd=options.tau_cost or default_tau_cost_usd(list(specs)),
            tau_latency_ms=options.tau_latency_ms,
            prior=contender.prior,
        )
        self.fold = Fold(policy_identity)
        self._append(kind="policy_started", payload=policy_identity.payload())
        self.router = Router(options=options, snapshot=self.fold.snapshot(), models=[], rng=rng)
        self.budget: ReplayBudget | None = None
        self._pacing, self._rate, self._advance = contender.pacing, rate, advance
        self._preference = preference
        self._worst: Float64 | None = None
        self._changed = False
        self.offer(specs)

    def begin(self, requests: int) -> None:
        """Begin a stretch of so many requests; see `Player`."""
        if self._rate is None:
            return
        known = None if self._advance is not None else requests
        if self.budget is not None and known is not None:
            self.budget = following(self.budget, known)
        elif self.budget is None:
            pacing = make_pacing(self._pacing)
            self.budget = ReplayBudget(pacing, self._rate, known, advance=self._advance or 0.0)

    def offer(
        self,
        specs: Sequence[ModelSpec],
        *,
        draining: Collection[str] = (),
        worst: Mapping[str, float] | None = None,
    ) -> None:
        """Choose from these models from now on, see `Player`; a new one is added to the log.

        Parameters
        ----------
        worst : what to reserve, where the models' prices do not tell.
        """
        optimism = self.router.options.newcomer_optimism
        for spec in specs:
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
                draining=spec.name in draining,
            )
            for k, spec in enumerate(specs, start=1)
        ]
        self.router.swap(snapshot=self.fold.snapshot(), models=models)
        self._worst = None
        if worst is not None:
            self._worst = np.array([worst[model.name] for model in self.router.columns.models])
        self._changed = True
        if self.budget is not None:
            self.budget.reserve(self._worst)

    def decide(self, x: Float32, tokens: Float64) -> list[Choice]:
        """Decide n requests from all that was learned, see `Player`."""
        if self.budget is None:
            return _choices(self.ready().decide(self.ask(x, tokens)))
        router, chosen = self.ready(), []
        for k in range(len(x)):
            asks = self.ask(x[k : k + 1], tokens[k : k + 1])
            chosen += _choices(self.budget.decide(router, asks, changed=self._changed))
            self._changed = False
        return chosen

    def ready(self) -> Router:
        """Return the router, scoring from all that was learned."""
        if self.router.snapshot.version < self.fold.version:
            self.router.swap(snapshot=self.fold.snapshot())
        return self.router

    def ask(self, x: Float32, tokens: Float64) -> RequestBatch:
        """Return requests of features x[n, d] and tokens[n] bytes."""
        n = len(x)
        return RequestBatch(
            features=x,
            preference=np.full((n, 3), self._preference),
            input_tokens=tokens / 4.0,
            input_bound=tokens,
            reservation_usd=None
            if self._worst is None
            else np.full((n, len(self._worst)), self._worst),
        )

    def bill(self, choice: Choice, cost: float) -> None:
        """Settle the reservation of a choice with its budget."""
        if self.budget is not None:
            self.budget.settle(choice.note[0], cost)

    def feed(self, choice: Choice, *, quality: float, cost: float) -> None:
        """Fold the outcome of a choice, as the daemon logs it from one feedback."""
        for outcome in outcomes(choice, quality=quality, cost=cost, after=self.fold.version):
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
    choice: Choice, *, quality: float, cost: float, after: int, decision_id: str = ""
) -> list[Outcome]:
    """Return what the daemon would log of one feedback on a choice of our own player.

    Parameters
    ----------
    cost : US dollars.
    after : log position; theirs are the next ones.
    """
    decisions, row = choice.note
    frame, chosen = decisions.scored.columns, int(decisions.chosen[row])
    input_cost = float(decisions.scored.input_cost_usd[row, chosen])
    weights = decisions.scored.requests.preference[row].tolist()
    return [
        Outcome(
            seq=seq,
            decision_id=decision_id,
            arm=frame.models[chosen].name,
            x=decisions.scored.requests.features[row],
            field=field,
            value=value,
            cost_usd=cost,
            propensity=choice.propensity,
            preference=(weights[0], weights[1], weights[2]),
            cost_prior_usd=input_cost + float(frame.output_prior_usd[chosen]),
            input_cost_usd=input_cost,
        )
        for seq, (field, value) in enumerate((("quality", quality), ("cost", cost)), after + 1)
    ]


def _choices(decisions: Decisions) -> list[Choice]:
    entropy = entr(decisions.pmf).sum(axis=1).tolist()
    made = []
    for row, arm in enumerate(decisions.chosen.tolist()):
        if arm < 0:
            made.append(Choice(None))
            continue
        name = decisions.scored.columns.models[arm].name
        propensity = decisions.pmf[row, arm].item()
        made.append(Choice(name, propensity, entropy[row], (decisions, row)))
    return made
