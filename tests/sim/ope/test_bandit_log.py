from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sim.ope.bandit_log import BanditLog, number_sessions

LOG = BanditLog(
    name="five",
    models=("a", "b"),
    features=np.arange(10, dtype=np.float32).reshape(5, 2),
    chosen=np.array([0, 1, 0, 1, 1]),
    propensity=np.full(5, 0.5),
    action_dist=np.full((5, 2), 0.5),
    quality=np.array([1.0, 0.5, np.nan, 0.25, 0.0]),
    cost_usd=np.array([0.005, 0.02, 0.01, np.nan, 0.0]),
    preference=np.array([[0.6, 0.4, 0.0]] * 4 + [[1.0, 0.0, 0.0]]),
    tau_cost_usd=np.full(5, 0.01),
    session=np.array([3, 0, 3, 1, 2]),
)


def test_rows_are_a_log_of_their_own() -> None:
    part = LOG.rows(slice(2, None))
    assert len(part) == 3 and len(LOG) == 5
    assert part.features.tolist() == LOG.features[2:].tolist()
    assert part.action_dist is not None and part.action_dist.shape == (3, 2)
    assert part.session.tolist() == [2, 0, 1]
    assert replace(LOG, action_dist=None).rows(slice(1, 3)).action_dist is None


def test_utility_is_quality_minus_cost_as_a_share_of_tau() -> None:
    found = LOG.measure("utility")
    assert found[:2] == pytest.approx([0.6 - 0.4 * 0.5, 0.3 - 0.4])
    # Only a cost that has no weight may be missing.
    assert np.isnan(found[2:4]).all() and found[4] == 0.0
    free = replace(LOG, cost_usd=np.full(5, np.nan), preference=np.tile([1.0, 0.0, 0.0], (5, 1)))
    assert free.measure("utility")[[0, 1, 3]] == pytest.approx([1.0, 0.5, 0.25])


def test_a_measure_that_was_never_observed_is_left_out() -> None:
    assert LOG.measures == ("quality", "cost", "utility")
    assert replace(LOG, cost_usd=np.full(5, np.nan)).measures == ("quality",)


def test_a_row_without_a_session_is_a_session_alone() -> None:
    found = number_sessions(["x", None, "x", None, "row 1"])
    assert found[0] == found[2]
    assert len(set(found.tolist())) == 4
    assert sorted(set(found.tolist())) == [0, 1, 2, 3]
