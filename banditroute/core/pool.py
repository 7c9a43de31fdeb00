"""Pools and models as the router sees them: plain values, no wire format and no SQL.

A pool names an application: its models, its policy, its preference and its embedder. Prices are
dated rows; a model here carries the row in force.
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
MOST_PRICE = 1_000_000.0
"""US dollars per million tokens; the dearest request in nano-dollars still fits 64 bits."""

# No control characters: PostgreSQL has no text with a NUL, and no URL path has a line break.
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]


class Strict(BaseModel):
    """Base of everything that a person writes: a key that is not known is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Preference(Strict):
    """Weights of quality, cost and latency; only their ratios count."""

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
    """A model and its price in US dollars per million tokens."""

    name: Name
    input_price: float = Field(ge=0, le=MOST_PRICE)
    output_price: float = Field(ge=0, le=MOST_PRICE)
    max_output_tokens: int | None = Field(None, ge=1, le=MOST_TOKENS)
    context_length: int | None = Field(None, ge=1, le=MOST_TOKENS)
    capabilities: list[Name] = Field(default_factory=list, fail_fast=True)


@dataclass(frozen=True, slots=True)
class Model:
    """A model of a pool with the price row in force."""

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
        """Output tokens assumed before any were seen."""
        return self.max_output_tokens or PRIOR_OUTPUT_TOKENS

    @property
    def output_limit(self) -> int:
        """Output tokens that a reservation must cover when the request sets no limit."""
        return self.max_output_tokens or DEFAULT_MAX_OUTPUT_TOKENS


class PolicySpec(Strict):
    """A policy by name; every other key is a parameter of that policy."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = "thompson"

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, given: Any) -> Any:
        return {"name": given} if isinstance(given, str) else given

    @property
    def params(self) -> dict[str, object]:
        """Return the policy's keyword parameters as given."""
        return dict(self.model_extra or {})


class PoolOptions(Strict):
    """How a pool decides. Everything has a default; see the README for what each key does."""

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
        for twice in {task for task in self.tasks if self.tasks.count(task) > 1}:
            raise ValueError(f"tasks: {twice!r} is there twice")
        return self


def default_tau_cost(models: list[ModelSpec] | list[Model]) -> float:
    """Return the dearest model's price for 1,000 input and 512 output tokens, in US dollars."""
    dearest = max((1_000 * m.input_price + 512 * m.output_price for m in models), default=0.0)
    return dearest / 1e6 or 1.0
