"""Schemas as OpenAPI writes them, and the collection of them that a document needs.

Version 2 and 3 differ in little: where definitions stand, that a reference in version 3 needs
an `allOf` to have neighbours, that version 2 knows no alternatives, and that defaults and enums
are published in version 3 only (as upstream does: old clients would fill in the one and refuse
the other).

A definition is written once however often it is referred to, and only if it is. Built-in types
have published names; custom resources get theirs from group, version and kind.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

from pybernetes.api.schemas import definition, kinds_of
from pybernetes.apimachinery.schema import UNSET

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pybernetes.apimachinery.schema import Schema
    from pybernetes.apiserver.openapi.descriptions import Descriptions

Json = dict[str, Any]

GVK = "x-kubernetes-group-version-kind"


class Dialect(Enum):
    """The version of OpenAPI; the value is where references point."""

    V2 = "#/definitions/"
    V3 = "#/components/schemas/"


_ANY: Json = {}
_OBJECT: Json = {"type": "object"}
_DATE_TIME: Json = {"type": "string", "format": "date-time"}
_APIEXTENSIONS = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1."
_META = "io.k8s.apimachinery.pkg.apis.meta.v1."

# Definitions that are plain values in JSON, where the structure does not say it all.
_VALUES_V2: dict[str, Json] = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {"type": "string", "format": "quantity"},
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {
        "type": "string",
        "format": "int-or-string",
    },
    "io.k8s.apimachinery.pkg.runtime.RawExtension": _OBJECT,
    _META + "Time": _DATE_TIME,
    _META + "MicroTime": _DATE_TIME,
    _META + "FieldsV1": _OBJECT,
    _META + "Patch": _OBJECT,
    _APIEXTENSIONS + "JSON": _ANY,
    _APIEXTENSIONS + "JSONSchemaPropsOrArray": _ANY,
    _APIEXTENSIONS + "JSONSchemaPropsOrBool": _ANY,
    _APIEXTENSIONS + "JSONSchemaPropsOrStringArray": _ANY,
}
_VALUES_V3: dict[str, Json] = {
    **_VALUES_V2,
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {
        "format": "quantity",
        "oneOf": [{"type": "string"}, {"type": "number"}],
    },
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {
        "format": "int-or-string",
        "oneOf": [{"type": "integer"}, {"type": "string"}],
    },
}

# What a custom resource may say in version 2 beyond structure and extensions. It knows no
# alternatives, and what it does not know would make the whole document useless to its readers.
_IN_V2 = frozenset(
    {
        "title", "description", "pattern", "multipleOf", "maximum", "exclusiveMaximum",
        "minimum", "exclusiveMinimum", "maxLength", "minLength", "maxItems", "minItems",
        "uniqueItems", "maxProperties", "minProperties", "externalDocs", "example",
    }
)  # fmt: skip


def custom_name(group: str, version: str, kind: str) -> str:
    """The definition of a custom resource: ``com.example.v1.Backup``."""
    return ".".join([*reversed(group.split(".")), version, kind])


class Definitions:
    """The definitions of one document."""

    def __init__(self, dialect: Dialect, descriptions: Descriptions) -> None:
        self._v3 = dialect is Dialect.V3
        self._prefix = dialect.value
        self._values = _VALUES_V3 if self._v3 else _VALUES_V2
        self._descriptions = descriptions
        # Finished definitions by published name.
        self._done: dict[str, Json] = {}
        # Names somebody referred to, in order, and not yet written.
        self._waiting: dict[str, None] = {}

    def reference(self, name: str) -> Json:
        """A reference to a definition, which the document will have."""
        if name not in self._done:
            self._waiting[name] = None
        return {"$ref": self._prefix + name}

    def add_custom(self, name: str, schema: Schema, kinds: Sequence[tuple[str, str, str]]) -> None:
        """The definition of a custom resource and of its list."""
        document = self._node(schema)
        properties = document.setdefault("properties", {})
        properties["apiVersion"] = properties["kind"] = {"type": "string"}
        properties["metadata"] = self.reference(_META + "ObjectMeta")
        document.setdefault("type", "object")
        document[GVK] = gvk_list(kinds)
        self._done[name] = document
        self._waiting.pop(name, None)
        own = self.reference(name)
        listed = [(group, version, f"{kind}List") for group, version, kind in kinds]
        self._waiting.pop(f"{name}List", None)
        self._done[f"{name}List"] = {
            "type": "object",
            "required": ["items"],
            "properties": {
                "apiVersion": {"type": "string"},
                "items": {"type": "array", "items": own},
                "kind": {"type": "string"},
                "metadata": self.reference(_META + "ListMeta"),
            },
            GVK: gvk_list(listed),
        }

    def finish(self) -> Json:
        """All definitions that are referred to, directly or not, in order of name."""
        while self._waiting:
            name = next(iter(self._waiting))
            self._done[name] = self._definition(name)
            del self._waiting[name]
        return dict(sorted(self._done.items()))

    # --- one definition ---------------------------------------------------------------------------

    def _definition(self, name: str) -> Json:
        # What refers to itself must not wait for itself.
        self._done[name] = _ANY
        document: Json = {}
        texts = self._descriptions.of(name)
        if text := texts.get(""):
            document["description"] = text
        if (value := self._values.get(name)) is not None:
            return {**document, **value}
        schema = definition(name)
        assert schema.properties is not None, name
        document["type"] = "object"
        properties: Json = {}
        for field, node in schema.properties.fresh():
            properties[field] = self._field(node, texts.get(field, ""))
        if properties:
            document["properties"] = properties
        if schema.required:
            document["required"] = sorted(schema.required)
        if kinds := kinds_of(name):
            document[GVK] = gvk_list(kinds)
        if schema.map_type:
            document["x-kubernetes-map-type"] = schema.map_type
        if schema.unions:
            document["x-kubernetes-unions"] = list(schema.unions)
        return document

    def _field(self, node: Schema, text: str) -> Json:
        """A field of a built-in type."""
        beside: Json = {}
        if text:
            beside["description"] = text
        if self._v3:
            if node.default is not UNSET:
                beside["default"] = node.default
            if node.enum:
                beside["enum"] = list(node.enum)
        _add_topology(beside, node)
        if node.map_type and (not node.ref or node.map_type != definition(node.ref).map_type):
            beside["x-kubernetes-map-type"] = node.map_type
        if not node.ref:
            return {**self._type(node), **beside}
        reference = self.reference(node.ref)
        if not beside:
            return reference
        return {"allOf": [reference], **beside} if self._v3 else {**reference, **beside}

    def _type(self, node: Schema) -> Json:
        if node.ref:
            return self.reference(node.ref)
        if node.items is not None:
            return {"type": "array", "items": self._type(node.items)}
        if node.additional_properties is not None:
            return {
                "type": "object",
                "additionalProperties": self._type(node.additional_properties),
            }
        document: Json = {"type": node.type} if node.type else {}
        if node.format:
            document["format"] = node.format
        return document

    # --- custom resources -------------------------------------------------------------------------

    def _node(self, node: Schema) -> Json:
        """Any node of a custom resource, with all that it says."""
        document = self._constraints(node.constraints)
        if node.int_or_string:
            document["x-kubernetes-int-or-string"] = True
        elif self._v3 or not (node.preserve_unknown or node.nullable):
            self._add_structure(document, node)
        if node.preserve_unknown:
            document["x-kubernetes-preserve-unknown-fields"] = True
        if node.embedded_resource:
            document["x-kubernetes-embedded-resource"] = True
        if self._v3:
            if node.nullable:
                document["nullable"] = True
            if node.default is not UNSET:
                document["default"] = node.default
        if node.enum:
            document["enum"] = list(node.enum)
        _add_topology(document, node)
        if node.map_type:
            document["x-kubernetes-map-type"] = node.map_type
        return document

    def _add_structure(self, document: Json, node: Schema) -> None:
        if node.type:
            document["type"] = node.type
        if node.format:
            document["format"] = node.format
        if node.properties is not None:
            document["properties"] = {
                name: self._node(child) for name, child in node.properties.fresh()
            }
        if node.required:
            document["required"] = sorted(node.required)
        if node.items is not None:
            document["items"] = self._node(node.items)
        if node.additional_properties is not None:
            document["additionalProperties"] = self._node(node.additional_properties)

    def _constraints(self, said: Mapping[str, Any]) -> Json:
        if self._v3:
            return dict(said)
        return {
            name: value for name, value in said.items() if name in _IN_V2 or name.startswith("x-")
        }


def custom_document(schema: Schema) -> Json:
    """A custom resource's schema by itself, to tell whether it has changed."""
    from pybernetes.apiserver.openapi.descriptions import Descriptions

    return Definitions(Dialect.V3, Descriptions({}))._node(schema)


def gvk_list(kinds: Sequence[tuple[str, str, str]]) -> list[Json]:
    return [{"group": g, "kind": k, "version": v} for g, v, k in kinds]


def _add_topology(document: Json, node: Schema) -> None:
    """How a list is merged."""
    if node.list_type:
        document["x-kubernetes-list-type"] = node.list_type
    if node.list_map_keys:
        document["x-kubernetes-list-map-keys"] = list(node.list_map_keys)
    if node.patch_strategy:
        document["x-kubernetes-patch-strategy"] = ",".join(node.patch_strategy)
    if node.patch_merge_key:
        document["x-kubernetes-patch-merge-key"] = node.patch_merge_key
