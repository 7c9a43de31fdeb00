"""The identity of a policy: what is frozen when it starts, and its name in the log.

The field names are keys of the log's ``policy_started`` events and must never change.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

STATE_FORMAT = 3
"""Raise it when the state of a fold changes; every policy then learns the log again."""


@dataclass(frozen=True, slots=True)
class PolicyIdentity:
    """What shapes the state of a policy, and its scales; all is frozen when the policy starts.

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
    tau_cost_usd : float
        US dollars that count as cost 1.
    tau_latency_ms : float
        Milliseconds that count as latency 1.
    prior : str
        A `banditroute.learn.prior.Prior` as text, "" for none.

    Attributes
    ----------
    id : str
        Name of the policy and a hash of all that shapes its state, without the scales.
    """

    policy: str
    params: dict[str, object]
    embedder: str
    dim: int
    tau_cost_usd: float
    tau_latency_ms: float
    prior: str = field(default="", repr=False)
    id: str = field(init=False)

    def __post_init__(self) -> None:
        """Compute the id."""
        shaping = [STATE_FORMAT, self.policy, sorted(self.params.items()), self.embedder, self.dim]
        shaping.append(digest(self.prior))
        hashed = hashlib.sha256(json.dumps(shaping).encode()).hexdigest()[:12]
        object.__setattr__(self, "id", f"{self.policy}-{hashed}")

    @classmethod
    def from_payload(cls, payload: Mapping[str, Any]) -> PolicyIdentity:
        """Return the identity that a `payload` describes.

        Parameters
        ----------
        payload : Mapping[str, Any]
            The body of a ``policy_started`` event.

        Returns
        -------
        PolicyIdentity
            Equal to the one whose `payload` it is.
        """
        fields = dict(payload)
        return cls(tau_cost_usd=fields.pop("tau_cost"), **fields)

    def payload(self) -> dict[str, object]:
        """Return the body of a ``policy_started`` event."""
        return {
            "policy": self.policy,
            "params": self.params,
            "embedder": self.embedder,
            "dim": self.dim,
            "tau_cost": self.tau_cost_usd,
            "tau_latency_ms": self.tau_latency_ms,
            "prior": self.prior,
        }


def digest(text: str) -> str:
    """Return a short digest of a prior, "" for none.

    Parameters
    ----------
    text : str
        A prior as text.
    """
    return hashlib.sha256(text.encode()).hexdigest()[:12] if text else ""
