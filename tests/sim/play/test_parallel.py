"""Runs side by side: where they run changes nothing, and a failure ends them all."""

from __future__ import annotations

import signal

import pytest

from banditroute.features.embedding import make_embedder
from sim.data.synthetic import generate
from sim.errors import InputError
from sim.play import parallel
from sim.play.candidate import Candidate
from sim.play.parallel import each, run_all
from sim.play.replay import Experiment, Split

LINUCB, THOMPSON = Candidate.of("linucb"), Candidate.of("thompson")


def power(base: int, exponent: int) -> int:
    if exponent < 0:
        raise InputError(f"exponent: {exponent}")
    return int(base**exponent)


def experiments() -> list[Experiment]:
    data = generate(rows=60, seed=9).dataset
    embedder = make_embedder("hashing")
    return [
        Experiment(
            dataset=data,
            features=embedder.features(list(data.prompts)),
            embedder=embedder.identity,
            split=Split(),
            preference=(0.7, 0.3, 0.0),
            budget_rate_usd=rate,
        )
        for rate in (None, 3e-4)
    ]


@pytest.mark.parametrize("jobs", [1, 2])
def test_results_come_in_the_order_of_the_tasks(jobs: int) -> None:
    done: list[tuple[int, int]] = []
    results = each(
        power, 2, [3, 1, 2], jobs=jobs, on_done=lambda task, result: done.append((task, result))
    )
    assert results == [8, 2, 4]
    assert sorted(done) == [(1, 2), (2, 4), (3, 8)]


def interrupts_blocked(_: None, task: int) -> bool:
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_interrupts_reach_this_process_alone() -> None:
    assert each(interrupts_blocked, None, [1, 2], jobs=2) == [True, True]
    assert not interrupts_blocked(None, 0)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_failure_in_a_worker_is_raised_here(jobs: int) -> None:
    with pytest.raises(InputError, match="exponent: -1"):
        each(power, 2, [1, -1, 2], jobs=jobs)


def test_same_bits_in_any_number_of_processes_and_one_world_for_all() -> None:
    plans = experiments()
    done: list[None] = []
    alone = run_all(plans, [LINUCB, THOMPSON], range(2), on_done=lambda: done.append(None))
    together = run_all(plans, [LINUCB, THOMPSON], range(2), jobs=2)
    assert len(done) == 8
    for mine, theirs in zip(alone, together, strict=True):
        assert [(one.label, one.seed) for one in mine] == [
            ("linucb", 0),
            ("linucb", 1),
            ("thompson", 0),
            ("thompson", 1),
        ]
        assert [one.digest for one in mine] == [one.digest for one in theirs]
        assert [one.quality for one in mine] == [one.quality for one in theirs]
        assert mine[0].world is mine[2].world is not mine[1].world
    assert len({one.digest for traces in alone for one in traces}) == 8


@pytest.mark.slow
def test_ray_gives_the_same_results_and_is_gone_afterwards() -> None:
    import ray

    plans = experiments()
    alone = run_all(plans, [LINUCB], range(3))
    assert not ray.is_initialized()
    there = run_all(plans, [LINUCB], range(3), ray=parallel.LOCAL)
    assert not ray.is_initialized()
    for mine, theirs in zip(alone, there, strict=True):
        assert [one.digest for one in mine] == [one.digest for one in theirs]


@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_one_line() -> None:
    with pytest.raises(InputError, match=r"--ray-address: 127.0.0.1:1: .+") as error:
        each(power, 2, [1], ray="127.0.0.1:1")
    assert "\n" not in str(error.value)
