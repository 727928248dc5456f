"""Reading JSON, and noticing keys that are written twice.

JSON lets the last of two equal keys win silently; a strict API must be able to say so.
The usual text has no duplicates, and proving that is cheap: a key ends in a quote and a
colon, so if the text has no more such places than the decoded value has when it is written
again, no key was lost. Only otherwise is the text read by the slower parser that sees
every pair.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

_WHITE_SPACE = b" \t\r\n"
_END_OF_KEY = b'":'
# A quote within a string that does not look like one, and would spoil the count.
_HIDDEN_QUOTE = b"\\u0022"


class JsonError(ValueError):
    """The text is not JSON."""


def load_json(data: bytes) -> tuple[Any, list[str]]:
    """The value, and the paths (`spec.containers[0].name`) of fields that occur twice.

    The last occurrence counts. Raises JsonError.
    """
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise JsonError(str(error)) from None
    except RecursionError:
        raise JsonError("exceeded max depth") from None
    return value, [] if _has_every_key(data, value) else find_duplicates(data)


def _has_every_key(data: bytes, value: Any) -> bool:
    """Surely no key was written twice. A quote and a colon within a string only costs time."""
    if _HIDDEN_QUOTE in data:
        return False
    try:
        written = msgspec.json.encode(value)
    except (OverflowError, ValueError):
        return False
    places = data.translate(None, _WHITE_SPACE).count(_END_OF_KEY)
    return places == written.count(_END_OF_KEY)


class _Pairs(list[tuple[str, Any]]):
    """An object as it was written: every pair, in order."""


def find_duplicates(data: bytes) -> list[str]:
    """Paths of duplicate fields of a valid JSON text, each once, in order of writing."""
    try:
        tree = json.loads(data, object_pairs_hook=_Pairs)
    except RecursionError:
        raise JsonError("exceeded max depth") from None
    found: dict[str, None] = {}
    _collect(tree, "", found)
    return list(found)


def _collect(value: Any, path: str, found: dict[str, None]) -> None:
    if isinstance(value, _Pairs):
        seen: set[str] = set()
        for key, child in value:
            child_path = f"{path}.{key}" if path else key
            if key in seen:
                found[child_path] = None
            seen.add(key)
            _collect(child, child_path, found)
    elif isinstance(value, list):
        for index, child in enumerate(value):
            _collect(child, f"{path}[{index}]", found)
