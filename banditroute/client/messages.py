"""Values that go into the clients and come out of them: requests, decisions, feedback, errors.

The fields of the typed dictionaries are those of the HTTP API, whose schemas say what is valid.
Prices are US dollars per million tokens.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Required, TypedDict

IGNORED = "ignored"
UNEXPECTED = "unexpected_answer"


class RouterError(Exception):
    """The router refused a request, or could not be reached.

    Parameters
    ----------
    status : int
        HTTP status; 0 without an answer.
    code : str
        A stable word such as ``budget_exceeded``; ``unreachable`` without an answer.
    param : str or None
        The field that is wrong.
    message : str
        One sentence for a person.
    retry_after : float or None
        Seconds that the router asked to wait.

    Notes
    -----
    All parameters are attributes too.
    """

    def __init__(
        self,
        status: int,
        code: str,
        param: str | None,
        message: str,
        *,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"{message} ({status} {code})" if status else f"{message} ({code})")
        self.status, self.code, self.param, self.message = status, code, param, message
        self.retry_after = retry_after

    @property
    def away(self) -> bool:
        """True for transient failures (no answer, 5xx, throttling), False for a refusal."""
        busy = self.status == 429 and self.code not in ("budget_exceeded", "insufficient_quota")
        return self.status == 0 or self.status >= 500 or busy or self._from_proxy

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed in a moment."""
        return self._from_proxy or (self.away and self.status in (0, 429, 502, 503, 504))

    @property
    def _from_proxy(self) -> bool:
        """Whether a proxy answered that does not know the router yet, as while it starts."""
        return self.code == UNEXPECTED and self.status in (404, 500)


@dataclass(frozen=True, slots=True)
class Route:
    """A decision: which model should answer.

    Attributes
    ----------
    decision_id : str or None
        The id for feedback; None if `degraded`.
    model : str
        The model to ask.
    fallbacks : tuple of str
        Models to ask if that one fails, best first.
    propensity : float or None
        Probability with which the model was drawn.
    max_output_tokens : int or None
        Output tokens that the reservation covers; pass it to the model as its limit.
    policy : str or None
        Identity of the policy that decided.
    policy_version : int or None
        Log position of the state that decided.
    reserved_cost_usd : float or None
        US dollars reserved for the answer.
    expires_at : str or None
        When the reservation expires, ISO 8601 in UTC.
    degraded : bool
        True if the router was unavailable and `model` is the client's `default_model`.
    """

    decision_id: str | None
    model: str
    fallbacks: tuple[str, ...] = ()
    propensity: float | None = None
    max_output_tokens: int | None = None
    policy: str | None = None
    policy_version: int | None = None
    reserved_cost_usd: float | None = None
    expires_at: str | None = None
    degraded: bool = False


@dataclass(frozen=True, slots=True)
class RouteError:
    """Why one request of a batch has no decision.

    Attributes
    ----------
    code : str
        A stable word for a program.
    param : str or None
        The field that is wrong.
    message : str
        One sentence for a person.
    """

    code: str
    param: str | None
    message: str


class Ask(TypedDict, total=False):
    """A request for a decision: a prompt, messages or an embedding, and what restricts the choice.

    Attributes
    ----------
    prompt : str
        The text of the prompt.
    messages : Sequence[Mapping[str, Any]]
        Chat messages in place of a prompt.
    embedding : Sequence[float]
        The features of the prompt, for a pool whose embedder is ``precomputed``.
    pool : str
        Name of the pool; ``default`` if absent.
    preference : Mapping[str, float]
        Weights of quality, cost and latency; the pool's if absent.
    max_cost_usd : float
        Limit of what an answer may cost at worst, in US dollars.
    max_latency_ms : float
        Limit of an answer's expected latency, in ms.
    input_tokens : int
        Number of input tokens, where the caller has counted them.
    max_output_tokens : int
        Limit of output tokens that the caller will set.
    models : Sequence[str]
        Models to choose from; all of the pool if absent.
    requires : Sequence[str]
        Capabilities that the model must have.
    session_id : str
        The conversation that the prompt belongs to.
    tags : Mapping[str, str]
        Labels, which budgets may select.
    task : str
        Kind of task; one of the pool's `tasks` is a feature.
    """

    prompt: str
    messages: Sequence[Mapping[str, Any]]
    embedding: Sequence[float]
    pool: str
    preference: Mapping[str, float]
    max_cost_usd: float
    max_latency_ms: float
    input_tokens: int
    max_output_tokens: int
    models: Sequence[str]
    requires: Sequence[str]
    session_id: str
    tags: Mapping[str, str]
    task: str


class By(TypedDict, total=False):
    """Where feedback comes from.

    Attributes
    ----------
    source : str or None
        Who or what judged.
    key : str or None
        Feedback counts once per decision and key; default the source.
    """

    source: str | None
    key: str | None


class Observed(By, total=False):
    """Feedback on an answer, all of it or parts of it.

    Attributes
    ----------
    quality : float or None
        Quality of the answer, in [0, 1].
    cost_usd : float or None
        Cost of the answer in US dollars; without it that of the tokens.
    input_tokens, output_tokens : int or None
        Tokens that were used; send both or none.
    latency_ms : float or None
        Time to the whole answer, in ms.
    model : str or None
        The model that answered, where it was not the chosen one.
    source, key : str or None
        See `By`.
    """

    quality: float | None
    cost_usd: float | None
    input_tokens: int | None
    output_tokens: int | None
    latency_ms: float | None
    model: str | None


class Verdict(By, total=False):
    """Feedback on a whole session.

    Attributes
    ----------
    quality : float
        Quality of the session, in [0, 1].
    pool : str
        Pool of the session's decisions; ``default`` if absent.
    source, key : str or None
        See `By`.
    """

    quality: Required[float]
    pool: str


class _Abilities(TypedDict, total=False):
    max_output_tokens: int
    context_length: int
    capabilities: Sequence[str]


class Properties(_Abilities, total=False):
    """What may change about a model.

    Attributes
    ----------
    input_price, output_price : float
        US dollars per million tokens.
    max_output_tokens : int
        Limit of an answer.
    context_length : int
        Limit of a prompt, in tokens.
    capabilities : Sequence[str]
        What the model can do, such as ``tools``; requests may require it.
    """

    input_price: float
    output_price: float


class ScoredPromptFields(TypedDict, total=False):
    """A prompt, its embedding or both, and how good a new model's answer to it was.

    Attributes
    ----------
    prompt : str
        The text of the prompt.
    embedding : Sequence[float]
        The features of the prompt.
    task : str
        Kind of task.
    quality : float
        Quality of the answer, in [0, 1].
    """

    prompt: str
    embedding: Sequence[float]
    task: str
    quality: Required[float]


class NewProperties(_Abilities, total=False):
    """A new model: prices, what it can do, and what is known of its quality beforehand.

    Attributes
    ----------
    input_price, output_price : float
        US dollars per million tokens.
    max_output_tokens, context_length, capabilities : int, int, Sequence[str]
        See `Properties`.
    scored : Sequence[ScoredPromptFields]
        Prompts that were scored elsewhere, at most 1,024; see banditroute/README.md, "Models".
    n_effective : float
        Number of outcomes that they count for.
    """

    input_price: Required[float]
    output_price: Required[float]
    scored: Sequence[ScoredPromptFields]
    n_effective: float


class _BudgetTerms(TypedDict, total=False):
    request_ceiling_usd: float | None
    pacing: str
    expected_requests: int | None
    rate_usd: float | None
    quality_floor: float | None


class BudgetChangeFields(_BudgetTerms, total=False):
    """What may change about a budget; fields are those of `BudgetFields`.

    Attributes
    ----------
    cap_usd : float
        The new cap.
    top_up_usd : float
        US dollars to add to the cap.
    request_ceiling_usd, expected_requests, rate_usd, quality_floor : float, int or None
        The new value; None removes it.
    pacing : str
        The new pacing mode.
    """

    cap_usd: float
    top_up_usd: float


class BudgetFields(_BudgetTerms, total=False):
    """A new budget.

    Attributes
    ----------
    cap_usd : float
        US dollars that the decisions of one window may cost.
    window : str
        ``total`` (default), ``hour``, ``day``, ``month`` (calendar, UTC) or ``rolling``.
    rolling_s : int
        Length of a rolling window, in seconds.
    tag, value : str
        Restrict the budget to requests with this tag; they come together.
    request_ceiling_usd : float or None
        US dollars that a single request may reserve.
    pacing : str
        ``history`` (default), ``zcl``, ``pacer`` or ``none``; see banditroute/README.md.
    expected_requests : int or None
        Requests per window, for pacing.
    rate_usd : float or None
        US dollars per request to pace to.
    quality_floor : float or None
        Mean quality that pacing ``history`` meets at the least cost, in [0, 1].
    """

    cap_usd: Required[float]
    window: str
    rolling_s: int
    tag: str
    value: str


@dataclass(slots=True)
class Call:
    """A routed call inside a `decide` block: the caller sets what it observed of the answer.

    Attributes
    ----------
    route : Route
        The decision.
    quality : float or None
        Quality of the answer, in [0, 1]. None is not sent, here and below.
    cost_usd : float or None
        Cost of the answer, in US dollars.
    input_tokens, output_tokens : int or None
        Tokens that were used.
    latency_ms : float or None
        Latency of the answer, in ms; None sends the time spent in the block.
    answered_by : str or None
        The model that answered, where it was not the chosen one.
    """

    route: Route
    quality: float | None = None
    cost_usd: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    latency_ms: float | None = None
    answered_by: str | None = None
    _started_s: float = field(default_factory=time.monotonic)

    @property
    def model(self) -> str:
        """The model to ask."""
        return self.route.model

    @property
    def max_output_tokens(self) -> int | None:
        """Output tokens that the reservation covers; None if the route is degraded."""
        return None if self.route.degraded else self.route.max_output_tokens

    def observed(self, *, raised: bool, failed_quality: float | None) -> Observed | None:
        """Return the feedback to post, None if there is none.

        Parameters
        ----------
        raised : bool
            Whether the block raised. Its time is then no latency: a fast failure is not a fast
            model.
        failed_quality : float or None
            Quality to report if the block raised and has set none.
        """
        measured_ms = None if raised else 1_000.0 * (time.monotonic() - self._started_s)
        quality = failed_quality if raised and self.quality is None else self.quality
        observed = Observed(
            quality=quality,
            cost_usd=self.cost_usd,
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            latency_ms=measured_ms if self.latency_ms is None else self.latency_ms,
            model=self.answered_by,
        )
        return observed if any(value is not None for value in observed.values()) else None
