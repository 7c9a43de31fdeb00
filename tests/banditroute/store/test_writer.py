from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, text
from support.databases import POSTGRESQL, SQLITE

from banditroute.core.errors import Unavailable
from banditroute.store.writer import Writer

Make = Callable[..., Writer]


def insert_rows(connection: Connection, rows: Any) -> None:
    for (value,) in rows:
        connection.execute(text("INSERT INTO numbers (value) VALUES (:value)"), {"value": value})


def put(value: int) -> Callable[[Connection], int]:
    def work(connection: Connection) -> int:
        insert_rows(connection, [(value,)])
        return value

    return work


def kept(engine: Engine) -> list[int]:
    with engine.connect() as connection:
        return list(connection.execute(text("SELECT value FROM numbers ORDER BY at")).scalars())


@pytest.fixture
def make(engine: Engine) -> Iterator[Make]:
    with engine.begin() as connection:
        serial = "SERIAL" if engine.dialect.name == "postgresql" else "INTEGER"
        columns = f"at {serial} PRIMARY KEY, value INTEGER UNIQUE"
        connection.execute(text(f"CREATE TABLE numbers ({columns})"))
    writers: list[Writer] = []

    def made(**options: Any) -> Writer:
        writers.append(Writer(engine, insert_rows=insert_rows, **options))
        return writers[-1]

    yield made
    for writer in writers:
        writer.close()


class Gate:
    """Work that holds the writer up until it is opened, so that a queue can form behind it."""

    def __init__(self) -> None:
        self.entered, self.open = threading.Event(), threading.Event()

    def __call__(self, _: Connection) -> str:
        self.entered.set()
        assert self.open.wait(10.0)
        return "through"

    async def close(self, writer: Writer) -> Awaitable[str]:
        held = asyncio.create_task(writer.write(self, durable=False))
        assert await asyncio.to_thread(self.entered.wait, 10.0)
        return held


def commits(engine: Engine) -> list[None]:
    seen: list[None] = []
    event.listen(engine, "commit", lambda _: seen.append(None))
    return seen


def test_waiting_work_is_committed_in_one_group_and_in_order(engine: Engine, make: Make) -> None:
    async def main() -> None:
        writer, gate, seen = make(), Gate(), commits(engine)
        held = await gate.close(writer)
        tasks = [asyncio.create_task(writer.write(put(i))) for i in range(50)]
        await asyncio.sleep(0)
        assert writer.waiting == 50
        gate.open.set()
        assert await held == "through"
        assert await asyncio.gather(*tasks) == list(range(50))
        assert len(seen) == 2

    asyncio.run(main())
    assert kept(engine) == list(range(50))


def test_a_group_has_a_largest_size(engine: Engine, make: Make) -> None:
    async def main() -> None:
        writer, gate, seen = make(group=10), Gate(), commits(engine)
        held = await gate.close(writer)
        tasks = [asyncio.create_task(writer.write(put(i))) for i in range(25)]
        await asyncio.sleep(0)
        gate.open.set()
        await asyncio.gather(held, *tasks)
        assert len(seen) == 4

    asyncio.run(main())


def test_success_is_heard_of_only_after_the_commit(engine: Engine, make: Make) -> None:
    async def main() -> None:
        writer = make()
        await writer.write(put(1))
        assert kept(engine) == [1]
        await writer.append([(2,), (3,)])
        assert kept(engine) == [1, 2, 3]

    asyncio.run(main())


def test_rows_go_in_before_the_work_of_their_group(make: Make) -> None:
    async def main() -> None:
        writer, gate = make(), Gate()
        held = await gate.close(writer)
        count = text("SELECT count(*) FROM numbers")
        looking = asyncio.create_task(writer.write(lambda c: c.execute(count).scalar_one()))
        rows = [asyncio.create_task(writer.append([(i,), (-i - 1,)])) for i in range(3)]
        await asyncio.sleep(0)
        gate.open.set()
        await asyncio.gather(held, *rows)
        assert await looking == 6

    asyncio.run(main())


def test_failing_work_does_not_take_its_neighbours_down(engine: Engine, make: Make) -> None:
    def half(connection: Connection) -> None:
        put(100)(connection)
        raise ValueError("no")

    async def main() -> None:
        writer, gate = make(), Gate()
        held = await gate.close(writer)
        works: list[Any] = [put(1), half, put(2), put(1), put(3)]
        tasks = [asyncio.create_task(writer.write(work)) for work in works]
        rows = [asyncio.create_task(writer.append([(value,)])) for value in (4, 4, 5)]
        await asyncio.sleep(0)
        gate.open.set()
        await held
        results = await asyncio.gather(*tasks, *rows, return_exceptions=True)
        names = [r if isinstance(r, int) else type(r).__name__ for r in results]
        nothing = "NoneType"
        assert names == [
            1, "ValueError", 2, "IntegrityError", 3, nothing, "IntegrityError", nothing
        ]  # fmt: skip
        assert await writer.write(put(6)) == 6

    asyncio.run(main())
    assert sorted(kept(engine)) == [1, 2, 3, 4, 5, 6]


def test_work_that_failed_alone_is_not_run_again(make: Make) -> None:
    runs: list[None] = []

    def fail(_: Connection) -> None:
        runs.append(None)
        raise ValueError

    async def main() -> None:
        with pytest.raises(ValueError):
            await make().write(fail)

    asyncio.run(main())
    assert len(runs) == 1


def test_more_than_the_capacity_is_refused_at_once(make: Make) -> None:
    async def main() -> None:
        writer, gate = make(capacity=3), Gate()
        held = await gate.close(writer)
        tasks = [asyncio.create_task(writer.write(put(i))) for i in range(3)]
        await asyncio.sleep(0)
        for refused in (writer.write(put(9)), writer.append([(9,)])):
            with pytest.raises(Unavailable, match="waiting") as caught:
                await refused
            assert caught.value.retry_after_s == 1.0
        gate.open.set()
        await asyncio.gather(held, *tasks)
        assert await writer.write(put(4)) == 4

    asyncio.run(main())


def test_close_commits_what_waits_and_refuses_the_rest(engine: Engine, make: Make) -> None:
    async def main() -> list[int]:
        writer, gate = make(group=2), Gate()
        held = await gate.close(writer)
        tasks = [asyncio.create_task(writer.write(put(i))) for i in range(5)]
        await asyncio.sleep(0)
        closing = asyncio.create_task(asyncio.to_thread(writer.close))
        await asyncio.sleep(0.05)
        behind = [asyncio.create_task(writer.write(put(i))) for i in range(5, 9)]
        await asyncio.sleep(0)
        gate.open.set()
        await asyncio.gather(held, closing, *tasks)
        results = await asyncio.wait_for(asyncio.gather(*behind, return_exceptions=True), 10.0)
        with pytest.raises(Unavailable, match="stopping"):
            await writer.write(put(10))
        assert not writer.alive
        assert all(isinstance(r, Unavailable | int) for r in results)
        return [r for r in results if isinstance(r, int)]

    late = asyncio.run(main())
    assert kept(engine) == [0, 1, 2, 3, 4, *late]


def test_a_caller_that_gave_up_does_not_disturb_the_others(engine: Engine, make: Make) -> None:
    async def main() -> None:
        writer, gate = make(), Gate()
        held = await gate.close(writer)
        tasks = [asyncio.create_task(writer.write(put(i))) for i in range(4)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        gate.open.set()
        results = await asyncio.gather(held, *tasks, return_exceptions=True)
        assert isinstance(results[2], asyncio.CancelledError)
        assert [results[i] for i in (1, 3, 4)] == [0, 2, 3]

    asyncio.run(main())
    assert kept(engine) == [0, 1, 2, 3]


def test_a_loop_that_ended_does_not_stop_the_writer(engine: Engine, make: Make) -> None:
    writer, gate = make(), Gate()

    async def leave() -> None:
        await gate.close(writer)
        for i in range(3):
            asyncio.ensure_future(writer.write(put(i)))
        await asyncio.sleep(0)

    asyncio.run(leave())
    gate.open.set()
    assert writer.write_now(put(5)) == 5
    assert asyncio.run(asyncio.wait_for(writer.write(put(6)), 10.0)) == 6
    assert sorted(kept(engine)) == [0, 1, 2, 5, 6]


def test_write_now_returns_or_raises_like_write(engine: Engine, make: Make) -> None:
    writer = make()
    assert writer.write_now(put(1)) == 1
    with pytest.raises(Exception, match="(?i)unique"):
        writer.write_now(put(1))
    assert kept(engine) == [1]


def test_only_durable_commits_are_announced(engine: Engine, make: Make) -> None:
    seen: list[list[int]] = []

    async def main() -> None:
        writer = make(on_durable=lambda: seen.append(kept(engine)))
        await writer.append([(1,)])
        await writer.write(put(2), durable=False)
        assert seen == []
        await writer.write(put(3))
        assert seen == [[1, 2, 3]]
        with pytest.raises(ZeroDivisionError):
            await writer.write(lambda _: 1 // 0)
        assert len(seen) == 1

    asyncio.run(main())


@SQLITE  # on PostgreSQL every commit is durable
def test_durable_work_makes_its_group_durable(engine: Engine, make: Make) -> None:
    def level(connection: Connection) -> int:
        return int(connection.execute(text("PRAGMA synchronous")).scalar_one())

    async def main() -> None:
        writer, gate = make(), Gate()
        assert await writer.write(level, durable=False) == 1
        assert await writer.write(level) == 2
        assert await writer.write(level, durable=False) == 1
        held = await gate.close(writer)
        tasks = [
            asyncio.create_task(writer.write(level, durable=durable))
            for durable in (False, True, False)
        ]
        await asyncio.sleep(0)
        gate.open.set()
        await held
        assert await asyncio.gather(*tasks) == [2, 2, 2]

    asyncio.run(main())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_the_death_of_the_thread_is_seen_and_no_caller_waits_for_ever(make: Make) -> None:
    def die(_: Connection) -> None:
        raise SystemExit

    async def main() -> None:
        writer, gate = make(), Gate()
        assert writer.alive
        held = await gate.close(writer)
        dying = asyncio.create_task(writer.write(die))
        behind = [asyncio.create_task(writer.write(put(i))) for i in range(3)]
        await asyncio.sleep(0)
        gate.open.set()
        assert await held == "through"
        results = await asyncio.wait_for(
            asyncio.gather(dying, *behind, return_exceptions=True), 10.0
        )
        assert all(isinstance(result, Unavailable) for result in results), results
        while writer.alive:
            await asyncio.sleep(0.001)
        with pytest.raises(Unavailable):
            await writer.write(put(7))

    asyncio.run(main())


def test_a_failing_announcement_does_not_stop_the_writer(make: Make) -> None:
    def fail() -> None:
        raise RuntimeError("no listener")

    async def main() -> None:
        writer = make(on_durable=fail)
        assert await asyncio.wait_for(writer.write(put(1)), 10.0) == 1
        assert await asyncio.wait_for(writer.write(put(2)), 10.0) == 2

    asyncio.run(main())


@POSTGRESQL
def test_a_connection_that_was_killed_costs_its_group_and_no_other(
    engine: Engine, make: Make
) -> None:
    """So it is when the server starts again, and when this process was stopped in a transaction."""

    async def main() -> None:
        writer, gate = make(), Gate()
        own = text("SELECT pg_backend_pid()")
        before = await writer.write(lambda c: c.execute(own).scalar_one())
        held = await gate.close(writer)
        with engine.connect() as other:
            kill = text("SELECT pg_terminate_backend(:pid, 5000)")
            assert other.execute(kill, {"pid": before}).scalar_one()
        tasks = [asyncio.create_task(writer.write(put(i))) for i in range(3)]
        await asyncio.sleep(0)
        gate.open.set()
        results = await asyncio.gather(held, *tasks, return_exceptions=True)
        failed = [r for r in results if isinstance(r, Unavailable)]
        assert failed and {one.retry_after_s for one in failed} == {1.0}
        assert all(isinstance(r, Unavailable | int) for r in results), results
        assert writer.alive
        after = await writer.write(lambda c: c.execute(own).scalar_one())
        assert after != before
        assert await writer.write(put(9)) == 9
        done = [r for r in results if isinstance(r, int)]
        assert kept(engine) == [*done, 9]

    asyncio.run(main())


@POSTGRESQL
def test_a_connection_that_was_killed_while_idle_costs_one_group(
    engine: Engine, make: Make
) -> None:
    async def main() -> None:
        writer = make()
        own = text("SELECT pg_backend_pid()")
        pid = await writer.write(lambda c: c.execute(own).scalar_one())
        with engine.connect() as other:
            other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
        with pytest.raises(Unavailable, match="does not take a write"):
            await writer.write(put(1))
        assert await writer.write(put(2)) == 2

    asyncio.run(main())
    assert kept(engine) == [2]
