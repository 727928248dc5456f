"""An object of a custom resource: typed metadata, and plain values whose meaning its schema knows.

It has the attributes that the rest of the server asks every object for (`metadata`, `status`), so
that the verbs treat it like any other kind.

Rule: `content` and `status` are shared and never changed in place; make new ones.
"""

from __future__ import annotations

from typing import Any

import msgspec

from pybernetes.api.types._struct import wire_name
from pybernetes.api.types.meta_v1 import ObjectMeta

Json = Any

_ENCODER = msgspec.json.Encoder()


class CustomObject(msgspec.Struct, frozen=True, kw_only=True, rename=wire_name):
    kind: str = ""
    api_version: str = ""
    metadata: ObjectMeta = msgspec.field(default_factory=ObjectMeta)
    # Everything but kind, apiVersion, metadata and status.
    content: dict[str, Json] = msgspec.field(default_factory=dict)
    # None if there is none.
    status: Json = None

    def get(self, name: str) -> Json:
        """A top-level field by its wire name; None if it is not there."""
        return self.status if name == "status" else self.content.get(name)

    def read(self, path: tuple[str, ...]) -> Json:
        """The value at a path of wire names; None if it is not there."""
        value: Json = self.metadata_value() if path[0] == "metadata" else self.get(path[0])
        for name in path[1:]:
            if not isinstance(value, dict):
                return None
            value = value.get(name)
        return value

    def metadata_value(self) -> dict[str, Json]:
        value: dict[str, Json] = msgspec.json.decode(_ENCODER.encode(self.metadata))
        return value

    def whole(self) -> dict[str, Json]:
        """All of it; the metadata is typed, the rest is shared with this object."""
        value: dict[str, Json] = {
            "kind": self.kind,
            "apiVersion": self.api_version,
            "metadata": self.metadata,
            **self.content,
        }
        if self.status is not None:
            value["status"] = self.status
        return value

    def with_at(self, path: tuple[str, ...], value: Json) -> CustomObject:
        """A copy with another value at a path below `spec` or `status`."""
        name, *rest = path
        changed = _changed(self.get(name), tuple(rest), value)
        if name == "status":
            return msgspec.structs.replace(self, status=changed)
        return msgspec.structs.replace(self, content={**self.content, name: changed})


def _changed(present: Json, path: tuple[str, ...], value: Json) -> Json:
    if not path:
        return value
    fields = present if isinstance(present, dict) else {}
    return {**fields, path[0]: _changed(fields.get(path[0]), path[1:], value)}


def object_of(value: dict[str, Json]) -> CustomObject:
    """From plain values. Raises ValueError for metadata that is none."""
    content = dict(value)
    metadata = content.pop("metadata", None)
    return CustomObject(
        kind=content.pop("kind", ""),
        api_version=content.pop("apiVersion", ""),
        metadata=ObjectMeta() if metadata is None else msgspec.convert(metadata, ObjectMeta),
        status=content.pop("status", None),
        content=content,
    )


def encode(obj: CustomObject) -> bytes:
    return _ENCODER.encode(obj.whole())
