"""Definitions of custom resources, judged as objects."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from pybernetes.api.apiextensions import CUSTOM_RESOURCE_DEFINITIONS as DEFINITIONS
from pybernetes.api.types.apiextensions_v1 import CustomResourceDefinitionCondition
from tests.api.coreobjects import changed, create, errors_of

DEFINITION: dict[str, Any] = {
    "metadata": {"name": "gadgets.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "gadgets", "kind": "Gadget"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {"spec": {"type": "object"}},
                    }
                },
            }
        ],
    },
}
VERSION = "spec.versions.0"
SCHEMA = f"{VERSION}.schema.openAPIV3Schema"
SCHEMA_PATH = "spec.versions[0].schema.openAPIV3Schema"


def test_definitions_are_made_whole() -> None:
    new = create(DEFINITIONS, DEFINITION)
    assert (new.spec.names.singular, new.spec.names.list_kind) == ("gadget", "GadgetList")
    assert new.spec.conversion.strategy == "None"
    assert new.status.stored_versions == ("v1",)
    assert errors_of(DEFINITIONS, new) == []


@pytest.mark.parametrize(
    ("path", "value", "errors"),
    [
        (
            "metadata.name",
            "gadgets",
            ['metadata.name: Invalid value: "gadgets": must be spec.names.plural+"."+spec.group'],
        ),
        ("spec.scope", "", ["spec.scope: Required value"]),
        (
            "spec.scope",
            "World",
            ['spec.scope: Unsupported value: "World": supported values: "Cluster", "Namespaced"'],
        ),
        (
            "spec.names",
            {"plural": "gadgets", "singular": "gadget", "kind": "Gad_get", "listKind": "Gadgets"},
            [
                'spec.names.kind: Invalid value: "Gad_get": may have mixed case, but should '
                "otherwise match: a DNS-1035 label must consist of lower case alphanumeric "
                "characters or '-', start with an alphabetic character, and end with an "
                "alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for "
                "validation is '[a-z]([-a-z0-9]*[a-z0-9])?')",
            ],
        ),
        (
            "spec.names.listKind",
            "Gadget",
            ['spec.names.listKind: Invalid value: "Gadget": kind and listKind may not be the same'],
        ),
        (
            f"{VERSION}.schema",
            None,
            [f"{SCHEMA_PATH}: Required value: schemas are required"],
        ),
        (
            "spec.preserveUnknownFields",
            True,
            [
                "spec.preserveUnknownFields: Invalid value: true: cannot set to true, set "
                "x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead"
            ],
        ),
        (
            "spec.conversion",
            {"strategy": "Webhook"},
            [
                "spec.conversion.webhookClientConfig: Required value: "
                "required when strategy is set to Webhook"
            ],
        ),
        (
            f"{VERSION}.subresources",
            {"scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".x"}},
            [
                'spec.versions[0].subresources.scale.statusReplicasPath: Invalid value: ".x": '
                "should be a json path under .status"
            ],
        ),
        (
            f"{VERSION}.additionalPrinterColumns",
            [{"name": "Size", "type": "text", "jsonPath": ".spec.size"}],
            [
                'spec.versions[0].additionalPrinterColumns[0].type: Invalid value: "text": '
                "must be one of boolean,date,integer,number,string"
            ],
        ),
    ],
)
def test_validation(path: str, value: Any, errors: list[str]) -> None:
    assert errors_of(DEFINITIONS, create(DEFINITIONS, changed(DEFINITION, path, value))) == errors


def test_one_version_is_stored() -> None:
    second = {**DEFINITION["spec"]["versions"][0], "name": "v2"}
    both = changed(DEFINITION, "spec.versions", [DEFINITION["spec"]["versions"][0], second])
    assert errors_of(DEFINITIONS, create(DEFINITIONS, both)) == [
        'spec.versions: Invalid value: ["v1","v2"]: '
        "must have exactly one version marked as storage version"
    ]
    same = changed(changed(both, "spec.versions.1.name", "v1"), "spec.versions.1.storage", False)
    assert errors_of(DEFINITIONS, create(DEFINITIONS, same)) == [
        'spec.versions: Invalid value: ["v1","v1"]: must contain unique version names'
    ]


def test_stored_versions_stay_until_they_are_migrated() -> None:
    old = create(DEFINITIONS, DEFINITION)
    renamed = create(DEFINITIONS, changed(DEFINITION, f"{VERSION}.name", "v2"))
    new = DEFINITIONS.strategy.prepare_update(replace(renamed, status=old.status), old)
    assert new.status.stored_versions == ("v1", "v2")
    assert errors_of(DEFINITIONS, new, old) == [
        'status.storedVersions[0]: Invalid value: "v1": missing from spec.versions; v1 was '
        "previously a storage version, and must remain in spec.versions until a storage "
        "migration ensures no data remains persisted in v1 and removes v1 from "
        "status.storedVersions"
    ]


def test_what_is_established_stays() -> None:
    old = create(DEFINITIONS, DEFINITION)
    cluster = create(DEFINITIONS, changed(DEFINITION, "spec.scope", "Cluster"))
    assert errors_of(DEFINITIONS, cluster, old) == []
    established = CustomResourceDefinitionCondition(type="Established", status="True")
    old = replace(old, status=replace(old.status, conditions=(established,)))
    assert errors_of(DEFINITIONS, cluster, old) == [
        'spec.scope: Invalid value: "Cluster": field is immutable'
    ]


PROTECTED = "protected groups must have approval annotation"
PAGE = "see https://github.com/kubernetes/enhancements/pull/1111"


@pytest.mark.parametrize(
    ("approval", "error"),
    [
        ("https://github.com/kubernetes/kubernetes/pull/1", ""),
        ("unapproved, experimental", ""),
        ("", f'Required value: {PROTECTED} "api-approved.kubernetes.io", {PAGE}'),
        (
            "yes",
            f'Invalid value: "yes": {PROTECTED} "api-approved.kubernetes.io" with either a URL '
            f'or a reason starting with "unapproved", {PAGE}',
        ),
    ],
)
def test_groups_of_kubernetes_are_approved(approval: str, error: str) -> None:
    manifest = changed(DEFINITION, "spec.group", "gadgets.k8s.io")
    metadata = {
        "name": "gadgets.gadgets.k8s.io",
        "annotations": {"api-approved.kubernetes.io": approval},
    }
    errors = errors_of(DEFINITIONS, create(DEFINITIONS, changed(manifest, "metadata", metadata)))
    path = "metadata.annotations[api-approved.kubernetes.io]"
    assert errors == ([f"{path}: {error}"] if error else [])


@pytest.mark.parametrize(
    ("schema", "errors"),
    [
        ({}, ["type: Required value: must not be empty at the root"]),
        ({"type": "string"}, ['type: Invalid value: "string": must be object at the root']),
        (
            {"type": "object", "properties": {"a": {}}},
            ["properties[a].type: Required value: must not be empty for specified object fields"],
        ),
        (
            {"type": "object", "properties": {"a": {"type": "array", "items": {}}}},
            [
                "properties[a].items.type: Required value: "
                "must not be empty for specified array items"
            ],
        ),
        (
            {"type": "object", "properties": {"a": {"x-kubernetes-int-or-string": True}}},
            [],
        ),
        (
            {"type": "object", "properties": {"a": {"type": "text"}}},
            [
                'properties[a].type: Unsupported value: "text": supported values: '
                '"array", "boolean", "integer", "number", "object", "string"'
            ],
        ),
        (
            {"type": "object", "$ref": "#/x"},
            ["$ref: Forbidden: $ref is not supported"],
        ),
        (
            {
                "type": "object",
                "properties": {"a": {"type": "string"}},
                "additionalProperties": {"type": "string"},
            },
            [
                "additionalProperties: Forbidden: "
                "additionalProperties and properties are mutual exclusive"
            ],
        ),
        (
            {"type": "object", "anyOf": [{"properties": {"a": {"type": "string"}}}]},
            ["anyOf[0].properties[a].type: Forbidden: must be empty to be structural"],
        ),
        (
            {
                "type": "object",
                "properties": {
                    "a": {
                        "type": "array",
                        "x-kubernetes-list-type": "map",
                        "items": {"type": "object"},
                    }
                },
            },
            [
                "properties[a].x-kubernetes-list-map-keys: Required value: "
                "must not be empty if x-kubernetes-list-type is map"
            ],
        ),
    ],
)
def test_schemas(schema: dict[str, Any], errors: list[str]) -> None:
    new = create(DEFINITIONS, changed(DEFINITION, SCHEMA, schema))
    assert errors_of(DEFINITIONS, new) == [f"{SCHEMA_PATH}.{error}" for error in errors]
