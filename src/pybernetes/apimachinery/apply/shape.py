"""What of a value can be owned by itself: a view of its schema, and the walks that follow it.

An object whose fields or entries have owners of their own is walked into, as is a list whose
elements have keys or are their own keys; anything else is atomic: one owner has it all.

The walks: which fields a value has (`field_set`), what differs between two (`compare`), a value
with another laid over it (`merge`) and one without some of its fields (`without`). None of them
changes its input.
"""

from __future__ import annotations

import json
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

from pybernetes.apimachinery.apply.fieldset import (
    LEAF,
    SELF,
    FieldSet,
    as_member,
    is_member,
)
from pybernetes.apimachinery.schema import UNSET, Schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

Json = Any


class DuplicateItem(ValueError):
    """A list has two elements with one key."""


class Form(Enum):
    ATOMIC = "atomic"
    # An object, with known fields or any; or a value of which nothing is known.
    OBJECT = "object"
    # A list of values that are their own keys, and one of objects with keys.
    SET = "set"
    KEYED = "keyed"


class Shape:
    """The owners' view of one schema node; shapes of fields are made when first met."""

    __slots__ = ("_fields", "_items", "_keys", "_schema", "_special", "form")

    def __init__(self, schema: Schema | None, special: Mapping[str, Schema] | None = None) -> None:
        self._schema = schema
        # Fields of the top that no schema of a custom resource describes.
        self._special = special or {}
        # Shapes of fields by name, with whether the field is one the schema knows.
        self._fields: dict[str, tuple[Shape, str, bool]] = {}
        self._items: Shape | None = None
        self._keys: tuple[tuple[str, Json], ...] = ()
        self.form = _form(schema)
        if self.form in (Form.SET, Form.KEYED) and schema is not None:
            self._items = Shape(schema.items)
            self._keys = tuple(_key_defaults(schema))

    def field(self, name: str) -> tuple[Shape, str, bool]:
        """The shape of a field, its step, and whether the schema names it (a map does not)."""
        known = self._fields.get(name)
        if known is None:
            known = self._find(name)
            if known[2]:
                self._fields[name] = known
        return known

    def _find(self, name: str) -> tuple[Shape, str, bool]:
        step = f"f:{name}"
        if name in self._special:
            return Shape(self._special[name]), step, True
        schema = self._schema
        if schema is None:
            return ANYTHING, step, False
        if schema.properties is not None and name in schema.properties:
            return Shape(schema.properties[name]), step, True
        if schema.additional_properties is not None:
            if self._items is None:
                self._items = Shape(schema.additional_properties)
            return self._items, step, False
        return ANYTHING, step, False

    @property
    def items(self) -> Shape:
        return self._items or ANYTHING

    def step_of(self, item: Json) -> str:
        """How an element of the list is called."""
        if self.form is Form.SET:
            return "v:" + _compact(item)
        key = {}
        for name, default in self._keys:
            value = item.get(name, default) if isinstance(item, dict) else UNSET
            if value is not UNSET and value is not None:
                key[name] = value
        return "k:" + _compact(key)

    def is_walked(self, value: Json) -> bool:
        """Whether the parts of a value have owners of their own."""
        if self.form is Form.ATOMIC:
            return False
        return isinstance(value, dict if self.form is Form.OBJECT else list)


def _form(schema: Schema | None) -> Form:
    if schema is None:
        return Form.OBJECT
    if schema.type == "array":
        if schema.list_type == "map" and schema.list_map_keys:
            return Form.KEYED
        return Form.SET if schema.list_type == "set" else Form.ATOMIC
    if schema.type in ("object", "") and schema.map_type != "atomic" and not schema.format:
        return Form.OBJECT
    return Form.ATOMIC


def _key_defaults(schema: Schema) -> Iterator[tuple[str, Json]]:
    for name in sorted(schema.list_map_keys):
        item = schema.items.child(name) if schema.items is not None else None
        yield name, UNSET if item is None else item.default


# Made once: `json.dumps` would make an encoder for every key.
_compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode


ANYTHING = Shape(None)


# -- which fields a value has


def field_set(value: Json, shape: Shape) -> FieldSet:
    """The fields that a value sets. Raises DuplicateItem."""
    return _set_node(value, shape)


def _set_node(value: Json, shape: Shape) -> FieldSet:
    if not value or not shape.is_walked(value):
        return LEAF
    node: FieldSet = {}
    if shape.form is Form.OBJECT:
        for name, inner in value.items():
            inner_shape, step, is_named = shape.field(name)
            below = _set_node(inner, inner_shape)
            # An entry of a map belongs to who sets it; a field is there without anybody.
            node[step] = below if is_named else as_member(below)
        return node
    for item in value:
        step = shape.step_of(item)
        if step in node:
            raise DuplicateItem(step[2:])
        node[step] = LEAF if shape.form is Form.SET else as_member(_set_node(item, shape.items))
    return node


def _whole(value: Json, shape: Shape) -> FieldSet:
    """Everything in a value that came or went, each node of it a member."""
    if not value or not shape.is_walked(value):
        return LEAF
    node: FieldSet = {SELF: LEAF}
    if shape.form is Form.OBJECT:
        for name, inner in value.items():
            inner_shape, step, _ = shape.field(name)
            node[step] = _whole(inner, inner_shape) if inner.__class__ in _WALKABLE else LEAF
    else:
        for item in value:
            node[shape.step_of(item)] = _whole(item, shape.items)
    return node


# What may have parts; anything else costs no call.
_WALKABLE = frozenset({dict, list})


# -- what differs


class Comparison(NamedTuple):
    added: FieldSet
    modified: FieldSet
    removed: FieldSet

    @property
    def is_empty(self) -> bool:
        return not (self.added or self.modified or self.removed)

    def filtered(self, relevant: Callable[[FieldSet], FieldSet]) -> Comparison:
        return Comparison(relevant(self.added), relevant(self.modified), relevant(self.removed))


_ABSENT: Any = object()


def compare(old: Json, new: Json, shape: Shape) -> Comparison:
    comparison = Comparison({}, {}, {})
    if old != new:
        _compare_children(old or {}, new or {}, shape, comparison)
    return comparison


def _compare(old: Json, new: Json, shape: Shape, step: str, found: Comparison) -> None:
    if old is _ABSENT:
        found.added[step] = _whole(new, shape)
    elif new is _ABSENT:
        found.removed[step] = _whole(old, shape)
    elif old != new:
        # Next to null or an empty value the other one decides; two empty ones are a leaf.
        if not (_walked_or_null(old, shape) and _walked_or_null(new, shape) and (old or new)):
            found.modified[step] = LEAF
            return
        inner = Comparison({}, {}, {})
        _compare_children(old, new, shape, inner)
        for mine, below in zip(found, inner, strict=True):
            if below:
                mine[step] = below


def _walked_or_null(value: Json, shape: Shape) -> bool:
    return shape.is_walked(value) or (value is None and shape.form is not Form.ATOMIC)


def _compare_children(old: Json, new: Json, shape: Shape, found: Comparison) -> None:
    if shape.form is Form.OBJECT:
        old, new = old or {}, new or {}
        for name, value in new.items():
            before = old.get(name, _ABSENT)
            if before is _ABSENT or before != value:
                inner_shape, step, _ = shape.field(name)
                _compare(before, value, inner_shape, step, found)
        for name, value in old.items():
            if name not in new:
                inner_shape, step, _ = shape.field(name)
                _compare(value, _ABSENT, inner_shape, step, found)
        return
    before_by_step = {shape.step_of(item): item for item in old or ()}
    after_by_step = {shape.step_of(item): item for item in new or ()}
    for step, item in after_by_step.items():
        _compare(before_by_step.get(step, _ABSENT), item, shape.items, step, found)
    for step, item in before_by_step.items():
        if step not in after_by_step:
            _compare(item, _ABSENT, shape.items, step, found)


# -- one value over another


def merge(under: Json, over: Json, shape: Shape) -> Json:
    """What `over` says, and for the rest what `under` has."""
    if over is None and shape.is_walked(under):
        return under
    if not (shape.is_walked(over) and shape.is_walked(under)):
        return over
    if shape.form is Form.OBJECT:
        result = dict(under)
        for name, value in over.items():
            present = result.get(name, _ABSENT)
            if present is _ABSENT:
                result[name] = value
            else:
                result[name] = merge(present, value, shape.field(name)[0])
        return result
    return _merge_lists(under, over, shape)


def _merge_lists(under: list[Json], over: list[Json], shape: Shape) -> list[Json]:
    """Elements of both in the order of `over`; others keep their place between the shared."""
    lower = [(shape.step_of(item), item) for item in under]
    upper = [(shape.step_of(item), item) for item in over]
    lower_by_step, upper_steps = dict(lower), {step for step, _ in upper}
    shared = [step for step, _ in upper if step in lower_by_step]
    result, position, next_shared = [], 0, 0
    for step, item in upper:
        awaited = shared[next_shared] if next_shared < len(shared) else None
        # What only the lower one has comes before the shared element that it came before.
        while position < len(lower) and lower[position][0] != awaited:
            if lower[position][0] not in upper_steps:
                result.append(lower[position][1])
            position += 1
        if step == awaited:
            position += 1
            next_shared += 1
        present = lower_by_step.get(step, _ABSENT)
        result.append(item if present is _ABSENT else merge(present, item, shape.items))
    result.extend(item for step, item in lower[position:] if step not in upper_steps)
    return result


# -- a value without some of its fields


def without(value: Json, fields: FieldSet, shape: Shape) -> Json:
    """A value without these members; null if nothing remains of a part."""
    if not value or not fields or not shape.is_walked(value):
        return value
    if shape.form is Form.OBJECT:
        result = {}
        for name, inner in value.items():
            inner_shape, step, _ = shape.field(name)
            node = fields.get(step)
            if node is None:
                result[name] = inner
            elif not is_member(node):
                result[name] = without(inner, node, inner_shape)
        return result or None
    items = []
    for item in value:
        node = fields.get(shape.step_of(item))
        if node is None:
            items.append(item)
        elif not is_member(node):
            items.append(without(item, node, shape.items))
    return items or None


def with_named_members(fields: FieldSet, shape: Shape) -> FieldSet:
    """The set in which the fields that the schema names are members wherever they lead somewhere."""
    result = {}
    for step, node in fields.items():
        if step == SELF or not node:
            result[step] = node
        elif step.startswith("f:"):
            inner_shape, _, is_named = shape.field(step[2:])
            below = with_named_members(node, inner_shape)
            result[step] = as_member(below) if is_named else below
        else:
            result[step] = with_named_members(node, shape.items)
    return result
