"""Services: normalisation between old and new clients, and validation. Real schema and entry."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from pybernetes.api.core.services import SERVICES
from tests.api.coreobjects import changed, create, errors_of, read

SERVICE: dict[str, Any] = {
    "metadata": {"name": "web", "namespace": "default"},
    "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80}]},
}


def allocated(manifest: dict[str, Any], **more: Any) -> Any:
    """As it is stored, after allocation."""
    service = create(SERVICES, manifest)
    fields = {"cluster_ip": "10.0.0.5", "cluster_ips": ("10.0.0.5",), **more}
    return replace(service, spec=replace(service.spec, **fields))


def updated(manifest: dict[str, Any], old: Any) -> Any:
    return SERVICES.strategy.prepare_update(read(SERVICES, manifest), old).spec


def test_defaults() -> None:
    spec = create(SERVICES, SERVICE).spec
    assert (spec.type, spec.session_affinity) == ("ClusterIP", "None")
    assert (spec.internal_traffic_policy, spec.external_traffic_policy) == ("Cluster", "")
    assert (spec.ports[0].protocol, spec.ports[0].target_port) == ("TCP", 80)
    sticky = create(SERVICES, changed(SERVICE, "spec.sessionAffinity", "ClientIP")).spec
    assert sticky.session_affinity_config.client_ip.timeout_seconds == 10800
    balanced = create(SERVICES, changed(SERVICE, "spec.type", "LoadBalancer")).spec
    assert balanced.allocate_load_balancer_node_ports is True
    assert balanced.external_traffic_policy == "Cluster"


def test_old_clients_know_one_address() -> None:
    spec = create(SERVICES, changed(SERVICE, "spec.clusterIP", "10.0.0.9")).spec
    assert spec.cluster_ips == ("10.0.0.9",)


def test_a_replacement_keeps_what_was_allocated() -> None:
    spec = updated(SERVICE, allocated(SERVICE))
    assert (spec.cluster_ip, spec.cluster_ips) == ("10.0.0.5", ("10.0.0.5",))


def test_a_replacement_keeps_node_ports_by_name() -> None:
    manifest = changed(SERVICE, "spec.type", "NodePort")
    ports = [
        {"name": "http", "port": 80, "nodePort": 30080},
        {"name": "x", "port": 1, "nodePort": 30001},
    ]
    old = allocated(changed(manifest, "spec.ports", ports))
    new = [
        {"name": "y", "port": 5, "nodePort": 30001},
        {"name": "http", "port": 81},
        {"name": "x", "port": 1},
    ]
    spec = updated(changed(manifest, "spec.ports", new), old)
    assert [port.node_port for port in spec.ports] == [30001, 30080, None]


def test_who_changes_only_the_old_field_means_both() -> None:
    old = allocated(SERVICE)
    manifest = changed(SERVICE, "spec.clusterIPs", ["10.0.0.5"])
    assert updated(changed(manifest, "spec.clusterIP", "10.0.0.6"), old).cluster_ips == (
        "10.0.0.6",
    )


def test_a_change_of_type_takes_its_fields_along() -> None:
    old = allocated(changed(SERVICE, "spec.type", "LoadBalancer"), ip_families=("IPv4",))
    manifest = {
        "metadata": SERVICE["metadata"],
        "spec": {
            "type": "ExternalName",
            "externalName": "a.b",
            "clusterIP": "10.0.0.5",
            "clusterIPs": ["10.0.0.5"],
            "ipFamilies": ["IPv4"],
            "allocateLoadBalancerNodePorts": True,
            "externalTrafficPolicy": "Cluster",
            "internalTrafficPolicy": "Cluster",
        },
    }
    spec = updated(manifest, old)
    assert (spec.cluster_ip, spec.cluster_ips, spec.ip_families) == ("", (), ())
    assert (spec.allocate_load_balancer_node_ports, spec.external_traffic_policy) == (None, "")
    assert errors_of(SERVICES, read(SERVICES, manifest), old) == []


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"ports": []}, "spec.ports: Required value"),
        (
            {"ports": [{"port": 1}, {"name": "a", "port": 2}]},
            "spec.ports[0].name: Required value",
        ),
        (
            {"ports": [{"name": "a", "port": 1}, {"name": "b", "port": 1}]},
            'spec.ports[1]: Duplicate value: {"protocol":"TCP","port":1}',
        ),
        (
            {"ports": [{"port": 0}]},
            "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
        ),
        (
            {"ports": [{"port": 1, "nodePort": 30000}]},
            "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
        ),
        (
            {"type": "Odd"},
            'spec.type: Unsupported value: "Odd": supported values: "ClusterIP", "ExternalName", '
            '"LoadBalancer", "NodePort"',
        ),
        (
            {"type": "NodePort", "clusterIP": "None"},
            "spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort "
            "services",
        ),
        ({"type": "ExternalName"}, "spec.externalName: Required value"),
        (
            {"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.2"]},
            'spec.clusterIPs: Invalid value: ["10.0.0.2"]: first value must match `clusterIP`',
        ),
        (
            {"clusterIPs": ["10.0.0.2"]},
            "spec.clusterIPs: Invalid value: [\"10.0.0.2\"]: must be empty when `clusterIP` is "
            "not specified",
        ),
        (
            {"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "10.0.0.2"]},
            "may specify no more than one IP for each IP family",
        ),
        (
            {"sessionAffinity": "ClientIP",
             "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 90000}}},
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 90000: must be "
            "greater than 0 and less than 86400",
        ),
        (
            {"externalTrafficPolicy": "Local"},
            'spec.externalTrafficPolicy: Invalid value: "Local": may only be set for '
            "externally-accessible services",
        ),
        (
            {"loadBalancerSourceRanges": ["10.0.0.0/8"]},
            "spec.loadBalancerSourceRanges: Forbidden: may only be used when `type` is "
            "'LoadBalancer'",
        ),
        (
            {"externalIPs": ["127.0.0.1"]},
            'spec.externalIPs[0]: Invalid value: "127.0.0.1": may not be in the loopback range '
            "(127.0.0.0/8, ::1/128)",
        ),
        (
            {"healthCheckNodePort": 30000},
            "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
        ),
        (
            {"ipFamilies": ["IPv5"]},
            'spec.ipFamilies[0]: Unsupported value: "IPv5": supported values: "IPv4", "IPv6"',
        ),
    ],
)  # fmt: skip
def test_refused_with_upstreams_text(changes: dict[str, Any], error: str) -> None:
    manifest = {**SERVICE, "spec": {**SERVICE["spec"], **changes}}
    errors = errors_of(SERVICES, create(SERVICES, manifest))
    assert any(error in found for found in errors), errors


def test_headless_services_need_no_ports() -> None:
    manifest = changed(changed(SERVICE, "spec.clusterIP", "None"), "spec.ports", [])
    assert errors_of(SERVICES, create(SERVICES, manifest)) == []


def test_the_address_may_not_change() -> None:
    old = allocated(SERVICE)
    manifest = changed(SERVICE, "spec.clusterIP", "10.0.0.6")
    new = read(SERVICES, changed(manifest, "spec.clusterIPs", ["10.0.0.6"]))
    assert errors_of(SERVICES, new, old) == [
        'spec.clusterIPs[0]: Invalid value: ["10.0.0.6"]: may not change once set'
    ]


def test_names_start_with_a_letter() -> None:
    assert SERVICES.strategy.name_errors("web") == []
    assert SERVICES.strategy.name_errors("1web")[0].startswith("a DNS-1035 label must consist of")
