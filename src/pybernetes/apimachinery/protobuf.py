"""Reads Kubernetes protobuf bodies into the values their JSON would give.

Go clients write protobuf since 1.32 and do not fall back, so a server has to read it; it need
not write it, since they all accept JSON. A body is four bytes of magic and a ``runtime.Unknown``
message: api version and kind, and the object itself. Field numbers are in a table that apigen
wrote (``tables/protobuf.json``), read when the first body arrives.

The result is what a JSON body would be before decoding by schema, with one difference: Go writes
plain values even when they are zero, so zeros stand here that JSON would leave out.
``schema.decode_strict`` knows which of them say nothing.

Rule: whatever the bytes are, the end is a value or a ProtobufError; every length is checked
against what is there, and nesting has a limit.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from pybernetes.apimachinery.quantity import canonical_quantity
from pybernetes.apimachinery.timestamp import format_micro_time, format_time

Json = Any

MAGIC = b"k8s\x00"

_TABLE = Path(__file__).parent / "tables" / "protobuf.json"
_MAX_DEPTH = 100
_MAX_VARINT_BYTES = 10
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

# Packages named otherwise than their group.
_PACKAGES = {"": "core", "internal.apiserver.k8s.io": "apiserverinternal"}


class ProtobufError(ValueError):
    """The bytes are not what they should be."""


class Span(NamedTuple):
    """Bytes of the body that are a message, a string, a packed list."""

    data: bytes
    start: int
    end: int

    @property
    def bytes(self) -> bytes:
        return self.data[self.start : self.end]

    @property
    def text(self) -> str:
        try:
            return str(self.bytes, "utf-8")
        except UnicodeDecodeError as error:
            raise ProtobufError(f"string is not UTF-8: {error.reason}") from None


def is_protobuf(data: bytes) -> bool:
    return data.startswith(MAGIC)


def decode_protobuf(data: bytes, *, api_version: str = "", kind: str = "") -> dict[str, Json]:
    """The object in a body, in the shape of its JSON.

    ``api_version`` and ``kind`` stand in for what the body does not say. Raises ProtobufError.
    """
    try:
        return _decode_envelope(data, api_version, kind, _MAX_DEPTH)
    except RecursionError:
        raise ProtobufError("values are nested too deeply") from None


def _decode_envelope(data: bytes, api_version: str, kind: str, depth: int) -> dict[str, Json]:
    if not is_protobuf(data):
        raise ProtobufError(
            "provided data does not appear to be a protobuf message, expected prefix"
        )
    raw = Span(data, len(data), len(data))
    for number, _, value in _fields(Span(data, len(MAGIC), len(data))):
        if number == 1:
            api_version, kind = _type_meta(_span(value), api_version, kind)
        elif number == 2:
            raw = _span(value)
        elif number == 3 and _span(value).bytes:
            raise ProtobufError(f"content encoding {_span(value).text!r} is not supported")
    result = {"kind": kind, "apiVersion": api_version}
    result.update(_message(raw, _message_of(api_version, kind), depth))
    return result


def _type_meta(span: Span, api_version: str, kind: str) -> tuple[str, str]:
    for number, _, value in _fields(span):
        text = _span(value).text
        if number == 1:
            api_version = text or api_version
        elif number == 2:
            kind = text or kind
    return api_version, kind


def _message_of(api_version: str, kind: str) -> Message:
    if not kind:
        raise ProtobufError("the body does not say what kind it is")
    group, _, version = api_version.rpartition("/")
    package = _PACKAGES.get(group) or group.partition(".")[0]
    table = _table()
    # Options and statuses are sent under any group.
    for name in (f"{package}.{version}.{kind}", f"meta.v1.{kind}"):
        if name in table:
            return _compiled(name)
    raise ProtobufError(f'no kind "{kind}" is registered for version "{api_version}"')


# --- the wire -----------------------------------------------------------------------------


def _varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    result = shift = 0
    for _ in range(_MAX_VARINT_BYTES):
        if position >= end:
            raise ProtobufError("unexpected end of data")
        byte = data[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result & 0xFFFFFFFFFFFFFFFF, position
        shift += 7
    raise ProtobufError("integer is too long")


def _fields(span: Span) -> Iterator[tuple[int, int, int | Span]]:
    """Number, wire type and value of every field of a message, as they come."""
    data, position, end = span
    while position < end:
        # One byte is all that nearly every tag and length needs.
        tag = data[position]
        if tag < 0x80:
            position += 1
        else:
            tag, position = _varint(data, position, end)
        number, wire = tag >> 3, tag & 7
        if number == 0:
            raise ProtobufError("field number is zero")
        if wire == _VARINT:
            value, position = _varint(data, position, end)
            yield number, wire, value
            continue
        if wire == _BYTES:
            length = data[position] if position < end else 0x80
            if length < 0x80:
                position += 1
            else:
                length, position = _varint(data, position, end)
        elif wire == _FIXED64:
            length = 8
        elif wire == _FIXED32:
            length = 4
        else:
            # Groups were never used by Kubernetes; 6 and 7 do not exist.
            raise ProtobufError(f"wire type {wire} is not supported")
        if length > end - position:
            raise ProtobufError("unexpected end of data")
        yield number, wire, Span(data, position, position + length)
        position += length


def _span(value: int | Span) -> Span:
    if isinstance(value, int):
        raise ProtobufError("a number stands where bytes should be")
    return value


def _number(value: int | Span) -> int:
    if isinstance(value, Span):
        raise ProtobufError("bytes stand where a number should be")
    return value


def _int64(value: int | Span) -> int:
    number = _number(value)
    return number - 2**64 if number >= 2**63 else number


def _int32(value: int | Span) -> int:
    number = _number(value) & 0xFFFFFFFF
    return number - 2**32 if number >= 2**31 else number


# --- values -------------------------------------------------------------------------------

# Reads one value; the depth left is only asked by what nests.
Reader = Callable[["int | Span", int], Json]


class Field(NamedTuple):
    name: str
    read: Reader
    # "", "*" (repeated), "map:" or "embedded".
    form: str
    # Numbers and booleans may come packed, many in one field.
    packable: bool


class Message(NamedTuple):
    name: str
    fields: dict[int, Field]


def _message(span: Span, message: Message, depth: int) -> dict[str, Json]:
    if depth <= 0:
        raise ProtobufError("messages are nested too deeply")
    result: dict[str, Json] = {}
    fields = message.fields
    for number, wire, value in _fields(span):
        field = fields.get(number)
        if field is None:
            continue
        name, read, form, packable = field
        try:
            if form == "":
                result[name] = read(value, depth)
            elif form == "*":
                values = result.setdefault(name, [])
                if packable and wire == _BYTES:
                    values.extend(read(item, depth) for item in _packed(_span(value)))
                else:
                    values.append(read(value, depth))
            elif form == "map:":
                key, item = _entry(_span(value), read, depth)
                result.setdefault(name, {})[key] = item
            else:
                result.update(read(value, depth))
        except (ProtobufError, RecursionError):
            raise
        except (ValueError, OverflowError) as error:
            raise ProtobufError(f"{message.name}.{name}: {error}") from None
    return result


def _packed(span: Span) -> Iterator[int]:
    data, position, end = span
    while position < end:
        value, position = _varint(data, position, end)
        yield value


def _entry(span: Span, read: Reader, depth: int) -> tuple[str, Json]:
    key, value = "", None
    for number, _, item in _fields(span):
        if number == 1:
            key = _span(item).text
        elif number == 2:
            value = read(item, depth)
    # Go leaves out neither; who does means the zero value.
    return key, read(Span(b"", 0, 0), depth) if value is None else value


def _time(value: int | Span, depth: int) -> str | None:
    moment = _moment(_span(value))
    return None if moment is None else format_time(moment)


def _micro_time(value: int | Span, depth: int) -> str | None:
    moment = _moment(_span(value))
    return None if moment is None else format_micro_time(moment)


def _moment(span: Span) -> datetime | None:
    """An empty message is Go's zero time, which JSON writes as null."""
    if span.start == span.end:
        return None
    seconds = nanos = 0
    for number, _, value in _fields(span):
        if number == 1:
            seconds = _int64(value)
        elif number == 2:
            nanos = _int32(value)
    return _EPOCH + timedelta(seconds=seconds, microseconds=nanos // 1000)


def _quantity(value: int | Span, depth: int) -> str:
    text = next((_span(item).text for number, _, item in _fields(_span(value)) if number == 1), "")
    return canonical_quantity(text) if text else "0"


def _int_or_string(value: int | Span, depth: int) -> int | str:
    kind = number_value = 0
    text = ""
    for number, _, item in _fields(_span(value)):
        if number == 1:
            kind = _int64(item)
        elif number == 2:
            number_value = _int32(item)
        elif number == 3:
            text = _span(item).text
    return text if kind else number_value


def _raw(value: int | Span, depth: int) -> Json:
    """JSON as bytes, or an object in protobuf of its own."""
    data = next(
        (_span(item).bytes for number, _, item in _fields(_span(value)) if number == 1), b""
    )
    if not data:
        return None
    if is_protobuf(data):
        return _decode_envelope(data, "", "", depth - 1)
    return msgspec.json.decode(data)


def _strings(value: int | Span, depth: int) -> list[str]:
    return [_span(item).text for number, _, item in _fields(_span(value)) if number == 1]


def _schema_or(other: int, read_other: Callable[[list[int | Span], int], Json]) -> Reader:
    """JSONSchemaPropsOrBool and its like: a schema, or what stands in field ``other``."""
    schema_number = 3 - other

    def read(value: int | Span, depth: int) -> Json:
        schema = None
        others: list[int | Span] = []
        for number, _, item in _fields(_span(value)):
            if number == schema_number:
                schema = _schema_props(item, depth)
            elif number == other:
                others.append(item)
        plain = read_other(others, depth)
        return schema if plain is None or (other == 1 and schema is not None) else plain

    return read


def _schema_props(value: int | Span, depth: int) -> Json:
    return _message(_span(value), _compiled("apiextensions.v1.JSONSchemaProps"), depth - 1)


def _schemas(items: list[int | Span], depth: int) -> Json:
    return [_schema_props(item, depth) for item in items] or None


def _allows(items: list[int | Span], depth: int) -> Json:
    return bool(items and _number(items[-1]))


def _properties(items: list[int | Span], depth: int) -> Json:
    return [_span(item).text for item in items] or None


def _double(value: int | Span, depth: int) -> float:
    span = _span(value)
    if span.end - span.start != 8:
        raise ProtobufError("a double has eight bytes")
    number: float = struct.unpack("<d", span.bytes)[0]
    return number


_READERS: dict[str, Reader] = {
    "string": lambda value, depth: _span(value).text,
    "bytes": lambda value, depth: base64.b64encode(_span(value).bytes).decode(),
    "bool": lambda value, depth: _number(value) != 0,
    "int32": lambda value, depth: _int32(value),
    "int64": lambda value, depth: _int64(value),
    "double": _double,
    "time": _time,
    "microTime": _micro_time,
    "quantity": _quantity,
    "intOrString": _int_or_string,
    "any": _raw,
    "json": _raw,
    "fieldsV1": _raw,
    "strings": _strings,
    "schemaOrArray": _schema_or(2, _schemas),
    "schemaOrBool": _schema_or(1, _allows),
    "schemaOrStrings": _schema_or(2, _properties),
}
_PACKABLE = frozenset({"bool", "int32", "int64"})


# --- the table ----------------------------------------------------------------------------


@cache
def _table() -> dict[str, list[tuple[int, str, str]]]:
    return msgspec.json.decode(_TABLE.read_bytes(), type=dict[str, list[tuple[int, str, str]]])


@cache
def _compiled(name: str) -> Message:
    """A message by its name, made when a body first has one."""
    return Message(name, {number: _field(*fact) for number, *fact in _table()[name]})


def _field(name: str, kind: str) -> Field:
    form = ""
    for head in ("*", "map:"):
        if kind.startswith(head):
            form, kind = head, kind.removeprefix(head)
    read = _READERS.get(kind) or _nested(kind)
    return Field(name, read, form if name else "embedded", kind in _PACKABLE)


def _nested(name: str) -> Reader:
    def read(value: int | Span, depth: int) -> Json:
        return _message(_span(value), _compiled(name), depth - 1)

    return read
