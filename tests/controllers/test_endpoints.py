"""Endpoints: subsets by tables, then what the object says in a cluster (real but for containers)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pybernetes.api.types.core_v1 import ContainerPort, Endpoints, Service, ServicePort
from pybernetes.controllers.endpoints import MAX_ADDRESSES, plan_subsets
from pybernetes.testing.builders import EPOCH, container, deployment, metadata, pod, service

if TYPE_CHECKING:
    from pybernetes.api.types.core_v1 import Pod
    from pybernetes.testing import Cluster


def on(ip: str, **fields: Any) -> Pod:
    fields.setdefault("ready", True)
    return pod(fields.pop("name", f"p-{ip}"), ip=ip, node="node-1", **fields)


def told(svc: Service, *pods: Pod) -> list[tuple[list[str], list[str], list[int]]]:
    """Ready addresses, others, ports of each subset."""
    return [
        (
            [a.ip for a in subset.addresses],
            [a.ip for a in subset.not_ready_addresses],
            [p.port for p in subset.ports],
        )
        for subset in plan_subsets(svc, pods)[0]
    ]


GOING = {"deletion_timestamp": EPOCH}


@pytest.mark.parametrize(
    ("svc", "pods", "subsets"),
    [
        pytest.param(service(), [], [], id="no pods"),
        pytest.param(
            service(),
            [on("10.0.0.2"), on("10.0.0.1"), on("10.0.0.3", ready=False)],
            [(["10.0.0.1", "10.0.0.2"], ["10.0.0.3"], [8080])],
            id="ready and not ready apart",
        ),
        pytest.param(service(), [on("10.0.0.1", meta=GOING)], [], id="shutting down"),
        pytest.param(
            service(publish_not_ready_addresses=True),
            [on("10.0.0.1", meta=GOING), on("10.0.0.2", ready=False)],
            [(["10.0.0.1", "10.0.0.2"], [], [8080])],
            id="published whatever they are",
        ),
        pytest.param(
            service(),
            [on("10.0.0.1", phase="Succeeded"), on("10.0.0.2", phase="Failed"), on("")],
            [],
            id="finished, and without an address",
        ),
        pytest.param(
            service(cluster_ip="None", ports=()),
            [on("10.0.0.1")],
            [(["10.0.0.1"], [], [])],
            id="headless without ports",
        ),
        pytest.param(
            service(
                ports=(
                    ServicePort(name="b", port=2, target_port=2, protocol="TCP"),
                    ServicePort(name="a", port=1, target_port=1, protocol="TCP"),
                )
            ),
            [on("10.0.0.1")],
            [(["10.0.0.1"], [], [1, 2])],
            id="ports by name",
        ),
    ],
)
def test_subsets(svc: Service, pods: list[Pod], subsets: list[Any]) -> None:
    assert told(svc, *pods) == subsets


def test_pods_with_other_ports_are_a_subset_of_their_own() -> None:
    def with_port(ip: str, number: int) -> Pod:
        port = ContainerPort(name="web", container_port=number, protocol="TCP")
        return on(ip, containers=[container(ports=(port,))])

    assert told(service(target_port="web"), with_port("10.0.0.1", 9), with_port("10.0.0.2", 8)) == [
        (["10.0.0.2"], [], [8]),
        (["10.0.0.1"], [], [9]),
    ]


def test_the_name_of_a_pod_is_told_only_within_its_subdomain() -> None:
    named = on("10.0.0.1", hostname="db-0", subdomain="web")
    other = on("10.0.0.2", hostname="db-1", subdomain="elsewhere")
    ((subset,), _) = plan_subsets(service(), [named, other])
    assert [a.hostname for a in subset.addresses] == ["db-0", ""]
    ref = subset.addresses[0].target_ref
    assert ref is not None
    assert (ref.kind, ref.name, ref.uid) == ("Pod", "p-10.0.0.1", named.metadata.uid)


def test_more_than_a_thousand_are_cut_the_unready_first() -> None:
    ready = [on(f"10.1.{n // 250}.{n % 250}") for n in range(MAX_ADDRESSES - 10)]
    waiting = [on(f"10.0.0.{n}", ready=False) for n in range(20)]
    ((subset,), truncated) = plan_subsets(service(), [*waiting, *ready])
    assert truncated
    assert len(subset.addresses) == MAX_ADDRESSES - 10
    assert len(subset.not_ready_addresses) == 10


async def test_endpoints_follow_their_service(cluster: Cluster) -> None:
    web = service("web", cluster_ip="None", meta={"labels": {"team": "blue"}})
    await cluster.apply(web, deployment("web", replicas=2))
    await cluster.run_for(seconds=20)
    found = await cluster.get(Endpoints, "web")
    assert found.metadata.labels == {
        "team": "blue",
        "endpoints.kubernetes.io/managed-by": "endpoint-controller",
        "service.kubernetes.io/headless": "",
    }
    assert len(found.subsets[0].addresses) == 2
    await cluster.run_for(minutes=30)
    after = await cluster.get(Endpoints, "web")
    assert after.metadata.resource_version == found.metadata.resource_version
    await cluster.client.delete(Service, "web", "default")
    await cluster.run_for(seconds=5)
    assert await cluster.client.get_or_none(Endpoints, "web", "default") is None


async def test_endpoints_written_by_hand_live_as_long_as_their_service(cluster: Cluster) -> None:
    mine = Endpoints(metadata=metadata("db"))
    await cluster.apply(mine)
    await cluster.run_for(minutes=1)
    await cluster.apply(service("db", selector={}))
    await cluster.run_for(minutes=1)
    assert (await cluster.get(Endpoints, "db")).metadata.labels == {}
    await cluster.client.delete(Service, "db", "default")
    await cluster.run_for(minutes=1)
    assert await cluster.client.get_or_none(Endpoints, "db", "default") is None
