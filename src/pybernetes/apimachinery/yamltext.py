"""Reading YAML the way Kubernetes does, which is neither YAML 1.1 nor 1.2.

The text is split into events by PyYAML's C parser; what a plain word means is decided here
by the rules of goyaml: `yes`, `on` and `y` are booleans, `017` and `0o17` are fifteen,
`1_000` and `1e3` are numbers, dates and `12:30:45` stay strings, `<<` merges. The result is
what JSON can hold: keys are strings.

Built for hostile input: depth and alias expansion are bounded (an alias is a copy, and
copies are counted), and nothing recurses in C.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any, NoReturn

import yaml

MAX_DEPTH = 200
# How much of a document may come from aliases: nearly all of a small one, little of a
# huge one (the shape is goyaml's).
_FREE_COPIES = 1_000
_SMALL, _LARGE = 400_000, 4_000_000
_SMALL_SHARE, _LARGE_SHARE = 0.99, 0.10

_TAG = "tag:yaml.org,2002:"
_MERGE = "<<"

_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(["y", "Y", "yes", "Yes", "YES", "on", "On", "ON"], True),
    **dict.fromkeys(["true", "True", "TRUE"], True),
    **dict.fromkeys(["n", "N", "no", "No", "NO", "off", "Off", "OFF"], False),
    **dict.fromkeys(["false", "False", "FALSE"], False),
    **dict.fromkeys(["", "~", "null", "Null", "NULL"], None),
}
_INT = re.compile(
    r"([-+]?)(?:0[xX]([0-9a-fA-F]+)|0[bB]([01]+)|0[oO]?([0-7]+)|([1-9][0-9]*|0))", re.ASCII
)
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", re.ASCII)
# Not numbers for JSON: refused rather than passed on.
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")


class YamlError(ValueError):
    """The text is not YAML, or not YAML that JSON can hold."""


def load_yaml(data: bytes | str) -> tuple[Any, list[str]]:
    """The first document (None if there is none) and the paths of keys that occur twice.

    Raises YamlError.
    """
    reader = _Reader(data)
    return next(iter(reader.documents(limit=1)), (None, []))


def load_yaml_documents(data: bytes | str) -> list[tuple[Any, list[str]]]:
    """All documents of a stream, as `load_yaml` gives one."""
    return _Reader(data).documents()


class _Reader:
    """Builds plain values from the parser's events, one document after the other."""

    def __init__(self, data: bytes | str) -> None:
        self._data = data
        # Values with an anchor, and how many nodes each has.
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._duplicates: dict[str, None] = {}
        # Nodes built so far in this document, and how many of them were copied by aliases.
        self._built = 0
        self._copied = 0

    def documents(self, limit: int = 0) -> list[tuple[Any, list[str]]]:
        documents: list[tuple[Any, list[str]]] = []
        try:
            self._events = yaml.parse(self._data, Loader=yaml.CSafeLoader)
            for event in self._events:
                if isinstance(event, yaml.DocumentStartEvent):
                    self._anchors, self._duplicates = {}, {}
                    self._built = self._copied = 0
                    value = self._node(next(self._events), "", 0)
                    documents.append((value, list(self._duplicates)))
                    if len(documents) == limit:
                        break
        except yaml.MarkedYAMLError as error:
            line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
            raise YamlError(f"yaml: {line}{error.problem}") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise YamlError(f"yaml: {error}") from None
        return documents

    def _node(self, event: yaml.Event, path: str, depth: int) -> Any:
        if depth > MAX_DEPTH:
            _fail(event, "exceeded max depth")
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        before = self._built
        self._built += 1
        value: Any
        if isinstance(event, yaml.ScalarEvent):
            value = _scalar(event)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self._sequence(path, depth)
        else:
            assert isinstance(event, yaml.MappingStartEvent)
            value = self._mapping(path, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, self._built - before)
        return value

    def _alias(self, event: yaml.AliasEvent) -> Any:
        if event.anchor not in self._anchors:
            _fail(event, f"unknown anchor '{event.anchor}' referenced")
        value, size = self._anchors[event.anchor]
        self._built += size
        self._copied += size
        if self._built > _FREE_COPIES and self._copied > self._built * _allowed(self._built):
            raise YamlError("yaml: document contains excessive aliasing")
        return _copy(value)

    def _sequence(self, path: str, depth: int) -> list[Any]:
        items: list[Any] = []
        for event in self._events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            items.append(self._node(event, f"{path}[{len(items)}]", depth + 1))
        return items

    def _mapping(self, path: str, depth: int) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for event in self._events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            is_merge = _is_merge(event)
            key = _MERGE if is_merge else _key(event, self._node(event, path, depth + 1))
            child_path = f"{path}.{key}" if path else key
            value_event = next(self._events)
            value = self._node(value_event, child_path, depth + 1)
            if is_merge:
                _merge(value_event, value, merged)
            else:
                if key in mapping:
                    self._duplicates[child_path] = None
                mapping[key] = value
        # What is written beats what is merged.
        return {**merged, **mapping} if merged else mapping


def _is_merge(event: yaml.Event) -> bool:
    return (
        isinstance(event, yaml.ScalarEvent)
        and event.value == _MERGE
        and (event.implicit[0] or event.tag == f"{_TAG}merge")
    )


def _merge(event: yaml.Event, value: Any, into: dict[str, Any]) -> None:
    # Of several merged mappings the first counts.
    for source in value if isinstance(value, list) else [value]:
        if not isinstance(source, dict):
            _fail(event, "map merge requires map or sequence of maps as the value")
        for key, item in source.items():
            into.setdefault(key, item)


def _key(event: yaml.Event, key: Any) -> str:
    if isinstance(key, str):
        return key
    if isinstance(key, bool):
        return "true" if key else "false"
    if isinstance(key, int | float):
        return str(key)
    _fail(event, f"invalid map key: {'null' if key is None else 'not a scalar'}")


def _scalar(event: yaml.ScalarEvent) -> Any:
    text: str = event.value
    # libyaml calls `! 123` plain as well, though the tag says that it is a string.
    if event.implicit[0] and event.tag is None:
        return _plain(event, text)
    match event.tag:
        case None | "!" | "tag:yaml.org,2002:str":
            return text
        case "tag:yaml.org,2002:binary":
            try:
                return base64.b64decode(text, validate=False).decode("utf-8", "replace")
            except binascii.Error:
                _fail(event, "!!binary value contains invalid base64 data")
        case "tag:yaml.org,2002:float":
            value = _plain(event, text)
            return float(value) if type(value) is int else value
        case tag if tag.startswith(_TAG):
            return _plain(event, text)
    # Tags of applications say nothing to us.
    return text


def _plain(event: yaml.ScalarEvent, text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "+-.0123456789":
        return text
    if _NOT_FINITE.fullmatch(text):
        _fail(event, f"json: unsupported value: {text}")
    digits = text.replace("_", "")
    if match := _INT.fullmatch(digits):
        sign, hexadecimal, binary, octal, decimal = match.groups()
        number = (
            int(hexadecimal, 16)
            if hexadecimal
            else int(binary, 2)
            if binary
            else int(octal, 8)
            if octal
            else _decimal(event, decimal)
        )
        return -number if sign == "-" else number
    if _FLOAT.fullmatch(digits):
        value = float(digits)
        # JSON writes a whole float without a fraction, so it is the same number.
        return int(value) if value.is_integer() and abs(value) < 2**63 else value
    return text


def _decimal(event: yaml.Event, digits: str) -> int | float:
    # Longer than any integer of the API: a float, as goyaml reads it.
    if len(digits) > 20:
        value = float(digits)
        if value == float("inf"):
            _fail(event, "json: unsupported value: +Inf")
        return value
    return int(digits)


def _allowed(built: int) -> float:
    if built <= _SMALL:
        return _SMALL_SHARE
    if built >= _LARGE:
        return _LARGE_SHARE
    span = (built - _SMALL) / (_LARGE - _SMALL)
    return _SMALL_SHARE - span * (_SMALL_SHARE - _LARGE_SHARE)


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def _fail(event: yaml.Event, problem: str) -> NoReturn:
    line = f"line {event.start_mark.line + 1}: " if event.start_mark else ""
    raise YamlError(f"yaml: {line}{problem}")
