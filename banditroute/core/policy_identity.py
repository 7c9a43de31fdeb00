"""What is frozen when a policy starts, and the name that this gives it in the log."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field

STATE_FORMAT = 3
"""Another number starts every policy anew from the log: what a fold keeps has changed."""


@dataclass(frozen=True, slots=True)
class PolicyIdentity:
    """What shapes the state of a policy, and its scales; both are frozen when it starts.

    Parameters
    ----------
    policy : str
        A name of `policies.POLICIES`.
    params : dict[str, object]
        All parameters of that policy.
    embedder : str
        Identity of the embedder whose features it reads, its tasks included.
    dim : int
        Number of features.
    tau_cost : float
        US dollars that count as cost 1.
    tau_latency_ms : float
        Milliseconds that count as latency 1.
    prior : str
        A `banditroute.learn.prior.Prior` as text, "" for none.

    Attributes
    ----------
    id : str
        The policy's name and a hash of all that shapes its state; the scales are not in it.
    """

    policy: str
    params: dict[str, object]
    embedder: str
    dim: int
    tau_cost: float
    tau_latency_ms: float
    prior: str = field(default="", repr=False)
    id: str = field(init=False)

    def __post_init__(self) -> None:
        shaping = [STATE_FORMAT, self.policy, sorted(self.params.items()), self.embedder, self.dim]
        shaping.append(digest(self.prior))
        hashed = hashlib.sha256(json.dumps(shaping).encode()).hexdigest()[:12]
        object.__setattr__(self, "id", f"{self.policy}-{hashed}")

    def payload(self) -> dict[str, object]:
        """Return the body of a ``policy_started`` event."""
        return {
            "policy": self.policy,
            "params": self.params,
            "embedder": self.embedder,
            "dim": self.dim,
            "tau_cost": self.tau_cost,
            "tau_latency_ms": self.tau_latency_ms,
            "prior": self.prior,
        }


def digest(text: str) -> str:
    """Return a short digest of a prior's text, "" for none."""
    return hashlib.sha256(text.encode()).hexdigest()[:12] if text else ""
