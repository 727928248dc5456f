"""Autoscalers: rules, texts, and the way from v1 to v2 and back."""

from __future__ import annotations

from typing import Any

import pytest

from pybernetes.api import codec
from pybernetes.api.autoscaling import AUTOSCALERS, AUTOSCALERS_V1
from pybernetes.api.autoscalingv1 import from_v2, to_v2
from tests.api.coreobjects import changed, create, errors_of

CPU = {
    "type": "Resource",
    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}},
}
MANIFEST: dict[str, Any] = {
    "apiVersion": "autoscaling/v2",
    "kind": "HorizontalPodAutoscaler",
    "metadata": {"name": "web", "namespace": "default"},
    "spec": {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        "minReplicas": 2,
        "maxReplicas": 5,
        "metrics": [CPU],
    },
}


def test_defaults() -> None:
    autoscaler = create(AUTOSCALERS, changed(MANIFEST, "spec", {"maxReplicas": 3, "behavior": {}}))
    spec = codec.to_dict(autoscaler.spec)
    assert spec["minReplicas"] == 1
    assert spec["metrics"] == [changed(CPU, "resource.target.averageUtilization", 80)]
    assert spec["behavior"] == {
        "scaleUp": {
            "selectPolicy": "Max",
            "stabilizationWindowSeconds": 0,
            "policies": [
                {"type": "Pods", "value": 4, "periodSeconds": 15},
                {"type": "Percent", "value": 100, "periodSeconds": 15},
            ],
        },
        "scaleDown": {
            "selectPolicy": "Max",
            "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}],
        },
    }


METRIC = "spec.metrics.0"
TARGET = f"{METRIC}.resource.target"


@pytest.mark.parametrize(
    ("path", "value", "error"),
    [
        ("spec.maxReplicas", 4, ""),
        (
            "spec.minReplicas",
            0,
            "spec.minReplicas: Invalid value: 0: must be greater than or equal to 1",
        ),
        (
            "spec.maxReplicas",
            1,
            "spec.maxReplicas: Invalid value: 1: must be greater than or equal to `minReplicas`",
        ),
        ("spec.scaleTargetRef.kind", "", "spec.scaleTargetRef.kind: Required value"),
        (
            "spec.scaleTargetRef.name",
            "a/b",
            "spec.scaleTargetRef.name: Invalid value: \"a/b\": may not contain '/'",
        ),
        (
            f"{METRIC}.type",
            "Pods",
            "spec.metrics[0].pods: Required value: "
            "must populate information for the given metric source",
        ),
        (
            f"{METRIC}.external",
            {"metric": {"name": "x"}, "target": {"type": "Value", "value": "1"}},
            "spec.metrics[0].external: Forbidden: must populate the given metric source only",
        ),
        (
            f"{TARGET}.averageUtilization",
            None,
            "spec.metrics[0].resource.target.averageUtilization: Required value: "
            "must set either a target raw value or a target utilization",
        ),
        (
            f"{TARGET}.averageUtilization",
            0,
            "spec.metrics[0].resource.target.averageUtilization: Invalid value: 0: "
            "must be greater than 0",
        ),
        (
            f"{TARGET}.type",
            "Much",
            'spec.metrics[0].resource.target.type: Invalid value: "Much": '
            "must be either Utilization, Value, or AverageValue",
        ),
        (
            f"{TARGET}.averageValue",
            "1",
            "spec.metrics[0].resource.target.averageValue: Forbidden: "
            "may not set both a target raw value and a target utilization",
        ),
        (
            "spec.behavior",
            {"scaleDown": {"stabilizationWindowSeconds": 3601}},
            "spec.behavior.scaleDown.stabilizationWindowSeconds: Invalid value: 3601: "
            "must be less than or equal to 3600",
        ),
        (
            "spec.behavior",
            {"scaleUp": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 1801}]}},
            "spec.behavior.scaleUp.policies[0].periodSeconds: Invalid value: 1801: "
            "must be less than or equal to 1800",
        ),
        (
            "spec.behavior",
            {"scaleUp": {"selectPolicy": "Most"}},
            'spec.behavior.scaleUp.selectPolicy: Unsupported value: "Most": '
            'supported values: "Disabled", "Max", "Min"',
        ),
    ],
)
def test_validation(path: str, value: Any, error: str) -> None:
    errors = errors_of(AUTOSCALERS, create(AUTOSCALERS, changed(MANIFEST, path, value)))
    if not error:
        assert errors == []
    else:
        assert error in errors


def test_unknown_types_are_answered_with_the_known() -> None:
    new = create(AUTOSCALERS, changed(MANIFEST, f"{METRIC}.type", "Guess"))
    assert errors_of(AUTOSCALERS, new) == [
        'spec.metrics[0].type: Unsupported value: "Guess": supported values: '
        '"ContainerResource", "External", "Object", "Pods", "Resource"'
    ]


MANY = [
    CPU,
    {
        "type": "Resource",
        "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}},
    },
    {
        "type": "ContainerResource",
        "containerResource": {
            "name": "cpu",
            "container": "app",
            "target": {"type": "Utilization", "averageUtilization": 60},
        },
    },
    {
        "type": "Pods",
        "pods": {
            "metric": {"name": "hits", "selector": {"matchLabels": {"a": "b"}}},
            "target": {"type": "AverageValue", "averageValue": "10"},
        },
    },
    {
        "type": "Object",
        "object": {
            "describedObject": {"kind": "Ingress", "name": "front", "apiVersion": "x/v1"},
            "metric": {"name": "requests"},
            "target": {"type": "AverageValue", "averageValue": "3"},
        },
    },
    {
        "type": "External",
        "external": {
            "metric": {"name": "queue", "selector": {"matchLabels": {"q": "1"}}},
            "target": {"type": "Value", "value": "30"},
        },
    },
]


def test_nothing_is_lost_through_v1() -> None:
    manifest = changed(MANIFEST, "spec.metrics", MANY[1:] + MANY[:1])
    manifest = changed(manifest, "spec.behavior", {"scaleUp": {"selectPolicy": "Min"}})
    manifest["status"] = {
        "currentReplicas": 1,
        "desiredReplicas": 2,
        "currentMetrics": [
            {
                "type": "Resource",
                "resource": {
                    "name": "cpu",
                    "current": {"averageValue": "5m", "averageUtilization": 7},
                },
            },
            {
                "type": "Object",
                "object": {
                    "describedObject": {"kind": "Ingress", "name": "front"},
                    "metric": {"name": "requests"},
                    "current": {"averageValue": "3"},
                },
            },
        ],
        "conditions": [{"type": "AbleToScale", "status": "True", "reason": "Fine"}],
    }
    stored = create(AUTOSCALERS, manifest)
    shown = from_v2(stored)
    assert shown.spec.target_cpu_utilization_percentage == 50
    assert shown.status.current_cpu_utilization_percentage == 7
    assert to_v2(shown) == stored


def test_v1_annotations_are_those_of_other_clients() -> None:
    manifest = changed(MANIFEST, "spec.metrics", MANY[:2])
    manifest = changed(manifest, "spec.behavior", {"scaleDown": {}})
    annotations = from_v2(create(AUTOSCALERS, manifest)).metadata.annotations
    assert annotations["autoscaling.alpha.kubernetes.io/metrics"] == (
        '[{"type":"Resource","resource":{"name":"memory","targetAverageValue":"1Gi"}}]'
    )
    assert annotations["autoscaling.alpha.kubernetes.io/behavior"].startswith(
        '{"ScaleUp":{"SelectPolicy":"Max","Policies":[{"Type":"Pods","Value":4,'
    )


def test_v1_has_a_target_of_its_own() -> None:
    manifest = {
        **MANIFEST,
        "apiVersion": "autoscaling/v1",
        "spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "web"}},
    }
    new = create(AUTOSCALERS_V1, manifest)
    assert (new.spec.min_replicas, new.spec.target_cpu_utilization_percentage) == (1, 80)
    assert errors_of(AUTOSCALERS_V1, new) == []
    assert AUTOSCALERS_V1.conversion is not None
    stored = AUTOSCALERS_V1.conversion.to_stored(new)
    assert codec.to_dict(stored.spec)["metrics"] == [
        changed(CPU, "resource.target.averageUtilization", 80)
    ]
    assert AUTOSCALERS_V1.conversion.from_stored(stored) == new


def test_ruined_annotations_are_no_reason_to_fail() -> None:
    manifest = {
        **MANIFEST,
        "metadata": {
            "name": "web",
            "annotations": {
                f"autoscaling.alpha.kubernetes.io/{name}": '[{"type": 3}]'
                for name in ("metrics", "current-metrics", "conditions", "behavior")
            },
        },
        "spec": {"maxReplicas": 3},
    }
    stored = to_v2(create(AUTOSCALERS_V1, changed(manifest, "apiVersion", "autoscaling/v1")))
    assert stored.spec.metrics == ()
    assert stored.metadata.annotations == {}


@pytest.mark.parametrize(
    ("metrics", "text"),
    [
        ([CPU], "cpu: <unknown>/50%"),
        (MANY[:2], "cpu: <unknown>/50%, memory: <unknown>/1Gi"),
        (MANY, "cpu: <unknown>/50%, memory: <unknown>/1Gi + 4 more..."),
        (MANY[3:5], "<unknown>/10, <unknown>/3 (avg)"),
        (MANY[5:], "<unknown>/30"),
    ],
)
def test_the_targets_column(metrics: list[Any], text: str) -> None:
    column = AUTOSCALERS.columns[1]
    assert column.cell is not None
    assert column.cell(create(AUTOSCALERS, changed(MANIFEST, "spec.metrics", metrics))) == text
