"""The planted stream is what it says it is."""

from __future__ import annotations

import numpy as np
import pytest

from sim.data.synthetic import COST_USD, TOPICS, TRUTH, generate


def test_same_seed_same_stream() -> None:
    assert generate(rows=40, seed=2).dataset.digest() == generate(rows=40, seed=2).dataset.digest()
    assert generate(rows=40, seed=2).dataset.digest() != generate(rows=40, seed=3).dataset.digest()


def test_labels_follow_the_truth() -> None:
    planted = generate(rows=3_000, seed=1)
    data = planted.dataset
    topics = np.array([TOPICS.index(task) for task in data.task])
    assert (planted.truth == TRUTH[topics]).all()
    for topic in range(len(TOPICS)):
        seen = data.quality[topics == topic].mean(axis=0)
        # Clipping at 1 takes a little off the high levels.
        assert seen == pytest.approx(TRUTH[topic], abs=0.04)
    assert data.cost_usd.mean(axis=0) == pytest.approx(COST_USD, rel=0.05)
    assert ((data.quality >= 0.0) & (data.quality <= 1.0)).all()


def test_context_pays() -> None:
    """Per topic the best model is worth far more than the best single model."""
    assert TRUTH.max(axis=1).mean() > TRUTH.mean(axis=0).max() + 0.03
