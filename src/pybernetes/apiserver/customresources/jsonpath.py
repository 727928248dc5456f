"""JSONPath as printer columns and selectable fields use it: from a value to what is found. Pure.

What kubectl's own dialect allows in a column: names, `['odd.name']`, indexes (also negative), slices,
`*`, `..name`, and filters that compare one path with a literal.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any

Json = Any
# From values to the values one step further.
Step = Callable[[Json], Iterable[Json]]


class JsonPathError(ValueError):
    """Not a path of this dialect."""


_NAME = re.compile(r"\.?([A-Za-z_][\w/-]*|\d+[A-Za-z_][\w/-]*)")
_QUOTED = re.compile(r"""\[(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)")\]""")
_INDEX = re.compile(r"\[(-?\d+)\]")
_SLICE = re.compile(r"\[(-?\d*):(-?\d*)(?::(\d+))?\]")
_WILD = re.compile(r"\.?\*|\[\*\]")
_RECURSIVE = re.compile(r"\.\.([A-Za-z_][\w-]*)")
_FILTER = re.compile(
    r"""\[\?\(\s*@(?P<path>[^=!<>)\s]*)\s*(?:(?P<op>==|!=|<=|>=|<|>)\s*(?P<value>'[^']*'|"[^"]*"|[^)\s]+)\s*)?\)\]"""
)
_ESCAPED_DOT = re.compile(r"\.((?:[\w/-]|\\\.)+)")


@lru_cache(maxsize=2048)
def parse(text: str) -> tuple[Step, ...]:
    """Raises JsonPathError."""
    text = text.strip()
    if text.startswith("{") and text.endswith("}"):
        text = text[1:-1]
    text = text.removeprefix("$")
    if not text.startswith((".", "[")):
        raise JsonPathError(f"{text!r} does not begin with a dot")
    steps, at = [], 0
    if text == ".":
        return ()
    while at < len(text):
        step, at = _next_step(text, at)
        steps.append(step)
    return tuple(steps)


def find(value: Json, steps: tuple[Step, ...]) -> Iterator[Json]:
    """All values that are found, in order."""
    found: Iterable[Json] = (value,)
    for step in steps:
        found = [result for one in found for result in step(one)]
    return iter(found)


def _next_step(text: str, at: int) -> tuple[Step, int]:
    if match := _RECURSIVE.match(text, at):
        return _recursive(match[1]), match.end()
    if match := _WILD.match(text, at):
        return _children, match.end()
    if (match := _ESCAPED_DOT.match(text, at)) and "\\." in match[1]:
        return _field(match[1].replace("\\.", ".")), match.end()
    if match := _NAME.match(text, at):
        return _field(match[1]), match.end()
    if match := _QUOTED.match(text, at):
        name = match[1] if match[1] is not None else match[2]
        return _field(re.sub(r"\\(.)", r"\1", name)), match.end()
    if match := _INDEX.match(text, at):
        return _element(int(match[1])), match.end()
    if match := _SLICE.match(text, at):
        bounds = [int(bound) if bound else None for bound in match.groups()]
        return _slice(slice(*bounds)), match.end()
    if match := _FILTER.match(text, at):
        return _filter(match), match.end()
    raise JsonPathError(f"unrecognized character in action: {text[at : at + 10]!r}")


def _field(name: str) -> Step:
    return lambda value: (value[name],) if isinstance(value, dict) and name in value else ()


def _children(value: Json) -> Iterable[Json]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _element(index: int) -> Step:
    def step(value: Json) -> Iterable[Json]:
        if isinstance(value, list) and -len(value) <= index < len(value):
            return (value[index],)
        return ()

    return step


def _slice(part: slice) -> Step:
    return lambda value: value[part] if isinstance(value, list) else ()


def _recursive(name: str) -> Step:
    def step(value: Json) -> Iterator[Json]:
        if isinstance(value, dict) and name in value:
            yield value[name]
        for child in _children(value):
            yield from step(child)

    return step


def _filter(match: re.Match[str]) -> Step:
    path = parse(match["path"]) if match["path"] else ()
    operator, literal = match["op"], match["value"]
    wanted = None if literal is None else _literal(literal)

    def keeps(item: Json) -> bool:
        found = list(find(item, path))
        if operator is None:
            return bool(found)
        return bool(found) and _compare(found[0], operator, wanted)

    return lambda value: [item for item in _children(value) if keeps(item)]


def _literal(text: str) -> Json:
    if text[0] in "'\"":
        return text[1:-1]
    if text in ("true", "false"):
        return text == "true"
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return text


def _compare(found: Json, operator: str, wanted: Json) -> bool:
    if operator == "==":
        return bool(found == wanted)
    if operator == "!=":
        return bool(found != wanted)
    if isinstance(found, str) is not isinstance(wanted, str) or isinstance(found, dict | list):
        return False
    if found is None:
        return False
    outcomes = {
        "<": found < wanted,
        "<=": found <= wanted,
        ">": found > wanted,
        ">=": found >= wanted,
    }
    return bool(outcomes[operator])
