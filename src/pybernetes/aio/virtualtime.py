"""Virtual time: an event loop that never waits for a timer, it moves the clock.

Ten minutes of back-off cost microseconds, every run of a test sees the same
order of events, and "everything is blocked and no timer is set" is an error with
the list of who is blocked, instead of a test that hangs.

When no callback is ready, the loop decides in this order:

1. Bytes, connections or calls from other threads that are already there: take them.
2. *Outside work* is going on (a job in an executor, a block under `outside_work()`,
   a future given to `hold_time_for()`): wait for it in real time. Time stands still while it lasts,
   so a database commit takes no virtual time at all.
3. Somebody waits in `settled()`: let them go on. Time has not moved.
4. A file descriptor other than a listening socket is registered: somebody outside
   may be about to speak. Give them `GRACE_SECONDS` of real time.
5. A timer is set: jump to it.
6. Any file descriptor is registered: wait for it, for as long as it takes.
7. Another thread lives, and may yet call us: wait `LAST_CHANCE_SECONDS` of real time.
8. Raise `Deadlock`.

Rule 4 is a guess, the only one here. What really talks to the outside (sockets
with time limits, child processes) belongs on a real clock: in tests, under the
`realtime` mark.
"""

from __future__ import annotations

import asyncio
import os
import selectors
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple, Unpack

if TYPE_CHECKING:
    from asyncio import Future, Task
    from collections.abc import Callable, Coroutine, Iterator
    from concurrent.futures import Executor

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# How long a connected peer may stay silent before a timer is allowed to fire.
GRACE_SECONDS = 0.025

# How long a thread that nobody declared may take to call us before we give up.
LAST_CHANCE_SECONDS = 1.0

# Timers this close to the present are due. It must exceed the spacing of floating
# point numbers at the largest time reached (17 years here), or a timer could be
# jumped to and still not be due, for ever.
_RESOLUTION_SECONDS = 1e-7


class Deadlock(RuntimeError):
    """Every task waits for another one, and no timer, descriptor or job can change that."""


class _JumpingSelector(selectors.DefaultSelector):
    """Asks the loop what to do whenever the loop is about to wait."""

    def __init__(self) -> None:
        super().__init__()
        # Set by the loop that owns us, right after both exist.
        self.loop: VirtualTimeLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if events or (timeout is not None and timeout <= 0):
            return events
        return self.loop.wait_or_jump(super().select)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An asyncio loop whose `time()` starts at zero and jumps from timer to timer."""

    def __init__(self) -> None:
        self._now = 0.0
        # Jobs elsewhere that will call us back; time stands still while there are any.
        self._outside_jobs = 0
        # Futures of the `settled()` calls in progress.
        self._settling: list[Future[None]] = []
        selector = _JumpingSelector()
        selector.loop = self
        self._eyes = selector
        super().__init__(selector)
        # Read by asyncio's own `_run_once` when it asks which timers are due.
        self._clock_resolution = _RESOLUTION_SECONDS

    def time(self) -> float:
        return self._now

    @contextmanager
    def outside_work(self) -> Iterator[None]:
        """Stop time while something outside this loop works for it."""
        self._outside_jobs += 1
        try:
            yield
        finally:
            self._outside_jobs -= 1

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> Future[T]:
        future = super().run_in_executor(executor, func, *args)
        self.hold_time_for(future)
        return future

    def hold_time_for(self, future: Future[Any]) -> None:
        self._outside_jobs += 1
        future.add_done_callback(self._job_done)

    def _job_done(self, _: Future[Any]) -> None:
        self._outside_jobs -= 1

    async def shutdown_default_executor(self, *args: Any, **kwargs: Any) -> None:
        # asyncio joins the executor from a thread of its own, which calls back.
        with self.outside_work():
            await super().shutdown_default_executor(*args, **kwargs)

    async def settled(self) -> None:
        future = self.create_future()
        self._settling.append(future)
        await future

    def wait_or_jump(
        self, select: Callable[[float | None], list[tuple[selectors.SelectorKey, int]]]
    ) -> list[tuple[selectors.SelectorKey, int]]:
        """Rules 2 to 8 above. Called by the selector when nothing is ready."""
        if self._outside_jobs:
            return select(None)
        if self._settling:
            waiting, self._settling = self._settling, []
            for future in waiting:
                if not future.done():
                    future.set_result(None)
            return []
        outside = self._outside_descriptors()
        if any(not _is_listening(fd) for fd in outside) and (events := select(GRACE_SECONDS)):
            return events
        # asyncio has just dropped cancelled timers from the head of its heap.
        timers: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]  # not in typeshed
        if timers:
            self._now = max(self._now, timers[0].when())
            return []
        if outside:
            return select(None)
        if threading.active_count() > 1 and (events := select(LAST_CHANCE_SECONDS)):
            return events
        raise Deadlock(_describe(asyncio.all_tasks(self)))

    def _outside_descriptors(self) -> list[int]:
        """What is registered, except the pipe other threads wake us with."""
        own = self._ssock.fileno()  # type: ignore[attr-defined]  # not in typeshed
        return [key.fd for key in self._eyes.get_map().values() if key.fd != own]


def _is_listening(fd: int) -> bool:
    try:
        with socket.socket(fileno=os.dup(fd)) as sock:
            return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError:
        return False  # not a socket


def _describe(tasks: set[Task[Any]]) -> str:
    lines = [f"deadlock: {len(tasks)} tasks are blocked, no timer is set, nothing is expected"]
    for task in sorted(tasks, key=lambda task: task.get_name()):
        lines.append(f"  {task.get_name()}: {_place_of(task)}")
    return "\n".join(lines)


def _place_of(task: Task[Any]) -> str:
    """The innermost await, and the outermost line of the task, which names the culprit."""
    awaitable: Any = task.get_coro()
    places: list[str] = []
    while awaitable is not None:
        frame = getattr(awaitable, "cr_frame", None) or getattr(awaitable, "gi_frame", None)
        frame = frame or getattr(awaitable, "ag_frame", None)
        if frame is not None:
            code = frame.f_code
            places.append(f"{code.co_qualname} ({code.co_filename}:{frame.f_lineno})")
        awaitable = getattr(awaitable, "cr_await", None) or getattr(awaitable, "gi_yieldfrom", None)
    return " > ".join(places) or "not started"


async def settled() -> None:
    """Return when nothing else can run without time passing.

    Only a virtual loop can know this; elsewhere it is an error.
    """
    loop = asyncio.get_running_loop()
    if not isinstance(loop, VirtualTimeLoop):
        raise RuntimeError("settled() needs virtual time; this loop runs on the real clock")
    await loop.settled()


@contextmanager
def outside_work() -> Iterator[None]:
    """Tell a virtual loop that a thread of our own is working for us and will call back.

    `loop.run_in_executor` needs no such help. On an ordinary loop this does nothing.
    """
    loop = asyncio.get_running_loop()
    if isinstance(loop, VirtualTimeLoop):
        with loop.outside_work():
            yield
    else:
        yield


def hold_time_for(future: Future[T]) -> Future[T]:
    """`outside_work` until a future is done that a thread of our own will fulfil.

    Gives the future back. On an ordinary loop this does nothing.
    """
    loop = future.get_loop()
    if isinstance(loop, VirtualTimeLoop):
        loop.hold_time_for(future)
    return future


def run_virtual(coroutine: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run`, under virtual time."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(coroutine)
