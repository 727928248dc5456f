"""Typed objects to JSON and back.

``decode`` and ``encode`` work on bytes, ``from_dict`` and ``to_dict`` on plain JSON values.
Decoders are compiled by msgspec when a class is first decoded and kept for good.

Rule: nothing is checked here beyond the types. Unknown fields are dropped and a wrong type is a
``ValueError``; what a user sent has gone through ``apimachinery.schema.decode_strict`` before.
Object keys come out in the order of the class: kind, apiVersion, metadata first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec

if TYPE_CHECKING:
    from pybernetes.api.types.meta_v1 import ObjectMeta

T = TypeVar("T")

_ENCODER = msgspec.json.Encoder()

# One decoder per class that was ever decoded; classes are few and live for ever.
_DECODERS: dict[type[Any], msgspec.json.Decoder[Any]] = {}


class Object(Protocol):
    """What every top-level kind has, whatever its group: good as a bound for type variables."""

    @property
    def kind(self) -> str: ...
    @property
    def api_version(self) -> str: ...
    @property
    def metadata(self) -> ObjectMeta: ...


def decode(kind: type[T], data: bytes | bytearray | memoryview | str) -> T:
    """An object of ``kind`` from JSON. Raises ValueError (msgspec's) for what does not fit."""
    decoder = _DECODERS.get(kind)
    if decoder is None:
        decoder = _DECODERS[kind] = msgspec.json.Decoder(kind)
    value: T
    try:
        value = decoder.decode(data)
    except msgspec.ValidationError as error:
        if "got `null`" not in str(error):
            raise
        value = msgspec.convert(_without_nulls(msgspec.json.decode(data)), kind)
    return value


def _without_nulls(value: Any) -> Any:
    """Null means absent: Go writes it for lists and maps that were never made."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value if item is not None]
    return value


def encode(obj: object) -> bytes:
    """JSON of a typed object, or of plain values."""
    return _ENCODER.encode(obj)


def from_dict(kind: type[T], value: object) -> T:
    """An object of ``kind`` from plain JSON values. Raises ValueError for what does not fit."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        if "got `null`" not in str(error):
            raise
        return msgspec.convert(_without_nulls(value), kind)


def to_dict(obj: object) -> dict[str, Any]:
    """The plain JSON values of a typed object."""
    # Through text: to_builtins would leave nested dictionaries shared with the frozen object.
    value: dict[str, Any] = msgspec.json.decode(_ENCODER.encode(obj))
    return value
