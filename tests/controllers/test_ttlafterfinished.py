"""Jobs that clean up after themselves. The cluster is real but for containers."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from pybernetes.api.types.batch_v1 import Job, JobCondition, JobSpec, JobStatus
from pybernetes.api.types.core_v1 import Pod
from pybernetes.controllers.ttlafterfinished import end_of
from pybernetes.testing.builders import EPOCH, metadata, template
from tests.controllers.extra import names

if TYPE_CHECKING:
    from pybernetes.testing import Cluster


def job(name: str, *, ttl: int | None, finished: str = "") -> Job:
    condition = JobCondition(type=finished, status="True", last_transition_time=EPOCH)
    return Job(
        metadata=metadata(name),
        spec=JobSpec(
            ttl_seconds_after_finished=ttl,
            suspend=None if finished else True,
            template=template({"job": name}, restart_policy="Never"),
        ),
        status=JobStatus(conditions=(condition,) if finished else ()),
    )


@pytest.mark.parametrize(
    ("ttl", "finished", "seconds"),
    [
        (10, "Complete", 10),
        (0, "Failed", 0),
        (None, "Complete", None),
        (10, "", None),
        (10, "Suspended", None),
    ],
)
def test_when_a_job_is_to_go(ttl: int | None, finished: str, seconds: int | None) -> None:
    end = end_of(job("j", ttl=ttl, finished=finished))
    assert end == (None if seconds is None else EPOCH + timedelta(seconds=seconds))


async def test_a_finished_job_goes_with_its_pods(cluster: Cluster) -> None:
    from pybernetes.kubelet.runtime.script import exits

    cluster.script("once-*", exits())
    once = Job(
        metadata=metadata("once"),
        spec=JobSpec(
            ttl_seconds_after_finished=60,
            template=template({"app": "once"}, restart_policy="Never"),
        ),
    )
    await cluster.apply(once)
    await cluster.run_for(seconds=30)
    assert (await cluster.get(Job, "once")).status.succeeded == 1
    await cluster.run_for(minutes=2)
    assert await names(cluster, Job) == []
    assert await names(cluster, Pod) == []
