"""Cluster IPs and node ports. The pool by itself; Services through the real server."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Network
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from pybernetes.api.types.core_v1 import Service, ServicePort, ServiceSpec
from pybernetes.api.types.meta_v1 import ObjectMeta
from pybernetes.api.types.networking_v1 import ServiceCIDR
from pybernetes.api.user import UserInfo
from pybernetes.apimachinery.errors import InternalError, Invalid
from pybernetes.apiserver.addresses import Full, NumberPool, OutOfRange, Taken
from pybernetes.storage.memory import MemoryStore
from tests.api.server.access import ask, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pybernetes.aio.clock import Clock
    from pybernetes.cluster.controlplane import ControlPlane

NETWORK = IPv4Network("10.96.0.0/24")


@pytest.fixture
async def plane(clock: Clock, random: Random) -> AsyncIterator[ControlPlane]:
    async with running(clock, random, service_network=NETWORK) as plane:
        yield plane


def service(name: str = "web", *ports: int, **spec: Any) -> Service:
    return Service(
        metadata=ObjectMeta(name=name, namespace="default"),
        spec=ServiceSpec(
            ports=tuple(ServicePort(name=f"p{port}", port=port) for port in ports or (80,)), **spec
        ),
    )


def node_ports(found: Service) -> list[int | None]:
    return [port.node_port for port in found.spec.ports]


async def messages(plane: ControlPlane, obj: Service) -> str:
    with pytest.raises(Invalid) as refused:
        await plane.admin.create(obj)
    return refused.value.message


# --- the pool -------------------------------------------------------------------------------------


def test_a_number_belongs_to_one() -> None:
    pool = NumberPool(1, 3)
    pool.own("a", [1])
    pool.reserve(2)
    with pytest.raises(Taken):
        pool.reserve(1)
    with pytest.raises(Taken):
        pool.reserve(2)
    with pytest.raises(OutOfRange):
        pool.reserve(4)
    assert pool.reserve_any(Random(1)) == 3
    with pytest.raises(Full):
        pool.reserve_any(Random(1))
    pool.release(3)
    pool.disown("a", [1])
    assert {pool.reserve_any(Random(1)), pool.reserve_any(Random(1))} == {1, 3}


def test_what_was_stored_meanwhile_stays_taken() -> None:
    pool = NumberPool(1, 1)
    number = pool.reserve_any(Random(1))
    pool.own("a", [number])
    pool.release(number)
    assert not pool.is_free(number)


def test_the_lower_part_is_given_out_last() -> None:
    pool = NumberPool(1, 20, preferred_from=15)
    given = [pool.reserve_any(Random(1)) for _ in range(20)]
    assert set(given[:6]) == {15, 16, 17, 18, 19, 20}
    assert given[6:] == list(range(1, 15))


# --- addresses ------------------------------------------------------------------------------------


async def test_every_service_gets_an_address_of_its_own(plane: ControlPlane) -> None:
    made = await asyncio.gather(*(plane.admin.create(service(f"s{n}")) for n in range(50)))
    addresses = {found.spec.cluster_ip for found in made}
    assert len(addresses) == 50
    for found in made:
        assert found.spec.cluster_ips == (found.spec.cluster_ip,)
        assert (found.spec.ip_families, found.spec.ip_family_policy) == (("IPv4",), "SingleStack")


async def test_the_api_server_has_the_first_address(plane: ControlPlane) -> None:
    found = await plane.admin.get(Service, "kubernetes", "default")
    assert found.spec.cluster_ip == "10.96.0.1"
    text = await messages(plane, service(cluster_ip="10.96.0.1"))
    assert "provided IP is already allocated" in text


async def test_the_range_is_shown(plane: ControlPlane) -> None:
    found = await plane.admin.get(ServiceCIDR, "kubernetes")
    assert found.spec.cidrs == ("10.96.0.0/24",)
    assert [(c.type, c.status) for c in found.status.conditions] == [("Ready", "True")]


async def test_an_address_may_be_chosen(plane: ControlPlane) -> None:
    found = await plane.admin.create(service(cluster_ip="10.96.0.10"))
    assert found.spec.cluster_ips == ("10.96.0.10",)
    assert await messages(plane, service("other", cluster_ip="10.96.0.10")) == (
        'Service "other" is invalid: spec.clusterIPs: Invalid value: ["10.96.0.10"]: failed to'
        " allocate IP 10.96.0.10: provided IP is already allocated"
    )
    assert await messages(plane, service("other", cluster_ip="10.1.0.10")) == (
        'Service "other" is invalid: spec.clusterIPs: Invalid value: ["10.1.0.10"]: failed to'
        " allocate IP 10.1.0.10: provided IP is not in the valid range. The range of valid IPs is"
        " 10.96.0.0/24"
    )
    await plane.admin.delete(Service, "web", "default")
    await plane.admin.create(service("other", cluster_ip="10.96.0.10"))


async def test_headless_and_external_services_have_none(plane: ControlPlane) -> None:
    headless = await plane.admin.create(service("a", cluster_ip="None", selector={"a": "b"}))
    assert (headless.spec.cluster_ip, headless.spec.cluster_ips) == ("None", ("None",))
    manual = await plane.admin.create(service("b", cluster_ip="None"))
    assert manual.spec.ip_family_policy == "RequireDualStack"
    external = await plane.admin.create(
        Service(
            metadata=ObjectMeta(name="c", namespace="default"),
            spec=ServiceSpec(type="ExternalName", external_name="example.com"),
        )
    )
    assert (external.spec.cluster_ip, external.spec.ip_families) == ("", ())


async def test_there_is_only_one_family(plane: ControlPlane) -> None:
    assert "this cluster is not configured for dual-stack services" in await messages(
        plane, service(ip_family_policy="RequireDualStack")
    )
    assert "not configured on this cluster" in await messages(plane, service(ip_families=("IPv6",)))
    found = await plane.admin.create(service(ip_family_policy="PreferDualStack"))
    assert found.spec.ip_families == ("IPv4",)


async def test_a_refused_write_and_a_dry_run_keep_nothing(plane: ControlPlane) -> None:
    await plane.admin.create(service(cluster_ip="10.96.0.10"), dry_run=True)
    with pytest.raises(Invalid):
        await plane.admin.create(service("UPPER", cluster_ip="10.96.0.10", type="NodePort"))
    await plane.admin.create(service(cluster_ip="10.96.0.10"))


async def test_a_full_range_says_so(clock: Clock, random: Random) -> None:
    async with running(clock, random, service_network=IPv4Network("10.96.0.0/29")) as plane:
        for number in range(5):
            await plane.admin.create(service(f"s{number}"))
        with pytest.raises(InternalError, match="failed to allocate a serviceIP: range is full"):
            await plane.admin.create(service("one-too-many"))
        await plane.admin.delete(Service, "s0", "default")
        await plane.admin.create(service("now"))


async def test_what_is_taken_survives_a_restart(clock: Clock, random: Random) -> None:
    store = MemoryStore()
    async with running(clock, random, store) as plane:
        await plane.admin.create(service(cluster_ip="10.96.0.10", type="NodePort"))
    async with running(clock, random, store) as plane:
        text = await messages(plane, service("other", cluster_ip="10.96.0.10"))
        assert "already allocated" in text


# --- node ports -----------------------------------------------------------------------------------


async def test_node_ports_are_given_and_kept(plane: ControlPlane) -> None:
    found = await plane.admin.create(service("web", 80, 443, type="NodePort"))
    given = node_ports(found)
    assert len(set(given)) == 2
    assert all(port is not None and 30000 <= port <= 32767 for port in given)
    # Somebody who sends the Service without them does not mean to change them.
    blank = tuple(replace(port, node_port=None) for port in found.spec.ports)
    updated = await plane.admin.update(
        replace(found, spec=replace(found.spec, ports=blank, cluster_ip="", cluster_ips=()))
    )
    assert node_ports(updated) == given
    assert updated.spec.cluster_ip == found.spec.cluster_ip


async def test_node_ports_may_be_chosen(plane: ControlPlane) -> None:
    port = ServicePort(port=80, node_port=30080)
    await plane.admin.create(_with(port))
    assert await messages(plane, _with(port, name="other")) == (
        'Service "other" is invalid: spec.ports[0].nodePort: Invalid value: 30080: provided port'
        " is already allocated"
    )
    outside = ServicePort(port=80, node_port=80)
    assert await messages(plane, _with(outside, name="other")) == (
        'Service "other" is invalid: spec.ports[0].nodePort: Invalid value: 80: provided port is'
        " not in the valid range. The range of valid ports is 30000-32767"
    )


def _with(*ports: ServicePort, name: str = "web", type: str = "NodePort") -> Service:
    return Service(
        metadata=ObjectMeta(name=name, namespace="default"),
        spec=ServiceSpec(type=type, ports=ports),
    )


async def test_protocols_share_a_number(plane: ControlPlane) -> None:
    found = await plane.admin.create(
        _with(
            ServicePort(name="a", port=53, protocol="TCP"),
            ServicePort(name="b", port=53, protocol="UDP"),
        )
    )
    first, second = node_ports(found)
    assert first == second


async def test_changing_the_type_gives_back_and_takes(plane: ControlPlane) -> None:
    found = await plane.admin.create(_with(ServicePort(port=80, node_port=30080)))
    plain = await plane.admin.update(replace(found, spec=replace(found.spec, type="ClusterIP")))
    assert node_ports(plain) == [None]
    await plane.admin.create(_with(ServicePort(port=80, node_port=30080), name="other"))
    again = await plane.admin.update(replace(plain, spec=replace(plain.spec, type="NodePort")))
    assert node_ports(again) not in ([None], [30080])
    external = replace(again.spec, type="ExternalName", external_name="example.com")
    gone = await plane.admin.update(replace(again, spec=external))
    assert (gone.spec.cluster_ip, gone.spec.cluster_ips, node_ports(gone)) == ("", (), [None])
    back = await plane.admin.update(
        replace(gone, spec=replace(gone.spec, type="ClusterIP", external_name=""))
    )
    assert back.spec.cluster_ip


async def test_a_load_balancer_has_a_health_port(plane: ControlPlane) -> None:
    found = await plane.admin.create(service(type="LoadBalancer", external_traffic_policy="Local"))
    assert found.spec.health_check_node_port not in (None, 0, *node_ports(found))
    without = await plane.admin.create(
        service("other", type="LoadBalancer", allocate_load_balancer_node_ports=False)
    )
    assert node_ports(without) == [None]


async def test_concurrent_wishes_for_one_port(plane: ControlPlane) -> None:
    wishes = [
        plane.admin.create(_with(ServicePort(port=80, node_port=30080), name=f"s{n}"))
        for n in range(10)
    ]
    results = await asyncio.gather(*wishes, return_exceptions=True)
    assert sum(isinstance(result, Service) for result in results) == 1
    assert sum(isinstance(result, Invalid) for result in results) == 9


async def test_kubectl_patches_a_port(plane: ControlPlane) -> None:
    found = await plane.admin.create(service("web", 80, type="NodePort"))
    patch = {"spec": {"ports": [{"port": 80, "name": "p80", "targetPort": 8080}]}}
    status, answer = await ask(
        plane,
        "PATCH",
        "/api/v1/namespaces/default/services/web",
        body=patch,
        headers=[("content-type", "application/merge-patch+json")],
        identity=UserInfo("root", ("system:masters",)),
    )
    assert status == 200, answer
    assert answer["spec"]["ports"][0]["nodePort"] == node_ports(found)[0]
