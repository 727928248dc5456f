"""The proxy's loop and its sum of plans, under virtual time.

Real: caches, planning, the loop. Fake: the kernel, a dictionary that checks every transaction
against what it holds, as the kernel would.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pybernetes.aio.virtualtime import settled
from pybernetes.api.types.core_v1 import Node, Service
from pybernetes.api.types.discovery_v1 import EndpointSlice
from pybernetes.api.types.meta_v1 import ObjectMeta
from pybernetes.apimachinery.meta import Key
from pybernetes.client.cache import Cache
from pybernetes.client.kind import kind_of
from pybernetes.network.conntrack import StaleFlow
from pybernetes.network.proxy.elements import Packed, pack, pack_key, pack_value
from pybernetes.network.proxy.plan import LocalFacts, plan_service
from pybernetes.network.proxy.proxy import ProxyConfig, ServiceProxy, leftovers
from pybernetes.network.proxy.rules import Changes, difference, missing_chains
from pybernetes.network.proxy.ruleset import (
    READY_CHAINS,
    RulesetConfig,
    add_chains,
    chain_rules,
    fingerprint,
    rule_counts,
    script,
)
from pybernetes.network.proxy.wanted import Wanted
from tests.network.objects import NODE, endpoint, endpoint_slice, port, service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

RULES = RulesetConfig("10.96.0.0/16", "10.244.0.0/16")
FACTS = LocalFacts(NODE)


@dataclass
class FakeRules:
    """A kernel that holds elements and refuses a transaction that does not fit them."""

    has: Packed = field(default_factory=dict)
    transactions: list[Changes] = field(default_factory=list)
    loads: int = 0
    forgotten: list[set[tuple[bytes, bytes]]] = field(default_factory=list)
    failures: int = 0

    async def load(self, wanted: Packed) -> bool:
        self.loads += 1
        changed = bool(difference(self.has, wanted))
        self.has = {name: dict(entries) for name, entries in wanted.items()}
        return changed

    async def apply(self, changes: Changes, wanted: Packed) -> None:
        if self.failures:
            self.failures -= 1
            raise OSError(28, "no space")
        self.transactions.append(changes)
        for name, entries in changes.items():
            for key, (before, after) in entries.items():
                held = self.has.setdefault(name, {})
                assert held.get(key) == before, "a change of something else than what is there"
                if after is None:
                    del held[key]
                else:
                    held[key] = after
        assert {n: e for n, e in self.has.items() if e} == wanted

    async def forget_affinity(self, stale: Iterable[tuple[bytes, bytes]]) -> int:
        self.forgotten.append(set(stale))
        return 0


@dataclass
class World:
    services: Cache[Service]
    slices: Cache[EndpointSlice]
    nodes: Cache[Node]
    rules: FakeRules
    proxy: ServiceProxy


@pytest.fixture
async def world() -> AsyncIterator[World]:
    services, slices = Cache(kind_of(Service)), Cache(kind_of(EndpointSlice))
    nodes, rules = Cache(kind_of(Node)), FakeRules()
    services.replace([service()])
    slices.replace([endpoint_slice("10.244.0.2")])
    nodes.replace([node("a")])
    proxy = ServiceProxy(services, slices, nodes, ProxyConfig(NODE, RULES), rules=rules)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(proxy.run())
        await proxy.ready.wait()
        yield World(services, slices, nodes, rules, proxy)
        running.cancel()


def node(zone: str, version: str = "1") -> Node:
    labels = {"topology.kubernetes.io/zone": zone}
    return Node(metadata=ObjectMeta(name=NODE, labels=labels, resource_version=version))


async def test_what_arrives_together_is_one_transaction(world: World) -> None:
    for number in range(5):
        world.services.put(service(f"s{number}", address=f"10.96.1.{number}"))
        world.slices.put(endpoint_slice("10.244.0.2", service=f"s{number}"))
    await settled()
    assert len(world.rules.transactions) == 1
    assert len(world.rules.has["services"]) == 6
    world.proxy._wanted.check_invariants()


async def test_one_endpoint_touches_only_its_own_service(world: World) -> None:
    for number in range(50):
        world.services.put(service(f"s{number}", address=f"10.96.1.{number}"))
        world.slices.put(endpoint_slice("10.244.0.2", "10.244.0.3", service=f"s{number}"))
    await settled()
    world.slices.put(
        endpoint_slice("10.244.0.2", "10.244.0.3", "10.244.0.4", service="s7", version="2")
    )
    await settled()
    changed = {name: len(entries) for name, entries in world.rules.transactions[-1].items()}
    assert changed == {"services": 1, "endpoints-tcp": 1, "hairpin": 1}


async def test_news_that_change_nothing_make_no_transaction(world: World) -> None:
    world.slices.put(endpoint_slice("10.244.0.2", version="2"))
    world.services.put(service(version="2"))
    await settled()
    assert world.rules.transactions == []


async def test_a_new_zone_plans_everything_again(world: World) -> None:
    before = world.proxy._facts.zone
    world.nodes.put(node("b", "2"))
    await settled()
    assert (before, world.proxy._facts.zone) == ("a", "b")


async def test_a_refused_change_is_made_good_by_comparing_everything(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.rules.failures = 1
    world.slices.put(endpoint_slice("10.244.0.9", version="2"))
    await asyncio.sleep(30)
    assert world.rules.loads == 2
    assert list(world.rules.has["endpoints-tcp"].values()) == [
        pack_value("endpoints-tcp", ("10.244.0.9", 8080))
    ]
    assert "will try again" in caplog.text


async def test_clients_with_affinity_are_looked_for_twice(world: World) -> None:
    world.services.put(service(affinity=60, version="2"))
    world.slices.put(endpoint_slice("10.244.0.2", "10.244.0.3", version="2"))
    await settled()
    world.slices.put(endpoint_slice("10.244.0.3", version="3"))
    await asyncio.sleep(5)
    front = pack_key("services", ("10.96.0.20", "tcp", 80))
    gone = pack_value("endpoints-tcp", ("10.244.0.2", 8080))
    assert world.rules.forgotten == [{(front, gone)}] * 2


async def test_health_checks_know_the_local_endpoints(world: World) -> None:
    what = service(
        type="LoadBalancer", external="Local", health_port=32000, version="2",
        ports=(port(80, node=30080),),
    )  # fmt: skip
    world.services.put(what)
    await settled()
    web = Key("default", "web")
    assert world.proxy.health.answers == {32000: (web, 1)}
    world.slices.put(endpoint_slice(endpoint("10.244.1.9", node="elsewhere"), version="2"))
    await settled()
    assert world.proxy.health.answers == {32000: (web, 0)}
    world.services.remove(Key("default", "web"))
    await settled()
    assert world.proxy.health.answers == {}
    assert world.proxy.health.endpoints_of(web) is None


def test_udp_flows_of_gone_endpoints_are_named() -> None:
    wanted = Wanted()
    udp = service(ports=(port(53, protocol="UDP"),))
    from pybernetes.api.types.discovery_v1 import EndpointPort

    ports = (EndpointPort(name="", port=5353, protocol="UDP"),)

    def put(*addresses: str) -> Changes:
        plan = plan_service(udp, [endpoint_slice(*addresses, ports=ports)], FACTS)
        wanted.put({Key("default", "web"): pack(plan.elements)})
        return wanted.take_changes()

    first = leftovers(put("10.244.0.2", "10.244.0.3"), wanted.elements)
    assert first.flows == {StaleFlow("10.96.0.20", 53, None)}
    # The slots shift, but only one endpoint is gone.
    second = leftovers(put("10.244.0.3"), wanted.elements)
    assert second.flows == {StaleFlow("10.96.0.20", 53, ("10.244.0.2", 5353))}
    assert second.affinity == set()


# The sum of plans

_ADDRESSES = st.sampled_from(["203.0.113.1", "203.0.113.2"])
_BACKENDS = st.lists(st.sampled_from(["10.244.0.2", "10.244.0.3", "10.244.0.4"]), unique=True)
_STEPS = st.lists(
    st.dictionaries(
        st.sampled_from(["a", "b", "c"]),
        st.none() | st.tuples(_ADDRESSES, _BACKENDS),
        min_size=1,
    ),
    max_size=10,
)


@settings(max_examples=200, deadline=None)
@given(_STEPS)
def test_contested_elements_have_one_owner_and_always_an_heir(
    steps: list[dict[str, tuple[str, list[str]] | None]],
) -> None:
    wanted = Wanted()
    kernel: Packed = {}
    for step in steps:
        plans: dict[Key, Packed] = {}
        for name, what in step.items():
            key = Key("default", name)
            if what is None:
                plans[key] = {}
                continue
            address, backends = what
            made = service(name, address=f"10.96.2.{ord(name)}", external_ips=(address,))
            plan = plan_service(made, [endpoint_slice(*backends, service=name)], FACTS)
            plans[key] = pack(plan.elements)
        wanted.put(plans)
        wanted.check_invariants()
        for name, entries in wanted.take_changes().items():
            held = kernel.setdefault(name, {})
            for place, (before, after) in entries.items():
                assert held.get(place) == before
                held.pop(place, None)
                if after is not None:
                    held[place] = after
        assert {name: entries for name, entries in kernel.items() if entries} == wanted.elements


# The ruleset's text


def test_the_fingerprint_changes_with_the_rules() -> None:
    other = RulesetConfig("10.97.0.0/16", "10.244.0.0/16")
    assert fingerprint(RULES) != fingerprint(other)
    assert fingerprint(RULES) == fingerprint(RulesetConfig("10.96.0.0/16", "10.244.0.0/16"))
    assert rule_counts(RULES)[fingerprint(RULES)] == 0


def test_chains_are_made_from_their_names() -> None:
    assert chain_rules("tcp-3") == [
        "dnat ip to ip daddr . tcp dport . numgen random mod 3 map @endpoints-tcp"
    ]
    assert chain_rules("port-udp-outside-sticky-2") == [
        "dnat ip to ip saddr . ip daddr . ip protocol . th dport map @affinity",
        "dnat ip to udp dport . numgen random mod 2 offset 65536 map @port-endpoints-udp",
    ]
    assert len(chain_rules("learn-60")) == 3
    with pytest.raises(ValueError, match="there is no chain called nonsense"):
        chain_rules("nonsense")
    assert add_chains("p8s", ["tcp-40"]).startswith("add chain ip p8s tcp-40\nadd rule ip p8s")


def test_missing_chains_are_those_nobody_made() -> None:
    plan = plan_service(
        service(affinity=7), [endpoint_slice(*(f"10.244.0.{n}" for n in range(2, 30)))], FACTS
    )
    assert missing_chains(pack(plan.elements), set(READY_CHAINS)) == ["learn-7", "tcp-sticky-28"]


def test_a_whole_table_is_one_script() -> None:
    plan = plan_service(service(), [endpoint_slice("10.244.0.2")], FACTS)
    text = script(RULES, pack(plan.elements))
    assert text.startswith("add table ip p8s\ndelete table ip p8s\ntable ip p8s {")
    assert "add element ip p8s services { 10.96.0.20 . tcp . 80 : goto tcp-1 }" in text
