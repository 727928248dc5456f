"""An object as the server holds it: the bytes of the store, and what is known about them.

Bytes stay bytes: `value` is the very bytes object the store keeps, so an object lives
in memory once. Its JSON begins with `{"kind":…,"apiVersion":…,"metadata":{`, the same
for all objects of a resource; everything the API sends is cut and joined at that known
place. Labels and selectable fields are read out once, when somebody first selects by
them.

Rule: an Entry never changes, except that what it has computed is remembered.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from sys import intern
from typing import Any

import msgspec

log = logging.getLogger(__name__)

FieldsOf = Callable[[bytes], Mapping[str, str]]


class _Metadata(msgspec.Struct):
    labels: dict[str, str] = {}


class _Labelled(msgspec.Struct):
    metadata: _Metadata = msgspec.field(default_factory=_Metadata)


_LABELS = msgspec.json.Decoder(_Labelled)

# The memory behind an empty result is shared.
_NO_LABELS: Mapping[str, str] = {}


class Shape:
    """How the stored JSON of a resource begins, and where resourceVersion goes in."""

    __slots__ = ("head", "list_item", "prefix", "tail_at")

    def __init__(self, kind: str, api_version: str) -> None:
        # Everything before the content of metadata.
        self.prefix = b'{"kind":"%b","apiVersion":"%b","metadata":{' % (
            kind.encode(),
            api_version.encode(),
        )
        self.tail_at = len(self.prefix)
        self.head = self.prefix + b'"resourceVersion":"'
        # Items of a typed list carry neither kind nor apiVersion.
        self.list_item = b'{"metadata":{"resourceVersion":"'

    def fits(self, value: bytes) -> bool:
        # An object without any metadata has no name and cannot have been stored by us.
        return value.startswith(self.prefix) and value[self.tail_at : self.tail_at + 1] == b'"'

    def is_sound(self, value: bytes) -> bool:
        """Whether it is one whole object of ours, so that it can stand in a list.

        Costs 2 µs: what is torn, or has labels that are none, must not spoil its neighbours.
        """
        if not self.fits(value):
            return False
        try:
            _LABELS.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        return True

    def with_revision(self, value: bytes, revision: int) -> bytes:
        """The whole JSON of an object, with its resourceVersion."""
        return b'%b%d",%b' % (self.head, revision, value[self.tail_at :])


class Entry:
    """One object at one revision. `key` is `namespace/name`, or `name` if cluster-scoped."""

    __slots__ = ("_fields", "_labels", "key", "revision", "value")

    def __init__(self, key: str, revision: int, value: bytes) -> None:
        self.key = key
        self.revision = revision
        self.value = value
        self._labels: Mapping[str, str] | None = None
        self._fields: Mapping[str, str] | None = None

    @property
    def namespace(self) -> str:
        return self.key.partition("/")[0] if "/" in self.key else ""

    @property
    def name(self) -> str:
        return self.key.rpartition("/")[2]

    @property
    def labels(self) -> Mapping[str, str]:
        labels = self._labels
        if labels is None:
            decoded = _LABELS.decode(self.value).metadata.labels
            # Keys and values repeat over thousands of objects.
            labels = {intern(key): intern(value) for key, value in decoded.items()} or _NO_LABELS
            self._labels = labels
        return labels

    def fields(self, fields_of: FieldsOf) -> Mapping[str, str]:
        """The selectable fields; `fields_of` knows those of the kind beyond name and namespace."""
        fields = self._fields
        if fields is None:
            namespace, _, name = self.key.rpartition("/")
            found = {"metadata.name": name, "metadata.namespace": namespace}
            try:
                for field, value in fields_of(self.value).items():
                    found[field] = intern(value)
            except ValueError:
                # Stored by other rules than ours: it can be found by its name.
                log.warning("cannot read the fields of an object", extra={"key": self.key})
            self._fields = fields = found
        return fields

    def at_revision(self, revision: int) -> Entry:
        """The same content under another revision: the last state of something deleted."""
        entry = Entry(self.key, revision, self.value)
        entry._labels, entry._fields = self._labels, self._fields
        return entry


def canonical(value: bytes, kind: str, api_version: str) -> bytes | None:
    """Foreign JSON of an object in the field order of ours; None if it is not an object."""
    try:
        content: Any = msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not isinstance(content, dict) or not isinstance(content.get("metadata"), dict):
        return None
    metadata = dict(content["metadata"])
    metadata.pop("resourceVersion", None)
    if not metadata:
        return None
    rest = {key: item for key, item in content.items() if key not in _HEAD_FIELDS}
    return msgspec.json.encode(
        {"kind": kind, "apiVersion": api_version, "metadata": metadata, **rest}
    )


_HEAD_FIELDS = frozenset({"kind", "apiVersion", "metadata"})
