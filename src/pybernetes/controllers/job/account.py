"""Counting ended pods, each exactly once, whenever one looks and however often. Pure.

Every pod of a job carries a finalizer, so that none is gone before it was counted:

1. a pod that ended is written into `status.uncountedTerminatedPods`,
2. its finalizer is taken off,
3. the counters go up and its uid leaves the list, in one write.

A crash between any two of these loses and repeats nothing: a uid in the list whose pod has no
finalizer any more has not been counted yet; a pod with the finalizer that is in the list has not
been released yet. With indexes the set of completed indexes does for successes what the list does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pybernetes.api.core.podstate import FAILED, SUCCEEDED, is_finished, is_terminating
from pybernetes.api.types.batch_v1 import UncountedTerminatedPods
from pybernetes.controllers.job.indexes import is_indexed, parse_indexes, valid_index
from pybernetes.controllers.job.policy import COUNT, FAIL_INDEX, FAIL_JOB, IGNORE, judge

if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet

    from pybernetes.api.types.batch_v1 import Job
    from pybernetes.api.types.core_v1 import Pod

FINALIZER = "batch.kubernetes.io/job-tracking"
# How often a pod's index failed before it, and how often that was ignored (KEP-3850).
FAILURES = "batch.kubernetes.io/job-index-failure-count"
IGNORED_FAILURES = "batch.kubernetes.io/job-index-ignored-failure-count"


@dataclass(frozen=True, slots=True)
class Account:
    """Everything that has ended, the part that waits to be counted included."""

    succeeded: int
    failed: int
    # Indexes that are done, and that are given up; empty without indexes.
    completed: frozenset[int]
    given_up: frozenset[int]
    # Counted in `succeeded` and `failed` here, not yet in the status' counters.
    uncounted: UncountedTerminatedPods
    # Pods whose finalizer may go when a status with this account has been written.
    release: tuple[Pod, ...]
    # Why the policy says that the job fails; empty if it does not.
    fail_job: str = ""


def is_tracked(pod: Pod) -> bool:
    return FINALIZER in pod.metadata.finalizers


def replaces_failed_only(job: Job) -> bool:
    return job.spec.pod_replacement_policy == "Failed"


def has_failed(job: Job, pod: Pod) -> bool:
    """Failed, or on its way out before it came to an end."""
    if pod.status.phase == FAILED:
        return True
    if not is_terminating(pod) or pod.status.phase == SUCCEEDED:
        return False
    # A pending pod that is deleted may never reach a node that could say it failed.
    return not replaces_failed_only(job) or pod.status.phase == "Pending"


def account_of(job: Job, pods: Sequence[Pod], *, released: AbstractSet[str]) -> Account:
    """`released` are uids whose finalizer was taken off, which `pods` may not show yet."""
    status = job.status
    before = status.uncounted_terminated_pods or UncountedTerminatedPods()
    succeeded, failed = list(before.succeeded), list(before.failed)
    below = job.spec.completions or 0
    completed = set(parse_indexes(status.completed_indexes, below=below))
    given_up = set(parse_indexes(status.failed_indexes or "", below=below))
    release: list[Pod] = []
    fail_job = ""
    for pod in pods:
        uid = pod.metadata.uid
        if not is_tracked(pod) or uid in released:
            continue
        if pod.status.phase == SUCCEEDED:
            release.append(pod)
            if not is_indexed(job):
                _note(succeeded, uid)
            elif (index := valid_index(job, pod)) is not None:
                completed.add(index)
        elif has_failed(job, pod):
            release.append(pod)
            verdict = judge(job, pod) if is_finished(pod) else None
            action = verdict.action if verdict else COUNT
            index = valid_index(job, pod)
            if action == FAIL_JOB and verdict is not None:
                fail_job = fail_job or verdict.message
            if action != IGNORE and (not is_indexed(job) or index is not None):
                _note(failed, uid)
            if index is not None and (action == FAIL_INDEX or _is_last_try(job, pod, action)):
                given_up.add(index)
    given_up -= completed
    return Account(
        succeeded=len(completed) if is_indexed(job) else status.succeeded + len(succeeded),
        failed=status.failed + len(failed),
        completed=frozenset(completed) if is_indexed(job) else frozenset(),
        given_up=frozenset(given_up),
        uncounted=UncountedTerminatedPods(succeeded=tuple(succeeded), failed=tuple(failed)),
        release=tuple(release),
        fail_job=fail_job,
    )


def failures_of(pod: Pod) -> int:
    """How often the pod's index had failed before it was made."""
    text = pod.metadata.annotations.get(FAILURES, "")
    return int(text) if text.isdecimal() else 0


def failures_after(job: Job, pod: Pod) -> int:
    """How often the index has failed now that this pod has; ignored failures do not count."""
    ignored = is_finished(pod) and judge(job, pod).action == IGNORE
    return failures_of(pod) + (0 if ignored else 1)


def _is_last_try(job: Job, pod: Pod, action: str) -> bool:
    limit = job.spec.backoff_limit_per_index
    return limit is not None and action != IGNORE and failures_of(pod) + 1 > limit


def _note(uids: list[str], uid: str) -> None:
    if uid not in uids:
        uids.append(uid)


def flushed(job: Job, account: Account) -> Account:
    """The account with everything in it counted: every pod in it has been released."""
    return Account(
        succeeded=account.succeeded,
        failed=account.failed,
        completed=account.completed,
        given_up=account.given_up,
        uncounted=UncountedTerminatedPods(),
        release=(),
        fail_job=account.fail_job,
    )
