"""Workloads of every kind together: a namespace that goes, a control plane that dies and comes back.

The cluster is real but for its containers. Time is virtual.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from pybernetes.api.conditions import condition_of
from pybernetes.api.types.apps_v1 import DaemonSet, Deployment, StatefulSet
from pybernetes.api.types.batch_v1 import Job
from pybernetes.api.types.core_v1 import Namespace, ResourceQuota, ResourceQuotaSpec
from pybernetes.storage import MemoryStore
from pybernetes.testing import Cluster
from pybernetes.testing.builders import deployment, metadata, namespace

if TYPE_CHECKING:
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
