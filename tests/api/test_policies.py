"""Budgets, leases, priorities, endpoint slices, pod groups: small groups in one file."""

from __future__ import annotations

from typing import Any

import pytest

from pybernetes.api import codec
from pybernetes.api.coordination import LEASES
from pybernetes.api.discovery import ENDPOINT_SLICES
from pybernetes.api.podgroups import POD_GROUPS, WORKLOADS
from pybernetes.api.policy import POD_DISRUPTION_BUDGETS
from pybernetes.api.registry import resource_at
from pybernetes.api.scheduling import PRIORITY_CLASSES
from tests.api.coreobjects import changed, create, errors_of

NAMED = {"metadata": {"name": "a", "namespace": "default"}}
BUDGET: dict[str, Any] = {**NAMED, "spec": {"minAvailable": 1, "selector": {}}}
SLICE: dict[str, Any] = {
    **NAMED,
    "addressType": "IPv4",
    "endpoints": [{"addresses": ["10.0.0.1"]}],
    "ports": [{"port": 80}],
}
CLASS: dict[str, Any] = {"metadata": {"name": "high"}, "value": 1000}
LEASE: dict[str, Any] = {**NAMED, "spec": {"leaseDurationSeconds": 15}}
GROUP: dict[str, Any] = {**NAMED, "spec": {"schedulingPolicy": {"gang": {"minCount": 3}}}}
WORKLOAD: dict[str, Any] = {
    **NAMED,
    "spec": {"podGroupTemplates": [{"name": "w", "schedulingPolicy": {"basic": {}}}]},
}
CANDIDATES = resource_at("coordination.k8s.io", "v1beta1", "leasecandidates")
MIGRATIONS = resource_at("storagemigration.k8s.io", "v1", "storageversionmigrations")
CANDIDATE: dict[str, Any] = {
    **NAMED,
    "spec": {
        "leaseName": "l",
        "binaryVersion": "1.37.0",
        "emulationVersion": "1.37.0",
        "strategy": "OldestEmulationVersion",
    },
}
MIGRATION: dict[str, Any] = {
    "metadata": {"name": "a"},
    "spec": {"resource": {"group": "apps", "resource": "deployments"}},
}


@pytest.mark.parametrize(
    ("resource", "manifest", "path", "value", "errors"),
    [
        (
            POD_DISRUPTION_BUDGETS,
            BUDGET,
            "spec.maxUnavailable",
            "10%",
            [
                'spec: Invalid value: {"minAvailable":1,"selector":{},"maxUnavailable":"10%"}: '
                "minAvailable and maxUnavailable cannot be both set"
            ],
        ),
        (
            POD_DISRUPTION_BUDGETS,
            BUDGET,
            "spec.minAvailable",
            "110%",
            ['spec.minAvailable: Invalid value: "110%": must not be greater than 100%'],
        ),
        (
            POD_DISRUPTION_BUDGETS,
            BUDGET,
            "spec.unhealthyPodEvictionPolicy",
            "Maybe",
            [
                'spec.unhealthyPodEvictionPolicy: Unsupported value: "Maybe": '
                'supported values: "AlwaysAllow", "IfHealthyBudget"'
            ],
        ),
        (
            ENDPOINT_SLICES,
            SLICE,
            "addressType",
            "IPX",
            ['addressType: Unsupported value: "IPX": supported values: "FQDN", "IPv4", "IPv6"'],
        ),
        (
            ENDPOINT_SLICES,
            SLICE,
            "endpoints.0.addresses",
            [],
            ["endpoints[0].addresses: Required value: must contain at least 1 address"],
        ),
        (
            ENDPOINT_SLICES,
            SLICE,
            "ports",
            [{"port": 1}, {"port": 2}],
            ['ports[1].name: Duplicate value: ""'],
        ),
        (
            ENDPOINT_SLICES,
            SLICE,
            "endpoints.0.addresses",
            [f"10.0.0.{number}" for number in range(101)],
            ["endpoints[0].addresses: Too many: 101: must have at most 100 items"],
        ),
        (
            PRIORITY_CLASSES,
            CLASS,
            "value",
            1_000_000_001,
            ["value: Forbidden: maximum allowed value of a user defined priority is 1000000000"],
        ),
        (
            PRIORITY_CLASSES,
            CLASS,
            "metadata.name",
            "system-mine",
            [
                "metadata.name: Forbidden: priority class names with 'system-' prefix are "
                "reserved for system use only. error: system-mine is not a known system "
                "priority class"
            ],
        ),
        (
            LEASES,
            LEASE,
            "spec.leaseDurationSeconds",
            0,
            ["spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"],
        ),
        (
            LEASES,
            LEASE,
            "spec.leaseTransitions",
            -1,
            ["spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0"],
        ),
        (
            LEASES,
            LEASE,
            "spec.preferredHolder",
            "me",
            ["spec.preferredHolder: Forbidden: may only be specified if `strategy` is defined"],
        ),
        (
            CANDIDATES,
            CANDIDATE,
            "spec.leaseName",
            "",
            ["spec.leaseName: Required value"],
        ),
        (
            POD_GROUPS,
            GROUP,
            "spec.schedulingPolicy.gang.minCount",
            0,
            ["spec.schedulingPolicy.gang.minCount: Required value"],
        ),
        (
            POD_GROUPS,
            GROUP,
            "spec.priority",
            1_000_000_001,
            ["spec.priority: Invalid value: 1000000001: must be less than or equal to 1000000000"],
        ),
        (
            WORKLOADS,
            WORKLOAD,
            "spec.podGroupTemplates.0.name",
            "",
            ["spec.podGroupTemplates[0].name: Required value"],
        ),
        (
            MIGRATIONS,
            MIGRATION,
            "spec.resource.resource",
            "",
            ["spec.resource.resource: Required value: resource is required"],
        ),
    ],
)
def test_validation(
    resource: Any, manifest: dict[str, Any], path: str, value: Any, errors: list[str]
) -> None:
    assert errors_of(resource, create(resource, manifest)) == []
    assert errors_of(resource, create(resource, changed(manifest, path, value))) == errors


@pytest.mark.parametrize(
    ("resource", "manifest", "path", "value", "error"),
    [
        (PRIORITY_CLASSES, CLASS, "value", 2, "value: Forbidden: may not be changed in an update."),
        (PRIORITY_CLASSES, CLASS, "preemptionPolicy", "Never", "preemptionPolicy: Invalid value"),
        (PRIORITY_CLASSES, CLASS, "description", "words", ""),
        (ENDPOINT_SLICES, SLICE, "addressType", "FQDN", "addressType: Invalid value"),
        (POD_GROUPS, GROUP, "spec.schedulingPolicy", {"basic": {}}, "spec.schedulingPolicy: "),
        (POD_GROUPS, GROUP, "spec.schedulingPolicy.gang.minCount", 4, ""),
        (MIGRATIONS, MIGRATION, "spec.resource.resource", "pods", "spec: Invalid value"),
    ],
)
def test_what_may_change(
    resource: Any, manifest: dict[str, Any], path: str, value: Any, error: str
) -> None:
    old = create(resource, manifest)
    errors = errors_of(resource, create(resource, changed(manifest, path, value)), old)
    assert bool(errors) == bool(error)
    assert not error or errors[0].startswith(error)


def test_defaults() -> None:
    assert create(PRIORITY_CLASSES, CLASS).preemption_policy == "PreemptLowerPriority"
    assert codec.to_dict(create(ENDPOINT_SLICES, SLICE))["ports"] == [
        {"name": "", "port": 80, "protocol": "TCP"}
    ]
    assert codec.to_dict(create(POD_GROUPS, GROUP).spec)["disruptionMode"] == {"single": {}}


@pytest.mark.parametrize(
    ("name", "value"),
    [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)],
)
def test_classes_of_the_system(name: str, value: int) -> None:
    assert (
        errors_of(
            PRIORITY_CLASSES, create(PRIORITY_CLASSES, {"metadata": {"name": name}, "value": value})
        )
        == []
    )
    wrong = create(PRIORITY_CLASSES, {"metadata": {"name": name}, "value": 1})
    (error,) = errors_of(PRIORITY_CLASSES, wrong)
    assert error.endswith(f"error: value of {name} PriorityClass must be {value}")


def test_rows_of_slices() -> None:
    endpoints = [{"addresses": [f"10.0.0.{number}"]} for number in range(5)]
    shown = create(ENDPOINT_SLICES, changed(SLICE, "endpoints", endpoints))
    cells = [column.cell(shown) for column in ENDPOINT_SLICES.columns[:3] if column.cell]
    assert cells == ["IPv4", "80", "10.0.0.0,10.0.0.1,10.0.0.2 + 2 more..."]
    bare = create(ENDPOINT_SLICES, changed(changed(SLICE, "endpoints", []), "ports", []))
    cells = [column.cell(bare) for column in ENDPOINT_SLICES.columns[:3] if column.cell]
    assert cells == ["IPv4", "<unset>", "<unset>"]
