"""Which pods a job should have, when it is over, and what its status says. Pure.

A job ends in two steps. First a condition says what the end will be (SuccessCriteriaMet or
FailureTarget); from then on nothing is started and what still runs is stopped. When nothing runs
and everything is counted, the end itself is said (Complete or Failed), with the same words.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from pybernetes.aio.backoff import Backoff
from pybernetes.api.conditions import FALSE, TRUE, condition_of, has_condition, with_condition
from pybernetes.api.core.podstate import (
    SUCCEEDED,
    is_active,
    is_finished,
    is_ready,
    is_terminating,
)
from pybernetes.api.types.batch_v1 import JobCondition, JobStatus
from pybernetes.controllers.job.account import (
    Account,
    failures_after,
    has_failed,
    is_tracked,
    replaces_failed_only,
)
from pybernetes.controllers.job.indexes import (
    format_indexes,
    index_of,
    is_indexed,
    valid_index,
)
from pybernetes.controllers.job.policy import enough_succeeded
from pybernetes.controllers.replicaset import deletion_rank

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pybernetes.api.types.batch_v1 import Job
    from pybernetes.api.types.core_v1 import Pod

COMPLETE, JOB_FAILED, SUSPENDED = "Complete", "Failed", "Suspended"
SUCCESS_CRITERIA_MET, FAILURE_TARGET = "SuccessCriteriaMet", "FailureTarget"

# After the first failure in a row, and at most (the API's documentation of backoffLimit).
FAILED_PODS = Backoff(initial=timedelta(seconds=10), maximum=timedelta(minutes=6))
# Pods created or deleted by one look at most, as upstream.
BURST = 500
_ZERO = timedelta(0)


@dataclass(frozen=True, slots=True)
class End:
    """How a job ends."""

    succeeded: bool
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class NewPod:
    """A pod to be made: the index it works on, and how often that failed before."""

    index: int | None = None
    failures: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now."""

    create: tuple[NewPod, ...] = ()
    # Their end counts as a failure: the job is over, and they had begun.
    stop: tuple[Pod, ...] = ()
    # Their end does not count: they are too many, or the job is suspended.
    withdraw: tuple[Pod, ...] = ()
    # When something can be created that has to wait.
    again: timedelta | None = None


def is_over(job: Job) -> bool:
    conditions = job.status.conditions
    return has_condition(conditions, COMPLETE) or has_condition(conditions, JOB_FAILED)


def is_suspended(job: Job) -> bool:
    return bool(job.spec.suspend)


# --- the end --------------------------------------------------------------------------------------


def end_of(job: Job, account: Account, pods: Sequence[Pod], now: datetime) -> End | None:
    """Whether the job is to end, and how; what was decided once stays."""
    for type_, succeeded in ((FAILURE_TARGET, False), (SUCCESS_CRITERIA_MET, True)):
        known = condition_of(job.status.conditions, type_)
        if known is not None and known.status == TRUE:
            return End(succeeded, known.reason, known.message)
    return _failure(job, account, pods, now) or _success(job, account, pods)


def _failure(job: Job, account: Account, pods: Sequence[Pod], now: datetime) -> End | None:
    spec = job.spec
    if account.fail_job:
        return End(False, "PodFailurePolicy", account.fail_job)
    limit = 6 if spec.backoff_limit is None else spec.backoff_limit
    if account.failed > limit or _restarts_exceed(job, pods, limit):
        return End(False, "BackoffLimitExceeded", "Job has reached the specified backoff limit")
    left = until_deadline(job, now)
    if left is not None and left <= _ZERO:
        return End(False, "DeadlineExceeded", "Job was active longer than specified deadline")
    if not is_indexed(job) or not account.given_up:
        return None
    if spec.max_failed_indexes is not None and len(account.given_up) > spec.max_failed_indexes:
        said = "Job has exceeded the specified maximal number of failed indexes"
        return End(False, "MaxFailedIndexesExceeded", said)
    if len(account.given_up) + len(account.completed) >= (spec.completions or 0):
        return End(False, "FailedIndexes", "Job has failed indexes")
    return None


def _success(job: Job, account: Account, pods: Sequence[Pod]) -> End | None:
    matched = enough_succeeded(job, account.completed) if is_indexed(job) else ""
    if matched:
        return End(True, "SuccessPolicy", matched)
    active = any(is_active(pod) for pod in pods)
    wanted = job.spec.completions
    # Without a number, the first success says that the work is done; the others may finish.
    enough = account.succeeded > 0 if wanted is None else account.succeeded >= wanted
    if enough and not active and not (is_suspended(job) and wanted != 0 and not account.succeeded):
        return End(True, "CompletionsReached", "Reached expected number of succeeded pods")
    return None


def until_deadline(job: Job, now: datetime) -> timedelta | None:
    """How long the job may still take; None if as long as it likes."""
    seconds = job.spec.active_deadline_seconds
    if seconds is None or job.status.start_time is None or is_suspended(job):
        return None
    return job.status.start_time + timedelta(seconds=seconds) - now


def _restarts_exceed(job: Job, pods: Sequence[Pod], limit: int) -> bool:
    """Containers that are restarted in place count against the same limit."""
    if job.spec.template.spec.restart_policy != "OnFailure":
        return False
    restarts = sum(
        status.restart_count
        for pod in pods
        if pod.status.phase in ("Running", "Pending")
        for status in (*pod.status.container_statuses, *pod.status.init_container_statuses)
    )
    return restarts > 0 if limit == 0 else restarts >= limit


# --- the pods -------------------------------------------------------------------------------------


def plan_pods(
    job: Job, account: Account, pods: Sequence[Pod], end: End | None, now: datetime
) -> Plan:
    active = [pod for pod in pods if is_active(pod)]
    if end is not None:
        return Plan(stop=tuple(active[:BURST]))
    if is_suspended(job):
        return Plan(withdraw=tuple(active[:BURST]))
    wanted = wanted_active(job, account, len(active))
    surplus = _surplus(job, account, active, wanted)
    if surplus:
        return Plan(withdraw=tuple(surplus[:BURST]))
    leaving = sum(_is_leaving(pod) for pod in pods) if replaces_failed_only(job) else 0
    missing = min(wanted - len(active) - leaving, BURST)
    if missing <= 0:
        return Plan()
    if job.spec.backoff_limit_per_index is not None:
        return _plan_indexes(job, account, pods, missing, now)
    wait = back_off(pods, now)
    if wait > _ZERO:
        return Plan(again=wait)
    if not is_indexed(job):
        return Plan(create=(NewPod(),) * missing)
    return Plan(create=tuple(NewPod(index) for index in _free(job, account, pods)[:missing]))


def wanted_active(job: Job, account: Account, active: int) -> int:
    """How many pods should run now."""
    parallelism = 1 if job.spec.parallelism is None else job.spec.parallelism
    if job.spec.completions is None:
        # The first success ends the work: nothing is added, nothing is taken away.
        return active if account.succeeded else parallelism
    left = job.spec.completions - account.succeeded - len(account.given_up)
    return max(min(left, parallelism), 0)


def back_off(pods: Sequence[Pod], now: datetime) -> timedelta:
    """How long to wait after the failures since the last success; nothing if there were none."""
    ended = [(ended_at(pod), pod.status.phase == SUCCEEDED) for pod in pods if _has_ended(pod)]
    failures, last = 0, None
    for moment, success in sorted(ended):
        failures, last = (0, None) if success else (failures + 1, moment)
    if last is None:
        return _ZERO
    return max(last + FAILED_PODS.delay(failures - 1) - now, _ZERO)


def ended_at(pod: Pod) -> datetime:
    """When the last of its containers ended, as well as the pod tells."""
    statuses = (*pod.status.container_statuses, *pod.status.init_container_statuses)
    moments = [
        status.state.terminated.finished_at
        for status in statuses
        if status.state.terminated is not None and status.state.terminated.finished_at is not None
    ]
    if moments:
        return max(moments)
    ready = condition_of(pod.status.conditions, "Ready")
    candidates = (
        pod.metadata.deletion_timestamp,
        ready.last_transition_time if ready is not None else None,
        pod.metadata.creation_timestamp,
    )
    return next(moment for moment in (*candidates, datetime.min) if moment is not None)


def _has_ended(pod: Pod) -> bool:
    """Came to an end by itself; a pod that was withdrawn has no finalizer and does not count."""
    if not is_finished(pod):
        return False
    return is_tracked(pod) or not is_terminating(pod)


def _is_leaving(pod: Pod) -> bool:
    return is_terminating(pod) and not is_finished(pod)


def _surplus(job: Job, account: Account, active: list[Pod], wanted: int) -> list[Pod]:
    """Pods to withdraw: those that work on nothing, and then the least useful ones."""
    useless: list[Pod] = []
    useful = active
    if is_indexed(job):
        useful = []
        taken = set(account.completed | account.given_up)
        for pod in active:
            index = valid_index(job, pod)
            if index is None or index in taken:
                useless.append(pod)
            else:
                taken.add(index)
                useful.append(pod)
    crowd = Counter(pod.spec.node_name for pod in active)
    ranked = sorted(useful, key=lambda pod: deletion_rank(pod, crowd))
    return useless + ranked[: max(len(useful) - wanted, 0)]


def _free(job: Job, account: Account, pods: Sequence[Pod]) -> list[int]:
    """Indexes nobody works on, lowest first."""
    busy = {index_of(pod) for pod in pods if is_active(pod)}
    if replaces_failed_only(job):
        busy |= {index_of(pod) for pod in pods if _is_leaving(pod)}
    taken = busy | account.completed | account.given_up
    return [index for index in range(job.spec.completions or 0) if index not in taken]


def _plan_indexes(
    job: Job, account: Account, pods: Sequence[Pod], missing: int, now: datetime
) -> Plan:
    """Every index backs off by itself."""
    create: list[NewPod] = []
    waits: list[timedelta] = []
    for index in _free(job, account, pods):
        if len(create) == missing:
            break
        failed = [pod for pod in pods if index_of(pod) == index and has_failed(job, pod)]
        failures = max((failures_after(job, pod) for pod in failed), default=0)
        if failures:
            since = max(ended_at(pod) for pod in failed)
            wait = since + FAILED_PODS.delay(failures - 1) - now
            if wait > _ZERO:
                waits.append(wait)
                continue
        create.append(NewPod(index, failures))
    return Plan(create=tuple(create), again=min(waits, default=None))


# --- the status -----------------------------------------------------------------------------------


def condition(type_: str, status: str, reason: str, message: str, now: datetime) -> JobCondition:
    moment = now.replace(microsecond=0)
    return JobCondition(
        type=type_,
        status=status,
        last_probe_time=moment,
        last_transition_time=moment,
        reason=reason,
        message=message,
    )


def status_of(
    job: Job, account: Account, pods: Sequence[Pod], end: End | None, now: datetime
) -> JobStatus:
    """The status with this account; the end is announced, and said when nothing is left."""
    before = job.status
    active = [pod for pod in pods if is_active(pod)]
    leaving = sum(_is_leaving(pod) for pod in pods)
    per_index = job.spec.backoff_limit_per_index is not None
    uncounted = account.uncounted
    status = msgspec.structs.replace(
        before,
        active=len(active),
        ready=sum(is_ready(pod) for pod in active),
        terminating=leaving,
        succeeded=account.succeeded - (0 if is_indexed(job) else len(uncounted.succeeded)),
        failed=account.failed - len(uncounted.failed),
        completed_indexes=format_indexes(account.completed),
        failed_indexes=format_indexes(account.given_up) if per_index else before.failed_indexes,
        uncounted_terminated_pods=uncounted,
        conditions=_with_suspension(job, now),
        start_time=_start_time(job, now),
    )
    if end is None:
        return status
    announced = SUCCESS_CRITERIA_MET if end.succeeded else FAILURE_TARGET
    conditions = _with(status.conditions, announced, end, now)
    if not (active or leaving or account.release or uncounted.succeeded or uncounted.failed):
        conditions = _with(conditions, COMPLETE if end.succeeded else JOB_FAILED, end, now)
        if end.succeeded:
            moment = now.replace(microsecond=0)
            status = msgspec.structs.replace(status, completion_time=moment)
    return msgspec.structs.replace(status, conditions=conditions)


def _with(
    conditions: tuple[JobCondition, ...], type_: str, end: End, now: datetime
) -> tuple[JobCondition, ...]:
    if has_condition(conditions, type_):
        return conditions
    return with_condition(conditions, condition(type_, TRUE, end.reason, end.message, now))


def _with_suspension(job: Job, now: datetime) -> tuple[JobCondition, ...]:
    conditions = job.status.conditions
    noted = has_condition(conditions, SUSPENDED)
    if is_suspended(job) and not noted:
        said = condition(SUSPENDED, TRUE, "JobSuspended", "Job suspended", now)
        return with_condition(conditions, said)
    if not is_suspended(job) and noted:
        said = condition(SUSPENDED, FALSE, "JobResumed", "Job resumed", now)
        return with_condition(conditions, said)
    return conditions


def _start_time(job: Job, now: datetime) -> datetime | None:
    """When the job began to be allowed to run; anew each time it is resumed."""
    resumed = not is_suspended(job) and has_condition(job.status.conditions, SUSPENDED)
    if resumed or (job.status.start_time is None and not is_suspended(job)):
        return now.replace(microsecond=0)
    return job.status.start_time
