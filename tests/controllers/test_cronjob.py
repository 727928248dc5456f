"""Cron jobs: which moment is due, by tables, and what becomes of it in a cluster.

The cluster is real but for its containers. Time is virtual and begins at midnight, 1 January 2026.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pybernetes.api.conditions import TRUE
from pybernetes.api.cronschedule import parse_schedule
from pybernetes.api.types.batch_v1 import (
    CronJob,
    CronJobSpec,
    CronJobStatus,
    Job,
    JobCondition,
    JobSpec,
    JobStatus,
    JobTemplateSpec,
)
from pybernetes.controllers.cronjob import job_for, job_name, latest_missed, superfluous
from pybernetes.kubelet.runtime.script import exits
from pybernetes.testing.builders import EPOCH, metadata, template

if TYPE_CHECKING:
    from pybernetes.testing import Cluster

param = pytest.param


def cron_job(
    schedule: str = "* * * * *", *, status: CronJobStatus | None = None, **spec: Any
) -> CronJob:
    job = JobSpec(template=template({"app": "tick"}, restart_policy="Never"))
    return CronJob(
        metadata=metadata("tick"),
        spec=CronJobSpec(schedule=schedule, job_template=JobTemplateSpec(spec=job), **spec),
        status=status or CronJobStatus(),
    )


def at(minutes: float) -> datetime:
    return EPOCH + timedelta(minutes=minutes)


def last(minutes: float) -> CronJobStatus:
    return CronJobStatus(last_schedule_time=at(minutes))


@pytest.mark.parametrize(
    ("found", "now", "expected"),
    [
        param(cron_job("*/10 * * * *"), at(5), None, id="not yet"),
        param(cron_job("*/10 * * * *"), at(10), at(10), id="just now"),
        param(cron_job("*/10 * * * *"), at(35), at(30), id="only the latest of those missed"),
        param(cron_job("*/10 * * * *", status=last(30)), at(35), None, id="answered already"),
        param(cron_job("*/10 * * * *", status=last(20)), at(35), at(30), id="since the last one"),
        param(cron_job("*/10 * * * *", starting_deadline_seconds=60), at(35), None, id="too late"),
        param(
            cron_job("*/10 * * * *", starting_deadline_seconds=600), at(35), at(30), id="in time"
        ),
        param(cron_job("0 0 30 2 *"), at(10**6), None, id="a day that never comes"),
    ],
)
def test_the_moment_that_is_due(found: CronJob, now: datetime, expected: datetime | None) -> None:
    moment = latest_missed(found, parse_schedule(found.spec.schedule), now)
    assert (moment.at if moment else None) == expected


@settings(deadline=None)
@given(
    schedule=st.sampled_from(["* * * * *", "*/7 * * * *", "15 3 * * 1", "@hourly", "0 9 1 * *"]),
    minutes=st.integers(1, 400_000),
)
def test_the_latest_moment_is_found_however_many_were_missed(schedule: str, minutes: int) -> None:
    parsed = parse_schedule(schedule)
    now = at(minutes)
    moment = latest_missed(cron_job(schedule), parsed, now)
    if moment is None:
        first = parsed.next_after(EPOCH)
        assert first is None or first > now
        return
    assert moment.at <= now
    following = parsed.next_after(moment.at)
    assert following is None or following > now


def test_many_missed_moments_are_noted() -> None:
    minutely = parse_schedule("* * * * *")
    some = latest_missed(cron_job(), minutely, at(99))
    many = latest_missed(cron_job(), minutely, at(200))
    assert (some and some.missed_many, many and many.missed_many) == (False, True)


def test_a_job_is_named_after_its_moment_and_says_it_in_the_zone_of_the_schedule() -> None:
    found = cron_job(time_zone="Europe/Berlin")
    made = job_for(found, at(90), parse_schedule("* * * * *", "Europe/Berlin"))
    assert made.metadata.name == f"tick-{int(at(90).timestamp()) // 60}"
    assert made.metadata.annotations == {
        "batch.kubernetes.io/cronjob-scheduled-timestamp": "2026-01-01T02:30:00+01:00"
    }
    in_utc = job_for(found, at(90), parse_schedule("* * * * *"))
    assert list(in_utc.metadata.annotations.values()) == ["2026-01-01T01:30:00Z"]


def ended(name: str, minutes: int, type_: str) -> Job:
    condition = JobCondition(type=type_, status=TRUE)
    return Job(
        metadata=metadata(name),
        status=JobStatus(start_time=at(minutes), conditions=(condition,)),
    )


def test_the_history_keeps_the_latest_of_each_sort() -> None:
    found = cron_job(successful_jobs_history_limit=1, failed_jobs_history_limit=0)
    jobs = [
        ended("new", 9, "Complete"),
        ended("old", 1, "Complete"),
        ended("bad", 5, "Failed"),
        Job(metadata=metadata("running")),
    ]
    assert [job.metadata.name for job in superfluous(found, jobs)] == ["old", "bad"]


# --- in a cluster ---------------------------------------------------------------------------------


def jobs(cluster: Cluster) -> list[Job]:
    found = cluster.plane.caches.of(Job).list("default")
    return sorted(found, key=lambda job: job.metadata.name)


async def test_a_job_a_minute_and_no_more_history_than_wanted(cluster: Cluster) -> None:
    cluster.script("tick-*", exits(after=timedelta(seconds=5)))
    await cluster.apply(cron_job())
    await cluster.run_for(minutes=2, seconds=30)
    found = await cluster.get(CronJob, "tick")
    assert [job.metadata.name for job in jobs(cluster)] == [
        job_name(found, at(1)),
        job_name(found, at(2)),
    ]
    assert found.status.last_schedule_time == at(2)
    assert found.status.active == ()
    assert found.status.last_successful_time is not None
    await cluster.run_for(minutes=8)
    assert len(jobs(cluster)) == 3
    said = {event.reason for event in await cluster.events("tick")}
    assert {"SuccessfulCreate", "SawCompletedJob", "SuccessfulDelete"} <= said
    assert not said & {"MissingJob", "UnexpectedJob", "FailedCreate"}


async def test_forbid_waits_for_the_job_before(cluster: Cluster) -> None:
    cluster.script("tick-*", exits(after=timedelta(seconds=150)))
    await cluster.apply(cron_job(concurrency_policy="Forbid"))
    await cluster.run_for(minutes=3, seconds=10)
    found = await cluster.get(CronJob, "tick")
    assert [job.metadata.name for job in jobs(cluster)] == [job_name(found, at(1))]
    assert "JobAlreadyActive" in {event.reason for event in await cluster.events("tick")}
    # The moment that was missed last is made up for as soon as the first job is done.
    await cluster.run_for(minutes=1)
    found = await cluster.get(CronJob, "tick")
    assert [job.metadata.name for job in jobs(cluster)] == [
        job_name(found, at(1)),
        job_name(found, at(3)),
    ]


async def test_replace_ends_the_job_before(cluster: Cluster) -> None:
    await cluster.apply(cron_job(concurrency_policy="Replace"))
    await cluster.run_for(minutes=3, seconds=50)
    found = await cluster.get(CronJob, "tick")
    assert [job.metadata.name for job in jobs(cluster)] == [job_name(found, at(3))]
    assert [reference.name for reference in found.status.active] == [job_name(found, at(3))]


async def test_allow_lets_them_run_side_by_side(cluster: Cluster) -> None:
    await cluster.apply(cron_job())
    await cluster.run_for(minutes=3, seconds=10)
    assert len((await cluster.get(CronJob, "tick")).status.active) == 3


async def test_a_suspended_cron_job_rests_and_makes_up_for_one_moment(cluster: Cluster) -> None:
    await cluster.apply(cron_job(suspend=True))
    await cluster.run_for(minutes=5, seconds=30)
    assert jobs(cluster) == []
    found = await cluster.get(CronJob, "tick")
    spec = msgspec.structs.replace(found.spec, suspend=False)
    await cluster.client.update(msgspec.structs.replace(found, spec=spec))
    await cluster.settled()
    assert [job.metadata.name for job in jobs(cluster)] == [job_name(found, at(5))]


async def test_jobs_go_with_their_cron_job(cluster: Cluster) -> None:
    await cluster.apply(cron_job())
    await cluster.run_for(minutes=2, seconds=10)
    await cluster.client.delete(CronJob, "tick", "default", propagation="Background")
    await cluster.run_for(minutes=2)
    assert jobs(cluster) == []
    assert cluster.pods("default") == []
