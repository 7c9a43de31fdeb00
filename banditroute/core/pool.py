"""Pools and models as values; this module must never know HTTP or SQL.

A pool stands for one application: its models, policy, preference and embedder. Prices are dated
rows in the database; a `Model` carries the row in force. The field names of the pydantic models
are keys of the settings file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

PRIOR_OUTPUT_TOKENS = 512
DEFAULT_MAX_OUTPUT_TOKENS = 4096
NANO = 1_000_000_000
MOST_TOKENS = 1_000_000_000
MOST_TASKS = 64
MOST_PRICE_USD = 1_000_000.0
"""US dollars per million tokens; the most expensive request in nano-dollars fits 64 bits."""

# No control characters: PostgreSQL stores no NUL in a text, and a URL path has no line break.
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]


class Strict(BaseModel):
    """Base of all that a person writes: an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Preference(Strict):
    """Weights of quality, cost and latency; only their ratios count.

    Attributes
    ----------
    quality : float
        Weight of quality, at least 0; at least one weight must be above 0.
    cost : float
        Weight of cost.
    latency : float
        Weight of latency.
    """

    # The OpenAPI document takes this in place of the docstring and its sections.
    model_config = ConfigDict(
        json_schema_extra={
            "description": "Weights of quality, cost and latency; only their ratios count."
        }
    )

    quality: float = Field(0.0, ge=0, le=1e6)
    cost: float = Field(0.0, ge=0, le=1e6)
    latency: float = Field(0.0, ge=0, le=1e6)

    @model_validator(mode="after")
    def _not_all_zero(self) -> Preference:
        if self.quality + self.cost + self.latency <= 0.0:
            raise ValueError("at least one weight must be above 0")
        return self

    def weights(self) -> tuple[float, float, float]:
        """Return (quality, cost, latency), scaled to sum 1."""
        total = self.quality + self.cost + self.latency
        return self.quality / total, self.cost / total, self.latency / total


class ModelSpec(Strict):
    """A model and its prices.

    Attributes
    ----------
    name : str
        Name of the model, unique in its pool.
    input_price : float
        US dollars per million input tokens.
    output_price : float
        US dollars per million output tokens.
    max_output_tokens : int or None
        Limit of an answer, in tokens.
    context_length : int or None
        Limit of a prompt, in tokens.
    capabilities : list of str
        What the model can do, such as ``tools``; requests may require it.
    """

    name: Name
    input_price: float = Field(ge=0, le=MOST_PRICE_USD)
    output_price: float = Field(ge=0, le=MOST_PRICE_USD)
    max_output_tokens: int | None = Field(None, ge=1, le=MOST_TOKENS)
    context_length: int | None = Field(None, ge=1, le=MOST_TOKENS)
    capabilities: list[Name] = Field(default_factory=list, fail_fast=True)


@dataclass(frozen=True, slots=True)
class Model:
    """A model of a pool with the price row in force.

    Attributes
    ----------
    name : str
        Name of the model.
    input_price : float
        US dollars per million input tokens.
    output_price : float
        US dollars per million output tokens.
    price_id : int
        Id of the price row.
    max_output_tokens : int or None
        Limit of an answer, in tokens.
    context_length : int or None
        Limit of a prompt, in tokens.
    capabilities : frozenset of str
        What the model can do.
    draining : bool
        Whether the model is no longer chosen.
    """

    name: str
    input_price: float
    output_price: float
    price_id: int
    max_output_tokens: int | None = None
    context_length: int | None = None
    capabilities: frozenset[str] = frozenset()
    draining: bool = False

    @property
    def prior_output_tokens(self) -> int:
        """Output tokens that an answer is assumed to have before any is observed."""
        return self.max_output_tokens or PRIOR_OUTPUT_TOKENS

    @property
    def output_limit(self) -> int:
        """Output tokens that a reservation must cover when the request sets no limit."""
        return self.max_output_tokens or DEFAULT_MAX_OUTPUT_TOKENS


class PolicySpec(Strict):
    """A policy by name; every other key is a parameter of that policy.

    Attributes
    ----------
    name : str
        A name of `policies.POLICIES`.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = "thompson"

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @property
    def params(self) -> dict[str, object]:
        """Return the keyword parameters of the policy."""
        return dict(self.model_extra or {})


class PoolOptions(Strict):
    """How a pool decides; every option has a default.

    Attributes
    ----------
    policy : PolicySpec
        The policy and its parameters.
    embedder : str
        ``hashing``, ``minilm``, ``sentence-transformers:NAME`` or ``precomputed``.
    embedding_dim : int or None
        Numbers in an embedding; required with ``precomputed``.
    tasks : list of str
        Values of a request's `task` that become features; any other value is all zeros.
    preference : Preference
        Weights for requests that send none.
    tau_cost : float or None
        US dollars that count as cost 1, as does any higher cost; None: `default_tau_cost_usd`.
    tau_latency_ms : float
        Latency that counts as 1, in ms.
    exploration_share : float
        Probability mass that is spread over all eligible models.
    exploration_cost_share : float
        Limit of the cost of exploration, as a share of the spend rate.
    min_propensity : float
        Least probability of a model that gets such mass.
    feedback_ttl_s : float
        Time until feedback is only stored, no longer learned, in seconds.
    default_quality : float or None
        Quality to learn for a decision without feedback in time; None learns nothing.
    reservation_ttl_s : float
        Time until a reservation that is not settled is shown as expired, in seconds.
    prior : str or None
        File of a fitted prior to start from.
    newcomer_share : float
        Probability mass for all models together that were added late.
    newcomer_pulls : int
        Number of outcomes after which a model is no longer new.
    newcomer_optimism : float
        Above 0, a new model starts with two imaginary rewards, this far above the mean reward.
    reset_on_drift : bool
        Whether a drift alarm makes the policy unsure of that model's level again.
    recheck_share : float
        Probability mass for all models together that an alarm found worse, until they recover.

    Notes
    -----
    See "Configuration" in banditroute/README.md for an example.
    """

    policy: PolicySpec = PolicySpec()
    embedder: str = "hashing"
    embedding_dim: int | None = Field(None, ge=1)
    tasks: list[Name] = Field(default_factory=list, max_length=MOST_TASKS)
    preference: Preference = Preference(quality=0.7, cost=0.3)
    tau_cost: float | None = Field(None, gt=0)
    tau_latency_ms: float = Field(10_000.0, gt=0)
    exploration_share: float = Field(0.0, ge=0, lt=1)
    exploration_cost_share: float = Field(0.05, ge=0)
    min_propensity: float = Field(0.001, ge=0, lt=0.1)
    feedback_ttl_s: float = Field(7 * 86_400.0, gt=0, le=10 * 365 * 86_400.0)
    default_quality: float | None = Field(None, ge=0, le=1)
    reservation_ttl_s: float = Field(3_600.0, gt=0, le=365 * 86_400.0)
    prior: str | None = None
    newcomer_share: float = Field(0.02, ge=0, lt=1)
    newcomer_pulls: int = Field(20, ge=0)
    newcomer_optimism: float = Field(0.0, ge=0, le=1)
    reset_on_drift: bool = False
    recheck_share: float = Field(0.05, ge=0, lt=1)

    @model_validator(mode="after")
    def _dim_when_precomputed(self) -> PoolOptions:
        if self.embedder == "precomputed" and self.embedding_dim is None:
            raise ValueError("embedding_dim: required with embedder 'precomputed'")
        for task in self.tasks:
            if self.tasks.count(task) > 1:
                raise ValueError(f"tasks: {task!r} is there twice")
        return self


def default_tau_cost_usd(models: list[ModelSpec] | list[Model]) -> float:
    """Return the highest price of 1,000 input and 512 output tokens, in US dollars.

    Parameters
    ----------
    models : list of ModelSpec or list of Model
        The models to compare; none, or only free ones, give 1.
    """
    highest = max((1_000 * m.input_price + 512 * m.output_price for m in models), default=0.0)
    return highest / 1e6 or 1.0
