"""The virtual loop itself. Real: the loop, threads, sockets on loopback. Nothing is fake."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from pybernetes.aio.clock import Clock, LoopClock, SystemClock
from pybernetes.aio.virtualtime import Deadlock, hold_time_for, outside_work, run_virtual, settled


async def test_sleeping_for_a_year_takes_no_time() -> None:
    before = time.monotonic()
    await asyncio.sleep(365 * 24 * 3600)
    assert asyncio.get_running_loop().time() == 365 * 24 * 3600
    assert time.monotonic() - before < 1


async def test_timers_fire_in_order_and_exactly_when_due() -> None:
    seen: list[tuple[float, str]] = []
    loop = asyncio.get_running_loop()

    async def tick(name: str, seconds: float) -> None:
        for _ in range(3):
            await asyncio.sleep(seconds)
            seen.append((loop.time(), name))

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(tick("a", 0.5))
        tasks.create_task(tick("b", 0.75))
    assert seen == [(0.5, "a"), (0.75, "b"), (1.0, "a"), (1.5, "b"), (1.5, "a"), (2.25, "b")]


async def test_timeouts_are_virtual_too() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(3600):
            await asyncio.Event().wait()
    assert asyncio.get_running_loop().time() == 3600


def test_blocking_for_ever_is_a_deadlock_that_names_the_blocked() -> None:
    async def wait_for_godot() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(wait_for_godot(), name="vladimir")

    with pytest.raises(Deadlock, match=r"vladimir: .*wait_for_godot") as caught:
        run_virtual(main())
    assert "2 tasks are blocked" in str(caught.value)


async def test_settled_lets_everything_run_but_no_time_pass() -> None:
    seen: list[int] = []

    async def chain() -> None:
        for step in range(50):
            await asyncio.sleep(0)
            seen.append(step)
        await asyncio.sleep(1)
        seen.append(-1)

    task = asyncio.create_task(chain())
    await settled()
    assert seen == list(range(50))
    assert asyncio.get_running_loop().time() == 0
    await task


@pytest.mark.realtime
async def test_settled_is_refused_on_a_real_clock() -> None:
    with pytest.raises(RuntimeError, match="virtual time"):
        await settled()


async def test_time_stands_still_while_an_executor_works() -> None:
    loop = asyncio.get_running_loop()
    timer = asyncio.create_task(asyncio.sleep(0.001))
    with ThreadPoolExecutor(1) as executor:
        await loop.run_in_executor(executor, time.sleep, 0.03)
        assert loop.time() == 0
    await asyncio.to_thread(time.sleep, 0.01)
    assert not timer.done()
    await timer


async def test_settled_waits_for_executors() -> None:
    job = asyncio.get_running_loop().run_in_executor(None, time.sleep, 0.02)
    await settled()
    assert job.done()


async def test_a_thread_may_call_back() -> None:
    loop = asyncio.get_running_loop()
    event = asyncio.Event()

    def work() -> None:
        time.sleep(0.02)
        loop.call_soon_threadsafe(event.set)

    thread = threading.Thread(target=work)
    with outside_work():
        thread.start()
        async with asyncio.timeout(0.001):
            await event.wait()
    thread.join()
    assert loop.time() == 0


async def test_a_future_that_a_thread_fulfils_holds_time() -> None:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[int] = hold_time_for(loop.create_future())
    timer = threading.Timer(0.02, lambda: loop.call_soon_threadsafe(future.set_result, 7))
    timer.start()
    async with asyncio.timeout(0.001):
        assert await future == 7
    timer.join()
    await asyncio.sleep(1)
    assert loop.time() == 1


async def test_an_undeclared_thread_gets_a_last_chance_before_deadlock() -> None:
    loop = asyncio.get_running_loop()
    event = asyncio.Event()
    timer = threading.Timer(0.02, lambda: loop.call_soon_threadsafe(event.set))
    timer.start()
    await event.wait()
    timer.join()


async def test_sockets_work_and_are_given_a_moment_before_time_jumps() -> None:
    left, right = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=left)
    timer = threading.Timer(0.005, lambda: right.sendall(b"hello\n"))
    timer.start()
    async with asyncio.timeout(1):
        assert await reader.readline() == b"hello\n"
    assert asyncio.get_running_loop().time() == 0
    # A peer that stays silent does not stop time for good.
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5):
            await reader.readline()
    writer.close()
    await writer.wait_closed()
    right.close()
    timer.join()


async def test_a_silent_listening_socket_costs_nothing() -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    before = time.monotonic()
    for _ in range(100):
        await asyncio.sleep(60)
    assert time.monotonic() - before < 1
    server.close()
    await server.wait_closed()


async def test_calendar_follows_the_loop(clock: Clock) -> None:
    before = clock.now()
    await asyncio.sleep(90)
    assert clock.now() - before == timedelta(seconds=90)
    assert clock.monotonic() == 90


def test_clocks_are_aware() -> None:
    assert SystemClock().now().tzinfo is UTC
    assert SystemClock().monotonic() <= SystemClock().monotonic()
    with pytest.raises(ValueError, match="aware"):
        LoopClock(datetime(2026, 1, 1))


def test_run_virtual_returns_the_result() -> None:
    async def answer() -> int:
        await asyncio.sleep(1e6)
        return 42

    assert run_virtual(answer()) == 42
