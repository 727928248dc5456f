"""Definitions that OpenAPI does not publish: review bodies and options, from their protobuf.

The schema of the API lists what is served below a resource. Webhook reviews, the options of
requests and aggregated discovery are types too, but only their protobuf messages are known;
these become definitions like the others, without being offered to OpenAPI.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .names import definition_of

if TYPE_CHECKING:
    from collections.abc import Mapping

Json = dict[str, Any]

_META = "k8s.io.apimachinery.pkg.apis.meta.v1."
_CORE = "k8s.io.api.core.v1."
_ADMISSION = "k8s.io.api.admission.v1."
_DISCOVERY = "k8s.io.api.apidiscovery.v2."

# Message, with the kind it is (if it is one) and its required fields.
_MESSAGES: dict[str, tuple[tuple[str, str] | None, tuple[str, ...]]] = {
    _ADMISSION + "AdmissionRequest": (
        None,
        ("uid", "kind", "resource", "operation", "userInfo"),
    ),
    _ADMISSION + "AdmissionResponse": (None, ("uid", "allowed")),
    _ADMISSION + "AdmissionReview": (("admission.k8s.io", "v1"), ()),
    _CORE + "NodeProxyOptions": (("", "v1"), ()),
    _CORE + "PodAttachOptions": (("", "v1"), ()),
    _CORE + "PodExecOptions": (("", "v1"), ()),
    _CORE + "PodLogOptions": (("", "v1"), ()),
    _CORE + "PodPortForwardOptions": (("", "v1"), ()),
    _CORE + "PodProxyOptions": (("", "v1"), ()),
    _CORE + "ServiceProxyOptions": (("", "v1"), ()),
    _DISCOVERY + "APIGroupDiscovery": (("apidiscovery.k8s.io", "v2"), ()),
    _DISCOVERY + "APIGroupDiscoveryList": (("apidiscovery.k8s.io", "v2"), ("items",)),
    _DISCOVERY + "APIResourceDiscovery": (None, ("resource", "scope", "verbs")),
    _DISCOVERY + "APISubresourceDiscovery": (None, ("subresource", "verbs")),
    _DISCOVERY + "APIVersionDiscovery": (None, ("version",)),
    _META + "CreateOptions": (("", "v1"), ()),
    _META + "GetOptions": (("", "v1"), ()),
    _META + "GroupVersionKind": (None, ("group", "version", "kind")),
    _META + "GroupVersionResource": (None, ("group", "version", "resource")),
    _META + "List": (("", "v1"), ("items",)),
    _META + "ListOptions": (("", "v1"), ()),
    _META + "PartialObjectMetadata": (("meta.k8s.io", "v1"), ()),
    _META + "PartialObjectMetadataList": (("meta.k8s.io", "v1"), ("items",)),
    _META + "PatchOptions": (("", "v1"), ()),
    _META + "UpdateOptions": (("", "v1"), ()),
}

_SCALARS: dict[str, Json] = {
    "string": {"type": "string"},
    "bytes": {"type": "string", "format": "byte"},
    "bool": {"type": "boolean"},
    "int32": {"type": "integer", "format": "int32"},
    "int64": {"type": "integer", "format": "int64"},
    "map<string,string>": {"type": "object", "additionalProperties": {"type": "string"}},
    "map<string,bytes>": {
        "type": "object",
        "additionalProperties": {"type": "string", "format": "byte"},
    },
}


def supplement(protobuf: Mapping[str, list[Any]]) -> dict[str, Json]:
    """The additional definitions, by the name they would have in the schema."""
    return {
        definition_of(message): _definition(message, protobuf[message], gvk, required)
        for message, (gvk, required) in _MESSAGES.items()
    }


def _definition(
    message: str, entries: list[Any], gvk: tuple[str, str] | None, required: tuple[str, ...]
) -> Json:
    package, _, name = message.rpartition(".")
    properties = {entry[1]: _property(package, entry[2]) for entry in entries}
    definition: Json = {"type": "object", "properties": properties, "required": list(required)}
    if gvk is not None:
        properties.update(kind={"type": "string"}, apiVersion={"type": "string"})
        group, version = gvk
        definition["x-kubernetes-group-version-kind"] = [
            {"group": group, "version": version, "kind": name}
        ]
    return definition


def _property(package: str, kind: str) -> Json:
    if kind.startswith("*"):
        return {"type": "array", "items": _property(package, kind[1:])}
    if kind in _SCALARS:
        return _SCALARS[kind]
    name = kind[1:] if kind.startswith(".") else f"{package}.{kind}"
    return {"$ref": definition_of(name)}
