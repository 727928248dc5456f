"""The schemas of the built-in kinds, from the table that apigen wrote.

``schema_of`` answers for a kind, ``definition`` for any type by its published name. The table
is read when the first schema is asked for, and a definition is made when something refers to
it: a process that serves ten kinds does not pay for eight hundred definitions.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from pybernetes.apimachinery.schema import UNSET, Fields, Schema

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# What apigen wrote; OpenAPI names its documents by what they are made from.
TABLE = Path(__file__).parent / "tables" / "schema.json"

_EXTENSIONS = "io.k8s.apiextensions-apiserver.pkg.apis."
_PREFIXES = {
    "apiextensions": _EXTENSIONS,
    "apiregistration": "io.k8s.kube-aggregator.pkg.apis.",
    "meta": "io.k8s.apimachinery.pkg.apis.",
}
_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_SCHEMA_PROPS = "apiextensions.v1.JSONSchemaProps"

# Types that are plain values in JSON, by the name the table gives them.
_VALUES: dict[str, Schema] = {
    "any": Schema(ref="io.k8s.apimachinery.pkg.runtime.RawExtension"),
    "json": Schema(ref=_EXTENSIONS + "apiextensions.v1.JSON"),
    "fieldsV1": Schema(type="object", ref=_META + "FieldsV1"),
    "patch": Schema(type="object", ref=_META + "Patch"),
    "quantity": Schema(
        type="string", format="quantity", ref="io.k8s.apimachinery.pkg.api.resource.Quantity"
    ),
    "intOrString": Schema(
        type="string",
        format="int-or-string",
        ref="io.k8s.apimachinery.pkg.util.intstr.IntOrString",
    ),
    "time": Schema(type="string", format="date-time", ref=_META + "Time"),
    "microTime": Schema(type="string", format="micro-time", ref=_META + "MicroTime"),
    "string": Schema(type="string"),
    "byte": Schema(type="string", format="byte"),
    "boolean": Schema(type="boolean"),
    "number": Schema(type="number", format="double"),
    "int32": Schema(type="integer", format="int32"),
    "int64": Schema(type="integer", format="int64"),
}


@cache
def _table() -> dict[str, dict[str, Any]]:
    table: dict[str, dict[str, Any]] = msgspec.json.decode(TABLE.read_bytes())
    return table


@cache
def _by_kind() -> dict[tuple[str, str, str], str]:
    return {
        (group, version, kind): name
        for name, entry in _table().items()
        for group, version, kind in entry.get("kinds", ())
    }


def schema_of(group: str, version: str, kind: str) -> Schema | None:
    """The schema of a built-in kind; None if there is no such kind."""
    name = _by_kind().get((group, version, kind))
    return None if name is None else _definition(name)


def definition(published_name: str) -> Schema:
    """A definition by the name OpenAPI gives it. Raises KeyError."""
    for value in _VALUES.values():
        if value.ref == published_name:
            return value
    for name in (_alternatives_name(published_name), _short_name(published_name)):
        if name in _table() or name in _ALTERNATIVES:
            return _definition(name)
    raise KeyError(published_name)


def definition_names() -> Iterator[str]:
    """The definitions that OpenAPI publishes, objects and values alike, in order of name."""
    names = {
        _published_name(name) for name, entry in _table().items() if "unpublished" not in entry
    }
    names.update(value.ref for value in _VALUES.values() if value.ref)
    names.update(_published_name(_ALTERNATIVES[name][0]) for name in _ALTERNATIVES)
    return iter(sorted(names))


def kinds_of(published_name: str) -> tuple[tuple[str, str, str], ...]:
    """The (group, version, kind)s that a definition is the schema of."""
    entry = _table().get(_short_name(published_name), {})
    return tuple((group, version, kind) for group, version, kind in entry.get("kinds", ()))


# Types of which JSON shows one of two forms: their name, and the types of the forms.
_ALTERNATIVES: dict[str, tuple[str, str, str]] = {
    "schemaOrArray": (_SCHEMA_PROPS + "OrArray", _SCHEMA_PROPS, "[]" + _SCHEMA_PROPS),
    "schemaOrBool": (_SCHEMA_PROPS + "OrBool", _SCHEMA_PROPS, "boolean"),
    "schemaOrStrings": (_SCHEMA_PROPS + "OrStringArray", _SCHEMA_PROPS, "[]string"),
}


def _alternatives_name(published_name: str) -> str:
    short = _short_name(published_name)
    for name, (own, *_) in _ALTERNATIVES.items():
        if own == short:
            return name
    return ""


@cache
def _definition(name: str) -> Schema:
    if name in _ALTERNATIVES:
        own, *forms = _ALTERNATIVES[name]
        return Schema(ref=_published_name(own), alternatives=tuple(_type(form) for form in forms))
    entry = _table()[name]
    return Schema(
        type="object",
        ref=_published_name(name),
        properties=Fields(entry["fields"], _field),
        required=frozenset(entry.get("required", ())),
        map_type=entry.get("mapType", ""),
        unions=tuple(entry.get("unions", ())),
    )


def _field(fact: str | list[Any]) -> Schema:
    if isinstance(fact, str):
        return _type(fact)
    kind, details = fact
    return replace(_type(kind), **_details(details))


def _details(facts: Mapping[str, Any]) -> dict[str, Any]:
    strategy = facts.get("patchStrategy", "")
    details: dict[str, Any] = {
        "list_type": facts.get("listType", ""),
        "list_map_keys": tuple(facts.get("listMapKeys", ())),
        "patch_strategy": tuple(strategy.split(",")) if strategy else (),
        "patch_merge_key": facts.get("patchMergeKey", ""),
        "enum": tuple(facts.get("enum", ())),
        "default": facts.get("default", UNSET),
        "zero_is_absent": facts.get("zeroIsAbsent", False),
    }
    # A field without an opinion leaves that of the type it refers to.
    if "mapType" in facts:
        details["map_type"] = facts["mapType"]
    return details


@cache
def _type(expression: str) -> Schema:
    """``[]core.v1.Container``, ``map[string]quantity``, ``int32``."""
    if expression in _VALUES:
        return _VALUES[expression]
    if expression.startswith("[]"):
        return Schema(type="array", items=_type(expression.removeprefix("[]")))
    if expression.startswith("map[string]"):
        values = _type(expression.removeprefix("map[string]"))
        return Schema(type="object", additional_properties=values)
    return _definition(expression)


def _published_name(name: str) -> str:
    if name.startswith("io.k8s."):
        return name
    return _PREFIXES.get(name.partition(".")[0], "io.k8s.api.") + name


def _short_name(published_name: str) -> str:
    for prefix in (*_PREFIXES.values(), "io.k8s.api."):
        if published_name.startswith(prefix):
            return published_name.removeprefix(prefix)
    return published_name
