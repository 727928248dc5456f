"""The forms objects are sent in: whole, converted to another version, or metadata only.

A form turns an entry into JSON, alone or as an item of a list. The whole form of the
stored version only cuts and joins bytes; the others decode. Tables stand in a module of
their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from pybernetes.api import codec
from pybernetes.apiserver.negotiation import META_GROUP

if TYPE_CHECKING:
    from collections.abc import Callable

    from pybernetes.apiserver.entry import Entry, Shape

INITIAL_EVENTS_END = "k8s.io/initial-events-end"


class ListForm(Protocol):
    """Also a `watch.Form`: one object of a stream is one object."""

    has_header: bool

    def object(self, entry: Entry, *, header: bool) -> bytes: ...

    def bookmark(self, revision: int, *, initial_events_end: bool) -> bytes: ...

    def list_opening(self, metadata: bytes) -> bytes:
        """Everything before the first item; `metadata` is the encoded ListMeta."""

    def item(self, entry: Entry) -> bytes: ...

    list_closing: bytes


def list_metadata(revision: int, continue_: str = "", remaining: int | None = None) -> bytes:
    metadata: dict[str, Any] = {"resourceVersion": str(revision)}
    if continue_:
        metadata["continue"] = continue_
        if remaining:
            metadata["remainingItemCount"] = remaining
    return msgspec.json.encode(metadata)


def bookmark_metadata(revision: int, *, initial_events_end: bool) -> dict[str, Any]:
    metadata: dict[str, Any] = {"resourceVersion": str(revision)}
    if initial_events_end:
        metadata["annotations"] = {INITIAL_EVENTS_END: "true"}
    return metadata


class _Listing:
    """What the forms of objects share: how their lists and bookmarks begin."""

    has_header = False
    list_closing = b"]}"

    def __init__(self, kind: str, api_version: str) -> None:
        self._kind, self._api_version = kind, api_version
        self._opening = b'{"kind":"%bList","apiVersion":"%b","metadata":' % (
            kind.encode(),
            api_version.encode(),
        )

    def list_opening(self, metadata: bytes) -> bytes:
        return b'%b%b,"items":[' % (self._opening, metadata)

    def bookmark(self, revision: int, *, initial_events_end: bool) -> bytes:
        metadata = bookmark_metadata(revision, initial_events_end=initial_events_end)
        return msgspec.json.encode(
            {"kind": self._kind, "apiVersion": self._api_version, "metadata": metadata}
        )


class Plain(_Listing):
    """Objects as they are stored: bytes in, bytes out."""

    def __init__(self, shape: Shape, kind: str, api_version: str) -> None:
        super().__init__(kind, api_version)
        self._shape = shape
        self._head = shape.head
        self._item_head = shape.list_item
        self._tail_at = shape.tail_at

    def object(self, entry: Entry, *, header: bool) -> bytes:
        return b'%b%d",%b' % (self._head, entry.revision, entry.value[self._tail_at :])

    def item(self, entry: Entry) -> bytes:
        return b'%b%d",%b' % (self._item_head, entry.revision, entry.value[self._tail_at :])


class Converted(_Listing):
    """Objects of a version that is not the stored one."""

    def __init__(self, decode: Callable[[Entry], Any], kind: str, api_version: str) -> None:
        super().__init__(kind, api_version)
        self._decode = decode
        self._item_at = len(
            b'{"kind":"%b","apiVersion":"%b",' % (kind.encode(), api_version.encode())
        )

    def object(self, entry: Entry, *, header: bool) -> bytes:
        return codec.encode(self._decode(entry))

    def item(self, entry: Entry) -> bytes:
        return b"{" + self.object(entry, header=False)[self._item_at :]


class _RawMetadata(msgspec.Struct):
    metadata: msgspec.Raw


_RAW_METADATA = msgspec.json.Decoder(_RawMetadata)


class Metadata(_Listing):
    """PartialObjectMetadata: what garbage collectors and caches of names need."""

    def __init__(self, shape: Shape, version: str) -> None:
        super().__init__("PartialObjectMetadata", f"{META_GROUP}/{version}")
        self._shape = shape
        self._head = b'{"kind":"PartialObjectMetadata","apiVersion":"%b","metadata":' % (
            self._api_version.encode()
        )

    def object(self, entry: Entry, *, header: bool) -> bytes:
        return self._head + self.metadata(entry) + b"}"

    def item(self, entry: Entry) -> bytes:
        return self.object(entry, header=False)

    def metadata(self, entry: Entry) -> bytes:
        # The version of an object does not show in its metadata, so no conversion is needed.
        raw = bytes(_RAW_METADATA.decode(entry.value).metadata)
        return b'{"resourceVersion":"%d",%b' % (entry.revision, raw[1:])
