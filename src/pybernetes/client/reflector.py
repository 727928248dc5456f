"""Reflector: keeps one cache equal to what the server has.

Life of one: fill (a watch that begins with the whole state, or a list where the
server cannot do that), then follow the watch; when the stream ends, go on from the
last revision seen; when that revision is no longer kept (410), fill again. The cache
is replaced as a whole, only when the new state is complete.

Rule: `_revision` is empty, or the cache shows exactly the state at that revision.
Nothing waits between taking a line and applying it, so cancellation cannot break this.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Generic, TypeVar

from pybernetes.aio.backoff import Backoff
from pybernetes.api import codec
from pybernetes.apimachinery.errors import BadRequest, Expired, Gone, Invalid, StatusError
from pybernetes.apimachinery.meta import Key
from pybernetes.client.client import INITIAL_EVENTS_END, read_event
from pybernetes.client.kind import PartialObject
from pybernetes.wire.http import WireError

if TYPE_CHECKING:
    from random import Random

    from pybernetes.client.cache import Cache
    from pybernetes.client.client import Client
    from pybernetes.client.kind import RawEvent
    from pybernetes.client.transport import Lines

log = logging.getLogger(__name__)

T = TypeVar("T")

# Upstream's figures: many clients must not come back to a restarted server together.
BACKOFF = Backoff(timedelta(milliseconds=800), timedelta(seconds=30), jitter=1.0)

# An attempt that lasted this long was a good one: its end is not held against the next.
HEALTHY_SECONDS = 10.0

# The server has promised to end a watch at its time limit; this much later it is dead.
DEAD_AFTER_SECONDS = 30.0

# A server that sends nothing for so long, and no end of the initial events either,
# did not understand that it was asked for them.
INITIAL_SILENCE_SECONDS = 60.0

# Objects per page of a list: one page's decoding is a pause nobody notices.
PAGE_SIZE = 500

# How many events are applied before other tasks get their turn.
EVENTS_PER_TURN = 128


class Reflector(Generic[T]):
    """Fills and follows one cache. `lifetime` is how long a watch may last, at least."""

    def __init__(
        self,
        client: Client,
        cache: Cache[T],
        *,
        random: Random,
        lifetime: timedelta | None,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
    ) -> None:
        self._client = client
        self._cache = cache
        self._kind = cache.kind
        self._random = random
        self._lifetime = lifetime
        self._namespace = namespace
        self._label_selector = label_selector
        self._field_selector = field_selector
        # Where to go on; empty: start over.
        self._revision = ""
        # What an unfinished filling watch has shown so far; None while following.
        self._filling: dict[Key, T] | None = None
        # Cleared for good by a server that cannot begin a watch with the whole state.
        self._can_fill_by_watch = True

    async def run(self) -> None:
        """Keep the cache up to date, until cancelled."""
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            started_at = loop.time()
            try:
                await self._attempt()
                error: Exception | None = None
            except (Expired, Gone):
                log.info("%s: revision %s is no longer kept", self._kind, self._revision)
                self._revision, error = "", None
            except Exception as failure:  # whatever it was, it must not end the cache
                error = failure
            if loop.time() - started_at >= HEALTHY_SECONDS:
                failures = 0
            if error is not None:
                _log_failure(f"{self._kind}: watch failed", error)
            if error is not None or failures:
                await asyncio.sleep(BACKOFF.delay(failures, self._random).total_seconds())
            failures += 1

    async def _attempt(self) -> None:
        """From where we are to the end of one stream."""
        if not self._revision and self._can_fill_by_watch and await self._fill_by_watch():
            return
        if not self._revision:
            await self._fill_by_list()
        await self._watch()

    async def _fill_by_watch(self) -> bool:
        """Fill, and follow to the end of the stream; False if the server cannot do that."""
        self._filling = {}
        try:
            await self._watch()
        except (BadRequest, Invalid) as refusal:
            if self._filling is None or self._filling:
                raise  # it had begun to answer: this is about something else
            self._can_fill_by_watch = False
            log.info("%s: the server cannot begin a watch with the state: %s", self._kind, refusal)
        finally:
            self._filling = None
        return self._can_fill_by_watch

    async def _fill_by_list(self) -> None:
        try:
            objects, revision = await self._list(PAGE_SIZE)
        except (Expired, Gone):
            # The pages took longer than history is kept: everything in one go, then.
            objects, revision = await self._list(0)
        self._cache.replace(objects)
        self._revision = revision

    async def _list(self, limit: int) -> tuple[list[T], str]:
        objects: list[T] = []
        continue_ = ""
        while True:
            page = await self._client.list(
                self._kind,
                self._namespace,
                label_selector=self._label_selector,
                field_selector=self._field_selector,
                limit=limit,
                continue_=continue_,
            )
            objects += page.items
            continue_ = page.continue_
            if not continue_:
                return objects, page.resource_version

    async def _watch(self) -> None:
        """One stream, from its opening to its end."""
        seconds = 0
        if self._lifetime is not None:
            # Spread out, so that many watches begun together do not end together.
            seconds = int(self._lifetime.total_seconds() * (1 + self._random.random()))
        loop = asyncio.get_running_loop()
        try:
            async with (
                asyncio.timeout(seconds + DEAD_AFTER_SECONDS if seconds else None) as limit,
                self._client.watch_lines(
                    self._kind,
                    self._namespace,
                    resource_version=self._revision,
                    label_selector=self._label_selector,
                    field_selector=self._field_selector,
                    initial_events=self._filling is not None,
                    timeout_seconds=seconds,
                ) as batches,
            ):
                full_time = limit.when()
                if self._filling is not None:
                    limit.reschedule(loop.time() + INITIAL_SILENCE_SECONDS)
                async for lines in batches:
                    await self._take_all(lines)
                    if self._filling is not None:
                        limit.reschedule(loop.time() + INITIAL_SILENCE_SECONDS)
                    elif limit.when() != full_time:
                        limit.reschedule(full_time)
        except TimeoutError:
            if self._filling is None:
                raise
            self._can_fill_by_watch = False
            log.warning("%s: the server never ended its initial events", self._kind)

    async def _take_all(self, lines: Lines) -> None:
        taken = 0
        for line in lines:
            if line:
                self._take(read_event(line))
                taken += 1
                if taken % EVENTS_PER_TURN == 0:
                    await asyncio.sleep(0)

    def _take(self, event: RawEvent) -> None:
        data = memoryview(event.object)
        if event.type == "BOOKMARK":
            metadata = codec.decode(PartialObject, data).metadata
            if self._filling is None:
                self._revision = metadata.resource_version
            elif metadata.annotations.get(INITIAL_EVENTS_END) == "true":
                filled, self._filling = self._filling, None
                self._cache.replace(filled.values())
                self._revision = metadata.resource_version
            return
        try:
            obj = self._kind.decode(data)
        except ValueError as error:
            self._take_unreadable(data, error)
            return
        metadata = self._kind.metadata_of(obj)
        if self._filling is not None:
            key = Key(metadata.namespace, metadata.name)
            if event.type == "DELETED":
                self._filling.pop(key, None)
            else:
                self._filling[key] = obj
            return
        if event.type == "DELETED":
            self._cache.remove(Key(metadata.namespace, metadata.name))
        else:
            self._cache.put(obj)
        self._revision = metadata.resource_version

    def _take_unreadable(self, data: memoryview, error: ValueError) -> None:
        """An object that cannot be read is as if it were not there; the others go on."""
        metadata = codec.decode(PartialObject, data).metadata
        key = Key(metadata.namespace, metadata.name)
        log.warning("leaving out %s %s, which cannot be read: %s", self._kind, key, error)
        if self._filling is not None:
            self._filling.pop(key, None)
        else:
            self._cache.remove(key)
            self._revision = metadata.resource_version


def _log_failure(what: str, error: Exception) -> None:
    # A server that is away or says no needs no stack trace.
    if isinstance(error, (StatusError, WireError, OSError)):
        log.warning("%s: %s", what, error or type(error).__name__)
    else:
        log.error("%s", what, exc_info=error)
