"""Tables: what `kubectl get` shows, computed here so that every client shows the same.

A `Table` is a form like any other: an object becomes a row. Cells follow from the columns
of the registry; a kind without columns has Name and Created At. Cells for `-o wide` are
always computed; the client hides them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from pybernetes.api.resource import Column
from pybernetes.api.types.meta_v1 import LabelSelector
from pybernetes.apimachinery.selector import selector_of
from pybernetes.apimachinery.timestamp import duration_text, format_time
from pybernetes.apiserver.forms import Metadata, bookmark_metadata
from pybernetes.apiserver.negotiation import META_GROUP

if TYPE_CHECKING:
    from pybernetes.aio.clock import Clock
    from pybernetes.apiserver.catalog import Served
    from pybernetes.apiserver.entry import Entry
    from pybernetes.apiserver.forms import ListForm


def _created(obj: Any) -> object:
    created = obj.metadata.creation_timestamp
    return None if created is None else format_time(created)


NAME: Column[Any] = Column("Name", lambda obj: obj.metadata.name, format="name")
DEFAULT_COLUMNS: tuple[Column[Any], ...] = (Column("Created At", _created, type="date"),)


def render_cell(value: object, now: datetime) -> object:
    """What a column computed, as it is sent."""
    if value is None:
        return "<none>"
    if isinstance(value, str | int | float):
        return value
    if isinstance(value, datetime):
        return duration_text(now - value)
    if isinstance(value, timedelta):
        return duration_text(value)
    if isinstance(value, LabelSelector):
        return str(selector_of(value)) or "<none>"
    if isinstance(value, Mapping):
        return ",".join(f"{key}={value[key]}" for key in sorted(value)) or "<none>"
    if isinstance(value, list | tuple):
        return ",".join(map(str, value)) or "<none>"
    return str(value)


def column_definition(column: Column[Any]) -> dict[str, Any]:
    return {
        "name": column.name,
        "type": column.type,
        "format": column.format,
        "description": "",
        "priority": 1 if column.wide else 0,
    }


class Table:
    """Objects as rows. The first table of a stream carries the column definitions."""

    has_header = True
    list_closing = b"]}"

    def __init__(
        self, served: Served, plain: ListForm, version: str, include_object: str, clock: Clock
    ) -> None:
        columns = served.resource.columns or DEFAULT_COLUMNS
        self._columns = (NAME, *columns) if served.resource.name_column else tuple(columns)
        self._decode = served.decode
        self._plain = plain
        self._metadata = Metadata(served.cache.shape, version)
        self._include = include_object
        self._clock = clock
        self._opening = b'{"kind":"Table","apiVersion":"%b","metadata":' % (
            f"{META_GROUP}/{version}".encode()
        )
        definitions = [column_definition(column) for column in self._columns]
        self._definitions = msgspec.json.encode(definitions)

    def list_opening(self, metadata: bytes, *, header: bool = True) -> bytes:
        definitions = self._definitions if header else b"null"
        return b'%b%b,"columnDefinitions":%b,"rows":[' % (self._opening, metadata, definitions)

    def object(self, entry: Entry, *, header: bool) -> bytes:
        metadata = b'{"resourceVersion":"%d"}' % entry.revision
        return self.list_opening(metadata, header=header) + self.item(entry) + b"]}"

    def item(self, entry: Entry) -> bytes:
        return b'{"cells":%b,"object":%b}' % (self.cells(entry), self._object(entry))

    def cells(self, entry: Entry) -> bytes:
        now = self._clock.now()
        try:
            obj = self._decode(entry)
        except ValueError:
            # One object stored by other rules must not hide the others.
            unknown = ["<unreadable>"] * (len(self._columns) - 1)
            return msgspec.json.encode([entry.name, *unknown])
        return msgspec.json.encode(
            [render_cell(column.value(obj, now), now) for column in self._columns]
        )

    def bookmark(self, revision: int, *, initial_events_end: bool) -> bytes:
        metadata = bookmark_metadata(revision, initial_events_end=initial_events_end)
        return self.list_opening(msgspec.json.encode(metadata), header=False) + b"]}"

    def _object(self, entry: Entry) -> bytes:
        if self._include == "None":
            return b"null"
        if self._include == "Object":
            return self._plain.object(entry, header=False)
        return self._metadata.object(entry, header=False)
