"""Back-off, broadcast, slow start and supervision, under virtual time; nothing is fake."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from pybernetes.aio.backoff import Backoff
from pybernetes.aio.broadcast import Broadcast, Lagged
from pybernetes.aio.slowstart import slow_start
from pybernetes.aio.supervision import run_restarting
from pybernetes.aio.virtualtime import settled

if TYPE_CHECKING:
    from random import Random

SECOND = timedelta(seconds=1)


def test_backoff_grows_up_to_its_maximum() -> None:
    backoff = Backoff(SECOND, 10 * SECOND)
    assert [backoff.delay(n) // SECOND for n in range(6)] == [1, 2, 4, 8, 10, 10]
    assert backoff.delay(10**9) == 10 * SECOND
    assert backoff.delay(-1) == SECOND


def test_jitter_is_added_on_top(random: Random) -> None:
    backoff = Backoff(SECOND, 10 * SECOND, jitter=0.5)
    delays = [backoff.delay(9, random) for _ in range(100)]
    assert all(10 * SECOND <= delay <= 15 * SECOND for delay in delays)
    assert len(set(delays)) > 50
    assert backoff.delay(9) == 10 * SECOND


async def test_every_reader_gets_everything_from_when_it_came() -> None:
    broadcast: Broadcast[int] = Broadcast()
    broadcast.publish(0)
    with broadcast.subscribe() as first:
        broadcast.publish(1)
        with broadcast.subscribe() as second:
            broadcast.publish(2)
            assert [await anext(first), await anext(first), await anext(second)] == [1, 2, 2]
            assert broadcast.statistics().readers == 2
    assert broadcast.statistics().readers == 0


async def test_a_slow_reader_reads_what_it_has_and_then_learns_it_lagged() -> None:
    broadcast: Broadcast[int] = Broadcast()
    with broadcast.subscribe(limit=2) as slow, broadcast.subscribe() as fast:
        for item in range(5):
            broadcast.publish(item)
        assert [await anext(slow), await anext(slow)] == [0, 1]
        with pytest.raises(Lagged):
            await anext(slow)
        with pytest.raises(Lagged):
            await anext(slow)
        assert len(fast) == 5
        assert broadcast.statistics().lagged == 1


async def test_a_waiting_reader_is_woken_and_may_be_cancelled() -> None:
    broadcast: Broadcast[int] = Broadcast()
    with broadcast.subscribe() as reader:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await anext(reader)
        waiting = asyncio.ensure_future(anext(reader))
        await settled()
        broadcast.publish(7)
        broadcast.publish(8)
        assert await waiting == 7
        assert await anext(reader) == 8


async def test_slow_start_doubles_and_waits_for_each_batch() -> None:
    running, sizes = 0, list[int]()

    async def action() -> None:
        nonlocal running
        running += 1
        await asyncio.sleep(1)
        sizes.append(running)
        await asyncio.sleep(0)
        running = 0

    assert await slow_start([action] * 10) == 10
    assert asyncio.get_running_loop().time() == 4
    assert sizes == [1, 2, 2, 4, 4, 4, 4, 3, 3, 3]


async def test_slow_start_stops_after_the_batch_that_failed() -> None:
    finished: list[int] = []

    def action(number: int) -> object:
        async def act() -> None:
            await asyncio.sleep(1 if number % 2 else 2)
            if number in (3, 5):
                raise ValueError(number)
            finished.append(number)

        return act

    with pytest.raises(ValueError, match="3"):
        await slow_start([action(n) for n in range(20)])  # type: ignore[misc]  # see `action`
    assert sorted(finished) == [0, 1, 2, 4, 6]


async def test_slow_start_of_nothing() -> None:
    assert await slow_start([]) == 0


async def test_what_fails_is_started_again_with_backoff(
    random: Random, caplog: pytest.LogCaptureFixture
) -> None:
    loop = asyncio.get_running_loop()
    starts: list[float] = []

    async def start() -> None:
        starts.append(loop.time())
        if len(starts) == 4:
            await asyncio.sleep(3600)  # long enough to count as recovered
        if len(starts) == 6:
            return
        raise OSError("no route")

    backoff = Backoff(SECOND, 60 * SECOND)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(3700):
            await run_restarting(
                "thing", start, backoff=backoff, random=random, log=logging.getLogger("test")
            )
    assert starts[:7] == [0, 1, 3, 7, 3608, 3610, 3614]
    assert "thing failed, starting it again in 1 s" in caplog.text
    assert "thing ended, starting it again" in caplog.text
