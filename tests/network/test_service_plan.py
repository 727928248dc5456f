"""Which map elements a Service becomes. All pure: no kernel, no loop."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from pybernetes.api.types.discovery_v1 import (
    Endpoint,
    EndpointHints,
    EndpointPort,
    ForNode,
    ForZone,
)
from pybernetes.network.proxy.elements import MAPS, format_element, pack, pack_key, unpack_key
from pybernetes.network.proxy.plan import Element, LocalFacts, ServicePlan, Value, plan_service
from tests.network.objects import (
    NODE,
    OTHER_NODE,
    endpoint,
    endpoint_slice,
    port,
    service,
)

FACTS = LocalFacts(NODE, zone="a", exempt=frozenset({"10.96.0.10"}))
FRONT = ("10.96.0.20", "tcp", 80)
SLOTS = ("10.96.0.20", 80)
NODE_PORT = (port(80, node=30080),)


def elements_of(plan: ServicePlan, name: str) -> dict[tuple[str | int, ...], Value]:
    return {element.key: value for element, value in plan.elements.items() if element.map == name}


def test_cluster_ip_picks_among_ready_endpoints() -> None:
    slices = [endpoint_slice("10.244.0.3", "10.244.0.2", endpoint("10.244.0.4", ready=False))]
    plan = plan_service(service(), slices, FACTS)
    assert plan.elements == {
        Element("services", FRONT): "tcp-2",
        Element("endpoints-tcp", (*SLOTS, 0)): ("10.244.0.2", 8080),
        Element("endpoints-tcp", (*SLOTS, 1)): ("10.244.0.3", 8080),
        Element("hairpin", ("10.244.0.2", "10.244.0.2")): None,
        Element("hairpin", ("10.244.0.3", "10.244.0.3")): None,
    }


def test_every_port_and_protocol_is_served() -> None:
    ports = (port(80, name="http"), port(53, name="dns", protocol="UDP"), port(9, protocol="SCTP"))
    slice_ports = (
        EndpointPort(name="http", port=8080, protocol="TCP"),
        EndpointPort(name="dns", port=5353, protocol="UDP"),
        EndpointPort(name="", port=9, protocol="SCTP"),
    )
    plan = plan_service(
        service(ports=ports), [endpoint_slice("10.244.0.2", ports=slice_ports)], FACTS
    )
    assert elements_of(plan, "endpoints-tcp") == {("10.96.0.20", 80, 0): ("10.244.0.2", 8080)}
    assert elements_of(plan, "endpoints-udp") == {("10.96.0.20", 53, 0): ("10.244.0.2", 5353)}
    assert elements_of(plan, "endpoints-sctp") == {("10.96.0.20", 9, 0): ("10.244.0.2", 9)}


@pytest.mark.parametrize(
    ("what", "because"),
    [
        pytest.param(service(address="None"), "headless"),
        pytest.param(service(type="ExternalName", external_name="example.org"), "a name only"),
        pytest.param(
            service(labels={"service.kubernetes.io/service-proxy-name": "mesh"}), "another's"
        ),
        pytest.param(service(address="10.96.0.10"), "the DNS address is the node's own"),
        pytest.param(service(address="fd00::1"), "IPv6"),
        pytest.param(service(), "no endpoints: the leak rule rejects it"),
    ],
)
def test_nothing_is_planned(what: object, because: str) -> None:
    slices = [] if "no endpoints" in because else [endpoint_slice("10.244.0.2", node_less())]
    plan = plan_service(what, slices, FACTS)  # type: ignore[arg-type]  # a Service by the table
    assert [e for e in plan.elements if e.map != "hairpin"] == [], because


def node_less() -> Endpoint:
    return endpoint("10.244.9.9", node="")


def test_serving_terminating_endpoints_are_the_last_resort() -> None:
    leaving = endpoint("10.244.0.2", ready=False, serving=True, terminating=True)
    gone = endpoint("10.244.0.3", ready=False, serving=False, terminating=True)
    plan = plan_service(service(), [endpoint_slice(leaving, gone)], FACTS)
    assert elements_of(plan, "endpoints-tcp") == {(*SLOTS, 0): ("10.244.0.2", 8080)}
    plan = plan_service(service(), [endpoint_slice(leaving, gone, "10.244.0.4")], FACTS)
    assert elements_of(plan, "endpoints-tcp") == {(*SLOTS, 0): ("10.244.0.4", 8080)}


def test_an_endpoint_in_two_slices_counts_once() -> None:
    slices = [
        endpoint_slice(endpoint("10.244.0.2", ready=False), suffix="1"),
        endpoint_slice("10.244.0.2", suffix="2"),
    ]
    plan = plan_service(service(), slices, FACTS)
    assert elements_of(plan, "services") == {FRONT: "tcp-1"}


def test_node_port_is_masqueraded_unless_local() -> None:
    slices = [endpoint_slice("10.244.0.2", endpoint("10.244.1.2", node=OTHER_NODE))]
    plan = plan_service(service(type="NodePort", ports=NODE_PORT), slices, FACTS)
    assert elements_of(plan, "ports") == {("tcp", 30080): "port-tcp-2"}
    assert elements_of(plan, "masqueraded-ports") == {("tcp", 30080): None}
    assert elements_of(plan, "ports-outside") == {}
    local = service(type="NodePort", ports=NODE_PORT, external="Local")
    plan = plan_service(local, slices, FACTS)
    assert elements_of(plan, "masqueraded-ports") == {}
    assert elements_of(plan, "ports-outside") == {("tcp", 30080): "port-tcp-outside-1"}
    assert elements_of(plan, "port-endpoints-tcp") == {
        (30080, 0): ("10.244.0.2", 8080),
        (30080, 1): ("10.244.1.2", 8080),
        (30080, 65536): ("10.244.0.2", 8080),
    }
    assert plan.local_endpoints == 1


def test_local_policy_without_local_endpoint_drops() -> None:
    elsewhere = [endpoint_slice(endpoint("10.244.1.2", node=OTHER_NODE))]
    what = service(
        type="LoadBalancer", ports=NODE_PORT, external="Local", internal="Local",
        ingress=("203.0.113.5",),
    )  # fmt: skip
    plan = plan_service(what, elsewhere, FACTS)
    assert elements_of(plan, "services") == {
        FRONT: "drop",
        ("203.0.113.5", "tcp", 80): "tcp-1",
    }
    assert elements_of(plan, "services-outside") == {("203.0.113.5", "tcp", 80): "drop"}
    assert elements_of(plan, "ports-outside") == {("tcp", 30080): "drop"}
    assert plan.local_endpoints == 0


def test_no_endpoint_at_all_is_refused_everywhere() -> None:
    what = service(type="NodePort", ports=NODE_PORT, external_ips=("203.0.113.5",))
    plan = plan_service(what, [], FACTS)
    assert plan.elements == {
        Element("refused", ("203.0.113.5", "tcp", 80)): "refuse",
        Element("refused-ports", ("tcp", 30080)): "refuse",
    }


def test_affinity_learns_where_clients_went() -> None:
    what = service(type="NodePort", ports=NODE_PORT, affinity=60)
    plan = plan_service(what, [endpoint_slice("10.244.0.2", "10.244.0.3")], FACTS)
    assert elements_of(plan, "services") == {FRONT: "tcp-sticky-2"}
    assert elements_of(plan, "ports") == {("tcp", 30080): "port-tcp-sticky-2"}
    assert elements_of(plan, "sticky") == {FRONT: "learn-60"}
    assert elements_of(plan, "sticky-ports") == {("tcp", 30080): "learn-60"}


def test_source_ranges_protect_the_load_balancer_only() -> None:
    what = service(
        type="LoadBalancer", ports=NODE_PORT, ingress=("203.0.113.5",), ranges=("192.0.2.0/24", "?")
    )
    plan = plan_service(what, [endpoint_slice("10.244.0.2")], FACTS)
    front = ("203.0.113.5", "tcp", 80)
    assert elements_of(plan, "source-limited") == {front: None}
    assert elements_of(plan, "source-ranges") == {
        (*front, "192.0.2.0", *front, "192.0.2.255"): None
    }


def test_hints_prefer_this_node_then_this_zone() -> None:
    def hinted(address: str, zone: str, node: str = "") -> Endpoint:
        hints = EndpointHints(
            for_zones=(ForZone(name=zone),), for_nodes=(ForNode(name=node),) if node else ()
        )
        return replace(endpoint(address), hints=hints)

    zones = [endpoint_slice(hinted("10.244.0.2", "a"), hinted("10.244.0.3", "b"))]
    plan = plan_service(service(), zones, FACTS)
    assert list(elements_of(plan, "endpoints-tcp").values()) == [("10.244.0.2", 8080)]
    nodes = [endpoint_slice(hinted("10.244.0.2", "a", OTHER_NODE), hinted("10.244.0.3", "b", NODE))]
    plan = plan_service(service(), nodes, FACTS)
    assert list(elements_of(plan, "endpoints-tcp").values()) == [("10.244.0.3", 8080)]
    some = [endpoint_slice(hinted("10.244.0.2", "a"), "10.244.0.3")]
    plan = plan_service(service(), some, FACTS)
    assert elements_of(plan, "services") == {FRONT: "tcp-2"}


@given(
    st.ip_addresses(v=4),
    st.sampled_from(["tcp", "udp", "sctp"]),
    st.integers(0, 65535),
    st.integers(0, 2**32 - 1),
)
def test_keys_survive_packing(address: object, protocol: str, number: int, slot: int) -> None:
    for name, key in (
        (f"endpoints-{protocol}", (str(address), number, slot)),
        ("services", (str(address), protocol, number)),
    ):
        assert unpack_key(name, pack_key(name, key)) == key


def test_elements_read_as_nft_would_print_them() -> None:
    what = service(
        type="LoadBalancer", ports=NODE_PORT, ingress=("203.0.113.5",), ranges=("192.0.2.0/24",)
    )
    packed = pack(plan_service(what, [endpoint_slice("10.244.0.2")], FACTS).elements)
    said = {
        name: [format_element(name, key, value) for key, value in entries.items()]
        for name, entries in packed.items()
    }
    assert said["services"][0] == "10.96.0.20 . tcp . 80 : goto tcp-1"
    assert said["endpoints-tcp"][0] == "10.96.0.20 . 80 . 0 : 10.244.0.2 . 8080"
    assert said["source-ranges"] == ["203.0.113.5 . tcp . 80 . 192.0.2.0-192.0.2.255"]
    assert set(said) <= set(MAPS)
