"""Conditions of a status: found by type, and changed by the API's rules.

The transition time moves when the status of a condition changes, and only then (API conventions,
"typical status properties"). Works on every condition struct: they all have type, status, reason
and message; those without a field it sets are left as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

C = TypeVar("C", bound=msgspec.Struct)

TRUE = "True"
FALSE = "False"
UNKNOWN = "Unknown"


def condition_of(conditions: Iterable[C], type_: str) -> C | None:
    """The condition of that type."""
    condition: Any
    # Asked for every change of every pod, by many: hence no helper in this loop.
    for condition in conditions:
        if condition.type == type_:
            found: C = condition
            return found
    return None


def has_condition(conditions: Iterable[C], type_: str, status: str = TRUE) -> bool:
    condition = condition_of(conditions, type_)
    return condition is not None and _get(condition, "status") == status


def with_condition(conditions: Sequence[C], new: C) -> tuple[C, ...]:
    """The conditions with `new` in its place, or at the end.

    `new` carries the present moment as its transition time; the old moment is kept if the status
    did not change. Nothing else about an unchanged condition changes, so that a caller can compare
    the result with what there was.
    """
    kept = list(conditions)
    for index, old in enumerate(kept):
        if _get(old, "type") == _get(new, "type"):
            if _get(old, "status") == _get(new, "status"):
                moment = _get(old, "last_transition_time")
                new = msgspec.structs.replace(new, last_transition_time=moment)
            kept[index] = new
            return tuple(kept)
    return (*kept, new)


def without_condition(conditions: Sequence[C], type_: str) -> tuple[C, ...]:
    return tuple(c for c in conditions if _get(c, "type") != type_)


def _get(condition: msgspec.Struct, name: str) -> Any:
    return getattr(condition, name)
