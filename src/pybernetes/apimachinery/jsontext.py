"""Reading JSON, and noticing keys that are written twice.

JSON lets the last of two equal keys win silently; a strict API must be able to say so.
The usual text has no duplicates, and proving that is cheap: every key is followed by a
quote and a colon, so if such places are no more than the keys that were decoded, none was
lost. Only otherwise is the text read again by the slower parser that sees every pair.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

_AFTER_KEY = re.compile(rb'"[ \t\r\n]*:')


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
    if len(_AFTER_KEY.findall(data)) == _count_keys(value):
        return value, []
    return value, find_duplicates(data)


def _count_keys(value: Any) -> int:
    count = 0
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if type(item) is dict:
            count += len(item)
            waiting += [child for child in item.values() if type(child) in (dict, list)]
        elif type(item) is list:
            waiting += [child for child in item if type(child) in (dict, list)]
    return count


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
