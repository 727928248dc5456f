"""Slices of endpoints: planning by tables and a property, then a cluster (real but for containers)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pybernetes.api.types.core_v1 import (
    ContainerPort,
    EndpointAddress,
    EndpointPort,
    Endpoints,
    EndpointSubset,
    PodIP,
    Service,
)
from pybernetes.api.types.discovery_v1 import EndpointSlice
from pybernetes.controllers.endpointplan import MAX_ENDPOINTS, SlicePlan
from pybernetes.controllers.endpointslice import plan_slices
from pybernetes.testing.builders import container, deployment, metadata, pod, service

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pybernetes.api.types.core_v1 import Pod
    from pybernetes.testing import Cluster


def ready_pod(name: str, ip: str = "10.244.0.1", **fields: Any) -> Pod:
    fields.setdefault("ready", True)
    return pod(name, ip=ip, node=fields.pop("node", "node-1"), **fields)


def many(count: int, *, start: int = 0) -> list[Pod]:
    return [
        ready_pod(f"p-{n:04}", f"10.244.{n // 250}.{n % 250 + 1}", meta={"uid": f"uid-p-{n}"})
        for n in range(start, start + count)
    ]


class Slices:
    """What the API would hold after each plan."""

    def __init__(self, svc: Service) -> None:
        self.service, self.made = svc, 0
        self.there: dict[str, EndpointSlice] = {}

    def plan(self, pods: Sequence[Pod]) -> SlicePlan:
        return plan_slices(self.service, pods, list(self.there.values()), {"node-1": "zone-a"})

    def apply(self, pods: Sequence[Pod]) -> SlicePlan:
        plan = self.plan(pods)
        for gone in plan.delete:
            del self.there[gone.metadata.name]
        for changed in plan.update:
            self.there[changed.metadata.name] = changed
        for new in plan.create:
            self.made += 1
            meta = msgspec.structs.replace(new.metadata, name=f"s-{self.made}", uid=f"u{self.made}")
            self.there[f"s-{self.made}"] = msgspec.structs.replace(new, metadata=meta)
        return plan

    def pods(self) -> list[str]:
        return sorted(
            e.target_ref.name for s in self.there.values() for e in s.endpoints if e.target_ref
        )


# --- one pod --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_pod", "spec", "conditions"),
    [
        pytest.param({"ready": True}, {}, (True, True, False), id="ready"),
        pytest.param({"ready": False}, {}, (False, False, False), id="not ready"),
        pytest.param(
            {"ready": True, "meta": {"deletion_timestamp": metadata("x").creation_timestamp}},
            {},
            (False, True, True),
            id="shutting down and still serving",
        ),
        pytest.param(
            {"ready": False},
            {"publish_not_ready_addresses": True},
            (True, False, False),
            id="published all the same",
        ),
    ],
)
def test_conditions_tell_what_a_pod_can_do(
    given_pod: dict[str, Any], spec: dict[str, Any], conditions: tuple[bool, bool, bool]
) -> None:
    slices = Slices(service(**spec))
    slices.apply([ready_pod("p", **given_pod)])
    ((endpoint,),) = (s.endpoints for s in slices.there.values())
    said = endpoint.conditions
    assert said is not None
    assert (said.ready, said.serving, said.terminating) == conditions


def test_a_slice_says_everything_about_its_endpoints() -> None:
    svc = service(cluster_ip="None", meta={"labels": {"team": "blue"}})
    slices = Slices(svc)
    slices.apply([ready_pod("db-0", "10.244.0.9", hostname="db-0", subdomain="web")])
    (found,) = slices.there.values()
    assert found.address_type == "IPv4"
    assert found.metadata.generate_name == "web-"
    assert found.metadata.labels == {
        "team": "blue",
        "kubernetes.io/service-name": "web",
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
        "service.kubernetes.io/headless": "",
    }
    (owner,) = found.metadata.owner_references
    assert (owner.kind, owner.name, owner.controller, owner.block_owner_deletion) == (
        "Service",
        "web",
        True,
        True,
    )
    (port,) = found.ports
    assert (port.name, port.port, port.protocol) == ("http", 8080, "TCP")
    (endpoint,) = found.endpoints
    assert endpoint.addresses == ("10.244.0.9",)
    assert (endpoint.hostname, endpoint.node_name, endpoint.zone) == ("db-0", "node-1", "zone-a")


@pytest.mark.parametrize(
    ("phase", "ip", "there"),
    [
        ("Running", "10.244.0.1", True),
        ("Running", "", False),
        ("Succeeded", "10.244.0.1", False),
        ("Failed", "10.244.0.1", False),
    ],
)
def test_only_pods_with_an_address_that_lives_are_endpoints(
    phase: str, ip: str, there: bool
) -> None:
    slices = Slices(service())
    slices.apply([ready_pod("p", ip, phase=phase)])
    assert slices.pods() == (["p"] if there else [])


def test_ports_are_found_by_name_in_each_pod() -> None:
    named = service(target_port="web")

    def with_port(name: str, number: int) -> Pod:
        port = ContainerPort(name="web", container_port=number, protocol="TCP")
        return ready_pod(name, f"10.244.0.{number % 200}", containers=[container(ports=(port,))])

    slices = Slices(named)
    slices.apply([with_port("a", 8001), with_port("b", 8002), ready_pod("without", "10.244.0.7")])
    assert sorted((s.ports[0].port, len(s.endpoints)) for s in slices.there.values()) == [
        (8001, 1),
        (8002, 1),
    ]


def test_both_families_have_slices_of_their_own() -> None:
    both = service(ip_families=("IPv4", "IPv6"))
    ips = (PodIP(ip="10.244.0.1"), PodIP(ip="fd00::1"))
    slices = Slices(both)
    slices.apply([ready_pod("p", status={"pod_ips": ips})])
    found = {s.address_type: s.endpoints[0].addresses for s in slices.there.values()}
    assert found == {"IPv4": ("10.244.0.1",), "IPv6": ("fd00::1",)}
    slices.service = service(meta={"uid": both.metadata.uid})
    slices.apply([ready_pod("p", status={"pod_ips": ips})])
    assert {s.address_type for s in slices.there.values()} == {"IPv4"}


# --- many -----------------------------------------------------------------------------------------


def test_a_service_without_pods_has_one_empty_slice() -> None:
    slices = Slices(service())
    slices.apply([])
    (empty,) = slices.there.values()
    assert (empty.endpoints, empty.ports) == ((), ())
    assert slices.plan([]) == SlicePlan()
    slices.apply(many(2))
    assert len(slices.pods()) == 2


def test_a_hundred_fit_into_a_slice() -> None:
    slices = Slices(service())
    slices.apply(many(250))
    assert sorted(len(s.endpoints) for s in slices.there.values()) == [50, 100, 100]


def test_one_pod_more_is_one_write() -> None:
    slices = Slices(service())
    slices.apply(many(150))
    plan = slices.apply(many(151))
    assert (len(plan.create), len(plan.update), len(plan.delete)) == (0, 1, 0)


def test_a_replaced_pod_goes_where_a_write_is_due() -> None:
    slices = Slices(service())
    slices.apply(many(150))
    plan = slices.apply([*many(149, start=1), ready_pod("new", "10.244.9.9")])
    assert (len(plan.create), len(plan.update), len(plan.delete)) == (0, 1, 0)


def test_labels_of_the_service_are_followed() -> None:
    slices = Slices(service())
    slices.apply(many(1))
    slices.service = service(meta={"labels": {"a": "b"}, "uid": slices.service.metadata.uid})
    assert len(slices.apply(many(1)).update) == 1
    assert slices.plan(many(1)) == SlicePlan()


@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 230), st.booleans()), max_size=230),
        min_size=1,
        max_size=4,
    )
)
@settings(max_examples=40, deadline=None)
def test_plans_converge_and_never_move_an_endpoint(history: list[list[tuple[int, bool]]]) -> None:
    slices = Slices(service())
    for looks in history:
        pods = [
            ready_pod(f"p-{n}", f"10.244.0.{n + 1}", ready=ready, meta={"uid": f"uid-p-{n}"})
            for n, ready in dict(looks).items()
        ]
        before = {e: n for n, s in slices.there.items() for e in uids(s)}
        slices.apply(pods)
        after = {e: n for n, s in slices.there.items() for e in uids(s)}
        assert slices.pods() == sorted(p.metadata.name for p in pods)
        assert all(len(s.endpoints) <= MAX_ENDPOINTS for s in slices.there.values())
        assert all(after[uid] == before[uid] for uid in after.keys() & before.keys())
        assert slices.plan(pods) == SlicePlan()


def uids(found: EndpointSlice) -> list[str]:
    return [e.target_ref.uid for e in found.endpoints if e.target_ref]


# --- in a cluster ---------------------------------------------------------------------------------


async def test_slices_follow_the_pods_of_a_service(cluster: Cluster) -> None:
    web = deployment("web", replicas=3)
    await cluster.apply(service("web"), web)
    await cluster.run_for(seconds=20)
    (found,) = await web_slices(cluster)
    assert len(found.endpoints) == 3
    assert all(e.conditions and e.conditions.ready for e in found.endpoints)
    version = found.metadata.resource_version
    await cluster.run_for(minutes=30)
    (found,) = await web_slices(cluster)
    assert found.metadata.resource_version == version
    await cluster.client.patch(type(web), "web", "default", patch={"spec": {"replicas": 1}})
    await cluster.run_for(minutes=1)
    (found,) = await web_slices(cluster)
    assert len(found.endpoints) == 1
    await cluster.client.delete(Service, "web", "default")
    await cluster.run_for(seconds=5)
    assert await web_slices(cluster) == []


async def test_a_slice_that_was_deleted_comes_back(cluster: Cluster) -> None:
    await cluster.apply(service("web"), deployment("web"))
    await cluster.run_for(seconds=10)
    (found,) = await web_slices(cluster)
    await cluster.client.delete(found)
    await cluster.run_for(seconds=10)
    (found,) = await web_slices(cluster)
    assert len(found.endpoints) == 1


async def test_a_service_may_select_nothing_and_be_served_by_hand(cluster: Cluster) -> None:
    await cluster.apply(service("db", selector={}))
    subset = EndpointSubset(
        addresses=(EndpointAddress(ip="192.0.2.1"), EndpointAddress(ip="192.0.2.2")),
        not_ready_addresses=(EndpointAddress(ip="192.0.2.3"),),
        ports=(EndpointPort(name="sql", port=5432),),
    )
    await cluster.apply(Endpoints(metadata=metadata("db"), subsets=(subset,)))
    await cluster.run_for(seconds=5)
    (found,) = await web_slices(cluster, "db")
    assert found.metadata.labels["endpointslice.kubernetes.io/managed-by"] == (
        "endpointslicemirroring-controller.k8s.io"
    )
    assert {e.addresses[0]: e.conditions and e.conditions.ready for e in found.endpoints} == {
        "192.0.2.1": True,
        "192.0.2.2": True,
        "192.0.2.3": False,
    }
    assert [(p.name, p.port) for p in found.ports] == [("sql", 5432)]
    await cluster.client.delete(Endpoints, "db", "default")
    await cluster.run_for(seconds=5)
    assert await web_slices(cluster, "db") == []


async def web_slices(cluster: Cluster, name: str = "web") -> list[EndpointSlice]:
    found = await cluster.client.list(
        EndpointSlice, "default", label_selector=f"kubernetes.io/service-name={name}"
    )
    return list(found.items)
