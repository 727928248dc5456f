"""Webhooks, policies and registrations of servers: defaults and upstream's words."""

from __future__ import annotations

from typing import Any

import pytest

from pybernetes.api import codec
from pybernetes.api.apiregistration import API_SERVICES
from pybernetes.api.registry import resource_at
from tests.api.coreobjects import changed, create, errors_of

GROUP = "admissionregistration.k8s.io"


def entry(plural: str, version: str = "v1") -> Any:
    found = resource_at(GROUP, version, plural)
    assert found is not None
    return found


VALIDATING, MUTATING = (
    entry("validatingwebhookconfigurations"),
    entry("mutatingwebhookconfigurations"),
)
POLICIES, BINDINGS = (
    entry("validatingadmissionpolicies"),
    entry("validatingadmissionpolicybindings"),
)
RULE = {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}
HOOK: dict[str, Any] = {
    "name": "pods.example.com",
    "sideEffects": "None",
    "admissionReviewVersions": ["v1"],
    "clientConfig": {"service": {"namespace": "default", "name": "hook"}},
    "rules": [RULE],
}
CONFIGURATION: dict[str, Any] = {"metadata": {"name": "a"}, "webhooks": [HOOK]}
POLICY: dict[str, Any] = {
    "metadata": {"name": "few"},
    "spec": {
        "matchConstraints": {"resourceRules": [RULE]},
        "validations": [{"expression": "object.spec.replicas < 5"}],
    },
}
BINDING: dict[str, Any] = {
    "metadata": {"name": "few-here"},
    "spec": {"policyName": "few", "validationActions": ["Deny"]},
}
MUTATION: dict[str, Any] = {
    "metadata": {"name": "label"},
    "spec": {
        "matchConstraints": {"resourceRules": [RULE]},
        "reinvocationPolicy": "Never",
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": "[]"}}],
    },
}


def test_webhooks_are_made_whole() -> None:
    (hook,) = codec.to_dict(create(MUTATING, CONFIGURATION))["webhooks"]
    assert hook == {
        **HOOK,
        "failurePolicy": "Fail",
        "matchPolicy": "Equivalent",
        "namespaceSelector": {},
        "objectSelector": {},
        "timeoutSeconds": 10,
        "reinvocationPolicy": "Never",
        "rules": [{**RULE, "scope": "*"}],
        "clientConfig": {"service": {"namespace": "default", "name": "hook", "port": 443}},
    }
    (hook,) = codec.to_dict(create(VALIDATING, CONFIGURATION))["webhooks"]
    assert "reinvocationPolicy" not in hook


URL = "webhooks[0].clientConfig.url"
FORM = "; desired format: https://host[/path]"


@pytest.mark.parametrize("resource", [VALIDATING, MUTATING])
@pytest.mark.parametrize(
    ("path", "value", "errors"),
    [
        (
            "name",
            "pods",
            [
                'webhooks[0].name: Invalid value: "pods": '
                "should be a domain with at least three segments separated by dots"
            ],
        ),
        (
            "sideEffects",
            None,
            ["webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun"],
        ),
        (
            "sideEffects",
            "Some",
            [
                'webhooks[0].sideEffects: Unsupported value: "Some": '
                'supported values: "None", "NoneOnDryRun"'
            ],
        ),
        (
            "admissionReviewVersions",
            [],
            [
                "webhooks[0].admissionReviewVersions: Required value: must specify one of v1, v1beta1"
            ],
        ),
        (
            "admissionReviewVersions",
            ["v2"],
            [
                'webhooks[0].admissionReviewVersions: Invalid value: ["v2"]: '
                "must include at least one of v1, v1beta1"
            ],
        ),
        (
            "timeoutSeconds",
            31,
            [
                "webhooks[0].timeoutSeconds: Invalid value: 31: "
                "the timeout value must be between 1 and 30 seconds"
            ],
        ),
        (
            "failurePolicy",
            "Shrug",
            [
                'webhooks[0].failurePolicy: Unsupported value: "Shrug": '
                'supported values: "Fail", "Ignore"'
            ],
        ),
        (
            "clientConfig",
            {},
            ["webhooks[0].clientConfig: Required value: exactly one of url or service is required"],
        ),
        (
            "clientConfig",
            {"url": "http://me@example.com/x?y#z"},
            [
                f"{URL}: Invalid value: \"http\": 'https' is the only allowed URL scheme{FORM}",
                f'{URL}: Invalid value: "me": user information is not permitted in the URL{FORM}',
                f'{URL}: Invalid value: "z": fragments are not permitted in the URL{FORM}',
                f'{URL}: Invalid value: "y": query parameters are not permitted in the URL{FORM}',
            ],
        ),
        (
            "clientConfig.service.path",
            "/a//b",
            [
                'webhooks[0].clientConfig.service.path: Invalid value: "/a//b": '
                "segment[1] may not be empty",
            ],
        ),
        (
            "rules.0.operations",
            ["*", "CREATE"],
            [
                'webhooks[0].rules[0].operations: Invalid value: ["*","CREATE"]: '
                "if '*' is present, must not specify other operations"
            ],
        ),
        (
            "rules.0.operations",
            ["READ"],
            [
                'webhooks[0].rules[0].operations[0]: Unsupported value: "READ": supported '
                'values: "*", "CONNECT", "CREATE", "DELETE", "UPDATE"'
            ],
        ),
        (
            "rules.0.resources",
            ["pods/*", "pods/status"],
            [
                'webhooks[0].rules[0].resources[1]: Invalid value: "pods/status": '
                "if 'pods/*' is present, must not specify pods/status"
            ],
        ),
        (
            "rules.0.resources",
            ["*", "pods"],
            [
                'webhooks[0].rules[0].resources: Invalid value: ["*","pods"]: '
                "if '*' is present, must not specify other resources without subresources"
            ],
        ),
    ],
)
def test_webhooks(resource: Any, path: str, value: Any, errors: list[str]) -> None:
    manifest = changed(CONFIGURATION, f"webhooks.0.{path}", value)
    assert errors_of(resource, create(resource, CONFIGURATION)) == []
    assert errors_of(resource, create(resource, manifest)) == errors


def test_webhooks_have_names_of_their_own() -> None:
    twice = create(VALIDATING, changed(CONFIGURATION, "webhooks", [HOOK, HOOK]))
    assert errors_of(VALIDATING, twice) == ['webhooks[1].name: Duplicate value: "pods.example.com"']


def test_policies_are_made_whole() -> None:
    spec = codec.to_dict(create(POLICIES, POLICY).spec)
    assert spec["failurePolicy"] == "Fail"
    assert spec["matchConstraints"] == {
        "matchPolicy": "Equivalent",
        "namespaceSelector": {},
        "objectSelector": {},
        "resourceRules": [{**RULE, "scope": "*"}],
    }


@pytest.mark.parametrize(
    ("resource", "manifest", "path", "value", "errors"),
    [
        (
            POLICIES,
            POLICY,
            "spec.matchConstraints",
            None,
            ["spec.matchConstraints: Required value"],
        ),
        (
            POLICIES,
            POLICY,
            "spec.validations",
            [],
            [
                f"spec.{name}: Required value: "
                "validations or auditAnnotations must contain at least one item"
                for name in ("validations", "auditAnnotations")
            ],
        ),
        (
            POLICIES,
            POLICY,
            "spec.validations.0.expression",
            " ",
            ["spec.validations[0].expression: Required value: expression is not specified"],
        ),
        (
            POLICIES,
            POLICY,
            "spec.validations.0.reason",
            "Why",
            [
                'spec.validations[0].reason: Unsupported value: "Why": supported values: '
                '"Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"'
            ],
        ),
        (
            POLICIES,
            POLICY,
            "spec.variables",
            [{"name": "a-b", "expression": "1"}],
            ['spec.variables[0].name: Invalid value: "a-b": name is not a valid CEL identifier'],
        ),
        (BINDINGS, BINDING, "spec.policyName", "", ["spec.policyName: Required value"]),
        (
            BINDINGS,
            BINDING,
            "spec.validationActions",
            [],
            ["spec.validationActions: Required value: at least one validation action is required"],
        ),
        (
            BINDINGS,
            BINDING,
            "spec.validationActions",
            ["Deny", "Warn"],
            [
                'spec.validationActions: Invalid value: ["Deny","Warn"]: must not contain both '
                "Deny and Warn (repeating the same validation failure information in the API "
                "response and headers serves no purpose)"
            ],
        ),
        (
            BINDINGS,
            BINDING,
            "spec.paramRef",
            {"parameterNotFoundAction": "Deny"},
            ["spec.paramRef: Required value: one of name or selector must be specified"],
        ),
    ],
)
def test_policies(
    resource: Any, manifest: dict[str, Any], path: str, value: Any, errors: list[str]
) -> None:
    assert errors_of(resource, create(resource, manifest)) == []
    assert errors_of(resource, create(resource, changed(manifest, path, value))) == errors


@pytest.mark.parametrize("version", ["v1", "v1beta1", "v1alpha1"])
def test_mutating_policies_in_all_versions(version: str) -> None:
    policies = entry("mutatingadmissionpolicies", version)
    assert bool(policies.feature_gate) == (version == "v1alpha1")
    policy = create(policies, MUTATION)
    assert errors_of(policies, policy) == []
    if policies.conversion is not None:
        stored = policies.conversion.to_stored(policy)
        assert stored.api_version == f"{GROUP}/v1beta1"
        assert policies.conversion.from_stored(stored) == policy
    bare = create(policies, changed(MUTATION, "spec.mutations", []))
    assert errors_of(policies, bare) == [
        "spec.mutations: Required value: mutations must contain at least one item"
    ]


SERVICE: dict[str, Any] = {
    "metadata": {"name": "v1.metrics.example.com"},
    "spec": {
        "group": "metrics.example.com",
        "version": "v1",
        "groupPriorityMinimum": 100,
        "versionPriority": 10,
        "service": {"namespace": "default", "name": "metrics"},
    },
}


@pytest.mark.parametrize(
    ("path", "value", "errors"),
    [
        ("spec.service", None, []),
        (
            "metadata.name",
            "metrics",
            [
                'metadata.name: Invalid value: "metrics": '
                'must be `spec.version+"."+spec.group`: "v1.metrics.example.com"'
            ],
        ),
        (
            "spec.groupPriorityMinimum",
            0,
            ["spec.groupPriorityMinimum: Invalid value: 0: must be positive and less than 20000"],
        ),
        (
            "spec.versionPriority",
            1001,
            ["spec.versionPriority: Invalid value: 1001: must be positive and less than 1000"],
        ),
        ("spec.service.name", "", ["spec.service.name: Required value"]),
    ],
)
def test_registrations(path: str, value: Any, errors: list[str]) -> None:
    new = create(API_SERVICES, SERVICE)
    assert new.spec.service.port == 443
    assert errors_of(API_SERVICES, new) == []
    assert errors_of(API_SERVICES, create(API_SERVICES, changed(SERVICE, path, value))) == errors


@pytest.mark.parametrize(
    ("condition", "cell"),
    [
        (None, "Unknown"),
        ({"type": "Available", "status": "True"}, "True"),
        ({"type": "Available", "status": "False", "reason": "Gone"}, "False (Gone)"),
    ],
)
def test_rows_of_registrations(condition: dict[str, str] | None, cell: str) -> None:
    conditions = [] if condition is None else [condition]
    shown = create(API_SERVICES, changed(SERVICE, "status.conditions", conditions))
    cells = [column.cell(shown) for column in API_SERVICES.columns[:2] if column.cell]
    assert cells == ["default/metrics", cell]
