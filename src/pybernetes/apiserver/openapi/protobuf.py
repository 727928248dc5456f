"""The document of version 2 in protobuf: `openapi.v2.Document` of gnostic, which kubectl reads.

Messages are tables: JSON name to field number and the shape of the value. Maps are lists of
(name, value) messages there, a choice is a message around the chosen one, and what is any JSON
(extensions, defaults) goes as YAML text, for which its JSON will do. Only what our documents
say is in the tables; anything else is an error, not a silent omission.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import msgspec

# Appends a value to a message under a field number.
Write = Callable[[bytearray, int, Any], None]
# JSON name → field number and how to write it.
Fields = Mapping[str, tuple[int, Write]]

_VARINT, _BYTES = 0, 2
_to_json = msgspec.json.encode


def encode_document(document: Mapping[str, Any]) -> bytes:
    return bytes(_encode(_DOCUMENT, 16, document))


# --- the wire -------------------------------------------------------------------------------------


def _number(out: bytearray, value: int) -> None:
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def _bytes(out: bytearray, field: int, data: bytes | bytearray) -> None:
    _number(out, field << 3 | _BYTES)
    _number(out, len(data))
    out += data


def _text(out: bytearray, field: int, value: str) -> None:
    _bytes(out, field, value.encode())


def _texts(out: bytearray, field: int, values: list[str]) -> None:
    for value in values:
        _bytes(out, field, value.encode())


def _flag(out: bytearray, field: int, value: bool) -> None:
    if value:
        _number(out, field << 3 | _VARINT)
        out.append(1)


# --- shapes ---------------------------------------------------------------------------------------


def _encode(fields: Fields, extensions: int, value: Mapping[str, Any]) -> bytearray:
    """A message; what begins with x- goes into its extensions."""
    out = bytearray()
    for name, item in value.items():
        if name.startswith("x-"):
            _named_any(out, extensions, name, item)
        else:
            number, write = fields[name]
            write(out, number, item)
    return out


def _message(fields: Fields, extensions: int, out: bytearray, field: int, value: Any) -> None:
    _bytes(out, field, _encode(fields, extensions, value))


def _messages(write: Write, out: bytearray, field: int, values: Any) -> None:
    for value in values:
        write(out, field, value)


def _within(inner: int, write: Write, out: bytearray, field: int, value: Any) -> None:
    """A message of which one field is set: a choice, or a list of one."""
    body = bytearray()
    write(body, inner, value)
    _bytes(out, field, body)


def _named(write: Write, inner: int, out: bytearray, field: int, value: Mapping[str, Any]) -> None:
    """A map: a message with a list of pairs."""
    body = bytearray()
    for name, item in value.items():
        pair = bytearray()
        _text(pair, 1, name)
        write(pair, 2, item)
        _bytes(body, inner, pair)
    _bytes(out, field, body)


def _any(out: bytearray, field: int, value: Any) -> None:
    body = bytearray()
    _bytes(body, 2, _to_json(value))
    _bytes(out, field, body)


def _named_any(out: bytearray, field: int, name: str, value: Any) -> None:
    pair = bytearray()
    _text(pair, 1, name)
    _any(pair, 2, value)
    _bytes(out, field, pair)


# --- messages -------------------------------------------------------------------------------------


def _schema(out: bytearray, field: int, value: Mapping[str, Any]) -> None:
    _bytes(out, field, _encode(_SCHEMA, 31, value))


def _schema_type(out: bytearray, field: int, value: str) -> None:
    _within(1, _text, out, field, value)


def _additional_properties(out: bytearray, field: int, value: Any) -> None:
    if isinstance(value, bool):
        _within(2, _flag, out, field, value)
    else:
        _within(1, _schema, out, field, value)


def _parameter(out: bytearray, field: int, value: Mapping[str, Any]) -> None:
    """ParametersItem, Parameter, and one of the kinds of it."""
    body = bytearray()
    if value["in"] == "body":
        _message(_BODY_PARAMETER, 6, body, 1, value)
    else:
        choice, fields, extensions = _OTHER_PARAMETERS[value["in"]]
        inner = bytearray()
        _message(fields, extensions, inner, choice, value)
        _bytes(body, 2, inner)
    item = bytearray()
    _bytes(item, 1, body)
    _bytes(out, field, item)


def _number_value(out: bytearray, field: int, value: float) -> None:
    from struct import pack

    _number(out, field << 3 | 1)
    out += pack("<d", value)


def _integer(out: bytearray, field: int, value: int) -> None:
    _number(out, field << 3 | _VARINT)
    _number(out, value & 0xFFFF_FFFF_FFFF_FFFF)


_SCHEMA: Fields = {
    "$ref": (1, _text),
    "format": (2, _text),
    "title": (3, _text),
    "description": (4, _text),
    "default": (5, _any),
    "multipleOf": (6, _number_value),
    "maximum": (7, _number_value),
    "exclusiveMaximum": (8, _flag),
    "minimum": (9, _number_value),
    "exclusiveMinimum": (10, _flag),
    "maxLength": (11, _integer),
    "minLength": (12, _integer),
    "pattern": (13, _text),
    "maxItems": (14, _integer),
    "minItems": (15, _integer),
    "uniqueItems": (16, _flag),
    "maxProperties": (17, _integer),
    "minProperties": (18, _integer),
    "required": (19, _texts),
    "enum": (20, partial(_messages, _any)),
    "additionalProperties": (21, _additional_properties),
    "type": (22, _schema_type),
    "items": (23, partial(_within, 1, _schema)),
    "properties": (25, partial(_named, _schema, 1)),
    "externalDocs": (29, partial(_message, {"description": (1, _text), "url": (2, _text)}, 3)),
    "example": (30, _any),
}

_BODY_PARAMETER: Fields = {
    "description": (1, _text),
    "name": (2, _text),
    "in": (3, _text),
    "required": (4, _flag),
    "schema": (5, _schema),
}
_QUERY_PARAMETER: Fields = {
    "required": (1, _flag),
    "in": (2, _text),
    "description": (3, _text),
    "name": (4, _text),
    "type": (6, _text),
    "format": (7, _text),
    "uniqueItems": (20, _flag),
}
_PATH_PARAMETER: Fields = {
    "required": (1, _flag),
    "in": (2, _text),
    "description": (3, _text),
    "name": (4, _text),
    "type": (5, _text),
    "format": (6, _text),
    "uniqueItems": (19, _flag),
}
# By place: the field of NonBodyParameter, its fields, and where extensions go.
_OTHER_PARAMETERS: dict[str, tuple[int, Fields, int]] = {
    "query": (3, _QUERY_PARAMETER, 23),
    "path": (4, _PATH_PARAMETER, 22),
}

# SchemaItem in Response, Response in ResponseValue, ResponseValue in a pair.
_RESPONSE: Fields = {
    "description": (1, _text),
    "schema": (2, partial(_within, 1, _schema)),
}
_RESPONSE_VALUE: Write = partial(_within, 1, partial(_message, _RESPONSE, 5))

_OPERATION: Fields = {
    "tags": (1, _texts),
    "summary": (2, _text),
    "description": (3, _text),
    "operationId": (5, _text),
    "produces": (6, _texts),
    "consumes": (7, _texts),
    "parameters": (8, partial(_messages, _parameter)),
    "responses": (9, partial(_named, _RESPONSE_VALUE, 1)),
    "schemes": (10, _texts),
}
_operation: Write = partial(_message, _OPERATION, 13)

_PATH_ITEM: Fields = {
    "get": (2, _operation),
    "put": (3, _operation),
    "post": (4, _operation),
    "delete": (5, _operation),
    "options": (6, _operation),
    "head": (7, _operation),
    "patch": (8, _operation),
    "parameters": (9, partial(_messages, _parameter)),
}

_API_KEY: Fields = {
    "type": (1, _text),
    "name": (2, _text),
    "in": (3, _text),
    "description": (4, _text),
}
# ApiKeySecurity in SecurityDefinitionsItem.
_SECURITY_DEFINITION: Write = partial(_within, 2, partial(_message, _API_KEY, 5))


def _security(out: bytearray, field: int, values: Any) -> None:
    for value in values:
        _named(_string_array, 1, out, field, value)


def _string_array(out: bytearray, field: int, value: list[str]) -> None:
    body = bytearray()
    _texts(body, 1, value)
    _bytes(out, field, body)


_DOCUMENT: Fields = {
    "swagger": (1, _text),
    "info": (2, partial(_message, {"title": (1, _text), "version": (2, _text)}, 7)),
    "paths": (8, partial(_named, partial(_message, _PATH_ITEM, 10), 2)),
    "definitions": (9, partial(_named, _schema, 1)),
    "security": (12, _security),
    "securityDefinitions": (13, partial(_named, _SECURITY_DEFINITION, 1)),
}
