"""The cluster of the test kit, as its users write tests with it. Everything is in memory; virtual time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pybernetes.api.types.apps_v1 import Deployment
from pybernetes.api.types.core_v1 import Node, Pod
from pybernetes.testing import Cluster
from pybernetes.testing.builders import container, deployment, pod

if TYPE_CHECKING:
    from pybernetes.testing.cluster import SyncCluster

HELLO = Path(__file__).parents[2] / "examples/01-hello/hello.yaml"


async def test_a_deployment_runs(cluster: Cluster) -> None:
    await cluster.apply(deployment("web", replicas=3))
    await cluster.run_for(minutes=1)
    assert len(cluster.pods(phase="Running", labels={"app": "web"})) == 3
    assert (await cluster.get(Deployment, "web")).status.ready_replicas == 3


async def test_files_and_text_can_be_applied_and_applied_again(cluster: Cluster) -> None:
    await cluster.apply(HELLO)
    (scaled,) = await cluster.apply(
        """
        apiVersion: apps/v1
        kind: Deployment
        metadata: {name: hello}
        spec: {replicas: 4}
        """
    )
    assert scaled["spec"]["replicas"] == 4
    await cluster.run_for(minutes=1)
    assert len(cluster.pods(phase="Running")) == 4


@pytest.mark.cluster(nodes=3)
async def test_pods_spread_over_nodes(cluster: Cluster) -> None:
    await cluster.apply(deployment("web", replicas=6))
    await cluster.run_for(minutes=1)
    on = [p.spec.node_name for p in cluster.pods()]
    assert {name: on.count(name) for name in set(on)} == {"node-0": 2, "node-1": 2, "node-2": 2}


async def test_a_pod_that_fits_nowhere_says_why(cluster: Cluster) -> None:
    await cluster.apply(pod("large", requests={"cpu": "1000"}))
    await cluster.run_for(seconds=5)
    waiting = await cluster.get(Pod, "large")
    (condition,) = waiting.status.conditions
    assert (condition.type, condition.reason) == ("PodScheduled", "Unschedulable")
    assert condition.message.startswith("0/1 nodes are available: 1 Insufficient cpu.")
    (event,) = await cluster.events("large")
    assert (event.reason, event.message) == ("FailedScheduling", condition.message)


async def test_an_agent_that_comes_back_adopts_its_pods(cluster: Cluster) -> None:
    await cluster.apply(pod("web"))
    await cluster.run_for(minutes=1)
    await cluster.nodes.stop("node-0")
    await cluster.run_for(seconds=5)
    cluster.nodes.add("node-0")
    await cluster.run_for(minutes=1)
    assert len(cluster.runtime.starts("web")) == 1, "nothing was started again"
    (status,) = (await cluster.get(Pod, "web")).status.container_statuses
    assert (status.restart_count, status.ready) == (0, True)


async def test_five_minutes_of_back_off_take_no_time(cluster: Cluster) -> None:
    """The first restart is at once, then after 10 s, 20 s, 40 s … up to five minutes."""
    failing = container(command=("sh", "-c", "sleep 1; exit 1"))
    await cluster.apply(pod("web", containers=[failing]))
    await cluster.run_for(minutes=20)
    gaps = [round(gap.total_seconds()) for gap in cluster.runtime.start_gaps("web")]
    assert gaps[:6] == [1, 11, 21, 41, 81, 161]
    assert set(gaps[6:]) == {301}


def test_without_a_loop_of_ones_own() -> None:
    with Cluster.running(nodes=2) as cluster:
        check_without_loop(cluster)


def check_without_loop(cluster: SyncCluster) -> None:
    cluster.apply(deployment("web", replicas=2))
    cluster.run_for(minutes=1)
    assert len(cluster.pods(phase="Running")) == 2
    assert cluster.get(Node, "node-1").metadata.name == "node-1"


async def test_the_same_seed_gives_the_same_cluster() -> None:
    async def names(seed: int) -> list[str]:
        async with Cluster(nodes=2, seed=seed) as cluster:
            await cluster.apply(deployment("web", replicas=3))
            await cluster.run_for(minutes=1)
            return sorted(p.metadata.name for p in cluster.pods())

    assert await names(1) == await names(1)
    assert await names(1) != await names(2)
