"""Jobs: counting, ends and policies, by tables and properties, and what becomes of it in a cluster.

The cluster is real but for its containers. Time is virtual.
"""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from pybernetes.api.types.batch_v1 import (
    Job,
    JobSpec,
)
from pybernetes.kubelet.runtime.script import exits
from pybernetes.testing.builders import EPOCH, metadata, template

if TYPE_CHECKING:
    from pybernetes.testing import Cluster

pytestmark = pytest.mark.cluster(nodes=2)


def job(name: str = "work", **spec: Any) -> Job:
    restart = spec.pop("restart_policy", "Never")
    return Job(
        metadata=metadata(name, uid=""),
        spec=JobSpec(template=template({"app": name}, restart_policy=restart), **spec),
    )


def conditions(job: Job) -> list[tuple[str, str]]:
    return [(c.type, c.reason) for c in job.status.conditions if c.status == "True"]


async def test_a_job_counts_its_successes_and_completes(cluster: Cluster) -> None:
    cluster.script("work-*", exits(after=timedelta(seconds=5)))
    await cluster.apply(job(completions=5, parallelism=2))
    await cluster.run_for(seconds=3)
    status = (await cluster.get(Job, "work")).status
    assert (status.active, status.ready) == (2, 2)
    await cluster.run_for(minutes=2)
    done = await cluster.get(Job, "work")
    assert (done.status.succeeded, done.status.failed, done.status.active) == (5, 0, 0)
    assert conditions(done) == [
        ("SuccessCriteriaMet", "CompletionsReached"),
        ("Complete", "CompletionsReached"),
    ]
    assert done.status.completion_time is not None
    pods = cluster.pods("default")
    assert len(pods) == 5
    assert not any(pod.metadata.finalizers for pod in pods)
    assert "Completed" in {event.reason for event in await cluster.events("work")}


async def test_failures_back_off_and_end_the_job(cluster: Cluster) -> None:
    cluster.script("work-*", exits(1))
    await cluster.apply(job(backoff_limit=3))
    await cluster.run_for(minutes=10)
    failed = await cluster.get(Job, "work")
    assert failed.status.failed == 4
    assert conditions(failed) == [
        ("FailureTarget", "BackoffLimitExceeded"),
        ("Failed", "BackoffLimitExceeded"),
    ]
    created = sorted(p.metadata.creation_timestamp or EPOCH for p in cluster.pods("default"))
    gaps = [(b - a).total_seconds() for a, b in pairwise(created)]
    assert gaps == [pytest.approx(s, abs=2) for s in (10, 20, 40)]


async def test_indexes_are_given_out_and_kept(cluster: Cluster) -> None:
    cluster.script("work-*", exits(after=timedelta(seconds=1)))
    await cluster.apply(job(completions=4, parallelism=4, completion_mode="Indexed"))
    await cluster.run_for(minutes=1)
    done = await cluster.get(Job, "work")
    assert done.status.completed_indexes == "0-3"
    assert done.status.succeeded == 4
    hosts = sorted(pod.spec.hostname for pod in cluster.pods("default"))
    assert hosts == ["work-0", "work-1", "work-2", "work-3"]


async def test_a_suspended_job_gives_up_its_pods_and_comes_back(cluster: Cluster) -> None:
    await cluster.apply(job(completions=2, parallelism=2))
    await cluster.run_for(seconds=10)
    assert len(cluster.pods("default", phase="Running")) == 2
    await cluster.client.patch(Job, "work", "default", patch={"spec": {"suspend": True}})
    await cluster.run_for(minutes=2)
    assert cluster.pods("default") == []
    suspended = await cluster.get(Job, "work")
    assert (suspended.status.active, suspended.status.failed) == (0, 0)
    assert conditions(suspended) == [("Suspended", "JobSuspended")]
    await cluster.client.patch(Job, "work", "default", patch={"spec": {"suspend": False}})
    await cluster.run_for(seconds=10)
    assert len(cluster.pods("default", phase="Running")) == 2


async def test_pods_of_a_deleted_job_go_with_it(cluster: Cluster) -> None:
    await cluster.apply(job(parallelism=2, completions=2))
    await cluster.run_for(seconds=10)
    await cluster.client.delete(Job, "work", "default", propagation="Background")
    await cluster.run_for(minutes=2)
    assert cluster.pods("default") == []
