"""CronJob: makes a job at every moment its schedule names.

Watches cron jobs and their jobs; writes jobs and the cron jobs' status.
Rule: a moment is answered by at most one job, whose name is made from the moment; of moments that
were missed only the latest is made up for, and only within `startingDeadlineSeconds`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from pybernetes.api.conditions import condition_of, has_condition
from pybernetes.api.cronschedule import Schedule, ScheduleError, parse_schedule, time_zone_errors
from pybernetes.api.ownership import is_controlled_by, owner_reference
from pybernetes.api.types.batch_v1 import CronJob, CronJobStatus, Job
from pybernetes.api.types.meta_v1 import ObjectMeta
from pybernetes.apimachinery.errors import AlreadyExists, NotFound, StatusError
from pybernetes.apimachinery.timestamp import format_time
from pybernetes.client import (
    NORMAL,
    WARNING,
    Expectations,
    keys_of,
    owner_keys_of,
    reference_to,
)
from pybernetes.controllers.podcontrol import is_namespace_going

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pybernetes.apimachinery.meta import Key
    from pybernetes.controllers.context import ControllerContext

SCHEDULED_AT = "batch.kubernetes.io/cronjob-scheduled-timestamp"
COMPLETE, FAILED = "Complete", "Failed"
# More missed moments than this point to a wrong clock or a deadline that is too long.
MANY_MISSED = 100
# A moment is looked at after, not at, its time.
_A_MOMENT = timedelta(milliseconds=100)


@dataclass(frozen=True, slots=True)
class Moment:
    """The latest moment of the schedule that no job has answered yet."""

    at: datetime
    # There were more moments before it than anybody would expect.
    missed_many: bool = False


def latest_missed(cron_job: CronJob, schedule: Schedule, now: datetime) -> Moment | None:
    """The latest moment since the last job (or since the cron job was made) that has passed."""
    since = cron_job.status.last_schedule_time or cron_job.metadata.creation_timestamp or now
    deadline = cron_job.spec.starting_deadline_seconds
    if deadline is not None:
        since = max(since, now - timedelta(seconds=deadline))
    first = schedule.next_after(since)
    if first is None or first > now:
        return None
    missed, found = 1, first
    following = schedule.next_after(found)
    while following is not None and following <= now:
        missed, found = missed + 1, following
        if missed > MANY_MISSED:
            found = _latest_before(schedule, found, now)
            break
        following = schedule.next_after(found)
    return Moment(found, missed_many=deadline is None and missed > MANY_MISSED)


def _latest_before(schedule: Schedule, known: datetime, now: datetime) -> datetime:
    """The last moment up to now without walking through all of them: halve what lies between."""
    low, high = known, now
    while high - low > timedelta(minutes=2):
        middle = low + (high - low) / 2
        found = schedule.next_after(middle)
        if found is not None and found <= now:
            low = found
        else:
            high = middle
    following = schedule.next_after(low)
    while following is not None and following <= now:
        low, following = following, schedule.next_after(following)
    return low


def job_name(cron_job: CronJob, at: datetime) -> str:
    """In minutes: schedules know nothing shorter, and the name must not depend on who looks."""
    return f"{cron_job.metadata.name}-{int(at.timestamp()) // 60}"


def job_for(cron_job: CronJob, at: datetime, schedule: Schedule) -> Job:
    template = cron_job.spec.job_template
    # In the schedule's own zone, for those who read it there.
    moment = at.astimezone(schedule.zone)
    said = format_time(at) if moment.utcoffset() == timedelta(0) else moment.isoformat()
    return Job(
        metadata=ObjectMeta(
            name=job_name(cron_job, at),
            namespace=cron_job.metadata.namespace,
            labels=template.metadata.labels,
            annotations={**template.metadata.annotations, SCHEDULED_AT: said},
            owner_references=(owner_reference(cron_job),),
        ),
        spec=template.spec,
    )


def is_finished(job: Job) -> bool:
    return has_condition(job.status.conditions, COMPLETE) or has_condition(
        job.status.conditions, FAILED
    )


def superfluous(cron_job: CronJob, jobs: Sequence[Job]) -> list[Job]:
    """Finished jobs beyond what the history keeps, oldest first."""
    found: list[Job] = []
    for type_, limit in (
        (COMPLETE, cron_job.spec.successful_jobs_history_limit),
        (FAILED, cron_job.spec.failed_jobs_history_limit),
    ):
        if limit is None:
            continue
        ended = [job for job in jobs if has_condition(job.status.conditions, type_)]
        ended.sort(key=_started)
        found += ended[: max(len(ended) - limit, 0)]
    return found


def _started(job: Job) -> tuple[datetime, str]:
    started = job.status.start_time or job.metadata.creation_timestamp
    return (started or datetime.max.replace(tzinfo=UTC), job.metadata.name)


class CronJobController:
    name = "cronjob-controller"

    def __init__(self, context: ControllerContext) -> None:
        self._client = context.client_for(self.name)
        self._clock = context.clock
        self._recorder = context.recorder_for(self.name)
        self._cron_jobs = context.caches.of(CronJob)
        self._jobs = context.caches.of(Job)
        # A job that is not in the cache yet must not look like one that went missing.
        self._expectations = Expectations()
        self._expectations.follow(self._jobs, CronJob)
        self.sources = (keys_of(self._cron_jobs), owner_keys_of(self._jobs, CronJob))

    async def reconcile(self, key: Key) -> timedelta | None:
        cron_job = self._cron_jobs.get(key)
        if cron_job is None:
            self._expectations.forget(key)
            return None
        if not self._expectations.met(key):
            return self._expectations.expires_in(key)
        jobs = self._jobs.owned_by(cron_job)
        status = self._followed(cron_job, jobs)
        cron_job = await self._write(cron_job, status)
        if cron_job.metadata.deletion_timestamp is not None:
            return None
        await self._clean_up(cron_job, jobs)
        schedule = self._schedule_of(cron_job)
        if schedule is None or cron_job.spec.suspend:
            return None
        now = self._clock.now()
        moment = latest_missed(cron_job, schedule, now)
        if moment is not None:
            await self._answer(key, cron_job, moment, schedule)
        following = schedule.next_after(now)
        return None if following is None else following - now + _A_MOMENT

    # --- steps ------------------------------------------------------------------------------------

    def _followed(self, cron_job: CronJob, jobs: Sequence[Job]) -> CronJobStatus:
        """The status after what its jobs did: who is active still, and the last success."""
        status = cron_job.status
        by_uid = {job.metadata.uid: job for job in jobs}
        known = {reference.uid for reference in status.active}
        last = status.last_successful_time
        active = []
        for reference in status.active:
            job = by_uid.get(reference.uid)
            if job is None:
                said = f"Active job went missing: {reference.name}"
                self._recorder.record(cron_job, NORMAL, "MissingJob", said)
            elif is_finished(job):
                failed = has_condition(job.status.conditions, FAILED)
                verdict = FAILED if failed else COMPLETE
                said = f"Saw completed job: {reference.name}, condition: {verdict}"
                self._recorder.record(cron_job, NORMAL, "SawCompletedJob", said)
            else:
                active.append(reference)
        for job in jobs:
            if job.metadata.uid not in known and not is_finished(job):
                said = (
                    f"Saw a job that the controller did not create or forgot: {job.metadata.name}"
                )
                self._recorder.record(cron_job, WARNING, "UnexpectedJob", said)
            done = condition_of(job.status.conditions, COMPLETE)
            ended = job.status.completion_time
            if done is not None and ended is not None and (last is None or ended > last):
                last = ended
        return msgspec.structs.replace(status, active=tuple(active), last_successful_time=last)

    async def _answer(
        self, key: Key, cron_job: CronJob, moment: Moment, schedule: Schedule
    ) -> None:
        if moment.missed_many:
            said = (
                "too many missed start times. Set or decrease .spec.startingDeadlineSeconds"
                " or check clock skew"
            )
            self._recorder.record(cron_job, WARNING, "TooManyMissedTimes", said)
        active = cron_job.status.active
        if any(reference.name == job_name(cron_job, moment.at) for reference in active):
            return
        if active and cron_job.spec.concurrency_policy == "Forbid":
            said = (
                "Not starting job because prior execution is running"
                " and concurrency policy is Forbid"
            )
            self._recorder.record(cron_job, NORMAL, "JobAlreadyActive", said)
            return
        if active and cron_job.spec.concurrency_policy == "Replace":
            cron_job = await self._replace(cron_job)
        await self._start(key, cron_job, moment, schedule)

    async def _replace(self, cron_job: CronJob) -> CronJob:
        for reference in cron_job.status.active:
            for job in self._jobs.owned_by(cron_job):
                if job.metadata.uid == reference.uid:
                    await self._delete(cron_job, job)
        return await self._write(cron_job, msgspec.structs.replace(cron_job.status, active=()))

    async def _start(self, key: Key, cron_job: CronJob, moment: Moment, schedule: Schedule) -> None:
        wanted = job_for(cron_job, moment.at, schedule)
        try:
            with self._expectations.creation(key):
                made = await self._client.create(wanted)
        except AlreadyExists:
            name, namespace = wanted.metadata.name, wanted.metadata.namespace
            there = await self._client.get_or_none(Job, name, namespace)
            if there is None or not is_controlled_by(there, cron_job):
                raise
            # Made by us, before the status could say so.
            made = there
        except StatusError as error:
            if is_namespace_going(error):
                return
            said = f"Error creating job: {error.message}"
            self._recorder.record(cron_job, WARNING, "FailedCreate", said)
            raise
        else:
            said = f"Created job {made.metadata.name}"
            self._recorder.record(cron_job, NORMAL, "SuccessfulCreate", said)
        active = cron_job.status.active
        if not is_finished(made):
            active = (*active, reference_to(made))
        status = msgspec.structs.replace(
            cron_job.status, active=active, last_schedule_time=moment.at
        )
        await self._write(cron_job, status)

    async def _clean_up(self, cron_job: CronJob, jobs: Sequence[Job]) -> None:
        for job in superfluous(cron_job, jobs):
            if job.metadata.deletion_timestamp is None:
                await self._delete(cron_job, job)

    async def _delete(self, cron_job: CronJob, job: Job) -> None:
        try:
            await self._client.delete(job, propagation="Background")
        except NotFound:
            return
        except StatusError as error:
            said = f"Deleted job: {error.message}"
            self._recorder.record(cron_job, WARNING, "FailedDelete", said)
            raise
        self._recorder.record(
            cron_job, NORMAL, "SuccessfulDelete", f"Deleted job {job.metadata.name}"
        )

    async def _write(self, cron_job: CronJob, status: CronJobStatus) -> CronJob:
        if status == cron_job.status:
            return cron_job
        return await self._client.update_status(msgspec.structs.replace(cron_job, status=status))

    # --- what it asks -----------------------------------------------------------------------------

    def _schedule_of(self, cron_job: CronJob) -> Schedule | None:
        """The schedule; None for one that nobody can follow until it is changed."""
        zone = cron_job.spec.time_zone
        if zone is not None and (errors := time_zone_errors(zone)):
            said = f'invalid timeZone: "{zone}": {errors[0]}'
            self._recorder.record(cron_job, WARNING, "UnknownTimeZone", said)
            return None
        text = cron_job.spec.schedule
        try:
            return parse_schedule(text, zone or "")
        except ScheduleError as error:
            said = f'unparseable schedule: "{text}" : {error}'
            self._recorder.record(cron_job, WARNING, "UnparseableSchedule", said)
            return None
