"""Writes the tables: what schemas and protobuf decoding need, one definition per line.

``schema.json`` maps a definition to its fields, each a type expression (``[]core.v1.Container``,
``map[string]string``, ``int32``) or, where more is known of it, a list of that and a mapping
of the rest. ``protobuf.json`` maps a message to its fields: number, name, type.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from . import gotypes
from .names import class_of, definition_of, module_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

Json = dict[str, Any]

_API = "io.k8s.api."
_META = "io.k8s.apimachinery.pkg.apis.meta."
_EXTENSIONS = "io.k8s.apiextensions-apiserver.pkg.apis."
_AGGREGATOR = "io.k8s.kube-aggregator.pkg.apis."

# Definitions that are values of JSON rather than objects with fields.
_SPECIAL = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": "quantity",
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": "intOrString",
    "io.k8s.apimachinery.pkg.runtime.RawExtension": "any",
    _META + "v1.Time": "time",
    _META + "v1.MicroTime": "microTime",
    _META + "v1.FieldsV1": "fieldsV1",
    _META + "v1.Patch": "patch",
    _EXTENSIONS + "apiextensions.v1.JSON": "json",
    _EXTENSIONS + "apiextensions.v1.JSONSchemaPropsOrArray": "schemaOrArray",
    _EXTENSIONS + "apiextensions.v1.JSONSchemaPropsOrBool": "schemaOrBool",
    _EXTENSIONS + "apiextensions.v1.JSONSchemaPropsOrStringArray": "schemaOrStrings",
}

_DETAILS = {
    "x-kubernetes-list-type": "listType",
    "x-kubernetes-list-map-keys": "listMapKeys",
    "x-kubernetes-map-type": "mapType",
    "x-kubernetes-patch-strategy": "patchStrategy",
    "x-kubernetes-patch-merge-key": "patchMergeKey",
}


def short_name(identity: str) -> str:
    """``core.v1.Pod``; api/schemas.py knows the way back."""
    for prefix in (_API, _EXTENSIONS, _AGGREGATOR):
        if identity.startswith(prefix):
            return identity.removeprefix(prefix)
    return "meta." + identity.removeprefix(_META) if identity.startswith(_META) else identity


def write_schema_table(
    schema: Mapping[str, Json],
    unpublished: Mapping[str, Json],
    enums: Mapping[str, Mapping[str, list[str]]],
    defaults: Mapping[str, Mapping[str, str]],
    path: Path,
) -> None:
    table: dict[str, Json] = {}
    for identity, definition in sorted({**schema, **unpublished}.items()):
        if identity in _SPECIAL:
            continue
        entry = _definition(
            identity, definition, enums.get(identity, {}), defaults.get(identity, {})
        )
        if identity in unpublished:
            entry["unpublished"] = True
        table[short_name(identity)] = entry
    _write_lines(table, path)


def _definition(
    identity: str, definition: Json, enums: Mapping[str, list[str]], defaults: Mapping[str, str]
) -> Json:
    owner = f"{module_of(identity)}.{class_of(identity)}"
    entry: Json = {
        "fields": {
            wire: _field(owner, wire, schema, enums.get(wire), defaults.get(wire))
            for wire, schema in sorted(definition.get("properties", {}).items())
        }
    }
    if definition.get("required"):
        entry["required"] = sorted(definition["required"])
    if kinds := definition.get("x-kubernetes-group-version-kind"):
        entry["kinds"] = [[kind["group"], kind["version"], kind["kind"]] for kind in kinds]
    if "x-kubernetes-map-type" in definition:
        entry["mapType"] = definition["x-kubernetes-map-type"]
    if "x-kubernetes-unions" in definition:
        entry["unions"] = definition["x-kubernetes-unions"]
    return entry


def _field(
    owner: str, wire: str, schema: Json, enum: list[str] | None, default: str | None
) -> str | list[Any]:
    details: Json = {short: schema[long] for long, short in _DETAILS.items() if long in schema}
    if enum is not None:
        details["enum"] = enum
    if default is not None:
        details["default"] = _default(schema, default)
    if wire in gotypes.ZERO_IS_ABSENT.get(owner, ()):
        details["zeroIsAbsent"] = True
    kind = _type(schema)
    return [kind, details] if details else kind


def _default(schema: Json, text: str) -> Any:
    return text if schema.get("type") == "string" else json.loads(text)


def _type(schema: Json) -> str:
    if "$ref" in schema:
        identity = schema["$ref"]
        return _SPECIAL.get(identity) or short_name(identity)
    kind = schema.get("type")
    if kind == "array":
        return "[]" + _type(schema["items"])
    if kind == "object":
        if "additionalProperties" not in schema:
            return "any"
        return "map[string]" + _type(schema["additionalProperties"])
    if kind == "integer":
        return str(schema.get("format", "int64"))
    if kind == "string":
        return "byte" if schema.get("format") == "byte" else "string"
    return str(kind)


def static_defaults(facts: Json) -> dict[str, dict[str, str]]:
    """Both sources in one: the markers in the code, constants they refer to as published."""
    merged: dict[str, dict[str, str]] = {}
    for definition, fields in facts["go"].items():
        for wire, text in fields.items():
            if not text.startswith("ref("):
                merged.setdefault(definition, {})[wire] = text.removeprefix('"').removesuffix('"')
    for definition, fields in facts["smd"].items():
        for wire, text in fields.items():
            merged.setdefault(definition, {}).setdefault(wire, text)
    return merged


def write_protobuf_table(
    protobuf: Mapping[str, list[Any]], definitions: Iterable[str], path: Path
) -> None:
    """The messages of all definitions, and what these are made of."""
    messages = {definition_of(message): (message, protobuf[message]) for message in protobuf}
    table: dict[str, Any] = {}
    waiting = sorted(set(definitions) & set(messages), reverse=True)
    while waiting:
        identity = waiting.pop()
        if short_name(identity) in table or _protobuf_value(identity, messages):
            continue
        message, entries = messages[identity]
        fields = []
        for entry in entries:
            head, kind = _protobuf_type(message.rpartition(".")[0], entry[2])
            if kind in messages:
                waiting.append(kind)
                kind = _protobuf_value(kind, messages) or short_name(kind)
            # An embedded message has no name in JSON: its fields stand in the outer object.
            fields.append([entry[0], "" if len(entry) > 3 else entry[1], head + kind])
        table[short_name(identity)] = fields
    _write_lines(dict(sorted(table.items())), path)


def _protobuf_value(identity: str, messages: Mapping[str, tuple[str, list[Any]]]) -> str:
    """What a message is called that stands for a plain value of JSON; empty if it does not."""
    if identity in _SPECIAL:
        return _SPECIAL[identity]
    wrapped = messages[identity][1]
    return "strings" if wrapped == [[1, "items", "*string"]] else ""


def _protobuf_type(package: str, kind: str) -> tuple[str, str]:
    """Whether a field is repeated (``*``) or a map (``map:``), and its type or definition."""
    head = ""
    if kind.startswith("*"):
        head, kind = "*", kind[1:]
    elif kind.startswith("map<string,"):
        head, kind = "map:", kind[len("map<string,") : -1]
    if kind.startswith("."):
        return head, definition_of(kind[1:])
    return head, definition_of(f"{package}.{kind}") if kind[0].isupper() else kind


def _write_lines(table: Mapping[str, Json], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        f"{json.dumps(name)}: {json.dumps(entry, separators=(',', ':'), sort_keys=True)}"
        for name, entry in table.items()
    ]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
