"""Storage classes, drivers, attachments: defaults, what may change, and upstream's words."""

from __future__ import annotations

from typing import Any

import pytest

from pybernetes.api import codec
from pybernetes.api.storageapi import (
    CSI_DRIVERS,
    CSI_NODES,
    CSI_STORAGE_CAPACITIES,
    STORAGE_CLASSES,
    VOLUME_ATTACHMENTS,
    VOLUME_ATTRIBUTES_CLASSES,
    is_default_class,
)
from tests.api.coreobjects import changed, create, errors_of

CLASS: dict[str, Any] = {
    "metadata": {"name": "fast"},
    "provisioner": "example.com/disk",
    "parameters": {"type": "ssd"},
}
DRIVER: dict[str, Any] = {"metadata": {"name": "disk.example.com"}, "spec": {}}
NODE: dict[str, Any] = {
    "metadata": {"name": "n1"},
    "spec": {"drivers": [{"name": "disk.example.com", "nodeID": "n1", "topologyKeys": ["a/b"]}]},
}
ATTACHMENT: dict[str, Any] = {
    "metadata": {"name": "a"},
    "spec": {
        "attacher": "disk.example.com",
        "nodeName": "n1",
        "source": {"persistentVolumeName": "pv1"},
    },
}
ATTRIBUTES: dict[str, Any] = {
    "metadata": {"name": "gold"},
    "driverName": "disk.example.com",
    "parameters": {"iops": "1000"},
}
CAPACITY: dict[str, Any] = {
    "metadata": {"name": "c", "namespace": "default"},
    "storageClassName": "fast",
    "capacity": "1Gi",
}


def test_defaults() -> None:
    class_ = create(STORAGE_CLASSES, CLASS)
    assert (class_.reclaim_policy, class_.volume_binding_mode) == ("Delete", "Immediate")
    assert codec.to_dict(create(CSI_DRIVERS, DRIVER).spec) == {
        "attachRequired": True,
        "podInfoOnMount": False,
        "storageCapacity": False,
        "fsGroupPolicy": "ReadWriteOnceWithFSType",
        "volumeLifecycleModes": ["Persistent"],
        "requiresRepublish": False,
        "seLinuxMount": False,
    }


@pytest.mark.parametrize(
    ("resource", "manifest", "path", "value", "errors"),
    [
        (STORAGE_CLASSES, CLASS, "provisioner", "", ["provisioner: Required value"]),
        (
            STORAGE_CLASSES,
            CLASS,
            "reclaimPolicy",
            "Recycle",
            ['reclaimPolicy: Unsupported value: "Recycle": supported values: "Delete", "Retain"'],
        ),
        (
            STORAGE_CLASSES,
            CLASS,
            "volumeBindingMode",
            "Later",
            [
                'volumeBindingMode: Unsupported value: "Later": '
                'supported values: "Immediate", "WaitForFirstConsumer"'
            ],
        ),
        (
            STORAGE_CLASSES,
            CLASS,
            "allowedTopologies",
            [{"matchLabelExpressions": [{"key": "zone", "values": []}]}],
            ["allowedTopologies[0].matchLabelExpressions[0].values: Required value"],
        ),
        (
            CSI_DRIVERS,
            DRIVER,
            "spec.tokenRequests",
            [{"audience": "a"}, {"audience": "a", "expirationSeconds": 599}],
            [
                'spec.tokenRequests[1].audience: Duplicate value: "a"',
                "spec.tokenRequests[1].expirationSeconds: Invalid value: 599: "
                "may not specify a duration less than 10 minutes",
            ],
        ),
        (
            CSI_NODES,
            NODE,
            "spec.drivers.0.nodeID",
            "",
            ["spec.drivers[0].nodeID: Required value"],
        ),
        (
            CSI_NODES,
            NODE,
            "spec.drivers.0.nodeID",
            "x" * 193,
            [
                f'spec.drivers[0].nodeID: Invalid value: "{"x" * 193}": '
                "must be 192 characters or less"
            ],
        ),
        (
            VOLUME_ATTACHMENTS,
            ATTACHMENT,
            "spec.source",
            {},
            [
                "spec.source: Required value: "
                "must specify exactly one of inlineVolumeSpec and persistentVolumeName"
            ],
        ),
        (
            VOLUME_ATTACHMENTS,
            ATTACHMENT,
            "spec.attacher",
            "a" * 64,
            [
                "spec.attacher: Too long: may not be more than 63 bytes",
            ],
        ),
        (
            VOLUME_ATTRIBUTES_CLASSES,
            ATTRIBUTES,
            "parameters",
            {},
            ["parameters: Required value: must contain at least one key/value pair"],
        ),
        (
            CSI_STORAGE_CAPACITIES,
            CAPACITY,
            "capacity",
            "-1",
            ['capacity: Invalid value: "-1": must be greater than or equal to 0'],
        ),
    ],
)
def test_validation(
    resource: Any, manifest: dict[str, Any], path: str, value: Any, errors: list[str]
) -> None:
    assert errors_of(resource, create(resource, manifest)) == []
    assert errors_of(resource, create(resource, changed(manifest, path, value))) == errors


IMMUTABLE = "field is immutable"


@pytest.mark.parametrize(
    ("resource", "manifest", "path", "value", "error"),
    [
        (STORAGE_CLASSES, CLASS, "parameters", {}, "updates to parameters are forbidden."),
        (STORAGE_CLASSES, CLASS, "provisioner", "b", "updates to provisioner are forbidden."),
        (STORAGE_CLASSES, CLASS, "reclaimPolicy", "Retain", "updates to reclaimPolicy are"),
        (STORAGE_CLASSES, CLASS, "volumeBindingMode", "WaitForFirstConsumer", IMMUTABLE),
        (STORAGE_CLASSES, CLASS, "allowVolumeExpansion", True, ""),
        (CSI_DRIVERS, DRIVER, "spec.attachRequired", False, IMMUTABLE),
        (CSI_DRIVERS, DRIVER, "spec.requiresRepublish", True, ""),
        (CSI_NODES, NODE, "spec.drivers.0.nodeID", "n2", IMMUTABLE),
        (CSI_NODES, NODE, "spec.drivers.0.allocatable", {"count": 3}, ""),
        (CSI_NODES, NODE, "spec.drivers", [], ""),
        (VOLUME_ATTACHMENTS, ATTACHMENT, "spec.nodeName", "n2", IMMUTABLE),
        (VOLUME_ATTRIBUTES_CLASSES, ATTRIBUTES, "parameters.iops", "1", IMMUTABLE),
        (CSI_STORAGE_CAPACITIES, CAPACITY, "storageClassName", "slow", IMMUTABLE),
        (CSI_STORAGE_CAPACITIES, CAPACITY, "capacity", "2Gi", ""),
    ],
)
def test_what_may_change(
    resource: Any, manifest: dict[str, Any], path: str, value: Any, error: str
) -> None:
    old = create(resource, manifest)
    errors = errors_of(resource, create(resource, changed(manifest, path, value)), old)
    if error:
        assert len(errors) == 1
        assert error in errors[0]
    else:
        assert errors == []


def test_the_default_class_says_so() -> None:
    class_ = create(
        STORAGE_CLASSES,
        changed(
            CLASS,
            "metadata.annotations",
            {"storageclass.kubernetes.io/is-default-class": "true"},
        ),
    )
    assert is_default_class(class_)
    assert STORAGE_CLASSES.columns[0].cell is not None
    assert STORAGE_CLASSES.columns[0].cell(class_) == "fast (default)"
