"""Real packets through real rules. Real: kernel, nftables, proxy, caches. Fake: nobody but the API
server, whose place is taken by putting objects into the caches.

Every test runs in namespaces of its own (see lab.py); nothing leaves them.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from pybernetes.api.types.core_v1 import Node, Service
from pybernetes.api.types.discovery_v1 import EndpointPort, EndpointSlice
from pybernetes.apimachinery.meta import Key
from pybernetes.client.cache import Cache
from pybernetes.client.kind import kind_of
from pybernetes.cluster.isolation import in_namespace
from pybernetes.network.proxy.proxy import ProxyConfig, ServiceProxy, service_proxy_over
from pybernetes.network.proxy.rules import remove_rules
from pybernetes.network.proxy.ruleset import RulesetConfig
from tests.network.lab import (
    NODE_ADDRESS,
    OUTSIDE_ADDRESS,
    POD_NETWORK,
    SERVICE_NETWORK,
    Lab,
    Servers,
    ask,
    batch,
    connect,
    lab,
    names,
    needs_root,
)
from tests.network.objects import NODE, OTHER_NODE, endpoint, endpoint_slice, port, service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = [pytest.mark.e2e, pytest.mark.realtime, pytest.mark.slow, needs_root]

RULES = RulesetConfig(service_cidr=SERVICE_NETWORK, pod_cidr=POD_NETWORK)
CONFIG = ProxyConfig(node_name=NODE, rules=RULES, exempt=frozenset({"10.96.0.10"}))
WEB = "10.96.0.20"
UDP_PORT = (EndpointPort(name="", port=8080, protocol="UDP"),)
A, B, C = "10.244.0.2", "10.244.0.3", "10.244.0.4"


class World:
    """The caches of a proxy, filled by hand."""

    def __init__(self) -> None:
        self.services = Cache(kind_of(Service))
        self.slices = Cache(kind_of(EndpointSlice))
        self.nodes = Cache(kind_of(Node))
        self.services.replace(())
        self.slices.replace(())
        self.nodes.replace(())
        self._version = 1

    def put(self, *objects: Service | EndpointSlice) -> None:
        for obj in objects:
            self._version += 1
            metadata = replace(obj.metadata, resource_version=str(self._version))
            if isinstance(obj, Service):
                self.services.put(replace(obj, metadata=metadata))
            else:
                self.slices.put(replace(obj, metadata=metadata))

    def proxy(self) -> contextlib.AbstractAsyncContextManager[ServiceProxy]:
        return service_proxy_over(self.services, self.slices, self.nodes, CONFIG)


@pytest.fixture
def place() -> Iterator[Lab]:
    with lab() as made, in_namespace(made.node):
        yield made


@pytest.fixture
def servers(place: Lab) -> Iterator[Servers]:
    with Servers() as running:
        for address, namespace in place.pods.items():
            running.add(namespace, address)
        yield running


@pytest.fixture
async def world(place: Lab, servers: Servers) -> AsyncIterator[World]:
    filled = World()
    # As the pod network does: the node itself finds the service range on its loopback.
    batch(place.node, [f"route add {SERVICE_NETWORK} dev lo src {NODE_ADDRESS} mtu 1450"])
    filled.put(service(), endpoint_slice(A, B))
    async with filled.proxy():
        yield filled


async def settled() -> None:
    """Until the proxy has told the kernel; it has nothing to wait for but its turn."""
    await asyncio.sleep(0.1)


def pod(place: Lab, address: str) -> str:
    return place.pods[address]


async def test_pods_and_the_node_reach_every_endpoint(place: Lab, world: World) -> None:
    for udp in (False, True):
        if udp:
            world.put(
                service(ports=(port(80, protocol="UDP"),)),
                endpoint_slice(A, B, ports=UDP_PORT),
            )
            await settled()
        answers = [ask(pod(place, C), WEB, udp=udp) for _ in range(30)]
        assert set(answers) == {f"{A} from {C}", f"{B} from {C}"}
        # The node is not in the pod range, so its address is replaced by one that routes back.
        assert names([ask(place.node, WEB, udp=udp) for _ in range(30)]) == {A, B}


async def test_a_pod_reaches_itself_through_its_service(place: Lab, world: World) -> None:
    world.put(endpoint_slice(A))
    await settled()
    answer = ask(pod(place, A), WEB)
    assert answer.startswith(f"{A} from ")
    assert not answer.endswith(A), "its own address as a source would never be answered"


async def test_node_port_answers_on_node_addresses_but_not_on_loopback(
    place: Lab, world: World
) -> None:
    world.put(service(type="NodePort", ports=(port(80, node=30080),)))
    await settled()
    for client in (place.outside, pod(place, C), place.node):
        assert names([ask(client, NODE_ADDRESS, 30080) for _ in range(20)]) == {A, B}
    with pytest.raises(ConnectionRefusedError):
        ask(place.node, "127.0.0.1", 30080)


async def test_external_policy_local_keeps_the_client_address(place: Lab, world: World) -> None:
    world.put(
        service(type="NodePort", ports=(port(80, node=30080),), external="Local"),
        endpoint_slice(A, endpoint("10.244.1.9", node=OTHER_NODE)),
    )
    await settled()
    answers = {ask(place.outside, NODE_ADDRESS, 30080) for _ in range(20)}
    assert answers == {f"{A} from {OUTSIDE_ADDRESS}"}
    world.put(endpoint_slice(endpoint("10.244.1.9", node=OTHER_NODE)))
    await settled()
    with pytest.raises(TimeoutError):
        ask(place.outside, NODE_ADDRESS, 30080)


async def test_external_addresses_and_their_source_ranges(place: Lab, world: World) -> None:
    balanced = service(
        type="LoadBalancer", external_ips=("203.0.113.9",), ingress=("203.0.113.10",),
        ranges=("192.0.2.0/24",),
    )  # fmt: skip
    world.put(balanced)
    await settled()
    assert names([ask(place.outside, "203.0.113.9") for _ in range(20)]) == {A, B}
    with pytest.raises(TimeoutError):
        ask(place.outside, "203.0.113.10")
    batch(place.outside, ["address add 192.0.2.7/32 dev lo"])
    batch(place.node, [f"route add 192.0.2.7/32 via {OUTSIDE_ADDRESS}"])
    assert ask(place.outside, "203.0.113.10", source="192.0.2.7").split()[0] in {A, B}


async def test_clients_with_affinity_stay_where_they_are(place: Lab, world: World) -> None:
    world.put(
        service(affinity=100, type="NodePort", ports=(port(80, node=30080),)),
        endpoint_slice(A, B, C),
    )
    await settled()
    first = names([ask(pod(place, C), WEB)])
    for _ in range(20):
        assert names([ask(pod(place, C), WEB)]) == first
        assert len(names([ask(place.outside, NODE_ADDRESS, 30080) for _ in range(3)])) == 1
    # More endpoints change nothing, fewer only for those whose endpoint goes.
    (chosen,) = first
    others = [address for address in (A, B, C) if address != chosen]
    world.put(endpoint_slice(chosen, others[0]))
    await settled()
    assert {*names([ask(pod(place, C), WEB) for _ in range(10)])} == first
    world.put(endpoint_slice(*others))
    await settled()
    moved = names([ask(pod(place, C), WEB) for _ in range(10)])
    assert len(moved) == 1
    assert moved != first
    # Also for clients outside, who came by the node port.
    assert names([ask(place.outside, NODE_ADDRESS, 30080) for _ in range(10)]) <= set(others)


async def test_load_balancers_are_told_where_the_endpoints_are(place: Lab, world: World) -> None:
    world.put(
        service(
            type="LoadBalancer", external="Local", health_port=32000,
            ports=(port(80, node=30080),), ingress=("203.0.113.10",),
        )
    )  # fmt: skip
    await settled()
    for slices, status in (
        (endpoint_slice(A), b"200 OK"),
        (endpoint_slice(endpoint("10.244.1.9", node=OTHER_NODE)), b"503 Service Unavailable"),
    ):
        world.put(slices)
        await settled()
        answer = await asyncio.to_thread(ask_health, place, 32000)
        assert answer.startswith(b"HTTP/1.1 " + status)
        assert b'"localEndpoints"' in answer
    world.put(service())
    await settled()
    with pytest.raises(ConnectionRefusedError):
        ask(place.outside, NODE_ADDRESS, 32000)


def ask_health(place: Lab, number: int) -> bytes:
    with contextlib.closing(connect(place.outside, NODE_ADDRESS, number)) as one:
        one.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b""
        while piece := one.recv(4096):
            answer += piece
        return answer


async def test_a_rolling_update_loses_not_one_request(place: Lab, world: World) -> None:
    """Endpoints come and go under constant requests; each answers only while it is ready or
    has just ceased to be, as a pod does that gets its time to terminate."""
    failures: list[str] = []
    answers: set[str] = set()
    stop = asyncio.Event()

    def hammer() -> int:
        count = 0
        while not stop.is_set():
            try:
                answers.add(ask(pod(place, C), WEB).split()[0])
            except OSError as error:
                failures.append(str(error))
            count += 1
        return count

    asking = asyncio.get_running_loop().run_in_executor(None, hammer)
    for turn in range(60):
        ready, leaving = (A, B) if turn % 2 else (B, A)
        gone = endpoint(leaving, ready=False, serving=True, terminating=True)
        world.put(endpoint_slice(ready, gone))
        await asyncio.sleep(0.02)
    stop.set()
    assert await asking > 200
    assert failures == []
    assert answers == {A, B}


async def test_services_without_endpoints_reject_at_once(place: Lab, world: World) -> None:
    world.put(
        service(type="NodePort", ports=(port(80, node=30080),), external_ips=("203.0.113.9",)),
        endpoint_slice(),
    )
    await settled()
    for client, address, number in (
        (pod(place, C), WEB, 80),
        (place.node, WEB, 80),
        (place.outside, NODE_ADDRESS, 30080),
        (place.outside, "203.0.113.9", 80),
        (place.node, "203.0.113.9", 80),
    ):
        with pytest.raises(ConnectionRefusedError):
            ask(client, address, number)


async def test_an_unready_endpoint_gets_nothing_new_and_keeps_what_it_has(
    place: Lab, world: World
) -> None:
    world.put(endpoint_slice(A))
    await settled()
    with contextlib.closing(connect(pod(place, C), WEB, 80)) as old:
        assert old.recv(100).decode().startswith(A)
        world.put(endpoint_slice(endpoint(A, ready=False), B))
        await settled()
        assert names([ask(pod(place, C), WEB) for _ in range(20)]) == {B}
        old.sendall(b"still there?")
        assert old.recv(100).decode() == A


async def test_udp_clients_leave_an_endpoint_that_is_gone(place: Lab, world: World) -> None:
    world.put(
        service(ports=(port(80, protocol="UDP"),)),
        endpoint_slice(A, ports=UDP_PORT),
    )
    await settled()
    with contextlib.closing(connect(pod(place, C), WEB, 80, udp=True)) as client:
        for expected in (A, B):
            world.put(endpoint_slice(expected, ports=UDP_PORT))
            await settled()
            client.send(b"?")
            assert client.recv(100).decode().startswith(expected)


async def test_nothing_of_ours_leaves_by_the_default_route(place: Lab, world: World) -> None:
    stray = "10.96.7.7"
    for client in (pod(place, C), place.node, place.outside):
        if client == place.outside:
            # A stranger may try to use us as a way into the service range.
            batch(place.outside, [f"route add {SERVICE_NETWORK} via {NODE_ADDRESS}"])
        with pytest.raises(ConnectionRefusedError):
            ask(client, stray)
        # To the node itself the kernel says EPERM when a datagram is rejected on its way out.
        with pytest.raises((ConnectionRefusedError, PermissionError)):
            ask(client, stray, udp=True)
    assert place.leaked() == 0
    assert "counter packets 0 " not in place.nft("list", "chain", "ip", "p8s", "leak-forward")


async def test_the_leak_rule_is_there_before_any_cache_is_filled(place: Lab) -> None:
    empty = World()
    empty.services = Cache(kind_of(Service))
    starting = asyncio.ensure_future(empty.proxy().__aenter__())
    try:
        await asyncio.sleep(0.3)
        assert not starting.done()
        for client in (pod(place, C), place.node):
            with pytest.raises(ConnectionRefusedError):
                ask(client, WEB)
        assert place.leaked() == 0
    finally:
        starting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await starting


async def test_a_restart_flushes_nothing(place: Lab, servers: Servers) -> None:
    before = World()
    before.put(service(), endpoint_slice(A))
    async with before.proxy():
        old = connect(pod(place, C), WEB, 80)
        handles = place.nft("-a", "list", "table", "ip", "p8s")
    with contextlib.closing(old):
        assert old.recv(100)
        assert ask(pod(place, C), WEB).startswith(A), "the rules stay when the proxy ends"
        after = World()
        after.put(service(), endpoint_slice(A, B))
        async with after.proxy() as proxy:
            old.sendall(b"?")
            assert old.recv(100).decode() == A
            assert names([ask(pod(place, C), WEB) for _ in range(20)]) == {A, B}
            assert proxy.statistics()["elements"] == 5
        rules = [line for line in handles.splitlines() if "# handle" in line and "{" not in line]
        assert all(line in place.nft("-a", "list", "table", "ip", "p8s") for line in rules)
    remove_rules("p8s")
    assert place.nft("list", "ruleset") == ""


@pytest.mark.parametrize(
    "damage",
    [
        "flush ruleset",
        "delete table ip p8s",
        "flush map ip p8s services",
        "flush chain ip p8s prerouting",
        "delete element ip p8s endpoints-tcp { 10.96.0.20 . 80 . 0 }",
        "add element ip p8s services { 10.96.0.99 . tcp . 1 : drop }",
    ],
)
async def test_damage_by_others_is_mended(place: Lab, world: World, damage: str) -> None:
    before = place.nft("list", "table", "ip", "p8s")
    place.nft(damage)
    await asyncio.sleep(0.5)
    assert sorted(place.nft("list", "table", "ip", "p8s").split()) == sorted(before.split())
    assert names([ask(pod(place, C), WEB) for _ in range(20)]) == {A, B}


async def test_more_endpoints_than_chains_were_made_for(place: Lab, world: World) -> None:
    many = [f"10.244.0.{n}" for n in range(2, 42)]
    world.put(endpoint_slice(*many))
    await settled()
    assert "tcp-40" in place.nft("list", "map", "ip", "p8s", "services")


async def test_a_deleted_service_leaves_no_element(place: Lab, world: World) -> None:
    world.put(service(type="NodePort", ports=(port(80, node=30080),), affinity=5))
    await settled()
    world.services.remove(Key("default", "web"))
    world.slices.remove(Key("default", "web-1"))
    await settled()
    assert "elements = {" not in place.nft("list", "maps")
    assert "elements = {" not in place.nft("list", "sets")


async def test_without_netlink_nft_does_the_same(
    place: Lab, servers: Servers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse() -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("pybernetes.network.proxy.rules.Nftables", refuse)
    filled = World()
    filled.put(service(), endpoint_slice(A))
    async with filled.proxy():
        assert "using nft for every change" in caplog.text
        assert names([ask(pod(place, C), WEB) for _ in range(5)]) == {A}
        filled.put(
            service(type="NodePort", ports=(port(80, node=30080),), affinity=9),
            endpoint_slice(A, B, C),
        )
        await asyncio.sleep(0.4)
        assert names([ask(place.outside, NODE_ADDRESS, 30080)]) <= {A, B, C}
        assert "learn-9" in place.nft("list", "table", "ip", "p8s")
        filled.services.remove(Key("default", "web"))
        await asyncio.sleep(0.6)
        assert "elements = {" not in place.nft("list", "maps")


async def test_another_version_of_the_rules_is_replaced_in_one_step(
    place: Lab, world: World
) -> None:
    newer = RulesetConfig(service_cidr="10.96.0.0/12", pod_cidr=POD_NETWORK)
    config = ProxyConfig(node_name=NODE, rules=newer)
    async with service_proxy_over(world.services, world.slices, world.nodes, config):
        assert "10.96.0.0/12" in place.nft("list", "chain", "ip", "p8s", "leak-forward")
        assert names([ask(pod(place, C), WEB) for _ in range(20)]) == {A, B}
