"""The work queue under virtual time; nothing is fake."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from pybernetes.aio.virtualtime import settled
from pybernetes.aio.workqueue import WorkQueue

if TYPE_CHECKING:
    from random import Random


async def take(queue: WorkQueue[str]) -> str:
    async with queue.next() as key:
        return key


async def test_a_key_added_twice_is_handed_out_once() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for key in ("a", "b", "a"):
        queue.add(key)
    assert [await take(queue), await take(queue)] == ["a", "b"]
    assert len(queue) == 0


async def test_a_key_added_while_worked_on_comes_again_afterwards() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    async with queue.next() as key:
        queue.add(key)
        queue.check_invariants()
        assert len(queue) == 0
    assert await take(queue) == "a"


async def test_retries_double_and_are_forgotten() -> None:
    queue: WorkQueue[str] = WorkQueue()
    loop = asyncio.get_running_loop()
    waits = []
    for _ in range(20):
        queue.retry("a")
        before = loop.time()
        await take(queue)
        waits.append(round(loop.time() - before, 6))
    assert waits[:4] == [0.005, 0.01, 0.02, 0.04]
    assert waits[-1] == 1000
    assert queue.failures("a") == 20
    queue.forget("a")
    queue.retry("a")
    before = loop.time()
    await take(queue)
    assert round(loop.time() - before, 6) == 0.005


async def test_the_earliest_of_several_delays_counts() -> None:
    queue: WorkQueue[str] = WorkQueue()
    loop = asyncio.get_running_loop()
    for seconds in (30, 10, 20):
        queue.add_after("a", timedelta(seconds=seconds))
    assert queue.statistics().delayed == 1
    await take(queue)
    assert loop.time() == 10
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(100):
            await take(queue)


async def test_no_delay_is_at_once() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", timedelta(0))
    assert len(queue) == 1


async def test_a_cancelled_worker_does_not_take_a_key_with_it() -> None:
    queue: WorkQueue[str] = WorkQueue()
    first, second = asyncio.create_task(take(queue)), asyncio.create_task(take(queue))
    await settled()
    queue.add("a")  # wakes the first …
    first.cancel()  # … which is cancelled before it runs
    assert await second == "a"
    assert first.cancelled()


async def test_a_failing_worker_lets_go_of_its_key() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    with pytest.raises(ZeroDivisionError):
        async with queue.next():
            raise ZeroDivisionError
    queue.add("a")
    assert await take(queue) == "a"


async def test_close_drops_timers() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", timedelta(seconds=1))
    queue.close()
    await asyncio.sleep(2)
    assert len(queue) == 0


async def test_statistics_tell_what_is_going_on() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    queue.add("b")
    queue.retry("c")
    async with queue.next():
        await asyncio.sleep(3)
        now = queue.statistics()
    assert (now.ready, now.working, now.failing, now.added, now.retried) == (2, 1, 1, 3, 1)
    assert now.longest_running_seconds == 3


async def test_many_workers_never_share_a_key_and_lose_no_change(random: Random) -> None:
    queue: WorkQueue[int] = WorkQueue()
    wanted = Counter[int]()
    seen = Counter[int]()
    held: set[int] = set()

    async def work() -> None:
        while True:
            async with queue.next() as key:
                assert key not in held
                held.add(key)
                # Level, not edge: whatever was wanted before we looked is done now.
                seen[key] = wanted[key]
                await asyncio.sleep(random.random())
                held.remove(key)

    workers = [asyncio.create_task(work()) for _ in range(5)]
    for _ in range(2000):
        key = random.randrange(20)
        wanted[key] += 1
        queue.add(key)
        queue.check_invariants()
        if random.random() < 0.5:
            await asyncio.sleep(random.random() / 10)
    await asyncio.sleep(60)
    assert seen == wanted
    for worker in workers:
        worker.cancel()
    await asyncio.gather(*workers, return_exceptions=True)
