from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sim.ope.bandit_log import BanditLog, sessions

LOG = BanditLog(
    name="five",
    models=("a", "b"),
    features=np.arange(10, dtype=np.float32).reshape(5, 2),
    chosen=np.array([0, 1, 0, 1, 1]),
    propensity=np.full(5, 0.5),
    action_dist=np.full((5, 2), 0.5),
    open=np.ones((5, 2), dtype=np.bool_),
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


def test_utility_is_quality_less_the_part_of_tau_that_was_paid() -> None:
    found = LOG.measure("utility")
    assert found[:2] == pytest.approx([0.6 - 0.4 * 0.5, 0.3 - 0.4])
    # A cost that does not matter may be missing; nothing else may.
    assert np.isnan(found[2:4]).all() and found[4] == 0.0
    free = replace(LOG, cost_usd=np.full(5, np.nan), preference=np.tile([1.0, 0.0, 0.0], (5, 1)))
    assert free.measure("utility")[[0, 1, 3]] == pytest.approx([1.0, 0.5, 0.25])


def test_measures_are_what_somebody_spoke_of() -> None:
    assert LOG.measures == ("quality", "cost", "utility")
    assert replace(LOG, cost_usd=np.full(5, np.nan)).measures == ("quality",)


def test_a_row_without_a_session_is_one_of_its_own() -> None:
    found = sessions(["x", None, "x", None, "row 1"])
    assert found[0] == found[2]
    assert len(set(found.tolist())) == 4
    assert sorted(set(found.tolist())) == [0, 1, 2, 3]
