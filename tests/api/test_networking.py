"""Policies, ingresses and addresses: what is filled in, and what is refused in which words."""

from __future__ import annotations

from typing import Any

import pytest

from pybernetes.api import codec
from pybernetes.api.ingress import INGRESS_CLASSES, INGRESSES
from pybernetes.api.networking import IP_ADDRESSES, NETWORK_POLICIES, SERVICE_CIDRS
from tests.api.coreobjects import changed, create, errors_of

POLICY: dict[str, Any] = {
    "metadata": {"name": "web", "namespace": "default"},
    "spec": {
        "podSelector": {"matchLabels": {"app": "web"}},
        "ingress": [
            {
                "from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}],
                "ports": [{"port": 80}],
            }
        ],
    },
}
FROM, PORT = "spec.ingress.0.from.0", "spec.ingress.0.ports.0"


def test_policies_are_made_whole() -> None:
    spec = codec.to_dict(create(NETWORK_POLICIES, POLICY).spec)
    assert spec["policyTypes"] == ["Ingress"]
    assert spec["ingress"][0]["ports"] == [{"port": 80, "protocol": "TCP"}]
    both = create(NETWORK_POLICIES, changed(POLICY, "spec.egress", [{"ports": [{"port": "dns"}]}]))
    assert both.spec.policy_types == ("Ingress", "Egress")
    assert both.spec.egress[0].ports[0].protocol == "TCP"


@pytest.mark.parametrize(
    ("path", "value", "errors"),
    [
        (PORT, {}, []),
        (FROM, {}, ["spec.ingress[0].from[0]: Required value: must specify a peer"]),
        (
            f"{FROM}.podSelector",
            {},
            ["spec.ingress[0].from[0]: Forbidden: may not specify both ipBlock and another peer"],
        ),
        (
            f"{FROM}.ipBlock.cidr",
            "",
            ["spec.ingress[0].from[0].ipBlock.cidr: Required value"],
        ),
        (
            f"{FROM}.ipBlock.cidr",
            "10.0.0.0",
            [
                'spec.ingress[0].from[0].ipBlock.cidr: Invalid value: "10.0.0.0": '
                "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
            ],
        ),
        (
            f"{FROM}.ipBlock.except",
            ["10.0.0.0/8", "11.0.0.0/16", "fd00::/16"],
            [
                f'spec.ingress[0].from[0].ipBlock.except[{index}]: Invalid value: "{value}": '
                "must be a strict subset of `cidr`"
                for index, value in enumerate(("10.0.0.0/8", "11.0.0.0/16", "fd00::/16"))
            ],
        ),
        (
            PORT,
            {"port": 80, "endPort": 79},
            [
                "spec.ingress[0].ports[0].endPort: Invalid value: 80: "
                "must be greater than or equal to `port`"
            ],
        ),
        (
            PORT,
            {"port": "http", "endPort": 90},
            [
                "spec.ingress[0].ports[0].endPort: Invalid value: 90: "
                "may not be specified when `port` is non-numeric"
            ],
        ),
        (
            PORT,
            {"protocol": "ICMP"},
            [
                'spec.ingress[0].ports[0].protocol: Unsupported value: "ICMP": '
                'supported values: "TCP", "UDP", "SCTP"'
            ],
        ),
        (
            "spec.policyTypes",
            ["Ingress", "Egress", "Ingress"],
            [
                'spec.policyTypes: Invalid value: ["Ingress","Egress","Ingress"]: '
                "may not specify more than two policyTypes"
            ],
        ),
    ],
)
def test_policies(path: str, value: Any, errors: list[str]) -> None:
    new = create(NETWORK_POLICIES, changed(POLICY, path, value))
    assert errors_of(NETWORK_POLICIES, new) == errors


INGRESS: dict[str, Any] = {
    "metadata": {"name": "front", "namespace": "default"},
    "spec": {
        "ingressClassName": "fast",
        "rules": [
            {
                "host": "www.example.com",
                "http": {
                    "paths": [
                        {
                            "path": "/",
                            "pathType": "Prefix",
                            "backend": {"service": {"name": "web", "port": {"number": 80}}},
                        }
                    ]
                },
            }
        ],
    },
}
ONE = "spec.rules.0.http.paths.0"
ONE_PATH = "spec.rules[0].http.paths[0]"


@pytest.mark.parametrize(
    ("path", "value", "errors"),
    [
        ("spec.tls", [{"hosts": ["*.example.com"], "secretName": "web"}], []),
        (
            "spec.rules",
            None,
            ["spec: Invalid value: []: either `defaultBackend` or `rules` must be specified"],
        ),
        (
            "spec.rules.0.host",
            "10.0.0.1",
            [
                'spec.rules[0].host: Invalid value: "10.0.0.1": '
                "must be a DNS name, not an IP address"
            ],
        ),
        ("spec.rules.0.http.paths", [], ["spec.rules[0].http.paths: Required value"]),
        (
            f"{ONE}.pathType",
            None,
            [f"{ONE_PATH}.pathType: Required value: pathType must be specified"],
        ),
        (
            f"{ONE}.pathType",
            "Regex",
            [
                f'{ONE_PATH}.pathType: Unsupported value: "Regex": '
                'supported values: "Exact", "ImplementationSpecific", "Prefix"'
            ],
        ),
        (
            f"{ONE}.path",
            "a//b/..",
            [
                f'{ONE_PATH}.path: Invalid value: "a//b/..": {message}'
                for message in (
                    "must be an absolute path",
                    "must not contain '//'",
                    "cannot end with '/..'",
                )
            ],
        ),
        (
            f"{ONE}.backend",
            {},
            [f'{ONE_PATH}.backend: Invalid value: "": resource or service backend is required'],
        ),
        (
            f"{ONE}.backend.service.port",
            {},
            [f"{ONE_PATH}.backend: Required value: port name or number is required"],
        ),
        (
            f"{ONE}.backend.service.port.name",
            "http",
            [f'{ONE_PATH}.backend: Invalid value: "": cannot set both port name & port number'],
        ),
        (
            f"{ONE}.backend.resource",
            {"kind": "Bucket", "name": "b"},
            [
                f'{ONE_PATH}.backend: Invalid value: "": '
                "cannot set both resource and service backends"
            ],
        ),
        (
            "metadata.annotations",
            {"kubernetes.io/ingress.class": "slow"},
            [
                'annotations.kubernetes.io/ingress.class: Invalid value: "slow": '
                "must match `ingressClassName` when both are specified"
            ],
        ),
    ],
)
def test_ingresses(path: str, value: Any, errors: list[str]) -> None:
    new = create(INGRESSES, changed(INGRESS, path, value))
    assert errors_of(INGRESSES, new) == errors
    if path != "metadata.annotations":
        assert errors_of(INGRESSES, new, new) == errors


def test_the_columns_of_ingresses() -> None:
    manifest = changed(INGRESS, "spec.tls", [{}])
    rules = [{"host": f"h{number}.example.com"} for number in range(5)]
    manifest = changed(manifest, "spec.rules", rules)
    entries = [{"hostname": "b"}, {"ip": "10.0.0.1"}, {"ip": "10.0.0.1"}]
    manifest = changed(manifest, "status.loadBalancer.ingress", entries)
    shown = create(INGRESSES, manifest)
    cells = [column.cell(shown) for column in INGRESSES.columns[:4] if column.cell]
    assert cells == [
        "fast",
        "h0.example.com,h1.example.com,h2.example.com + 2 more...",
        "10.0.0.1,b",
        "80, 443",
    ]


CLASS: dict[str, Any] = {
    "metadata": {"name": "fast"},
    "spec": {"controller": "example.com/fast", "parameters": {"kind": "Config", "name": "x"}},
}


@pytest.mark.parametrize(
    ("path", "value", "errors"),
    [
        ("spec.controller", "example.com/other", []),
        (
            "spec.controller",
            "fast",
            [
                'spec.controller: Invalid value: "fast": '
                'must be a domain-prefixed path (such as "acme.io/foo")'
            ],
        ),
        (
            "spec.parameters.scope",
            "Namespace",
            ["spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'"],
        ),
        (
            "spec.parameters.namespace",
            "here",
            ["spec.parameters.namespace: Forbidden: `parameters.scope` is set to 'Cluster'"],
        ),
    ],
)
def test_classes(path: str, value: Any, errors: list[str]) -> None:
    new = create(INGRESS_CLASSES, changed(CLASS, path, value))
    assert errors_of(INGRESS_CLASSES, new) == errors


def test_a_class_keeps_its_controller() -> None:
    old = create(INGRESS_CLASSES, CLASS)
    assert old.spec.parameters.scope == "Cluster"
    new = create(INGRESS_CLASSES, changed(CLASS, "spec.controller", "example.com/other"))
    assert errors_of(INGRESS_CLASSES, new, old) == [
        'spec.controller: Invalid value: "example.com/other": field is immutable'
    ]


@pytest.mark.parametrize(
    ("name", "errors"),
    [
        ("10.0.0.1", []),
        ("fd00::1", []),
        ("web", ["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"]),
        ("FD00::0:1", ['must be in canonical form ("fd00::1")']),
    ],
)
def test_addresses_are_named_by_themselves(name: str, errors: list[str]) -> None:
    assert IP_ADDRESSES.strategy.name_errors(name) == errors


def test_addresses_belong_to_one_object() -> None:
    manifest = {
        "metadata": {"name": "10.0.0.1"},
        "spec": {"parentRef": {"resource": "services", "namespace": "default", "name": "web"}},
    }
    old = create(IP_ADDRESSES, manifest)
    assert errors_of(IP_ADDRESSES, old) == []
    assert IP_ADDRESSES.columns[0].cell is not None
    assert IP_ADDRESSES.columns[0].cell(old) == "services./default/web"
    (error,) = errors_of(
        IP_ADDRESSES, create(IP_ADDRESSES, changed(manifest, "spec.parentRef.name", "db")), old
    )
    assert error.startswith("spec.parentRef: Invalid value: {")
    assert error.endswith(": field is immutable")
    assert errors_of(IP_ADDRESSES, create(IP_ADDRESSES, changed(manifest, "spec", {}))) == [
        "spec.parentRef.resource: Required value",
        "spec.parentRef.name: Required value",
    ]


@pytest.mark.parametrize(
    ("cidrs", "errors"),
    [
        (["10.96.0.0/16"], []),
        (["10.96.0.0/16", "fd00::/112"], []),
        ([], ["spec.cidrs: Required value: at least one CIDR required"]),
        (
            ["10.0.0.0/24", "10.1.0.0/24"],
            [
                'spec.cidrs: Invalid value: ["10.0.0.0/24","10.1.0.0/24"]: may specify no more '
                "than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/96"
            ],
        ),
        (
            ["10.0.0.1/24"],
            [
                'spec.cidrs[0]: Invalid value: "10.0.0.1/24": '
                'must be in canonical form ("10.0.0.0/24")'
            ],
        ),
        (
            ["a", "b", "c"],
            ['spec.cidrs: Invalid value: ["a","b","c"]: may only hold up to 2 values'],
        ),
    ],
)
def test_ranges(cidrs: list[str], errors: list[str]) -> None:
    new = create(SERVICE_CIDRS, {"metadata": {"name": "a"}, "spec": {"cidrs": cidrs}})
    assert errors_of(SERVICE_CIDRS, new) == errors


def test_a_range_may_only_get_the_other_family() -> None:
    def made(*cidrs: str) -> Any:
        return create(SERVICE_CIDRS, {"metadata": {"name": "a"}, "spec": {"cidrs": list(cidrs)}})

    old = made("10.96.0.0/16")
    assert errors_of(SERVICE_CIDRS, made("10.96.0.0/16", "fd00::/112"), old) == []
    assert errors_of(SERVICE_CIDRS, made("10.97.0.0/16"), old) == [
        'spec.cidrs: Invalid value: ["10.97.0.0/16"]: field is immutable'
    ]
