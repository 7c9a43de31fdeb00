"""Priors from labels: what they say, what they are worth, and that they are plain learning."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine
from support.databases import SQLITE
from support.small_log import Book

from banditroute.core.pool import ModelSpec
from banditroute.fitting.warm_start import (
    basis_arrays,
    clustered,
    clusters,
    default_clusters,
    fit,
    labels_of_log,
    log_ratios,
    regression,
)
from banditroute.learn.learner import rebuild
from banditroute.store.feedback import Post
from policies import Outcome, make_policy
from policies.base import Float32, Float64, Sums, sums_of
from policies.models.cost import CostModel, log_ratio

DIM = 6


def contexts(n: int, seed: int = 0) -> Float32:
    x = np.random.default_rng(seed).normal(size=(n, DIM)).astype(np.float32)
    x[:, -1] = 1.0
    return x


def labels(x: Float32, seed: int = 1) -> Float64:
    noise = np.random.default_rng(seed).normal(size=len(x))
    return np.clip(0.6 + 0.1 * x[:, 0] + 0.1 * noise, 0.0, 1.0)


def taught(name: str, sums: Sums | None, outcomes: list[Outcome]) -> Any:
    policy = make_policy(name, dim=DIM)
    policy.add_arm("a")
    if sums is not None:
        policy.teach("a", sums)
    policy.learn(outcomes)
    return policy


def outcomes(x: Float32, values: Float64) -> list[Outcome]:
    return [
        Outcome(i, f"d{i}", "a", row, "quality", value)
        for i, (row, value) in enumerate(zip(x, values.tolist(), strict=True), start=1)
    ]


@pytest.mark.parametrize("n_effective", [60.0, 1e6])
def test_all_rows_at_their_own_weight_are_those_rows_learned(n_effective: float) -> None:
    x = contexts(60)
    values = labels(x)
    warm = taught("linucb", regression(x, values, n_effective=n_effective), [])
    cold = taught("linucb", None, outcomes(x, values))
    for one, other in zip(warm.ridge.solve(0), cold.ridge.solve(0), strict=True):
        assert np.allclose(one, other, rtol=0, atol=1e-9)
    assert warm.ridge.count[0] == 60.0 and warm.pulls[0] == 0
    assert warm.ridge.square[0] == pytest.approx(cold.ridge.square[0])


def test_fewer_effective_outcomes_are_the_same_lesson_at_less_weight() -> None:
    x = contexts(60)
    values = labels(x)
    whole, part = (regression(x, values, n_effective=n) for n in (60.0, 15.0))
    assert part.count == 15.0
    assert np.allclose(part.gram * 4.0, whole.gram) and np.allclose(part.moment * 4, whole.moment)
    ridge = taught("linucb", part, []).ridge
    plain = np.linalg.solve(
        whole.gram / 4 + np.diag(ridge.precision[0]),
        whole.moment / 4 + ridge.precision[0] * ridge.mean[0],
    )
    assert np.allclose(ridge.solve(0)[0][0], plain, atol=1e-9)


def test_rows_without_a_label_are_left_out() -> None:
    x = contexts(50)
    values = labels(x)
    holes = values.copy()
    holes[::2] = np.nan
    whole, part = (
        regression(x[1::2], values[1::2], n_effective=9),
        regression(x, holes, n_effective=9),
    )
    assert np.allclose(part.gram, whole.gram) and part.count == 9.0
    arrays = fit(x, {"a": holes, "none": np.full(50, np.nan)}, n_effective=9.0)
    assert arrays["arms"].tolist() == ["a"] and arrays["count"].tolist() == [9.0]


def test_nothing_is_worth_more_than_its_labels() -> None:
    x = contexts(40)
    values = np.full(40, np.nan)
    values[:7] = labels(x[:7])
    cluster = clusters(x, 5)
    for sums in (
        regression(x, values, n_effective=500.0),
        clustered(x, values, cluster, n_effective=500.0),
    ):
        assert sums.count == pytest.approx(7.0)
    nothing = clustered(x, np.full(40, np.nan), cluster, n_effective=500.0)
    assert nothing.count == nothing.square == 0.0 and not nothing.gram.any()


def planted(n: int = 300) -> tuple[Float32, Any]:
    """Three groups of prompts, far apart, and the group of each."""
    rng = np.random.default_rng(4)
    group = rng.integers(3, size=n)
    x = rng.normal(scale=0.2, size=(n, DIM)).astype(np.float32)
    x[np.arange(n), group] += 5.0
    x[:, -1] = 1.0
    return x, group


def test_k_means_finds_groups_that_are_there() -> None:
    x, group = planted()
    cluster = clusters(x, 3)
    assert len({(a, b) for a, b in zip(group.tolist(), cluster.tolist(), strict=True)}) == 3
    assert np.array_equal(cluster, clusters(x, 3))


@pytest.mark.parametrize(("rows", "count"), [(1, 1), (1, 5), (5, 1), (5, 5), (4, 100)])
def test_k_means_takes_what_there_is(rows: int, count: int) -> None:
    cluster = clusters(contexts(rows), count)
    assert cluster.shape == (rows,) and len(set(cluster.tolist())) == min(rows, count)
    assert set(clusters(np.repeat(contexts(1), 9, axis=0), count).tolist()) == {0}


def test_there_are_no_more_clusters_than_prompts_are_worth() -> None:
    assert [default_clusters(n) for n in (1, 2, 50, 300, 1_024, 10**6)] == [1, 1, 5, 12, 23, 32]


def test_cluster_means_stand_at_their_centroids() -> None:
    x, group = planted()
    values = np.where(group == 0, 0.9, 0.3)
    values[group == 2] = np.nan
    sums = clustered(x, values, clusters(x, 3), n_effective=30.0)
    share = np.bincount(group) / len(group)
    overall = float(np.nanmean(values))
    means = np.array([0.9, 0.3, overall])
    centroids = np.stack([x[group == k].mean(axis=0, dtype=np.float64) for k in range(3)])
    weights = 30.0 * share
    assert sums.count == pytest.approx(30.0)
    assert np.allclose(sums.moment, (weights * means) @ centroids, atol=1e-5)
    assert np.allclose(sums.gram, centroids.T @ (weights[:, None] * centroids), atol=1e-4)
    squares = np.array([0.81, 0.09, float(np.nanmean(values**2))])
    assert sums.square == pytest.approx(float(weights @ squares))


def test_clusters_do_not_hide_the_noise() -> None:
    x = contexts(400)
    values = (np.random.default_rng(2).random(400) < 0.5).astype(np.float64)
    sums = clustered(x, values, clusters(x, 8), n_effective=400.0)
    error, freedom = taught("linucb", sums, []).ridge.residuals(
        np.eye(DIM)[None, -1] / 2, np.zeros((1, DIM, DIM))
    )
    assert error[0] / freedom[0] == pytest.approx(0.25, abs=0.02)


def test_costs_are_ratios_to_the_prior_output() -> None:
    spec = ModelSpec(name="a", input_price=1.0, output_price=10.0)
    tokens, output = np.array([100.0, 100.0, 100.0]), 512 * 10.0 / 1e6
    cost = np.array([100 / 1e6 + 2 * output, np.nan, 0.0])
    found = log_ratios(cost, spec=spec, tokens=tokens)
    assert found[0] == pytest.approx(np.log(2.0)) and np.isnan(found[1])
    assert found[2] == log_ratio(0.0)
    free = ModelSpec(name="a", input_price=1.0, output_price=0.0)
    assert np.isnan(log_ratios(cost, spec=free, tokens=tokens)).all()


def test_a_cost_prior_predicts_what_it_was_fitted_on() -> None:
    x = contexts(200)
    ratios = {"a": np.log(3.0) + 0.2 * x[:, 0].astype(np.float64), "b": np.full(200, np.nan)}
    arrays = fit(x, {"a": labels(x), "b": labels(x)}, n_effective=200.0, ratios=ratios)
    model = CostModel(dim=DIM)
    model.adopt(arrays)
    for arm in ("a", "b"):
        model.add_arm(arm)
    model.refresh()
    cost = model.predict(x, np.zeros((200, 2)), np.array([0.01, 0.01]))
    assert np.abs(np.log(cost[:, 0] / 0.01) - ratios["a"]).max() < 0.35
    assert sums_of(arrays, prefix="cost_")["b"].count == 0.0
    assert "cost_gram" not in fit(x, {"a": labels(x)}, n_effective=9.0)


@SQLITE
def test_a_log_teaches_what_its_fold_has_learned(engine: Engine) -> None:
    book = Book(engine)
    book.feed(40)
    policy_identity, x, quality, ratios = labels_of_log(book.log, "default")
    assert policy_identity.embedder == "words" and basis_arrays(policy_identity) == {}
    built = rebuild(book.log, "default")
    assert built is not None
    fold = built[1]
    arrays = fit(x, quality, n_effective=1e9, ratios=ratios)
    assert sorted(arrays["arms"].tolist()) == sorted(
        arm for arm, n in zip(fold.policy.arms, fold.policy.pulls, strict=True) if n
    )
    for part, prefix in ((fold.policy, ""), (fold.cost, "cost_")):
        for arm, sums in sums_of(arrays, prefix=prefix).items():
            k = part.arms.index(arm)
            assert np.allclose(np.tril(sums.gram), np.tril(part.ridge.gram[k]))
            assert np.allclose(sums.moment, part.ridge.moment[k])
            assert sums.count == part.ridge.count[k]


@SQLITE
def test_a_model_whose_output_is_free_teaches_nothing_about_costs(engine: Engine) -> None:
    free = ModelSpec(name="free", input_price=0.5, output_price=0.0)
    paid = ModelSpec(name="paid", input_price=0.1, output_price=0.5)
    book = Book(engine, models=(free, paid))
    for arm in ("free", "paid"):
        _, ids = book.decide(3, models=[frozenset({arm})] * 3)
        book.send(*(Post(one, "default", quality=0.5, cost_usd=0.01) for one in ids))
    _, x, quality, ratios = labels_of_log(book.log, "default")
    assert sorted(quality) == ["free", "paid"] and list(ratios) == ["paid"] and len(x) == 9
    costs = sums_of(fit(x, quality, n_effective=9.0, ratios=ratios), prefix="cost_")
    assert (costs["free"].count, costs["paid"].count) == (0.0, 3.0)


@SQLITE
def test_of_a_log_only_what_counts_is_taken(engine: Engine) -> None:
    book = Book(engine)
    book.feed(5)
    version = book.log.end()
    book.feed(9)
    book.append("rollback", version=version)
    book.feed(2)
    _, x, quality, _ = labels_of_log(book.log, "default")
    assert sum(int((~np.isnan(values)).sum()) for values in quality.values()) == 7
    book.start("linucb", embedder="others")
    with pytest.raises(ValueError, match="no outcome to learn from"):
        labels_of_log(book.log, "default")
    with pytest.raises(ValueError, match="'nowhere' never started"):
        labels_of_log(book.log, "nowhere")
