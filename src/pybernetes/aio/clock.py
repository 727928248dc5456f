"""Clocks: where every component asks what time it is.

Nothing in this project calls `datetime.now` or `time.time` itself; it is handed
a `Clock`, so that a test can decide what time it is and a failure can be
replayed. Waiting is not the clock's business: it is always `asyncio.sleep`,
`asyncio.timeout` or `loop.call_at`, because the event loop's own time is virtual
in tests (see `virtualtime`).

Rule: `now()` is for what users read and what goes into objects; `monotonic()` is
for measuring how long something took. They are never mixed.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Tells the time; never waits."""

    def now(self) -> datetime:
        """The present moment, aware, in UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never goes back."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()


class LoopClock:
    """A calendar laid over an event loop's time: when the loop jumps, so does the date.

    Without `loop` it follows whichever loop is running when it is asked.
    """

    def __init__(self, start: datetime, loop: asyncio.AbstractEventLoop | None = None) -> None:
        if start.tzinfo is None:
            raise ValueError("a clock starts at an aware datetime")
        self._start = start.astimezone(UTC)
        self._loop = loop

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        loop = self._loop if self._loop is not None else asyncio.get_running_loop()
        return loop.time()
