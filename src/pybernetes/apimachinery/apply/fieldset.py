"""Sets of fields, in the very form in which managedFields keeps them (FieldsV1).

A set is a tree of dictionaries by step: `f:<name>` (a field), `k:<json>` (an element of a
list, by its keys), `v:<json>` (an element that is its own key), `i:<n>` (by position). A node
is a member if it is a leaf or has a step `.`; otherwise it only leads to members. The root is
never a member itself, so the empty dictionary is the empty set.

Rule: sets are shared and never changed in place; no node but the root leads to nothing.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

FieldSet = dict[str, Any]

SELF = "."
# A member that nothing is below.
LEAF: FieldSet = {}
EMPTY: FieldSet = {}


def is_member(node: FieldSet) -> bool:
    return not node or SELF in node


def as_member(node: FieldSet) -> FieldSet:
    return node if is_member(node) else {SELF: LEAF, **node}


def union(first: FieldSet, second: FieldSet) -> FieldSet:
    if not first or first is second:
        return second
    if not second:
        return first
    result = dict(first)
    for step, node in second.items():
        present = result.get(step)
        result[step] = node if present is None else _union_node(present, node)
    return result


def _union_node(first: FieldSet, second: FieldSet) -> FieldSet:
    if first and second:
        return union(first, second)
    # One of them is a leaf, and so a member.
    return as_member(first or second)


def difference(first: FieldSet, second: FieldSet) -> FieldSet:
    """The members of the first that are not members of the second."""
    if not second or not first:
        return first
    result = {}
    for step, node in first.items():
        if step == SELF:
            continue
        other = second.get(step)
        kept = node if other is None else _difference_node(node, other)
        if kept is not None:
            result[step] = kept
    return result


def _difference_node(first: FieldSet, second: FieldSet) -> FieldSet | None:
    is_kept = is_member(first) and not is_member(second)
    return _node(difference(first, second), member=is_kept) if first else _leaf(is_kept)


def _leaf(is_kept: bool) -> FieldSet | None:
    return LEAF if is_kept else None


def _node(children: FieldSet, *, member: bool) -> FieldSet | None:
    if not children:
        return LEAF if member else None
    if member:
        return as_member(children)
    if SELF in children:
        return {step: node for step, node in children.items() if step != SELF} or None
    return children


def intersection(first: FieldSet, second: FieldSet) -> FieldSet:
    result = {}
    for step, node in first.items():
        other = second.get(step)
        if other is None or step == SELF:
            continue
        kept = _node(intersection(node, other), member=is_member(node) and is_member(other))
        if kept is not None:
            result[step] = kept
    return result


def without_below(fields: FieldSet, steps: frozenset[str]) -> FieldSet:
    """Without these steps of the root and everything below them."""
    if steps.isdisjoint(fields):
        return fields
    return {step: node for step, node in fields.items() if step not in steps}


def only_below(fields: FieldSet, steps: frozenset[str]) -> FieldSet:
    return {step: node for step, node in fields.items() if step in steps}


def is_field_set(value: object) -> bool:
    """Whether plain values that somebody sent are a set."""
    if not isinstance(value, dict):
        return False
    return all(_is_step(step) and is_field_set(node) for step, node in value.items())


def _is_step(step: str) -> bool:
    if step == SELF or step.startswith("f:"):
        return True
    if not step.startswith(("k:", "v:", "i:")):
        return False
    try:
        value = json.loads(step[2:])
    except ValueError:
        return False
    return isinstance(value, dict) or step[0] != "k"


def paths(fields: FieldSet, prefix: str = "") -> Iterator[str]:
    """The members in words: `.spec.containers[name="web"].image`."""
    for step in sorted(fields):
        if step == SELF:
            continue
        node, path = fields[step], prefix + _text(step)
        if is_member(node):
            yield path
        yield from paths(node, path)


def _text(step: str) -> str:
    kind, said = step[0], step[2:]
    if kind == "f":
        return f".{said}"
    if kind == "i":
        return f"[{said}]"
    value = json.loads(said)
    if kind == "v":
        return f"[={_shown(value)}]"
    return "[" + ",".join(f"{key}={_shown(value[key])}" for key in sorted(value)) + "]"


def _shown(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
