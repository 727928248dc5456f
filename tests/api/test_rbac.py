"""Roles and bindings: defaults and upstream's words."""

from __future__ import annotations

from typing import Any

import pytest

from pybernetes.api import codec
from pybernetes.api.rbac import CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, ROLE_BINDINGS, ROLES
from tests.api.coreobjects import changed, create, errors_of

ROLE: dict[str, Any] = {
    "metadata": {"name": "reader", "namespace": "default"},
    "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}],
}
BINDING: dict[str, Any] = {
    "metadata": {"name": "readers", "namespace": "default"},
    "roleRef": {"kind": "Role", "name": "reader"},
    "subjects": [
        {"kind": "User", "name": "me"},
        {"kind": "Group", "name": "us"},
        {"kind": "ServiceAccount", "name": "bot", "namespace": "default"},
    ],
}
CLUSTER_BINDING = changed(BINDING, "roleRef.kind", "ClusterRole")
RBAC = "rbac.authorization.k8s.io"


def test_groups_are_filled_in() -> None:
    binding = codec.to_dict(create(ROLE_BINDINGS, BINDING))
    assert binding["roleRef"]["apiGroup"] == RBAC
    assert [subject.get("apiGroup") for subject in binding["subjects"]] == [RBAC, RBAC, None]


@pytest.mark.parametrize(
    ("resource", "rule", "errors"),
    [
        (ROLES, {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}, []),
        (
            ROLES,
            {"apiGroups": [""], "resources": ["pods"]},
            ["rules[0].verbs: Required value: verbs must contain at least one value"],
        ),
        (
            ROLES,
            {"verbs": ["get"]},
            [
                "rules[0].apiGroups: Required value: "
                "resource rules must supply at least one api group",
                "rules[0].resources: Required value: "
                "resource rules must supply at least one resource",
            ],
        ),
        (
            ROLES,
            {"verbs": ["get"], "nonResourceURLs": ["/x"]},
            [
                'rules[0].nonResourceURLs: Invalid value: ["/x"]: '
                "namespaced rules cannot apply to non-resource URLs"
            ],
        ),
        (CLUSTER_ROLES, {"verbs": ["get"], "nonResourceURLs": ["/x"]}, []),
        (
            CLUSTER_ROLES,
            {"verbs": ["get"], "nonResourceURLs": ["/x"], "resources": ["pods"]},
            [
                'rules[0].nonResourceURLs: Invalid value: ["/x"]: '
                "rules cannot apply to both regular resources and non-resource URLs"
            ],
        ),
    ],
)
def test_rules(resource: Any, rule: dict[str, Any], errors: list[str]) -> None:
    assert errors_of(resource, create(resource, changed(ROLE, "rules", [rule]))) == errors


def test_aggregation_names_something() -> None:
    role = create(CLUSTER_ROLES, changed(ROLE, "aggregationRule", {}))
    assert errors_of(CLUSTER_ROLES, role) == [
        "aggregationRule.clusterRoleSelectors: Required value: "
        "at least one clusterRoleSelector required if aggregationRule is non-nil"
    ]


@pytest.mark.parametrize(
    ("path", "value", "errors"),
    [
        (
            "roleRef.apiGroup",
            "x",
            [f'roleRef.apiGroup: Unsupported value: "x": supported values: "{RBAC}"'],
        ),
        (
            "roleRef.kind",
            "Pod",
            ['roleRef.kind: Unsupported value: "Pod": supported values: "Role", "ClusterRole"'],
        ),
        ("roleRef.name", "", ["roleRef.name: Required value"]),
        ("subjects.0.name", "", ["subjects[0].name: Required value"]),
        ("subjects.2.namespace", None, ["subjects[2].namespace: Required value"]),
        (
            "subjects.2.apiGroup",
            RBAC,
            [f'subjects[2].apiGroup: Unsupported value: "{RBAC}": supported values: ""'],
        ),
        (
            "subjects.0.kind",
            "Robot",
            [
                'subjects[0].kind: Unsupported value: "Robot": '
                'supported values: "ServiceAccount", "User", "Group"'
            ],
        ),
    ],
)
def test_bindings(path: str, value: Any, errors: list[str]) -> None:
    assert errors_of(ROLE_BINDINGS, create(ROLE_BINDINGS, changed(BINDING, path, value))) == errors


def test_cluster_bindings_bind_cluster_roles() -> None:
    assert errors_of(CLUSTER_ROLE_BINDINGS, create(CLUSTER_ROLE_BINDINGS, CLUSTER_BINDING)) == []
    assert errors_of(CLUSTER_ROLE_BINDINGS, create(CLUSTER_ROLE_BINDINGS, BINDING)) == [
        'roleRef.kind: Unsupported value: "Role": supported values: "ClusterRole"'
    ]


@pytest.mark.parametrize("resource", [ROLE_BINDINGS, CLUSTER_ROLE_BINDINGS])
def test_roles_of_bindings_stay(resource: Any) -> None:
    old = create(resource, CLUSTER_BINDING)
    new = create(resource, changed(CLUSTER_BINDING, "roleRef.name", "writer"))
    (error,) = errors_of(resource, new, old)
    assert error.startswith('roleRef: Invalid value: {"')
    assert error.endswith(": cannot change roleRef")


def test_rows_of_bindings() -> None:
    shown = create(ROLE_BINDINGS, BINDING)
    cells = {c.name: c.cell(shown) for c in ROLE_BINDINGS.columns if c.cell is not None}
    assert cells["Role"] == "Role/reader"
    assert (cells["Users"], cells["Groups"]) == ("me", "us")
    assert cells["ServiceAccounts"] == "default/bot"


@pytest.mark.parametrize("name", ["system:node", "a b", "A"])
def test_names_are_only_path_segments(name: str) -> None:
    assert ROLES.strategy.name_errors(name) == []
    assert CLUSTER_ROLES.strategy.name_errors("a/b") == ["may not contain '/'"]
