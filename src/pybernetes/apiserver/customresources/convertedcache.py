"""A second watch cache, of a version that a webhook converts to.

It follows the cache of the stored version, through the webhook: reading and watching the version
are then as cheap as any. It begins when somebody first asks for the version, and begins anew after
the webhook has failed.

Rule: who reads from it has called `prepare`, after which it shows everything written before.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from pybernetes.apimachinery.errors import ServiceUnavailable
from pybernetes.apiserver.customresources.cache import CustomCache
from pybernetes.storage import Change, Compacted, KeyValue

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pybernetes.apiserver.customresources.conversion import Webhook
    from pybernetes.apiserver.customresources.served import CustomResource, Rules
    from pybernetes.apiserver.entry import Entry
    from pybernetes.apiserver.watchcache import Event


class ConvertedCache(CustomCache):
    """All instances of a definition, in a version that is not stored."""

    def __init__(
        self, source: CustomCache, version: CustomResource, rules: Rules, webhook: Webhook
    ) -> None:
        super().__init__(version, rules, (version,))
        self._source, self._webhook = source, webhook
        self._version = version
        # Whether everything of the source up to `_waiting` is here.
        self._is_filled = False
        self._waiting: list[Event] = []
        self._catching_up: asyncio.Task[None] | None = None

    async def prepare(self) -> None:
        """Return when everything written so far is here. Raises InternalError."""
        while not self._is_filled or self._waiting or self._catching_up is not None:
            if self._catching_up is None:
                self._start()
            task = self._catching_up
            assert task is not None
            try:
                # Whoever gives up waiting must not take the work from the others.
                await asyncio.shield(task)
            except asyncio.CancelledError:
                waiter = asyncio.current_task()
                if task.cancelled() and not (waiter and waiter.cancelling()):
                    raise ServiceUnavailable("the definition has changed; try again") from None
                raise

    def close(self) -> None:
        if self._on_change in self._source.listeners:
            self._source.listeners.remove(self._on_change)
        if self._catching_up is not None:
            self._catching_up.cancel()
        self.dispatcher.end_all()

    async def to_stored(self, value: bytes, stored_version: str) -> bytes:
        """What is stored of an object of this version."""
        (converted,) = await self._webhook.convert([msgspec.json.decode(value)], stored_version)
        return self._source.whole(converted)

    async def from_stored(self, value: bytes) -> bytes:
        """An object of this version, of what is stored."""
        stored = [msgspec.json.decode(value)]
        (converted,) = await self._webhook.convert(stored, self._version.api_version)
        return self.whole(converted)

    def entry_of(self, item: KeyValue) -> Entry | None:
        # The store's past is of another version, and there is nobody to convert it now.
        raise Compacted(item.revision, self.window_start + 1)

    def load(self, items: Any, revision: int) -> None:
        # Converted and made whole already.
        super(CustomCache, self).load(items, revision)

    # -- following the source

    def _on_change(self, event: Event) -> None:
        self._waiting.append(event)
        if self._catching_up is None:
            self._start()

    def _start(self) -> None:
        task = asyncio.get_running_loop().create_task(
            self._catch_up(), name=f"conversion to {self._version.api_version}"
        )
        self._catching_up = task
        task.add_done_callback(_look_at)

    async def _catch_up(self) -> None:
        try:
            if not self._is_filled:
                await self._fill()
            while self._waiting:
                await self._take()
        except BaseException:
            self._forget()
            raise
        finally:
            # Nothing waits between the last look at what is waiting and this.
            self._catching_up = None

    async def _take(self) -> None:
        events, self._waiting = self._waiting, []
        present = [event.entry for event in events if not event.deleted]
        converted = dict(zip(map(id, present), await self._converted(present), strict=True))
        for event in events:
            value = None if event.deleted else converted[id(event.entry)]
            path = self.prefix + event.entry.key
            self.apply(Change(path, value, None, event.revision, False))

    async def _fill(self) -> None:
        if self._on_change not in self._source.listeners:
            self._source.listeners.append(self._on_change)
        self._waiting.clear()
        entries = list(self._source.entries.values())
        revision = max(self._source.newest, self._source.window_start)
        values = await self._converted(entries)
        self.load(
            [
                KeyValue(self.prefix + entry.key, value, entry.revision, 0)
                for entry, value in zip(entries, values, strict=True)
            ],
            revision,
        )
        self._is_filled = True

    def _forget(self) -> None:
        """Begin anew: what was not converted cannot be left out."""
        if self._on_change in self._source.listeners:
            self._source.listeners.remove(self._on_change)
        self._is_filled = False
        self._waiting.clear()
        self.entries.clear()
        self._keys.clear()
        self.window.clear()
        self._window_bytes = 0
        self.window_start = max(self.window_start, self.newest)
        self.dispatcher.end_all()

    async def _converted(self, entries: Sequence[Entry]) -> list[bytes]:
        if not entries:
            return []
        values = [msgspec.json.decode(entry.value) for entry in entries]
        converted = await self._webhook.convert(values, self._version.api_version)
        return [self.whole(value) for value in converted]


def _look_at(task: asyncio.Task[None]) -> None:
    """Who waits for it is told; if nobody does, the next reader begins anew."""
    if not task.cancelled():
        task.exception()
