"""Events: the sentences `kubectl describe` shows, written without ever being waited for.

`EventRecorder.record` puts a note on a bounded queue and returns; one task per
process (`EventWriter.run`) writes. On the way the same three things happen as
upstream, in this order:

1. *Aggregation*: from the tenth different message on, events about one object with
   one reason within ten minutes become one, "(combined from similar events): …".
2. *Counting*: what was said before is not said again, its count goes up.
3. *Spam filter*: a source may say 25 things about one object, then one per five
   minutes; the rest is dropped.

Events are best effort: a full queue, a refusal of the server or two minutes without
one lose them, and the loss is counted.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from msgspec.structs import replace

from pybernetes.api.types.core_v1 import Event, EventSource, ObjectReference
from pybernetes.api.types.meta_v1 import ObjectMeta
from pybernetes.apimachinery.errors import NotFound, StatusError
from pybernetes.apimachinery.timestamp import format_time
from pybernetes.wire.http import WireError

if TYPE_CHECKING:
    from collections.abc import Hashable
    from random import Random

    from pybernetes.aio.clock import Clock
    from pybernetes.client.client import Client

log = logging.getLogger(__name__)

V = TypeVar("V")

NORMAL = "Normal"
WARNING = "Warning"

# Notes waiting to be written; more than that, and the newest are lost.
QUEUE_LIMIT = 1000

# Upstream's figures, all of them.
MOST_SIMILAR = 10
SIMILAR_WITHIN = timedelta(minutes=10)
SPAM_BURST = 25
SPAM_REFILL = timedelta(minutes=5)
REMEMBERED = 4096
MOST_TRIES = 12
RETRY_SECONDS = 10.0
COMBINED_PREFIX = "(combined from similar events): "


class ApiObject(Protocol):
    @property
    def kind(self) -> str: ...
    @property
    def api_version(self) -> str: ...
    @property
    def metadata(self) -> ObjectMeta: ...


def reference_to(
    obj: ApiObject | ObjectReference | dict[str, Any], field_path: str = ""
) -> ObjectReference:
    """A reference to an object, or to a part of it: `spec.containers{web}`."""
    if isinstance(obj, ObjectReference):
        return replace(obj, field_path=field_path) if field_path else obj
    if isinstance(obj, dict):
        metadata = obj.get("metadata", {})
        return ObjectReference(
            kind=obj.get("kind", ""),
            api_version=obj.get("apiVersion", ""),
            namespace=metadata.get("namespace", ""),
            name=metadata.get("name", ""),
            uid=metadata.get("uid", ""),
            resource_version=metadata.get("resourceVersion", ""),
            field_path=field_path,
        )
    return ObjectReference(
        kind=obj.kind,
        api_version=obj.api_version,
        namespace=obj.metadata.namespace,
        name=obj.metadata.name,
        uid=obj.metadata.uid,
        resource_version=obj.metadata.resource_version,
        field_path=field_path,
    )


@dataclass(frozen=True, slots=True)
class Correlated:
    """What is to be written: a new event, or one that is known and whose count went up."""

    event: Event
    # What the counting remembers it by.
    key: Hashable
    known: bool


class EventCorrelator:
    """Aggregation, counting and spam filter. Pure: it is told the time."""

    def __init__(self) -> None:
        # What was said of one object for one reason lately.
        self._similar: _Remembered[_Similar] = _Remembered()
        # What was written under each key: name, first time, count.
        self._written: _Remembered[_Written] = _Remembered()
        # How much each source may still say about each object.
        self._allowances: _Remembered[_Allowance] = _Remembered()

    def correlate(self, event: Event, now: datetime) -> Correlated | None:
        """What to write for that event; None if it is spam."""
        event, key = self._aggregate(event, now)
        written = self._written.get(key)
        if written is not None:
            event = replace(
                event,
                metadata=replace(event.metadata, name=written.name),
                first_timestamp=written.first_timestamp,
                count=written.count + 1,
            )
        self.remember(key, event)
        if not self._may_say_more(event, now):
            return None
        return Correlated(event, key, known=written is not None)

    def remember(self, key: Hashable, event: Event) -> None:
        """That is how the event stands on the server now."""
        first = event.first_timestamp
        self._written.put(key, _Written(event.metadata.name, first, event.count or 1))

    def _aggregate(self, event: Event, now: datetime) -> tuple[Event, Hashable]:
        about = (
            event.source,
            # The same object in another version is the same object.
            replace(event.involved_object, resource_version="", field_path=""),
            event.type,
            event.reason,
        )
        similar = self._similar.get(about)
        if similar is None or now - similar.at > SIMILAR_WITHIN:
            similar = _Similar(now)
            self._similar.put(about, similar)
        similar.at = now
        similar.messages[event.message] = None
        if len(similar.messages) < MOST_SIMILAR:
            return event, (about, event.involved_object.field_path, event.message)
        # One place stays free, so that the set never grows beyond the limit.
        similar.messages.popitem(last=False)
        return replace(event, message=COMBINED_PREFIX + event.message), about

    def _may_say_more(self, event: Event, now: datetime) -> bool:
        about = (event.source, replace(event.involved_object, resource_version="", field_path=""))
        allowance = self._allowances.get(about)
        if allowance is None:
            allowance = _Allowance(float(SPAM_BURST), now)
            self._allowances.put(about, allowance)
        earned = (now - allowance.at) / SPAM_REFILL
        allowance.left = min(allowance.left + max(earned, 0.0), float(SPAM_BURST))
        allowance.at = now
        if allowance.left < 1.0:
            return False
        allowance.left -= 1.0
        return True


@dataclass(slots=True)
class _Similar:
    at: datetime
    # The different messages, oldest first; fewer than MOST_SIMILAR.
    messages: OrderedDict[str, None] = field(default_factory=OrderedDict)


@dataclass(frozen=True, slots=True)
class _Written:
    name: str
    first_timestamp: datetime | None
    count: int


@dataclass(slots=True)
class _Allowance:
    left: float
    at: datetime


class _Remembered(Generic[V]):
    """The most recently used so many."""

    def __init__(self, limit: int = REMEMBERED) -> None:
        self._limit = limit
        # Least recently used first.
        self._values: OrderedDict[Hashable, V] = OrderedDict()

    def get(self, key: Hashable) -> V | None:
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
        return value

    def put(self, key: Hashable, value: V) -> None:
        self._values[key] = value
        self._values.move_to_end(key)
        if len(self._values) > self._limit:
            self._values.popitem(last=False)


@dataclass(frozen=True, slots=True)
class EventStatistics:
    waiting: int
    written: int
    # Dropped by the spam filter, by the full queue, and by the server or its absence.
    filtered: int
    overflowed: int
    failed: int


class EventWriter:
    """Writes the events of one process. Events recorded while it does not run wait."""

    def __init__(self, client: Client, *, clock: Clock, random: Random) -> None:
        self._client = client
        self._clock = clock
        self._random = random
        self._correlator = EventCorrelator()
        # Events as they were recorded, oldest first; bounded, see `put_nowait`.
        self._queue: asyncio.Queue[Event] = asyncio.Queue(QUEUE_LIMIT)
        # The last name given out, in nanoseconds: two events never share a name.
        self._last_nanoseconds = 0
        self._written = self._filtered = self._overflowed = self._failed = 0

    def recorder(self, component: str, *, host: str = "") -> EventRecorder:
        """What a component says things with."""
        return EventRecorder(self, component, host=host)

    def put_nowait(self, event: Event) -> None:
        """Take an event, name it and date it. Drops it if too many wait."""
        now = self._clock.now()
        moment = now.replace(microsecond=0)
        nanoseconds = int(now.timestamp() * 1_000_000) * 1000
        self._last_nanoseconds = max(nanoseconds, self._last_nanoseconds + 1)
        about = event.involved_object
        event = replace(
            event,
            metadata=ObjectMeta(
                name=f"{about.name}.{self._last_nanoseconds:x}",
                namespace=about.namespace or "default",
            ),
            first_timestamp=moment,
            last_timestamp=moment,
            count=1,
        )
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            if not self._overflowed:
                log.warning("too many events are waiting to be written, the newest are lost")
            self._overflowed += 1

    async def run(self) -> None:
        """Write events, until cancelled."""
        while True:
            event = await self._queue.get()
            correlated = self._correlator.correlate(event, self._clock.now())
            if correlated is None:
                self._filtered += 1
            else:
                await self._write_patiently(correlated)

    def statistics(self) -> EventStatistics:
        return EventStatistics(
            waiting=self._queue.qsize(),
            written=self._written,
            filtered=self._filtered,
            overflowed=self._overflowed,
            failed=self._failed,
        )

    async def _write_patiently(self, correlated: Correlated) -> None:
        event = correlated.event
        for attempt in range(MOST_TRIES):
            if attempt:
                # The first wait is random, or all clients of a server would come back at once.
                share = self._random.random() if attempt == 1 else 1.0
                await asyncio.sleep(RETRY_SECONDS * share)
            try:
                written = await self._write(correlated)
            except StatusError as error:
                # It has its reasons and will not change its mind. That a namespace is going is one
                # of every day.
                is_news = not error.has_cause("NamespaceTerminating")
                level = logging.INFO if is_news else logging.DEBUG
                log.log(level, "event refused: %s %r: %s", event.reason, event.message, error)
                break
            except (WireError, OSError) as error:
                log.debug("event not written, will retry: %s", error)
            except Exception:  # the next event may fare better
                log.exception("event not written: %s %r", event.reason, event.message)
                break
            else:
                self._correlator.remember(correlated.key, written)
                self._written += 1
                return
        self._failed += 1

    async def _write(self, correlated: Correlated) -> Event:
        event = correlated.event
        if correlated.known:
            assert event.last_timestamp is not None
            patch = {
                "count": event.count,
                "message": event.message,
                "lastTimestamp": format_time(event.last_timestamp),
            }
            try:
                return await self._client.patch(
                    Event, event.metadata.name, event.metadata.namespace, patch=patch
                )
            except NotFound:
                pass  # it has expired: say it anew, with the count it had
        return await self._client.create(event)


class EventRecorder:
    """One component's voice."""

    def __init__(self, writer: EventWriter, component: str, *, host: str = "") -> None:
        self._writer = writer
        self._source = EventSource(component=component, host=host)

    def record(
        self,
        obj: ApiObject | ObjectReference | dict[str, Any],
        type: str,
        reason: str,
        message: str,
        *,
        action: str = "",
        related: ApiObject | ObjectReference | dict[str, Any] | None = None,
    ) -> None:
        """Say something about an object. `type` is Normal or Warning. Never waits or fails."""
        self._writer.put_nowait(
            Event(
                involved_object=reference_to(obj),
                type=type,
                reason=reason,
                # Longer ones are refused by the server.
                message=message[:1024],
                source=self._source,
                reporting_component=self._source.component,
                reporting_instance=self._source.host,
                action=action,
                related=None if related is None else reference_to(related),
            )
        )
