"""Decoding by a schema, twice: compiled closures for clean values, a walk for the others.

Both follow the rules in ``schema.py`` and must give the same value; a test compares them. The
closures know nothing of paths and raise ``Unclean`` at the first thing that needs a word;
the walk then finds all of it. Request bodies are nearly always clean, so what matters is
that the closures are quick, and that the walk is right.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from pybernetes.apimachinery.quantity import QuantityError, canonical_quantity
from pybernetes.apimachinery.timestamp import format_micro_time, format_time, parse_time

if TYPE_CHECKING:
    from pybernetes.apimachinery.schema import Schema

Json = Any
Decoder = Callable[[Json], Json]

_INT32 = range(-(2**31), 2**31)
_INT64 = range(-(2**63), 2**63)
_UTC_SECONDS = 20  # len("2006-01-02T15:04:05Z")
_MICRO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d\d:\d\d)", re.ASCII)
_UNKNOWN_LIMIT = 100


class Unclean(Exception):
    """The value is not what the schema says; the walk will say how."""


class Abort(Exception):
    """A value that ends decoding at once, with Go's sentence for it."""


# --- scalars: the normal form, or an error ------------------------------------------------


def normal_quantity(value: Json) -> str:
    """Raises QuantityError."""
    if type(value) is str:
        return canonical_quantity(value.strip())
    if type(value) is int or type(value) is float:
        return canonical_quantity(value)
    # Go parses the text of whatever stands there.
    return canonical_quantity("{}")


def normal_time(value: str) -> str:
    """Whole seconds in UTC. Raises ValueError."""
    if len(value) == _UTC_SECONDS and value.endswith("Z"):
        try:
            datetime.fromisoformat(value)
            return value
        except ValueError:
            pass
    return format_time(parse_time(value))


def normal_micro_time(value: str) -> str:
    """Six digits, UTC. Raises ValueError: upstream takes exactly six."""
    if not _MICRO_TIME.fullmatch(value):
        raise ValueError(
            f'parsing time "{value}" as "2006-01-02T15:04:05.000000Z07:00": cannot parse'
        )
    return format_micro_time(parse_time(value))


def normal_base64(value: str) -> str:
    """Standard base64 without line breaks. Raises ValueError."""
    text = value.replace("\r", "").replace("\n", "") if "\n" in value or "\r" in value else value
    try:
        binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        raise ValueError(f"illegal base64 data at input byte {_bad_byte(text)}") from None
    return text


def _bad_byte(text: str) -> int:
    found = re.match(r"[A-Za-z0-9+/]*", text)
    return found.end() if found is not None else 0


# --- the compiled path --------------------------------------------------------------------


def decoder_of(schema: Schema) -> Decoder:
    """The closure for a node; that of a definition is made once and kept with its fields."""
    fields = schema.properties
    if fields is not None:
        if fields.decoder is None:
            fields.decoder = _object_decoder(schema)
        return fields.decoder
    if schema.alternatives:
        return _alternatives_decoder(schema)
    if schema.format in _BY_FORMAT:
        return _BY_FORMAT[schema.format]
    if schema.type == "array" and schema.items is not None:
        return _list_decoder(schema.items)
    if schema.type == "object":
        if schema.additional_properties is not None:
            return _map_decoder(schema.additional_properties)
        return _free_object
    return _BY_TYPE.get(schema.type, _any)


class _Decoders(dict[str, Decoder]):
    """Decoders of an object's fields, compiled when a body first has the field."""

    __slots__ = ("_schema",)

    def __init__(self, schema: Schema) -> None:
        super().__init__()
        self._schema = schema

    def __missing__(self, name: str) -> Decoder:
        fields = self._schema.properties
        if fields is None or name not in fields:
            if self._schema.preserve_unknown:
                return _any
            raise Unclean
        decoder = self[name] = decoder_of(fields[name])
        return decoder


def _object_decoder(schema: Schema) -> Decoder:
    decoders = _Decoders(schema)
    fields: Mapping[str, Schema] = schema.properties or {}
    # Only few types have such fields; the others do not pay for the question.
    zeros = tuple(name for name in fields if fields[name].zero_is_absent)

    def decode(value: Json) -> Json:
        if type(value) is not dict:
            raise Unclean
        return {name: decoders[name](item) for name, item in value.items() if item is not None}

    def decode_without_zeros(value: Json) -> Json:
        result = decode(value)
        for name in zeros:
            if name in result and not result[name]:
                del result[name]
        return result

    return decode_without_zeros if zeros else decode


def _list_decoder(items: Schema) -> Decoder:
    # Not asked for before the first element: a type may contain lists of itself.
    element: Decoder | None = None

    def decode(value: Json) -> Json:
        nonlocal element
        if type(value) is not list:
            raise Unclean
        if element is None:
            element = decoder_of(items)
        return [element(item) for item in value]

    return decode


def _map_decoder(values: Schema) -> Decoder:
    element: Decoder | None = None

    def decode(value: Json) -> Json:
        nonlocal element
        if type(value) is not dict:
            raise Unclean
        if element is None:
            element = decoder_of(values)
        return {name: element(item) for name, item in value.items()}

    return decode


def _alternatives_decoder(schema: Schema) -> Decoder:
    def decode(value: Json) -> Json:
        chosen = alternative_of(schema, value)
        if chosen is None:
            raise Unclean
        return decoder_of(chosen)(value)

    return decode


def alternative_of(schema: Schema, value: Json) -> Schema | None:
    kinds = {dict: "object", list: "array", bool: "boolean", str: "string"}
    wanted = kinds.get(type(value))
    for candidate in schema.alternatives:
        if candidate.type == wanted:
            return candidate
    return None


def _any(value: Json) -> Json:
    return value


def _string(value: Json) -> Json:
    if type(value) is not str:
        raise Unclean
    return value


def _boolean(value: Json) -> Json:
    if type(value) is not bool:
        raise Unclean
    return value


def _int32(value: Json) -> Json:
    if type(value) is not int or value not in _INT32:
        raise Unclean
    return value


def _int64(value: Json) -> Json:
    if type(value) is not int or value not in _INT64:
        raise Unclean
    return value


def _number(value: Json) -> Json:
    if type(value) is not float and type(value) is not int:
        raise Unclean
    return value


def _free_object(value: Json) -> Json:
    if type(value) is not dict:
        raise Unclean
    return value


def _int_or_string(value: Json) -> Json:
    if type(value) is str or (type(value) is int and value in _INT32):
        return value
    raise Unclean


def _clean(normal: Callable[[Any], str], types: tuple[type, ...]) -> Decoder:
    def decode(value: Json) -> Json:
        if type(value) not in types:
            raise Unclean
        try:
            return normal(value)
        except ValueError:
            raise Unclean from None

    return decode


_BY_FORMAT: dict[str, Decoder] = {
    "int32": _int32,
    "int64": _int64,
    "byte": _clean(normal_base64, (str,)),
    "date-time": _clean(normal_time, (str,)),
    "micro-time": _clean(normal_micro_time, (str,)),
    "quantity": _clean(normal_quantity, (str, int, float)),
    "int-or-string": _int_or_string,
}
_BY_TYPE: dict[str, Decoder] = {
    "string": _string,
    "boolean": _boolean,
    "integer": _int64,
    "number": _number,
    "object": _free_object,
}


# --- the walk -----------------------------------------------------------------------------


class Place(NamedTuple):
    """Where the walk is, for unknown fields and, as Go's decoder counts, for type errors."""

    path: str = ""
    struct: str = ""
    # Without indexes and keys of maps.
    field_path: str = ""

    def field(self, name: str, struct: str) -> Place:
        dot, field_dot = "." if self.path else "", "." if self.field_path else ""
        return Place(f"{self.path}{dot}{name}", struct, f"{self.field_path}{field_dot}{name}")

    def key(self, name: str) -> Place:
        return self._replace(path=f"{self.path}.{name}")

    def element(self, number: int) -> Place:
        return self._replace(path=f"{self.path}[{number}]")

    def mismatch(self, found: str, wanted: str) -> str:
        """Go's sentence for a value of a wrong type."""
        place = f"Go struct field {self.struct}.{self.field_path}" if self.struct else "Go value"
        return f"json: cannot unmarshal {found} into {place} of type {wanted}"


TOP = Place()


class Walk:
    """One walk over a value that is not clean; collects what is odd about it."""

    def __init__(self) -> None:
        self.unknown: list[str] = []
        self.errors: list[str] = []

    def decode(self, value: Json, schema: Schema, place: Place) -> Json:
        if schema.alternatives:
            return self._alternative(value, schema, place)
        if schema.format in _NORMAL:
            return _normal(value, schema, place)
        if schema.format == "int-or-string":
            return _checked_int_or_string(value, place)
        if schema.properties is not None:
            return self._object(value, schema, place)
        if schema.type == "array" and schema.items is not None:
            return self._list(value, schema, schema.items, place)
        if schema.type == "object":
            return self._map(value, schema, place)
        if schema.type in ("integer", "number"):
            return self._number(value, schema, place)
        wanted = {"string": str, "boolean": bool}.get(schema.type)
        if wanted is None or type(value) is wanted:
            return value
        return self._mismatch(value, schema, place)

    def _mismatch(self, value: Json, schema: Schema, place: Place) -> None:
        self.errors.append(place.mismatch(json_kind(value), schema.go_type))

    def _object(self, value: Json, schema: Schema, place: Place) -> Json:
        if type(value) is not dict:
            return self._mismatch(value, schema, place)
        fields: Mapping[str, Schema] = schema.properties or {}
        struct = schema.ref.rpartition(".")[2]
        result = {}
        for name, item in value.items():
            if name not in fields:
                if schema.preserve_unknown:
                    result[name] = item
                elif len(self.unknown) < _UNKNOWN_LIMIT:
                    self.unknown.append(place.field(name, struct).path)
                continue
            if item is None:
                continue
            field = fields[name]
            decoded = self.decode(item, field, place.field(name, struct))
            if decoded or not field.zero_is_absent:
                result[name] = decoded
        return result

    def _list(self, value: Json, schema: Schema, items: Schema, place: Place) -> Json:
        if type(value) is not list:
            return self._mismatch(value, schema, place)
        return [
            zero_of(items) if item is None else self.decode(item, items, place.element(number))
            for number, item in enumerate(value)
        ]

    def _map(self, value: Json, schema: Schema, place: Place) -> Json:
        if type(value) is not dict:
            return self._mismatch(value, schema, place)
        values = schema.additional_properties
        if values is None:
            return value
        return {
            name: zero_of(values) if item is None else self.decode(item, values, place.key(name))
            for name, item in value.items()
        }

    def _number(self, value: Json, schema: Schema, place: Place) -> Json:
        if type(value) is not int and type(value) is not float:
            return self._mismatch(value, schema, place)
        if schema.type == "number":
            return value
        limits = _INT32 if schema.format == "int32" else _INT64
        if type(value) is int and value in limits:
            return value
        wanted = schema.go_type if schema.format else "int64"
        self.errors.append(place.mismatch(f"number {value}", wanted))
        return None

    def _alternative(self, value: Json, schema: Schema, place: Place) -> Json:
        chosen = alternative_of(schema, value)
        if chosen is None:
            # Go tries the plain one of the two last, and complains about that.
            raise Abort(place.mismatch(json_kind(value), schema.alternatives[-1].go_type))
        return self.decode(value, chosen, place)


def _checked_int_or_string(value: Json, place: Place) -> Json:
    try:
        return _int_or_string(value)
    except Unclean:
        found = json_kind(value)
        if found == "number":
            found = f"number {value}"
        raise Abort(place.mismatch(found, "int32")) from None


_NORMAL: dict[str, Callable[[Any], str]] = {
    "byte": normal_base64,
    "date-time": normal_time,
    "micro-time": normal_micro_time,
    "quantity": normal_quantity,
}


def _normal(value: Json, schema: Schema, place: Place) -> str:
    """Values that Go reads by code of their own: a problem ends decoding."""
    if schema.format != "quantity" and type(value) is not str:
        wanted = "[]uint8" if schema.format == "byte" else "string"
        raise Abort(place.mismatch(json_kind(value), wanted))
    try:
        return _NORMAL[schema.format](value)
    except QuantityError as error:
        raise Abort(str(error)) from None
    except ValueError as error:
        raise Abort(str(error)) from None


def json_kind(value: Json) -> str:
    """What Go calls a JSON value."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    if value is None:
        return "null"
    return "object" if isinstance(value, dict) else "array"


def zero_of(schema: Schema) -> Json:
    """What Go makes of a null inside a list or a map."""
    if schema.format == "quantity":
        return "0"
    if schema.format in ("date-time", "micro-time") or schema.alternatives:
        return None
    zeros: dict[str, Json] = {"string": "", "boolean": False, "integer": 0, "number": 0}
    if schema.type in zeros:
        return 0 if schema.int_or_string else zeros[schema.type]
    if schema.type == "object":
        return {}
    return [] if schema.type == "array" else None
