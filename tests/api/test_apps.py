"""apps/v1: what is filled in, what is refused in which words, what a row shows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from pybernetes.api import codec
from pybernetes.api.apps import (
    CONTROLLER_REVISIONS,
    DAEMON_SETS,
    DEPLOYMENTS,
    REPLICA_SETS,
    STATEFUL_SETS,
)
from tests.api.coreobjects import changed, create, errors_of

TEMPLATE = {
    "metadata": {"labels": {"app": "web"}},
    "spec": {"containers": [{"name": "web", "image": "web:1"}]},
}
BASE: dict[str, Any] = {
    "metadata": {"name": "web", "namespace": "default"},
    "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": TEMPLATE},
}
ALL = [DEPLOYMENTS, REPLICA_SETS, STATEFUL_SETS, DAEMON_SETS]
each = pytest.mark.parametrize("resource", ALL, ids=lambda resource: resource.plural)


def spec_of(resource: Any, manifest: dict[str, Any]) -> dict[str, Any]:
    spec = codec.to_dict(create(resource, manifest).spec)
    return {key: value for key, value in spec.items() if key not in ("template", "selector")}


def test_defaults() -> None:
    assert spec_of(DEPLOYMENTS, BASE) == {
        "replicas": 1,
        "strategy": {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"},
        },
        "revisionHistoryLimit": 10,
        "progressDeadlineSeconds": 600,
    }
    recreate = changed(BASE, "spec.strategy", {"type": "Recreate"})
    assert spec_of(DEPLOYMENTS, recreate)["strategy"] == {"type": "Recreate"}
    zero = changed(BASE, "spec.strategy", {"rollingUpdate": {"maxSurge": 0}})
    assert spec_of(DEPLOYMENTS, zero)["strategy"]["rollingUpdate"] == {
        "maxUnavailable": "25%",
        "maxSurge": 0,
    }
    assert spec_of(REPLICA_SETS, BASE) == {"replicas": 1}
    assert spec_of(DAEMON_SETS, BASE) == {
        "updateStrategy": {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0},
        },
        "revisionHistoryLimit": 10,
    }
    claims = [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}]
    stateful = spec_of(STATEFUL_SETS, changed(BASE, "spec.volumeClaimTemplates", claims))
    (claim,) = stateful.pop("volumeClaimTemplates")
    assert claim["spec"]["volumeMode"] == "Filesystem"
    assert claim["status"] == {"phase": "Pending"}
    stateful.pop("serviceName", None)
    assert stateful == {
        "replicas": 1,
        "podManagementPolicy": "OrderedReady",
        "updateStrategy": {
            "type": "RollingUpdate",
            "rollingUpdate": {"partition": 0, "maxUnavailable": 1},
        },
        "revisionHistoryLimit": 10,
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
    }


def test_zero_replicas_stay_zero() -> None:
    for resource in (DEPLOYMENTS, REPLICA_SETS, STATEFUL_SETS):
        assert create(resource, changed(BASE, "spec.replicas", 0)).spec.replicas == 0


@each
def test_what_is_good(resource: Any) -> None:
    new = create(resource, BASE)
    assert errors_of(resource, new) == []
    assert errors_of(resource, new, new) == []


MISMATCH = "`selector` does not match template `labels`"


@each
@pytest.mark.parametrize(
    ("path", "value", "errors"),
    [
        pytest.param(
            "spec.template.metadata.labels",
            {"app": "db"},
            [f'spec.template.metadata.labels: Invalid value: {{"app":"db"}}: {MISMATCH}'],
            id="other labels",
        ),
        pytest.param(
            "spec.selector",
            None,
            [
                "spec.selector: Required value",
                f'spec.template.metadata.labels: Invalid value: {{"app":"web"}}: {MISMATCH}',
            ],
            id="no selector",
        ),
        pytest.param(
            "spec.template.spec.restartPolicy",
            "Never",
            [
                'spec.template.spec.restartPolicy: Unsupported value: "Never": '
                'supported values: "Always"'
            ],
            id="restart policy",
        ),
        pytest.param(
            "spec.minReadySeconds",
            -1,
            ["spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0"],
            id="negative",
        ),
        pytest.param(
            "spec.template.spec.containers",
            [],
            ["spec.template.spec.containers: Required value"],
            id="no containers",
        ),
    ],
)
def test_what_they_share(resource: Any, path: str, value: Any, errors: list[str]) -> None:
    assert errors_of(resource, create(resource, changed(BASE, path, value))) == errors


@pytest.mark.parametrize(
    ("resource", "owner"),
    [
        (DEPLOYMENTS, "ReplicaSet"),
        (REPLICA_SETS, "ReplicaSet"),
        (STATEFUL_SETS, "StatefulSet"),
        (DAEMON_SETS, "DaemonSet"),
    ],
)
def test_pods_have_no_deadline(resource: Any, owner: str) -> None:
    new = create(resource, changed(BASE, "spec.template.spec.activeDeadlineSeconds", 10))
    assert errors_of(resource, new) == [
        "spec.template.spec.activeDeadlineSeconds: Forbidden: "
        f"activeDeadlineSeconds in {owner} is not Supported"
    ]


PERCENT = (
    "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or "
    "'93%', regex used for validation is '[0-9]+%')"
)
ROLLING = "spec.strategy.rollingUpdate"


@pytest.mark.parametrize(
    ("path", "value", "errors"),
    [
        (
            "spec.replicas",
            -1,
            ["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
        ),
        (
            "spec.strategy",
            {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}},
            [
                f"{ROLLING}: Forbidden: may not be specified when strategy `type` is 'Recreate'",
            ],
        ),
        (
            "spec.strategy",
            {"type": "Slow"},
            [
                'spec.strategy: Unsupported value: {"type":"Slow"}: '
                'supported values: "Recreate", "RollingUpdate"'
            ],
        ),
        (
            ROLLING,
            {"maxUnavailable": "0%", "maxSurge": 0},
            [
                f'{ROLLING}.maxUnavailable: Invalid value: "0%": may not be 0 when `maxSurge` is 0',
            ],
        ),
        (
            ROLLING,
            {"maxUnavailable": "101%"},
            [f'{ROLLING}.maxUnavailable: Invalid value: "101%": must not be greater than 100%'],
        ),
        (
            ROLLING,
            {"maxSurge": "many"},
            [f'{ROLLING}.maxSurge: Invalid value: "many": {PERCENT}'],
        ),
        (
            "spec.minReadySeconds",
            600,
            [
                "spec.progressDeadlineSeconds: Invalid value: 600: "
                "must be greater than minReadySeconds"
            ],
        ),
    ],
)
def test_deployments(path: str, value: Any, errors: list[str]) -> None:
    assert errors_of(DEPLOYMENTS, create(DEPLOYMENTS, changed(BASE, path, value))) == errors


UPDATE = "spec.updateStrategy"


@pytest.mark.parametrize(
    ("resource", "path", "value", "errors"),
    [
        (
            STATEFUL_SETS,
            "spec.podManagementPolicy",
            "Random",
            [
                'spec.podManagementPolicy: Invalid value: "Random": '
                "must be 'OrderedReady' or 'Parallel'"
            ],
        ),
        (
            STATEFUL_SETS,
            UPDATE,
            {"type": "Never"},
            [
                f'{UPDATE}: Invalid value: {{"type":"Never"}}: '
                "must be 'RollingUpdate' or 'OnDelete'"
            ],
        ),
        (
            STATEFUL_SETS,
            UPDATE,
            {"type": "OnDelete", "rollingUpdate": {"partition": 1}},
            [
                f'{UPDATE}.rollingUpdate: Invalid value: {{"partition":1}}: '
                "only allowed for updateStrategy 'RollingUpdate'"
            ],
        ),
        (
            STATEFUL_SETS,
            f"{UPDATE}.rollingUpdate",
            {"maxUnavailable": 0},
            [f"{UPDATE}.rollingUpdate.maxUnavailable: Invalid value: 0: cannot be 0"],
        ),
        (
            STATEFUL_SETS,
            "spec.persistentVolumeClaimRetentionPolicy",
            {"whenDeleted": "Keep"},
            [
                "spec.persistentVolumeClaimRetentionPolicy.whenDeleted: Unsupported value: "
                '"Keep": supported values: "Delete", "Retain"'
            ],
        ),
        (
            DAEMON_SETS,
            f"{UPDATE}.rollingUpdate",
            {"maxSurge": 1},
            [
                f"{UPDATE}.rollingUpdate.maxSurge: Invalid value: 1: "
                "may not be set when maxUnavailable is non-zero"
            ],
        ),
        (
            DAEMON_SETS,
            f"{UPDATE}.rollingUpdate",
            {"maxUnavailable": 0},
            [
                f"{UPDATE}.rollingUpdate.maxUnavailable: Required value: "
                "cannot be 0 when maxSurge is 0"
            ],
        ),
        (
            DAEMON_SETS,
            UPDATE,
            {"type": "Never"},
            [
                f'{UPDATE}: Unsupported value: {{"type":"Never"}}: '
                'supported values: "RollingUpdate", "OnDelete"'
            ],
        ),
    ],
)
def test_other_strategies(resource: Any, path: str, value: Any, errors: list[str]) -> None:
    assert errors_of(resource, create(resource, changed(BASE, path, value))) == errors


@pytest.mark.parametrize("resource", [DEPLOYMENTS, REPLICA_SETS, DAEMON_SETS])
def test_selectors_stay(resource: Any) -> None:
    manifest = changed(BASE, "spec.selector.matchLabels", {"tier": "front"})
    manifest = changed(manifest, "spec.template.metadata.labels", {"tier": "front"})
    assert errors_of(resource, create(resource, manifest), create(resource, BASE)) == [
        'spec.selector: Invalid value: {"matchLabels":{"tier":"front"}}: field is immutable'
    ]


@pytest.mark.parametrize(
    ("path", "value", "is_allowed"),
    [
        ("spec.replicas", 3, True),
        ("spec.ordinals", {"start": 2}, True),
        ("spec.template.spec.containers.0.image", "web:2", True),
        ("spec.updateStrategy", {"type": "OnDelete"}, True),
        ("spec.minReadySeconds", 3, True),
        ("spec.revisionHistoryLimit", 3, True),
        ("spec.persistentVolumeClaimRetentionPolicy", {"whenScaled": "Delete"}, True),
        ("spec.serviceName", "other", False),
        ("spec.podManagementPolicy", "Parallel", False),
    ],
)
def test_what_of_a_stateful_set_may_change(path: str, value: Any, is_allowed: bool) -> None:
    old = create(STATEFUL_SETS, BASE)
    errors = errors_of(STATEFUL_SETS, create(STATEFUL_SETS, changed(BASE, path, value)), old)
    assert errors == (
        []
        if is_allowed
        else [
            "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', "
            "'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', "
            "'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
        ]
    )


def test_revisions_keep_their_data() -> None:
    manifest = {"metadata": {"name": "web-1", "namespace": "default"}, "data": {"a": 1}}
    old = create(CONTROLLER_REVISIONS, manifest)
    assert errors_of(CONTROLLER_REVISIONS, old) == []
    assert errors_of(
        CONTROLLER_REVISIONS, create(CONTROLLER_REVISIONS, changed(manifest, "data", {"a": 2})), old
    ) == ['data: Invalid value: {"a":2}: field is immutable']
    missing = create(CONTROLLER_REVISIONS, changed(manifest, "data", None))
    assert errors_of(CONTROLLER_REVISIONS, missing) == ["data: Required value: data is mandatory"]


def _cells(resource: Any, manifest: dict[str, Any]) -> list[object]:
    shown = create(resource, manifest)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return [c.value(shown, now) for c in resource.columns if c.name not in ("Age", "Selector")]


def test_rows() -> None:
    status = {"replicas": 2, "readyReplicas": 1, "updatedReplicas": 2, "availableReplicas": 1}
    manifest = changed(changed(BASE, "spec.replicas", 3), "status", status)
    assert _cells(DEPLOYMENTS, manifest) == ["1/3", 2, 1, "web", "web:1"]
    assert _cells(STATEFUL_SETS, manifest) == ["1/3", "web", "web:1"]
    manifest = changed(manifest, "status", {"replicas": 2, "readyReplicas": 1})
    assert _cells(REPLICA_SETS, manifest) == [3, 2, 1, "web", "web:1"]
