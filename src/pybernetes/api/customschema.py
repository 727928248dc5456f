"""Schemas of custom resources: whether they are structural.

In a structural schema every field has a type that is said once, outside of all value
validation (`allOf`, `not`, …), so that unknown fields can be dropped and defaults set without
looking at values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pybernetes.api.types.apiextensions_v1 import JSONSchemaProps

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pybernetes.apimachinery.fielderror import FieldError, Path

_TYPES = ("array", "boolean", "integer", "number", "object", "string")
_LIST_TYPES = ("atomic", "map", "set")


def validate_schema(schema: JSONSchemaProps, path: Path) -> Iterator[FieldError]:
    """The schema of a version."""
    if not schema.type:
        yield path.type.required("must not be empty at the root")
    elif schema.type != "object":
        yield path.type.invalid(schema.type, "must be object at the root")
    yield from _validate_field(schema, path, "")
    metadata = schema.properties.get("metadata")
    if metadata is not None and metadata.properties.keys() - {"name", "generateName"}:
        yield (
            path.child("properties")
            .key("metadata")
            .forbidden(
                "must not specify anything other than name and generateName, but metadata is"
                " implicitly specified"
            )
        )


def _validate_field(schema: JSONSchemaProps, path: Path, missing: str) -> Iterator[FieldError]:
    """Something that has a value of its own; `missing` says what it is without a type."""
    is_free = schema.x_kubernetes_int_or_string or schema.x_kubernetes_preserve_unknown_fields
    if schema.type == "null":
        yield path.type.forbidden("type cannot be set to null, use nullable as an alternative")
    elif schema.type:
        if schema.type not in _TYPES:
            yield path.type.not_supported(schema.type, _TYPES)
        elif schema.x_kubernetes_int_or_string:
            yield path.type.invalid(
                schema.type, "must be empty if x-kubernetes-int-or-string is true"
            )
    elif missing and not is_free:
        yield path.type.required(f"must not be empty for {missing}")
    yield from _validate_unsupported(schema, path)
    yield from _validate_list(schema, path)
    for name, part in schema.properties.items():
        yield from _validate_field(
            part, path.child("properties").key(name), "specified object fields"
        )
    extra = schema.additional_properties
    if isinstance(extra, JSONSchemaProps):
        yield from _validate_field(extra, path.additionalProperties, "specified object fields")
    if extra is not None and extra is not True and schema.properties:
        yield path.additionalProperties.forbidden(
            "additionalProperties and properties are mutual exclusive"
        )
    if isinstance(schema.items, JSONSchemaProps):
        yield from _validate_field(schema.items, path.child("items"), "specified array items")
    yield from _validate_conditions(schema, path)


def _validate_unsupported(schema: JSONSchemaProps, path: Path) -> Iterator[FieldError]:
    for name, is_there in (
        ("id", bool(schema.id)),
        ("$ref", bool(schema.ref)),
        ("additionalItems", schema.additional_items is not None),
        ("patternProperties", bool(schema.pattern_properties)),
        ("definitions", bool(schema.definitions)),
        ("dependencies", bool(schema.dependencies)),
    ):
        if is_there:
            yield path.child(name).forbidden(f"{name} is not supported")
    if schema.unique_items:
        yield path.uniqueItems.forbidden(
            "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        )
    if isinstance(schema.items, tuple):
        yield path.child("items").forbidden("items must be a schema object and not an array")


def _validate_list(schema: JSONSchemaProps, path: Path) -> Iterator[FieldError]:
    kind, keys = schema.x_kubernetes_list_type, schema.x_kubernetes_list_map_keys
    if schema.type == "array" and schema.items is None:
        yield path.child("items").required("must be specified")
    if kind and kind not in _LIST_TYPES:
        yield path.child("x-kubernetes-list-type").not_supported(kind, _LIST_TYPES)
    elif kind and schema.type != "array":
        yield path.type.invalid(schema.type, "must be array if x-kubernetes-list-type is specified")
    if kind == "map" and not keys:
        yield path.child("x-kubernetes-list-map-keys").required(
            "must not be empty if x-kubernetes-list-type is map"
        )
    elif keys and kind != "map":
        yield path.child("x-kubernetes-list-type").invalid(
            kind, "must be map if x-kubernetes-list-map-keys is non-empty"
        )
    if schema.x_kubernetes_map_type not in ("", "atomic", "granular"):
        yield path.child("x-kubernetes-map-type").not_supported(
            schema.x_kubernetes_map_type, ["atomic", "granular"]
        )


def _validate_conditions(schema: JSONSchemaProps, path: Path) -> Iterator[FieldError]:
    """What is said about values only: it may not say what a field is."""
    for name, parts in (
        ("allOf", schema.all_of),
        ("anyOf", schema.any_of),
        ("oneOf", schema.one_of),
    ):
        for index, part in enumerate(parts):
            yield from _validate_condition(part, path.child(name)[index], schema)
    if schema.not_ is not None:
        yield from _validate_condition(schema.not_, path.child("not"), schema)
    for index, rule in enumerate(schema.x_kubernetes_validations):
        if not rule.rule.strip():
            yield path.child("x-kubernetes-validations")[index].rule.required(
                "rule is not specified"
            )


def _validate_condition(
    part: JSONSchemaProps, path: Path, whole: JSONSchemaProps
) -> Iterator[FieldError]:
    # Two types in anyOf or allOf are how an int-or-string may be spelt out.
    if part.type and not whole.x_kubernetes_int_or_string:
        yield path.type.forbidden("must be empty to be structural")
    for name, value in (
        ("default", part.default is not None),
        ("nullable", part.nullable),
        ("description", part.description),
        ("title", part.title),
    ):
        if value:
            yield path.child(name).forbidden("must be undefined to be structural")
    if part.additional_properties is not None:
        yield path.additionalProperties.forbidden("must be undefined to be structural")
    for name, inner in part.properties.items():
        yield from _validate_condition(inner, path.child("properties").key(name), whole)
    if isinstance(part.items, JSONSchemaProps):
        yield from _validate_condition(part.items, path.child("items"), whole)
    for name, parts in (("allOf", part.all_of), ("anyOf", part.any_of), ("oneOf", part.one_of)):
        for index, inner in enumerate(parts):
            yield from _validate_condition(inner, path.child(name)[index], whole)
    if part.not_ is not None:
        yield from _validate_condition(part.not_, path.child("not"), whole)
