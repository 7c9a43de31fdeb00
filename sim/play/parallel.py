"""Many runs at once: in processes of this machine, or on a Ray cluster.

A run is a pure function of what all runs share and of its own task, so where it runs changes
nothing. Only the parent answers Ctrl-C: it stops its workers and starts no further ones.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from sim.errors import InputError
from sim.play.candidate import Candidate
from sim.play.replay import Experiment, run
from sim.play.trace import Trace
from sim.worlds.world import World

Shared = TypeVar("Shared")
Task = TypeVar("Task")
Result = TypeVar("Result")

LOCAL = "local"
_ANSWERS = 5.0
_ONE_THREAD = {name: "1" for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")}


def each(
    function: Callable[[Shared, Task], Result],
    shared: Shared,
    tasks: Sequence[Task],
    *,
    jobs: int = 1,
    ray: str | None = None,
    on_done: Callable[[Task, Result], None] = lambda task, result: None,
) -> list[Result]:
    """Return ``function(shared, task)`` for each task, in their order.

    Parameters
    ----------
    function : of a module, so that other processes find it.
    shared : sent to each process once.
    jobs : number of processes; 1 stays in this one.
    ray : address of a Ray cluster, which then does the work, or `LOCAL` to start one here.
    on_done : called here after each, in the order in which they are done.
    """
    if ray is not None:
        return _on_ray(function, shared, tasks, address=ray, on_done=on_done)
    if jobs <= 1 or len(tasks) <= 1:
        results = []
        for task in tasks:
            results.append(function(shared, task))
            on_done(task, results[-1])
        return results
    with TemporaryDirectory() as folder:
        path = Path(folder) / "shared.pickle"
        path.write_bytes(pickle.dumps((function, shared)))
        return _in_processes(path, tasks, workers=min(jobs, len(tasks)), on_done=on_done)


def _in_processes(
    shared: Path, tasks: Sequence[Task], *, workers: int, on_done: Callable[[Task, Any], None]
) -> list[Any]:
    """Work on tasks in processes of this machine.

    Parameters
    ----------
    shared : Path
        File with the function and what all tasks share. By a pipe it would take longer: a worker
        reads that only after all imports, and the next one starts only then.
    """
    executor = ProcessPoolExecutor(
        max_workers=workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_enter,
        initargs=(shared,),
    )
    try:
        with _interrupts_held():
            # The first one starts all workers.
            futures = {executor.submit(_work, task): task for task in tasks}
        for future in as_completed(futures):
            on_done(futures[future], future.result())
        return [future.result() for future in futures]
    except BaseException:
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold back interrupts of this thread; processes that are started meanwhile get none ever."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def run_all(
    experiments: Sequence[Experiment],
    contenders: Sequence[Candidate],
    seeds: Sequence[int],
    *,
    jobs: int = 1,
    ray: str | None = None,
    on_done: Callable[[], None] = lambda: None,
) -> list[list[Trace]]:
    """Replay every policy under every seed in every experiment; see `each` for the rest.

    Returns
    -------
    list of list of Trace
        One list for each experiment: by policy, then by seed.
    """
    tasks = [
        (stage, contender, seed)
        for stage in range(len(experiments))
        for contender in contenders
        for seed in seeds
    ]
    traces = each(
        _replay, experiments, tasks, jobs=jobs, ray=ray, on_done=lambda task, trace: on_done()
    )
    worlds: dict[tuple[int, int], World] = {}
    for k, (stage, _, seed) in enumerate(tasks):
        # Everybody's world under a seed is the same; one copy of it is enough.
        same = worlds.setdefault((stage, seed), traces[k].world)
        traces[k] = replace(traces[k], world=same)
    size = len(contenders) * len(seeds)
    return [traces[at : at + size] for at in range(0, len(traces), size)]


def _replay(experiments: Sequence[Experiment], task: tuple[int, Candidate, int]) -> Trace:
    stage, contender, seed = task
    return run(experiments[stage], contender, seed)


_entered: tuple[Callable[[Any, Any], Any], Any] | None = None


def _enter(shared: Path) -> None:
    """Set up a worker."""
    global _entered
    _entered = pickle.loads(shared.read_bytes())


def _work(task: Any) -> Any:
    assert _entered is not None, f"worker {os.getpid()} was not set up"
    function, shared = _entered
    return function(shared, task)


def _on_ray(
    function: Callable[[Shared, Task], Result],
    shared: Shared,
    tasks: Sequence[Task],
    *,
    address: str,
    on_done: Callable[[Task, Result], None],
) -> list[Result]:
    import ray

    results: dict[int, Result] = {}
    with _cluster(address):
        remote = ray.remote(max_retries=0)(function)
        put = ray.put(shared)
        running = {remote.remote(put, task): index for index, task in enumerate(tasks)}
        while running:
            for done in ray.wait(list(running))[0]:
                index = running.pop(done)
                results[index] = ray.get(done)
                on_done(tasks[index], results[index])
    return [results[index] for index in range(len(tasks))]


@contextmanager
def _cluster(address: str) -> Iterator[None]:
    """Connect to a cluster, or start one; what was started is shut down, and only that.

    Tasks still to run end with the connection, also on a cluster that goes on.
    """
    import ray

    host, _, port = address.rpartition("//")[2].rpartition(":")
    try:
        if host and port.isdigit():
            # Ray itself waits for minutes where nobody listens.
            socket.create_connection((host, int(port)), timeout=_ANSWERS).close()
        ray.init(
            address=None if address == LOCAL else address,
            include_dashboard=False if address == LOCAL else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"env_vars": _ONE_THREAD},
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"--ray-address: {address}: {' '.join(str(error).split())}") from error
    try:
        yield
    finally:
        ray.shutdown()
