"""Groups form while earlier ones are under way, and one failure stays with its caller."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from banditroute.core.errors import Unavailable
from banditroute.service.batcher import LARGEST_GROUP, MicroBatcher


def test_calls_that_arrive_during_work_form_the_next_group() -> None:
    groups: list[list[int]] = []

    async def scenario() -> list[int]:
        at_work, go_on = asyncio.Event(), asyncio.Event()

        async def work(items: Sequence[int]) -> list[int | Exception]:
            groups.append(list(items))
            at_work.set()
            await go_on.wait()
            return [10 * item for item in items]

        gather = MicroBatcher(work)
        first = [asyncio.create_task(gather(i)) for i in range(3)]
        await at_work.wait()
        later = [asyncio.create_task(gather(i)) for i in range(3, 3 + LARGEST_GROUP + 1)]
        await asyncio.sleep(0)
        go_on.set()
        results = await asyncio.gather(*first, *later)
        return [*results, await gather(-1)]

    results = asyncio.run(scenario())
    assert results == [10 * i for i in [*range(4 + LARGEST_GROUP), -1]]
    sizes = [len(group) for group in groups]
    assert sizes == [3, LARGEST_GROUP, 1, 1]


def test_an_exception_in_the_results_reaches_its_caller_alone() -> None:
    async def work(items: Sequence[int]) -> list[int | Exception]:
        return [KeyError("two") if item == 2 else item for item in items]

    async def scenario() -> list[int | BaseException]:
        gather = MicroBatcher(work)
        return await asyncio.gather(*(gather(i) for i in range(4)), return_exceptions=True)

    results = asyncio.run(scenario())
    assert isinstance(results[2], KeyError)
    assert [*results[:2], results[3]] == [0, 1, 3]


def test_a_group_that_fails_is_tried_again_one_by_one() -> None:
    async def work(items: Sequence[int]) -> list[int | Exception]:
        if 2 in items:
            raise ValueError("poison")
        return list(items)

    async def scenario() -> list[int | BaseException]:
        gather = MicroBatcher(work)
        return await asyncio.gather(*(gather(i) for i in range(4)), return_exceptions=True)

    results = asyncio.run(scenario())
    assert isinstance(results[2], ValueError)
    assert [*results[:2], results[3]] == [0, 1, 3]


def test_a_crowd_is_refused_rather_than_kept_waiting() -> None:
    async def scenario() -> list[int | BaseException]:
        async def work(items: Sequence[int]) -> list[int | Exception]:
            return list(items)

        gather = MicroBatcher(work, capacity=3)
        return await asyncio.gather(*(gather(i) for i in range(5)), return_exceptions=True)

    results = asyncio.run(scenario())
    assert results[:3] == [0, 1, 2]
    assert [type(refused) for refused in results[3:]] == [Unavailable, Unavailable]


@pytest.mark.parametrize("impatient", [0, 1])
def test_a_caller_that_gives_up_does_not_hold_the_others(impatient: int) -> None:
    async def scenario() -> int:
        async def work(items: Sequence[int]) -> list[int | Exception]:
            await asyncio.sleep(0)
            return list(items)

        gather = MicroBatcher(work)
        tasks = [asyncio.create_task(gather(i)) for i in range(2)]
        await asyncio.sleep(0)
        tasks[impatient].cancel()
        return await tasks[1 - impatient]

    assert asyncio.run(scenario()) == 1 - impatient
