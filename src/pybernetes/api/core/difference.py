"""What changed between two specs, for the refusals of forbidden changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pybernetes.api import codec
from pybernetes.apimachinery.fielderror import render_value

if TYPE_CHECKING:
    from collections.abc import Iterator

_MOST_LINES = 50


def difference_text(old: object, new: object, name: str = "") -> str:
    """One line per field that went (-) or came (+), by its path."""
    lines = list(_lines(codec.to_dict(old), codec.to_dict(new), name))
    if len(lines) > _MOST_LINES:
        lines = [*lines[:_MOST_LINES], f"  ... {len(lines) - _MOST_LINES} more lines"]
    return "".join(f"{line}\n" for line in lines)


def _lines(old: Any, new: Any, path: str) -> Iterator[str]:
    if old == new:
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from _lines(old.get(key), new.get(key), f"{path}.{key}" if path else key)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from _lines(before, after, f"{path}[{index}]")
    else:
        if old is not None:
            yield f"- {path}: {render_value(old)}"
        if new is not None:
            yield f"+ {path}: {render_value(new)}"
