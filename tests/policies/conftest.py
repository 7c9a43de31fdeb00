"""Property tests draw the same examples in every run and leave no files behind."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from support.policy_cases import CASES, Case

settings.register_profile(
    "repeatable",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],  # it measures the load of the machine
)
settings.load_profile("repeatable")


@pytest.fixture(params=CASES, ids=[f"{n}{list(p.values()) or ''}" for n, p in CASES])
def case(request: pytest.FixtureRequest) -> Case:
    return request.param
