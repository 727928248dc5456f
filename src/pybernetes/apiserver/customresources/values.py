"""Validation of values by a structural schema, in the words of go-openapi. Pure.

A schema is compiled into one closure per node. What an update leaves as it was is not judged
again (ratcheting): an object that was right by older rules can still be changed elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from pybernetes.apimachinery.fielderror import ErrorKind, FieldError, quote
from pybernetes.apimachinery.schema import UNSET, from_openapi
from pybernetes.apiserver.customresources.formats import FORMATS, search_of

if TYPE_CHECKING:
    from pybernetes.apimachinery.schema import Schema

Json = Any
Errors = list[FieldError]
# Value, the old value at the same place or UNSET, path, where errors go.
Judge = Callable[[Json, Json, str, Errors], None]

# The types of JSON values as messages name them.
_KINDS = {
    dict: "object",
    list: "array",
    str: "string",
    bool: "boolean",
    int: "integer",
    type(None): "null",
}
# Errors of one object that are told.
LIMIT = 100


def kind_of(value: Json) -> str:
    if type(value) is float:
        return "integer" if value.is_integer() else "number"
    return _KINDS.get(type(value), "object")


def judge_of(schema: Schema, *, part: bool = False) -> Judge:
    """The closure for a node; `part` for what stands inside allOf, anyOf, oneOf and not."""
    checks: list[Judge] = []
    said = schema.constraints
    _add_scalar_checks(checks, schema, said)
    _add_size_checks(checks, schema, said)
    if schema.enum:
        checks.append(_enum_check(schema.enum))
    if schema.list_type == "set":
        checks.append(_judge_set)
    elif schema.list_type == "map" and schema.list_map_keys:
        checks.append(_list_map_check(schema.list_map_keys))
    _add_children(checks, schema, part=part)
    _add_combinations(checks, said)
    types = _types_of(schema)
    is_nullable, judges = schema.nullable, tuple(checks)

    def judge(value: Json, old: Json, path: str, errors: Errors) -> None:
        if old is not UNSET and type(old) is type(value) and old == value:
            return
        if value is None and is_nullable:
            return
        if types:
            kind = kind_of(value)
            if kind not in types and not (kind == "integer" and "number" in types):
                errors.append(_type_error(path, types, kind))
                return
        for check in judges:
            check(value, old, path, errors)

    return judge


def _types_of(schema: Schema) -> tuple[str, ...]:
    if schema.int_or_string:
        return ("integer", "string")
    return (schema.type,) if schema.type else ()


def _type_error(path: str, types: tuple[str, ...], kind: str) -> FieldError:
    detail = f"{path} in body must be of type {','.join(types)}: {quote(kind)}"
    return FieldError(ErrorKind.TYPE_INVALID, path, kind, detail)


def invalid(path: str, value: Json, text: str) -> FieldError:
    return FieldError(ErrorKind.INVALID, path, value, f"{path} in body {text}")


# --- scalars --------------------------------------------------------------------------------------


def _add_scalar_checks(checks: list[Judge], schema: Schema, said: Mapping[str, Any]) -> None:
    limits = [
        (name, said[name], bool(said.get(exclusive)))
        for name, exclusive in (("maximum", "exclusiveMaximum"), ("minimum", "exclusiveMinimum"))
        if said.get(name) is not None
    ]
    for name, limit, is_exclusive in limits:
        checks.append(_limit_check(name, limit, is_exclusive=is_exclusive))
    if factor := said.get("multipleOf"):
        checks.append(_multiple_check(factor))
    if pattern := said.get("pattern"):
        checks.append(_pattern_check(pattern))
    if not schema.int_or_string and schema.format in FORMATS:
        checks.append(_format_check(schema.format))


def _limit_check(name: str, limit: float, *, is_exclusive: bool) -> Judge:
    word = "less" if name == "maximum" else "greater"
    text = f"should be {word} than {'' if is_exclusive else 'or equal to '}{number_text(limit)}"
    sign = 1 if name == "maximum" else -1

    def judge(value: Json, old: Json, path: str, errors: Errors) -> None:
        if type(value) is not int and type(value) is not float:
            return
        beyond = (value - limit) * sign
        if beyond > 0 or (is_exclusive and beyond == 0):
            errors.append(invalid(path, value, text))

    return judge


def number_text(number: float) -> str:
    """As Go's %v: no decimals where there are none."""
    return str(int(number)) if float(number).is_integer() and abs(number) < 1e21 else str(number)


def _multiple_check(factor: float) -> Judge:
    def judge(value: Json, old: Json, path: str, errors: Errors) -> None:
        if type(value) is not int and type(value) is not float:
            return
        if not float(value / factor).is_integer():
            errors.append(invalid(path, value, f"should be a multiple of {number_text(factor)}"))

    return judge


def _pattern_check(pattern: str) -> Judge:
    matches = search_of(pattern)

    def judge(value: Json, old: Json, path: str, errors: Errors) -> None:
        if type(value) is str and not matches(value):
            errors.append(invalid(path, value, f"should match '{pattern}'"))

    return judge


def _format_check(name: str) -> Judge:
    fits = FORMATS[name]

    def judge(value: Json, old: Json, path: str, errors: Errors) -> None:
        if type(value) is str and not fits(value):
            detail = f"{path} in body must be of type {name}: {quote(value)}"
            errors.append(FieldError(ErrorKind.TYPE_INVALID, path, value, detail))

    return judge


def _enum_check(allowed: tuple[Json, ...]) -> Judge:
    supported = [a if isinstance(a, str) else msgspec.json.encode(a).decode() for a in allowed]
    detail = "supported values: " + ", ".join(map(quote, supported))

    def judge(value: Json, old: Json, path: str, errors: Errors) -> None:
        if not any(
            value == one and (type(value) is bool) == (type(one) is bool) for one in allowed
        ):
            errors.append(FieldError(ErrorKind.NOT_SUPPORTED, path, value, detail))

    return judge


# --- sizes ----------------------------------------------------------------------------------------


def _add_size_checks(checks: list[Judge], schema: Schema, said: Mapping[str, Any]) -> None:
    for name, type_, is_upper, noun in (
        ("maxLength", str, True, "chars"),
        ("minLength", str, False, "chars"),
        ("maxItems", list, True, "items"),
        ("minItems", list, False, "items"),
        ("maxProperties", dict, True, "properties"),
        ("minProperties", dict, False, "properties"),
    ):
        limit = said.get(name)
        if limit is not None:
            checks.append(_size_check(type_, int(limit), noun, is_upper=is_upper))


def _size_check(type_: type[Any], limit: int, noun: str, *, is_upper: bool) -> Judge:
    def judge(value: Json, old: Json, path: str, errors: Errors) -> None:
        if type(value) is not type_:
            return
        size = len(value)
        if size <= limit if is_upper else size >= limit:
            return
        if not is_upper:
            chars = " long" if type_ is str else ""
            errors.append(
                invalid(
                    path,
                    value,
                    f"should be at least {limit} {noun}{chars}"
                    if type_ is str
                    else f"should have at least {limit} {noun}",
                )
            )
        elif type_ is str:
            detail = f"may not be more than {limit} bytes"
            errors.append(FieldError(ErrorKind.TOO_LONG, path, value, detail))
        else:
            detail = f"must have at most {limit} item{'' if limit == 1 else 's'}"
            errors.append(FieldError(ErrorKind.TOO_MANY, path, size, detail))

    return judge


def _judge_set(value: Json, old: Json, path: str, errors: Errors) -> None:
    if type(value) is not list:
        return
    seen: set[bytes] = set()
    for index, item in enumerate(value):
        key = msgspec.json.encode(item, order="sorted")
        if key in seen:
            errors.append(FieldError(ErrorKind.DUPLICATE, f"{path}[{index}]", item))
        seen.add(key)


def _list_map_check(keys: tuple[str, ...]) -> Judge:
    def judge(value: Json, old: Json, path: str, errors: Errors) -> None:
        if type(value) is not list:
            return
        seen: set[bytes] = set()
        for index, item in enumerate(value):
            if type(item) is not dict:
                continue
            named = {key: item[key] for key in keys if key in item}
            text = msgspec.json.encode(named, order="sorted")
            if text in seen:
                errors.append(FieldError(ErrorKind.DUPLICATE, f"{path}[{index}]", named))
            seen.add(text)

    return judge


# --- children -------------------------------------------------------------------------------------


def _add_children(checks: list[Judge], schema: Schema, *, part: bool) -> None:
    if schema.items is not None:
        checks.append(_items_check(judge_of(schema.items, part=part), schema.list_map_keys))
    if schema.required:
        checks.append(_required_check(sorted(schema.required)))
    if schema.properties is not None:
        inner = {name: judge_of(schema.properties[name], part=part) for name in schema.properties}
        if inner:
            checks.append(_properties_check(inner))
    if schema.additional_properties is not None:
        known = frozenset(schema.properties or ())
        checks.append(_values_check(judge_of(schema.additional_properties, part=part), known))
    if schema.embedded_resource:
        checks.append(_judge_embedded)


def _items_check(inner: Judge, keys: tuple[str, ...]) -> Judge:
    def judge(value: Json, old: Json, path: str, errors: Errors) -> None:
        if type(value) is not list:
            return
        before = _by_key(old, keys) if keys and type(old) is list else None
        for index, item in enumerate(value):
            if len(errors) >= LIMIT:
                return
            was = UNSET if before is None else before.get(_key_of(item, keys), UNSET)
            inner(item, was, f"{path}[{index}]", errors)

    return judge


def _by_key(items: list[Json], keys: tuple[str, ...]) -> dict[bytes, Json]:
    return {_key_of(item, keys): item for item in items}


def _key_of(item: Json, keys: tuple[str, ...]) -> bytes:
    if type(item) is not dict:
        return b""
    return msgspec.json.encode([item.get(key) for key in keys])


def _required_check(names: list[str]) -> Judge:
    def judge(value: Json, old: Json, path: str, errors: Errors) -> None:
        if type(value) is not dict:
            return
        for name in names:
            if name not in value:
                errors.append(FieldError(ErrorKind.REQUIRED, _join(path, name)))

    return judge


def _properties_check(inner: Mapping[str, Judge]) -> Judge:
    def judge(value: Json, old: Json, path: str, errors: Errors) -> None:
        if type(value) is not dict:
            return
        before = old if type(old) is dict else None
        for name, check in inner.items():
            if name in value:
                if len(errors) >= LIMIT:
                    return
                was = UNSET if before is None else before.get(name, UNSET)
                check(value[name], was, _join(path, name), errors)

    return judge


def _values_check(inner: Judge, known: frozenset[str]) -> Judge:
    def judge(value: Json, old: Json, path: str, errors: Errors) -> None:
        if type(value) is not dict:
            return
        before = old if type(old) is dict else None
        for name, item in value.items():
            if name in known:
                continue
            if len(errors) >= LIMIT:
                return
            was = UNSET if before is None else before.get(name, UNSET)
            inner(item, was, _join(path, name), errors)

    return judge


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _judge_embedded(value: Json, old: Json, path: str, errors: Errors) -> None:
    """An embedded object says what it is."""
    if type(value) is not dict:
        return
    for name in ("apiVersion", "kind"):
        said = value.get(name)
        if said is None or said == "":
            errors.append(
                FieldError(ErrorKind.REQUIRED, _join(path, name), "", "must not be empty")
            )
        elif type(said) is not str:
            errors.append(
                FieldError(ErrorKind.INVALID, _join(path, name), said, "must be a string")
            )
    metadata = value.get("metadata")
    if metadata is not None and type(metadata) is not dict:
        errors.append(
            FieldError(ErrorKind.INVALID, _join(path, "metadata"), metadata, "must be an object")
        )


# --- allOf, anyOf, oneOf, not ---------------------------------------------------------------------


def _add_combinations(checks: list[Judge], said: Mapping[str, Any]) -> None:
    for name, make in (("allOf", _all_of), ("anyOf", _any_of), ("oneOf", _one_of)):
        if parts := said.get(name):
            checks.append(make([judge_of(from_openapi(part), part=True) for part in parts]))
    if (part := said.get("not")) is not None:
        checks.append(_not(judge_of(from_openapi(part), part=True)))


def _failures(inner: Judge, value: Json, path: str) -> Errors:
    errors: Errors = []
    inner(value, UNSET, path, errors)
    return errors


def _combined(path: str, text: str) -> FieldError:
    return FieldError(ErrorKind.INVALID, path or "<nil>", "", f'"{path}" {text}')


def _all_of(parts: list[Judge]) -> Judge:
    def judge(value: Json, old: Json, path: str, errors: Errors) -> None:
        failures = [failure for part in parts for failure in _failures(part, value, path)]
        if failures:
            errors.append(_combined(path, "must validate all the schemas (allOf)"))
            errors.extend(failures)

    return judge


def _any_of(parts: list[Judge]) -> Judge:
    def judge(value: Json, old: Json, path: str, errors: Errors) -> None:
        best: Errors | None = None
        for part in parts:
            failures = _failures(part, value, path)
            if not failures:
                return
            if best is None or len(failures) < len(best):
                best = failures
        errors.append(_combined(path, "must validate at least one schema (anyOf)"))
        errors.extend(best or ())

    return judge


def _one_of(parts: list[Judge]) -> Judge:
    def judge(value: Json, old: Json, path: str, errors: Errors) -> None:
        results = [_failures(part, value, path) for part in parts]
        valid = sum(not failures for failures in results)
        if valid == 1:
            return
        found = "none valid" if not valid else f"{valid} valid alternatives"
        text = f"must validate one and only one schema (oneOf). Found {found}"
        errors.append(_combined(path, text))
        if not valid:
            errors.extend(sorted(results, key=len)[0])

    return judge


def _not(part: Judge) -> Judge:
    def judge(value: Json, old: Json, path: str, errors: Errors) -> None:
        if not _failures(part, value, path):
            errors.append(_combined(path, "must not validate the schema (not)"))

    return judge
