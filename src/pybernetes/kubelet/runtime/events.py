"""Runtime events from one writer to every reader: the `EventStream` of `interface`.

Rule: a reader that was too slow is told so by RESYNC and goes on from there; it never ends and
never slows the runtime down.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pybernetes.aio.broadcast import Broadcast, Lagged
from pybernetes.kubelet.runtime.interface import EventKind, RuntimeEvent

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from pybernetes.aio.broadcast import Subscription

# Events of some seconds of a thousand pods starting at once.
READER_LIMIT = 10_000


class EventSource:
    """Where a runtime publishes its events."""

    def __init__(self) -> None:
        self._broadcast: Broadcast[RuntimeEvent] = Broadcast()

    def publish(self, event: RuntimeEvent) -> None:
        self._broadcast.publish(event)

    def open(self) -> Events:
        return Events(self._broadcast)


class Events:
    """One reader. It has its place from the moment it is made."""

    def __init__(self, broadcast: Broadcast[RuntimeEvent]) -> None:
        self._broadcast = broadcast
        # Both None once closed.
        self._place: AbstractContextManager[Subscription[RuntimeEvent]] | None = None
        self._subscription: Subscription[RuntimeEvent] | None = None
        self._enter()

    def _enter(self) -> None:
        self._place = self._broadcast.subscribe(READER_LIMIT)
        self._subscription = self._place.__enter__()

    def _leave(self) -> None:
        if self._place is not None:
            self._place.__exit__(None, None, None)
        self._place = self._subscription = None

    def __aiter__(self) -> Events:
        return self

    async def __anext__(self) -> RuntimeEvent:
        if self._subscription is None:
            raise StopAsyncIteration
        try:
            return await anext(self._subscription)
        except Lagged:
            # A new place first: what happens while the reader lists everything must reach it.
            self._leave()
            self._enter()
            return RuntimeEvent(EventKind.RESYNC)

    async def aclose(self) -> None:
        self._leave()
