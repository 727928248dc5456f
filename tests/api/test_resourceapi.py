"""Devices and claims to them: rules, and the first beta as v1 and back."""

from __future__ import annotations

from typing import Any

import pytest

from pybernetes.api import codec
from pybernetes.api.registry import resource_at
from pybernetes.api.resourceapi import (
    DEVICE_CLASSES,
    GROUP,
    RESOURCE_CLAIMS,
    RESOURCE_SLICES,
    validate_claim_status,
)
from tests.api.coreobjects import changed, create, errors_of

CLAIM: dict[str, Any] = {
    "metadata": {"name": "gpu", "namespace": "default"},
    "spec": {
        "devices": {
            "requests": [
                {
                    "name": "one",
                    "exactly": {"deviceClassName": "gpu", "tolerations": [{"key": "a"}]},
                },
                {
                    "name": "any",
                    "firstAvailable": [{"name": "big", "deviceClassName": "gpu-big"}],
                },
            ]
        }
    },
}
SLICE: dict[str, Any] = {
    "metadata": {"name": "n1-gpu"},
    "spec": {
        "driver": "gpu.example.com",
        "pool": {"name": "n1", "generation": 1, "resourceSliceCount": 1},
        "nodeName": "n1",
        "devices": [{"name": "gpu-0", "attributes": {"model": {"string": "x"}}}],
    },
}
REQUESTS = "spec.devices.requests"


def test_requests_are_made_whole() -> None:
    requests = codec.to_dict(create(RESOURCE_CLAIMS, CLAIM).spec)["devices"]["requests"]
    assert requests[0]["exactly"] == {
        "deviceClassName": "gpu",
        "allocationMode": "ExactCount",
        "count": 1,
        "tolerations": [{"key": "a", "operator": "Equal"}],
    }
    assert requests[1]["firstAvailable"][0]["count"] == 1


@pytest.mark.parametrize(
    ("path", "value", "errors"),
    [
        (
            f"{REQUESTS}.0.exactly",
            None,
            [
                "spec.devices.requests[0]: Required value: "
                "exactly one of `exactly` or `firstAvailable` is required"
            ],
        ),
        (
            f"{REQUESTS}.0.exactly",
            {"deviceClassName": "gpu", "allocationMode": "All", "count": 2},
            [
                "spec.devices.requests[0].exactly.count: Invalid value: 2: "
                "must not be specified when allocationMode is 'All'"
            ],
        ),
        (
            f"{REQUESTS}.0.exactly.deviceClassName",
            "",
            ["spec.devices.requests[0].exactly.deviceClassName: Required value"],
        ),
        (
            f"{REQUESTS}.1.name",
            "one",
            ['spec.devices.requests[1]: Duplicate value: "one"'],
        ),
        (
            "spec.devices.config",
            [{"requests": ["two"], "opaque": {"driver": "d", "parameters": {"a": 1}}}],
            [
                'spec.devices.config[0].requests[0]: Invalid value: "two": must be the name of a '
                "request in the claim or the name of a request and a subrequest separated by '/'"
            ],
        ),
        (
            "spec.devices.constraints",
            [{"requests": ["any/big"], "matchAttribute": "model"}],
            [
                'spec.devices.constraints[0].matchAttribute: Invalid value: "model": '
                "must include a domain"
            ],
        ),
    ],
)
def test_claims(path: str, value: Any, errors: list[str]) -> None:
    assert errors_of(RESOURCE_CLAIMS, create(RESOURCE_CLAIMS, CLAIM)) == []
    assert errors_of(RESOURCE_CLAIMS, create(RESOURCE_CLAIMS, changed(CLAIM, path, value))) == (
        errors
    )


def test_claims_never_change() -> None:
    old = create(RESOURCE_CLAIMS, CLAIM)
    new = create(RESOURCE_CLAIMS, changed(CLAIM, f"{REQUESTS}.0.exactly.count", 2))
    (error,) = errors_of(RESOURCE_CLAIMS, new, old)
    assert error.endswith(": field is immutable")


def test_only_what_is_allocated_is_reserved() -> None:
    pod = {"resource": "pods", "name": "p", "uid": "1"}
    reserved = create(RESOURCE_CLAIMS, changed(CLAIM, "status.reservedFor", [pod, pod]))
    assert [str(error) for error in validate_claim_status(reserved, None)] == [
        'status.reservedFor[1].uid: Duplicate value: "1"',
        "status.reservedFor: Forbidden: may not be specified when `allocated` is not set",
    ]


@pytest.mark.parametrize(
    ("path", "value", "errors"),
    [
        (
            "spec.allNodes",
            True,
            [
                'spec: Invalid value: "{`nodeName`, `allNodes`}": exactly one of `nodeName`, '
                "`nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required"
            ],
        ),
        ("spec.driver", "", ["spec.driver: Required value"]),
        (
            "spec.pool.resourceSliceCount",
            0,
            ["spec.pool.resourceSliceCount: Invalid value: 0: must be greater than zero"],
        ),
        (
            "spec.devices",
            [{"name": "a"}, {"name": "a"}],
            ['spec.devices[1]: Duplicate value: "a"'],
        ),
        (
            "spec.devices.0.taints",
            [{"key": "a", "effect": "Never"}],
            [
                'spec.devices[0].taints[0].effect: Unsupported value: "Never": '
                'supported values: "NoExecute", "NoSchedule", "None"'
            ],
        ),
    ],
)
def test_slices(path: str, value: Any, errors: list[str]) -> None:
    assert errors_of(RESOURCE_SLICES, create(RESOURCE_SLICES, SLICE)) == []
    assert errors_of(RESOURCE_SLICES, create(RESOURCE_SLICES, changed(SLICE, path, value))) == (
        errors
    )


@pytest.mark.parametrize("version", ["v1beta1", "v1beta2"])
@pytest.mark.parametrize(
    ("entry", "manifest"),
    [
        (RESOURCE_CLAIMS, CLAIM),
        (RESOURCE_SLICES, SLICE),
        (DEVICE_CLASSES, {"metadata": {"name": "a"}, "spec": {"extendedResourceName": "a.b/gpu"}}),
    ],
)
def test_betas_lose_nothing(version: str, entry: Any, manifest: dict[str, Any]) -> None:
    beta = resource_at(GROUP, version, entry.plural)
    assert beta is not None
    assert beta.conversion is not None
    stored = create(entry, manifest)
    shown = beta.conversion.from_stored(stored)
    assert shown.api_version == f"{GROUP}/{version}"
    assert beta.conversion.to_stored(shown) == stored
    assert errors_of(beta, beta.strategy.default(shown)) == []


def test_the_first_beta_says_it_flat() -> None:
    beta = resource_at(GROUP, "v1beta1", "resourceclaims")
    assert beta is not None
    assert beta.conversion is not None
    value = codec.to_dict(beta.conversion.from_stored(create(RESOURCE_CLAIMS, CLAIM)))
    assert value["spec"]["devices"]["requests"][0]["deviceClassName"] == "gpu"
    slices = resource_at(GROUP, "v1beta1", "resourceslices")
    assert slices is not None
    assert slices.conversion is not None
    device = codec.to_dict(slices.conversion.from_stored(create(RESOURCE_SLICES, SLICE)))
    assert device["spec"]["devices"][0]["basic"]["attributes"] == {"model": {"string": "x"}}
