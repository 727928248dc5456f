"""Values that are a number or a percentage of one (`maxSurge: 1`, `maxSurge: 25%`)."""

from __future__ import annotations

import re

_PERCENT = re.compile(r"[0-9]+%", re.ASCII)


def is_percent(text: str) -> bool:
    return _PERCENT.fullmatch(text) is not None


def scaled(value: int | str, total: int, *, round_up: bool) -> int:
    """`value` itself, or that share of `total`. Raises ValueError for other strings."""
    if isinstance(value, int):
        return value
    if not is_percent(value):
        raise ValueError("invalid value for IntOrString: invalid type: string is not a percentage")
    share = int(value[:-1]) * total
    return -(-share // 100) if round_up else share // 100
