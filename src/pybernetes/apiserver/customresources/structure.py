"""What a structural schema does to a value: unknown fields go, defaults come. Pure.

Both are compiled when a version is first written to. Most values have nothing unknown in them, so
a check that only says whether they are clean comes first; the walk that knows where it is follows
only for the others.

Rules, upstream's: a field is known if `properties` or `additionalProperties` say so; where unknown
fields are preserved, known ones are still looked into; a null where there is a default and null
is no value makes way for the default. Values are never changed in place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pybernetes.apimachinery.schema import UNSET

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pybernetes.apimachinery.schema import Schema

Json = Any
# Whether there is nothing unknown in a value.
IsClean = Callable[[Json], bool]
# The value with its defaults; the same object if nothing was missing.
FillIn = Callable[[Json], Json]

# What every object has, whatever its schema says of it.
OBJECT_FIELDS = frozenset({"apiVersion", "kind", "metadata"})
# Unknown fields that are named; the others are dropped without a word.
_UNKNOWN_LIMIT = 100


# --- unknown fields -------------------------------------------------------------------------------


def clean_check(schema: Schema, *, root: bool = False) -> IsClean | None:
    """None for what is always clean."""
    if schema.items is not None:
        return _list_check(schema.items)
    if schema.type != "object":
        return None
    values = schema.additional_properties
    fields: Mapping[str, Schema] = schema.properties or {}
    is_resource = root or schema.embedded_resource
    checks = {}
    for name in fields:
        if is_resource and name in OBJECT_FIELDS:
            continue
        if (check := clean_check(fields[name])) is not None:
            checks[name] = check
    known = frozenset(fields) | (OBJECT_FIELDS if is_resource else frozenset())
    if values is not None and not fields:
        return _map_check(values)
    return _object_check(known, checks, is_open=schema.preserve_unknown or values is not None)


def _list_check(items: Schema) -> IsClean | None:
    check = clean_check(items)
    if check is None:
        return None
    return lambda value: type(value) is not list or all(map(check, value))


def _map_check(values: Schema) -> IsClean | None:
    check = clean_check(values)
    if check is None:
        return None
    return lambda value: type(value) is not dict or all(map(check, value.values()))


def _object_check(
    known: frozenset[str], checks: Mapping[str, IsClean], *, is_open: bool
) -> IsClean | None:
    if is_open and not checks:
        return None

    def check(value: Json) -> bool:
        if type(value) is not dict:
            return True
        if not is_open and not value.keys() <= known:
            return False
        for name, is_clean in checks.items():
            if name in value and not is_clean(value[name]):
                return False
        return True

    return check


def pruned(value: Json, schema: Schema, unknown: list[str], *, root: bool = False) -> Json:
    """The value without unknown fields, whose paths are added to `unknown`."""
    return _prune(value, schema, "", unknown, root=root)


def _prune(
    value: Json, schema: Schema, path: str, unknown: list[str], *, root: bool = False
) -> Json:
    if type(value) is list:
        if schema.items is None:
            return value
        return [
            _prune(item, schema.items, f"{path}[{index}]", unknown)
            for index, item in enumerate(value)
        ]
    if type(value) is not dict or schema.type != "object":
        return value
    is_resource = root or schema.embedded_resource
    result = {}
    for name, item in value.items():
        here = f"{path}.{name}" if path else name
        if is_resource and name in OBJECT_FIELDS:
            result[name] = item
            continue
        child = schema.child(name)
        if child is not None:
            result[name] = _prune(item, child, here, unknown)
        elif schema.preserve_unknown:
            result[name] = item
        elif len(unknown) < _UNKNOWN_LIMIT:
            unknown.append(here)
    return result


# --- defaults -------------------------------------------------------------------------------------


def filler(schema: Schema, *, root: bool = False) -> FillIn | None:
    """What fills in the defaults of a schema; None if it has none."""
    if schema.items is not None:
        return _list_filler(schema.items)
    fields: Mapping[str, Schema] = schema.properties or {}
    defaults: dict[str, tuple[Json, bool]] = {}
    fillers: dict[str, FillIn] = {}
    for name in fields:
        if root and name in OBJECT_FIELDS:
            continue
        field = fields[name]
        fill = filler(field)
        if fill is not None:
            fillers[name] = fill
        if field.default is not UNSET:
            default = field.default if fill is None else fill(field.default)
            defaults[name] = (default, field.nullable)
    if defaults or fillers:
        return _object_filler(defaults, fillers)
    if schema.additional_properties is not None:
        return _map_filler(schema.additional_properties)
    return None


def _object_filler(
    defaults: Mapping[str, tuple[Json, bool]], fillers: Mapping[str, FillIn]
) -> FillIn:
    def fill(value: Json) -> Json:
        if type(value) is not dict:
            return value
        result = value
        for name, (default, is_nullable) in defaults.items():
            if name in value and (is_nullable or value[name] is not None):
                continue
            if result is value:
                result = dict(value)
            result[name] = default
        for name, inner in fillers.items():
            if name not in result:
                continue
            present = result[name]
            filled = inner(present)
            if filled is not present:
                if result is value:
                    result = dict(value)
                result[name] = filled
        return result

    return fill


def _list_filler(items: Schema) -> FillIn | None:
    inner = _element_filler(items)
    if inner is None:
        return None

    def fill(value: Json) -> Json:
        if type(value) is not list:
            return value
        filled = [inner(item) for item in value]
        return value if all(map(_is, filled, value)) else filled

    return fill


def _map_filler(values: Schema) -> FillIn | None:
    inner = _element_filler(values)
    if inner is None:
        return None

    def fill(value: Json) -> Json:
        if type(value) is not dict:
            return value
        filled = {name: inner(item) for name, item in value.items()}
        return value if all(map(_is, filled.values(), value.values())) else filled

    return fill


def _element_filler(schema: Schema) -> FillIn | None:
    """Of an element that may be null."""
    inner = filler(schema)
    if schema.default is UNSET or schema.nullable:
        return inner
    default = schema.default if inner is None else inner(schema.default)

    def fill(item: Json) -> Json:
        if item is None:
            return default
        return item if inner is None else inner(item)

    return fill


def _is(one: Json, other: Json) -> bool:
    return one is other
