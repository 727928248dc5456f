"""The model: definitions of the schema as classes with fields, ready to be written down.

Rules (docs/adr/0002-generated-types.md gives the reasons): every field has a default; required
fields and Go struct values are always written, all others only when they say something.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from . import gotypes
from .names import attribute_of, class_of, definition_of, module_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Json = dict[str, Any]

META = "io.k8s.apimachinery.pkg.apis.meta.v1."
JSON_SCHEMA = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1."

# Definitions that are not classes, with the annotation that stands for them.
SCALARS: dict[str, str] = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": "Quantity",
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": "IntOrString",
    "io.k8s.apimachinery.pkg.runtime.RawExtension": "Any",
    META + "Time": "datetime",
    META + "MicroTime": "str",
    META + "FieldsV1": "Any",
    META + "Patch": "Any",
    JSON_SCHEMA + "JSON": "Any",
    JSON_SCHEMA + "JSONSchemaPropsOrArray": "JSONSchemaProps | tuple[JSONSchemaProps, ...]",
    JSON_SCHEMA + "JSONSchemaPropsOrBool": "JSONSchemaProps | bool",
    JSON_SCHEMA + "JSONSchemaPropsOrStringArray": "JSONSchemaProps | tuple[str, ...]",
}


@dataclass(frozen=True, slots=True)
class Attribute:
    """One field of a class: its annotation and how its default is written."""

    wire: str
    name: str
    annotation: str
    default: str
    # Classes whose objects the default makes: they must be defined before this one.
    makes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Definition:
    """One class to be written."""

    id: str
    module: str
    name: str
    attributes: tuple[Attribute, ...]
    # Ids of other definitions that the annotations mention.
    mentions: frozenset[str]
    gvk: tuple[tuple[str, str, str], ...] = ()


@dataclass(slots=True)
class Model:
    """All classes by module name, in the order in which they must be written."""

    modules: dict[str, list[Definition]] = field(default_factory=dict)


def build(schema: Mapping[str, Json], protobuf: Mapping[str, list[Any]]) -> Model:
    model = Model()
    by_module: dict[str, dict[str, Definition]] = {}
    messages = {definition_of(message): entries for message, entries in protobuf.items()}
    for identity in sorted(schema):
        if identity not in SCALARS:
            definition = _definition(identity, schema[identity], _order_of(identity, messages))
            by_module.setdefault(definition.module, {})[identity] = definition
    for module, definitions in sorted(by_module.items()):
        model.modules[module] = list(_makers_first(definitions))
    return model


def _order_of(identity: str, messages: Mapping[str, list[Any]]) -> dict[str, int]:
    """Fields in the order of their protobuf numbers, which is that of the Go source."""
    entries = messages.get(identity, [])
    return {entry[1]: entry[0] for entry in entries}


def _definition(identity: str, schema: Json, order: Mapping[str, int]) -> Definition:
    properties: Json = schema.get("properties", {})
    required = set(schema.get("required", ()))
    gvk = tuple(
        (entry["group"], entry["version"], entry["kind"])
        for entry in schema.get("x-kubernetes-group-version-kind", ())
    )
    top_level = "kind" in properties and "apiVersion" in properties and bool(gvk)
    first = ("kind", "apiVersion", "metadata")
    wires = sorted(
        properties,
        key=lambda wire: (
            (first.index(wire), 0, "")
            if wire in first and (top_level or wire == "metadata")
            else (len(first), order.get(wire, 10_000), wire)
        ),
    )
    owner = f"{module_of(identity)}.{class_of(identity)}"
    mentions: set[str] = set()
    attributes = []
    for wire in wires:
        if top_level and wire in ("kind", "apiVersion"):
            attributes.append(_type_meta(wire, gvk))
            continue
        mentions.update(_refs(properties[wire]))
        attributes.append(
            _attribute(owner, wire, properties[wire], wire in required, top_level=top_level)
        )
    return Definition(
        id=identity,
        module=module_of(identity),
        name=class_of(identity),
        attributes=tuple(attributes),
        mentions=frozenset(mentions),
        gvk=gvk,
    )


def _type_meta(wire: str, gvk: tuple[tuple[str, str, str], ...]) -> Attribute:
    group, version, kind = gvk[0]
    value = kind if wire == "kind" else f"{group}/{version}".lstrip("/")
    return Attribute(wire, attribute_of(wire), "str", f'always("{value}")')


def _attribute(
    owner: str, wire: str, schema: Json, required: bool, *, top_level: bool
) -> Attribute:
    name = attribute_of(wire)
    annotation = annotation_of(schema)
    required = required or wire in gotypes.ALWAYS_WRITTEN.get(owner, ())
    if "$ref" in schema and schema["$ref"] not in SCALARS:
        cls = class_of(schema["$ref"])
        if required or _is_struct_value(owner, wire, top_level=top_level):
            return Attribute(wire, name, annotation, f"new({cls})", makes=(schema["$ref"],))
        return Attribute(wire, name, f"{annotation} | None", "None")
    if schema.get("type") == "array":
        return Attribute(wire, name, annotation, "always(())" if required else "()")
    if "additionalProperties" in schema:
        default = "always_dict()" if required else "field(default_factory=dict)"
        return Attribute(wire, name, annotation, default)
    empty = _empty_value(owner, wire, annotation, required)
    if empty == "None" and annotation != "Any":
        annotation += " | None"
    return Attribute(wire, name, annotation, f"always({empty})" if required else empty)


def _is_struct_value(owner: str, wire: str, *, top_level: bool) -> bool:
    if wire in gotypes.STRUCT_POINTERS.get(owner, ()):
        return False
    if wire == "metadata" or (top_level and wire in ("spec", "status")):
        return True
    return wire in gotypes.STRUCT_VALUES.get(owner, ())


def _empty_value(owner: str, wire: str, annotation: str, required: bool) -> str:
    """What a field holds when nobody says anything; None where that differs from zero."""
    if annotation in ("str", "Quantity"):
        return "None" if wire in gotypes.STRING_POINTERS.get(owner, ()) else '""'
    if annotation == "int":
        is_count = owner.endswith("Status") and wire not in gotypes.STATUS_INT_POINTERS.get(
            owner, ()
        )
        if required or is_count or wire in gotypes.INT_VALUES.get(owner, ()):
            return "0"
    if annotation == "float" and required:
        return "0.0"
    if annotation == "bool" and required:
        return "False"
    if annotation == "IntOrString" and required:
        return "0"
    return "None"


def annotation_of(schema: Json) -> str:
    if "$ref" in schema:
        return SCALARS.get(schema["$ref"]) or class_of(schema["$ref"])
    kind = schema.get("type")
    if kind == "array":
        return f"tuple[{annotation_of(schema['items'])}, ...]"
    if kind == "object":
        if "additionalProperties" in schema:
            value = annotation_of(schema["additionalProperties"])
            # Only a moment has no empty value of its own.
            return f"dict[str, {value + ' | None' if value == 'datetime' else value}]"
        return "Any"
    plain = {"string": "str", "integer": "int", "boolean": "bool", "number": "float"}
    return plain[str(kind)]


def _refs(schema: object) -> Iterator[str]:
    if isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"]
        for value in schema.values():
            yield from _refs(value)


def _makers_first(definitions: Mapping[str, Definition]) -> Iterator[Definition]:
    """In alphabetical order, except that what a default makes comes before its user."""
    done: set[str] = set()

    def visit(identity: str, above: tuple[str, ...]) -> Iterator[Definition]:
        if identity in above:
            raise ValueError(f"defaults of {identity} make each other")
        if identity in done or identity not in definitions:
            return
        for attribute in definitions[identity].attributes:
            for made in attribute.makes:
                yield from visit(made, (*above, identity))
        done.add(identity)
        yield definitions[identity]

    for identity in definitions:
        yield from visit(identity, ())
