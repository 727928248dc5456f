"""Workloads of every kind together: a namespace that goes, a control plane that dies and comes back.

The cluster is real but for its containers. Time is virtual.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from pybernetes.api.conditions import condition_of
from pybernetes.api.core.podstate import is_active
from pybernetes.api.types.apps_v1 import DaemonSet, Deployment, ReplicaSet, StatefulSet
from pybernetes.api.types.batch_v1 import Job, UncountedTerminatedPods
from pybernetes.api.types.core_v1 import Namespace, Pod, ResourceQuota, ResourceQuotaSpec
from pybernetes.apimachinery.errors import NotFound
from pybernetes.client import PatchType
from pybernetes.kubelet.runtime.script import exits
from pybernetes.storage import MemoryStore
from pybernetes.testing import Cluster
from pybernetes.testing.builders import deployment, metadata, namespace

if TYPE_CHECKING:
    from random import Random

    from pybernetes.aio.clock import LoopClock

TEMPLATE = """
    metadata: {{labels: {{app: {name}}}}}
    spec: {{restartPolicy: {restart}, containers: [{{name: main, image: "registry.test/app:1"}}]}}
"""


def workload(kind: str, name: str, where: str, *, extra: str = "", restart: str = "Always") -> str:
    group = "batch/v1" if kind == "Job" else "apps/v1"
    selector = "" if kind == "Job" else f"  selector: {{matchLabels: {{app: {name}}}}}\n"
    return (
        f"apiVersion: {group}\nkind: {kind}\n"
        f"metadata: {{name: {name}, namespace: {where}}}\n"
        f"spec:\n{selector}{extra}  template:{TEMPLATE.format(name=name, restart=restart)}"
    )


def every_kind(where: str) -> list[str]:
    return [
        workload("Deployment", "web", where, extra="  replicas: 3\n"),
        workload("StatefulSet", "db", where, extra="  replicas: 2\n  serviceName: db\n"),
        workload("DaemonSet", "agent", where),
        workload(
            "Job", "work", where, extra="  completions: 4\n  parallelism: 2\n", restart="Never"
        ),
    ]


@pytest.mark.cluster(nodes=2)
async def test_a_namespace_goes_with_its_workloads_and_nobody_complains(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    await cluster.apply(namespace("gone"))
    await cluster.run_for(seconds=1)
    await cluster.apply(*every_kind("gone"))
    await cluster.run_for(seconds=30)
    assert len(cluster.pods("gone", phase="Running")) == 3 + 2 + 2 + 2
    caplog.set_level(logging.WARNING)
    await cluster.client.delete(Namespace, "gone")
    await cluster.run_for(minutes=2)
    assert cluster.pods("gone") == []
    assert await cluster.client.get_or_none(Namespace, "gone") is None
    assert [r.getMessage() for r in caplog.records if "controller" in r.name] == []


async def test_everything_goes_on_after_the_control_plane_died(clock: LoopClock) -> None:
    store = MemoryStore(clock=clock)
    async with Cluster(nodes=2, store=store) as first:
        await first.apply(*every_kind("default"))
        # In the middle of it.
        await first.run_for(milliseconds=300)
    async with Cluster(nodes=2, store=store) as second:
        await second.run_for(minutes=3)
        web = await second.get(Deployment, "web")
        assert web.status.available_replicas == 3
        assert (await second.get(StatefulSet, "db")).status.available_replicas == 2
        assert (await second.get(DaemonSet, "agent")).status.number_available == 2
        work = await second.get(Job, "work")
        assert work.status.active == 2
        assert len(second.pods("default")) == 3 + 2 + 2 + 2


async def test_a_quota_is_a_condition_and_its_end_is_noticed(cluster: Cluster) -> None:
    quota = ResourceQuota(metadata=metadata("few"), spec=ResourceQuotaSpec(hard={"pods": "2"}))
    await cluster.apply(quota)
    await cluster.run_for(seconds=2)
    await cluster.apply(deployment("web", replicas=4))
    await cluster.run_for(minutes=1)
    short = await cluster.get(Deployment, "web")
    assert len(cluster.pods("default")) == 2
    refused = condition_of(short.status.conditions, "ReplicaFailure")
    assert refused is not None
    assert (refused.status, refused.reason) == ("True", "FailedCreate")
    assert "exceeded quota: few" in refused.message
    await cluster.client.delete(ResourceQuota, "few", "default")
    await cluster.run_for(minutes=20)
    whole = await cluster.get(Deployment, "web")
    assert whole.status.available_replicas == 4
    assert condition_of(whole.status.conditions, "ReplicaFailure") is None


class Chaos:
    """Users and misfortune: changes templates and sizes, deletes and kills, at random."""

    def __init__(self, cluster: Cluster, random: Random) -> None:
        self.cluster, self.random = cluster, random
        self.image, self.replicas = 1, {"web": 3, "db": 2}

    async def act(self) -> None:
        await self.random.choice(
            [self.update, self.scale, self.delete_pod, self.kill, self.evict, self.pause]
        )()
        await self.cluster.run_for(seconds=self.random.choice([0, 0.1, 1, 3, 20]))

    async def update(self) -> None:
        # Sometimes an image that came before.
        self.image = self.random.randint(1, 4)
        containers = [{"name": "main", "image": f"registry.test/app:{self.image}"}]
        patch = {"spec": {"template": {"spec": {"containers": containers}}}}
        kinds: dict[str, Any] = {"web": Deployment, "db": StatefulSet, "agent": DaemonSet}
        for name, kind in kinds.items():
            await self.cluster.client.patch(
                kind, name, "default", patch=patch, type=PatchType.STRATEGIC
            )

    async def scale(self) -> None:
        scalable: list[tuple[Any, str]] = [(Deployment, "web"), (StatefulSet, "db")]
        kind, name = self.random.choice(scalable)
        self.replicas[name] = self.random.randint(0, 6)
        patch = {"spec": {"replicas": self.replicas[name]}}
        await self.cluster.client.patch(kind, name, "default", patch=patch)

    async def delete_pod(self) -> None:
        if pods := self.cluster.pods("default"):
            grace = self.random.choice([None, 0])
            with suppress(NotFound):
                await self.cluster.client.delete(self.random.choice(pods), grace_seconds=grace)

    async def kill(self) -> None:
        name = self.random.choice(list(self.cluster.nodes.runtimes))
        self.cluster.runtime_of(name).kill(self.random.choice(["web-*", "db-*", "agent-*"]))

    async def evict(self) -> None:
        if pods := self.cluster.pods("default", phase="Running"):
            name = self.random.choice(pods).metadata.name
            patch = {"status": {"phase": "Failed", "reason": "Evicted"}}
            await self.cluster.client.patch(Pod, name, "default", patch=patch, subresource="status")

    async def pause(self) -> None:
        paused = self.random.choice([True, False])
        await self.cluster.client.patch(
            Deployment, "web", "default", patch={"spec": {"paused": paused}}
        )

    async def calm_down(self) -> None:
        await self.update()
        await self.cluster.client.patch(
            Deployment, "web", "default", patch={"spec": {"paused": False}}
        )


@pytest.mark.slow
@pytest.mark.cluster(nodes=3)
@pytest.mark.parametrize("number", range(3))
async def test_whatever_happens_it_comes_to_what_was_asked_for(
    cluster: Cluster, random: Random, number: int
) -> None:
    await cluster.apply(*every_kind("default")[:3])
    chaos = Chaos(cluster, random)
    for _ in range(25):
        await chaos.act()
    await chaos.calm_down()
    await cluster.run_for(minutes=30)
    web = await cluster.get(Deployment, "web")
    wanted = chaos.replicas["web"]
    assert (web.status.replicas, web.status.updated_replicas) == (wanted, wanted)
    assert web.status.available_replicas == wanted
    db = await cluster.get(StatefulSet, "db")
    wanted = chaos.replicas["db"]
    assert (db.status.replicas, db.status.available_replicas) == (wanted, wanted)
    assert db.status.current_revision == db.status.update_revision
    agent = await cluster.get(DaemonSet, "agent")
    assert (agent.status.number_available, agent.status.updated_number_scheduled) == (3, 3)
    living = [p for p in cluster.pods("default") if is_active(p)]
    assert {p.spec.containers[0].image for p in living} == {f"registry.test/app:{chaos.image}"}
    assert len(living) == sum(chaos.replicas.values()) + 3
    assert len((await cluster.client.list(ReplicaSet, "default")).items) <= 4


@pytest.mark.slow
@pytest.mark.cluster(nodes=3)
@pytest.mark.parametrize("mode", ["Indexed", "NonIndexed"])
async def test_whatever_happens_a_job_completes_and_leaves_nothing_uncounted(
    cluster: Cluster, random: Random, mode: str
) -> None:
    cluster.script("work-*", exits(after=timedelta(seconds=4)))
    spec = f"  completions: 12\n  parallelism: 4\n  completionMode: {mode}\n  backoffLimit: 999\n"
    await cluster.apply(workload("Job", "work", "default", extra=spec, restart="Never"))

    async def change(**spec: Any) -> None:
        await cluster.client.patch(Job, "work", "default", patch={"spec": spec})

    for _ in range(30):
        what = random.choice(["kill", "delete", "parallelism", "suspend"])
        pods = cluster.pods("default")
        if what == "kill":
            name = random.choice(list(cluster.nodes.runtimes))
            cluster.runtime_of(name).kill("work-*", 1)
        elif what == "delete" and pods:
            with suppress(NotFound):
                grace = random.choice([None, 0])
                await cluster.client.delete(random.choice(pods), grace_seconds=grace)
        elif what == "parallelism":
            await change(parallelism=random.randint(0, 6))
        elif what == "suspend":
            await change(suspend=random.choice([True, False]))
        await cluster.run_for(seconds=random.choice([0, 0.1, 1, 3, 9]))
    await change(parallelism=4, suspend=False)
    await cluster.run_for(hours=3)
    status = (await cluster.get(Job, "work")).status
    assert [c.type for c in status.conditions if c.status == "True"] == [
        "SuccessCriteriaMet",
        "Complete",
    ]
    assert (status.succeeded, status.active, status.terminating) == (12, 0, 0)
    assert status.uncounted_terminated_pods == UncountedTerminatedPods()
    assert status.completed_indexes == ("0-11" if mode == "Indexed" else "")
    assert not any(pod.metadata.finalizers for pod in cluster.pods("default"))
