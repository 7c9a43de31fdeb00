"""The identity of a policy: what is in it, and what is not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from banditroute.core.policy_identity import PolicyIdentity

IDENTITY = PolicyIdentity(
    policy="linucb",
    params={"alpha": 0.2, "gamma": 1.0},
    embedder="hashing-1",
    dim=47,
    tau_cost_usd=0.01,
    tau_latency_ms=1e4,
)


def test_identity_names_the_policy_and_what_shapes_its_state() -> None:
    assert IDENTITY.id.startswith("linucb-")
    same = PolicyIdentity.from_payload(
        IDENTITY.payload() | {"params": {"gamma": 1.0, "alpha": 0.2}}
    )
    assert same.id == IDENTITY.id and same == replace(IDENTITY)


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ({"policy": "random"}, True),
        ({"params": {"alpha": 0.3, "gamma": 1.0}}, True),
        ({"embedder": "hashing-2"}, True),
        ({"dim": 48}, True),
        ({"tau_cost": 1.0}, False),
        ({"tau_latency_ms": 1.0}, False),
    ],
)
def test_scales_do_not_shape_the_state(change: dict[str, object], differs: bool) -> None:
    other = PolicyIdentity.from_payload(IDENTITY.payload() | change)
    assert (other.id != IDENTITY.id) is differs
