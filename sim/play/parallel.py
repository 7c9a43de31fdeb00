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
"""In place of a Ray address: a cluster that is started here."""

_ANSWERS_WITHIN_S = 5.0
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
    function : callable
        Defined in a module, so that other processes can import it.
    shared : Any
        Sent to each process once.
    tasks : sequence
        Each is sent to the process that works on it.
    jobs : int
        Number of processes; with 1 all is done in this process.
    ray : str, optional
        Address of a Ray cluster to work on, or `LOCAL` to start one here.
    on_done : callable
        Called in this process with each task and its result, in the order in which they end.

    Raises
    ------
    InputError
        If there is no cluster at the address.
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
        File with the pickled function and what all tasks share. A pipe would be slower: a worker
        reads it only after all its imports, and the next worker starts only then.
    """
    executor = ProcessPoolExecutor(
        max_workers=workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_enter,
        initargs=(shared,),
    )
    try:
        with _interrupts_held():
            # The first call starts all workers.
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
    """Block interrupts of this thread until the end of the body.

    A process that is started in the body inherits this, so that it never gets an interrupt.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def run_all(
    experiments: Sequence[Experiment],
    candidates: Sequence[Candidate],
    seeds: Sequence[int],
    *,
    jobs: int = 1,
    ray: str | None = None,
    on_done: Callable[[], None] = lambda: None,
) -> list[list[Trace]]:
    """Replay every candidate under every seed in every experiment.

    Parameters
    ----------
    experiments, candidates, seeds : sequence of Experiment, Candidate, int
        All combinations are played.
    jobs, ray : int, str
        See `each`.
    on_done : callable
        Called in this process after each combination.

    Returns
    -------
    list of list of Trace
        One list for each experiment: by candidate, then by seed.
    """
    tasks = [
        (stage, candidate, seed)
        for stage in range(len(experiments))
        for candidate in candidates
        for seed in seeds
    ]
    traces = each(
        _replay, experiments, tasks, jobs=jobs, ray=ray, on_done=lambda task, trace: on_done()
    )
    worlds: dict[tuple[int, int], World] = {}
    for k, (stage, _, seed) in enumerate(tasks):
        # All candidates play the same world under a seed; one copy of it is enough.
        same = worlds.setdefault((stage, seed), traces[k].world)
        traces[k] = replace(traces[k], world=same)
    size = len(candidates) * len(seeds)
    return [traces[k : k + size] for k in range(0, len(traces), size)]


def _replay(experiments: Sequence[Experiment], task: tuple[int, Candidate, int]) -> Trace:
    stage, candidate, seed = task
    return run(experiments[stage], candidate, seed)


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
    """Connect to a cluster for the body, or start one, which is shut down in the end.

    Tasks that are not done end with the connection, also on a cluster that goes on.
    """
    import ray

    host, _, port = address.rpartition("//")[2].rpartition(":")
    try:
        if host and port.isdigit():
            # Ray itself waits for minutes where nothing listens.
            socket.create_connection((host, int(port)), timeout=_ANSWERS_WITHIN_S).close()
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
