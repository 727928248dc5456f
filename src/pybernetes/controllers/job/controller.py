"""The job controller's loop: count what ended, decide, act, then the status.

Watches jobs and their pods; writes pods (their tracking finalizer included) and jobs' status. The
status is written before finalizers go and again after: see `account`.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from pybernetes.aio.slowstart import slow_start
from pybernetes.api.batch import JOB_NAME
from pybernetes.api.conditions import condition_of, has_condition
from pybernetes.api.ownership import controller_of
from pybernetes.api.types.batch_v1 import Job, JobStatus
from pybernetes.api.types.core_v1 import EnvVar, EnvVarSource, ObjectFieldSelector, Pod
from pybernetes.apimachinery.errors import NotFound, StatusError
from pybernetes.apimachinery.meta import Key
from pybernetes.apimachinery.selector import selector_of
from pybernetes.client import (
    NORMAL,
    WARNING,
    Expectations,
    PatchType,
    changes_of,
    keys_of,
    owner_keys_of,
)
from pybernetes.controllers.job.account import (
    FAILURES,
    FINALIZER,
    account_of,
    flushed,
    is_tracked,
)
from pybernetes.controllers.job.indexes import COMPLETION_INDEX
from pybernetes.controllers.job.plan import (
    COMPLETE,
    JOB_FAILED,
    SUSPENDED,
    NewPod,
    Plan,
    end_of,
    is_over,
    plan_pods,
    status_of,
    until_deadline,
)
from pybernetes.controllers.podcontrol import (
    PodControl,
    candidates_of,
    claim,
    is_namespace_going,
    orphan_keys_of,
    pod_from_template,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import timedelta

    from pybernetes.api.types.core_v1 import Container
    from pybernetes.controllers.context import ControllerContext

# The value of spec.managedBy that means this controller; with another, somebody else does the work.
MANAGER = "kubernetes.io/job-controller"
INDEX_VARIABLE = "JOB_COMPLETION_INDEX"
_AT_ONCE = 500


class JobController:
    name = "job-controller"

    def __init__(self, context: ControllerContext) -> None:
        self._client = context.client_for(self.name)
        self._clock = context.clock
        self._recorder = context.recorder_for(self.name)
        self._control = PodControl(self._client, self._recorder)
        self._jobs = context.caches.of(Job)
        self._pods = context.caches.of(Pod)
        self._expectations = Expectations()
        self._expectations.follow(self._pods, Job)
        # Pods whose finalizer we took off and which the cache shows with it still, by job.
        self._released: dict[Key, set[str]] = {}
        self.sources = (
            keys_of(self._jobs),
            owner_keys_of(self._pods, Job),
            changes_of(self._pods, self._left_behind),
            orphan_keys_of(self._pods, self._jobs, lambda job: selector_of(job.spec.selector)),
        )

    async def reconcile(self, key: Key) -> timedelta | None:
        job = self._jobs.get(key)
        if job is None:
            self._expectations.forget(key)
            self._released.pop(key, None)
            await self._release_left_behind(key)
            return None
        if job.spec.managed_by not in ("", MANAGER):
            return None
        selector = selector_of(job.spec.selector)
        pods: list[Pod] = await claim(
            self._client, job, selector, candidates_of(self._pods, job, selector)
        )
        if is_over(job) or job.metadata.deletion_timestamp is not None:
            await self._release(key, [pod for pod in pods if is_tracked(pod)])
            return None
        return await self._sync(key, job, pods)

    async def _sync(self, key: Key, job: Job, pods: list[Pod]) -> timedelta | None:
        now = self._clock.now()
        released = self._released_of(key, pods)
        account = account_of(job, pods, released=released)
        end = end_of(job, account, pods, now)
        failure, again = None, self._expectations.expires_in(key)
        if self._expectations.met(key):
            plan = plan_pods(job, account, pods, end, now)
            again = plan.again
            failure = await self._carry_out(key, job, plan)
        job = await self._write(job, status_of(job, account, pods, end, now))
        await self._release(key, account.release)
        # Everything in the account is released now, so it can be counted.
        counted = flushed(job, account)
        job = await self._write(job, status_of(job, counted, pods, end, now))
        if failure is not None:
            raise failure
        # Once the end is decided, only pods can bring news.
        deadline = until_deadline(job, now) if end is None else None
        return min((wait for wait in (again, deadline) if wait is not None), default=None)

    # --- steps ------------------------------------------------------------------------------------

    async def _carry_out(self, key: Key, job: Job, plan: Plan) -> StatusError | None:
        """The first refusal, after which nothing more was begun."""

        async def create(new: NewPod) -> None:
            with self._expectations.creation(key):
                await self._control.create(job, new_pod(job, new))

        async def stop(pod: Pod) -> None:
            with self._expectations.deletion(key, pod):
                await self._control.delete(job, pod)

        async def withdraw(pod: Pod) -> None:
            # Without the finalizer first, or its end would be counted.
            await self._release(key, [pod])
            await stop(pod)

        try:
            await slow_start([partial(create, new) for new in plan.create])
            await slow_start([partial(stop, pod) for pod in plan.stop], initial=_AT_ONCE)
            await slow_start([partial(withdraw, pod) for pod in plan.withdraw], initial=_AT_ONCE)
        except StatusError as error:
            return None if is_namespace_going(error) else error
        return None

    async def _release(self, key: Key, pods: Iterable[Pod]) -> None:
        """Take the finalizer off; the pod's fate is in the status, or matters to nobody."""

        async def release(pod: Pod) -> None:
            patch = {
                "metadata": {
                    "uid": pod.metadata.uid,
                    "$deleteFromPrimitiveList/finalizers": [FINALIZER],
                }
            }
            name, namespace = pod.metadata.name, pod.metadata.namespace
            with suppress(NotFound):
                await self._client.patch(
                    Pod, name, namespace, patch=patch, type=PatchType.STRATEGIC
                )
            self._released.setdefault(key, set()).add(pod.metadata.uid)

        tracked = [pod for pod in pods if is_tracked(pod)]
        await slow_start([partial(release, pod) for pod in tracked], initial=_AT_ONCE)

    async def _release_left_behind(self, key: Key) -> None:
        """The job is gone; its pods, if they outlive it, must be free to go."""
        for pod in self._pods.list(key.namespace):
            if is_tracked(pod) and _job_key(pod) == key:
                await self._release(key, [pod])
        self._released.pop(key, None)

    async def _write(self, job: Job, status: JobStatus) -> Job:
        if status == job.status:
            return job
        written = await self._client.update_status(msgspec.structs.replace(job, status=status))
        self._say(job, status)
        return written

    # --- what it asks and says --------------------------------------------------------------------

    def _released_of(self, key: Key, pods: Iterable[Pod]) -> frozenset[str]:
        """Forget those by now shown without the finalizer, or gone."""
        known = self._released.get(key)
        if not known:
            return frozenset()
        known &= {pod.metadata.uid for pod in pods if is_tracked(pod)}
        if not known:
            del self._released[key]
        return frozenset(known)

    def _left_behind(self, old: Pod | None, new: Pod | None) -> list[Key]:
        """A tracked pod without an owner: its job may be gone."""
        if new is None or not is_tracked(new) or controller_of(new) is not None:
            return []
        key = _job_key(new)
        return [key] if key is not None and key not in self._jobs else []

    def _say(self, job: Job, status: JobStatus) -> None:
        before = job.status.conditions
        for condition in status.conditions:
            if condition_of(before, condition.type) == condition:
                continue
            if condition.type == COMPLETE:
                self._recorder.record(job, NORMAL, "Completed", "Job completed")
            elif condition.type == JOB_FAILED:
                self._recorder.record(job, WARNING, condition.reason, condition.message)
            elif condition.type == SUSPENDED:
                suspended = has_condition((condition,), SUSPENDED)
                reason = "Suspended" if suspended else "Resumed"
                self._recorder.record(job, NORMAL, reason, condition.message)


def new_pod(job: Job, new: NewPod) -> Pod:
    """A pod of the job; with an index, it carries that in every form upstream gives it."""
    template = job.spec.template
    if new.index is None:
        return pod_from_template(template, job, finalizers=(FINALIZER,))
    index = str(new.index)
    annotations = {COMPLETION_INDEX: index}
    if job.spec.backoff_limit_per_index is not None:
        annotations[FAILURES] = str(new.failures)
    pod = pod_from_template(
        template,
        job,
        labels={COMPLETION_INDEX: index},
        annotations=annotations,
        finalizers=(FINALIZER,),
    )
    named = f"{job.metadata.name}-{index}"
    spec = msgspec.structs.replace(
        pod.spec,
        # Together with a headless Service of that name this is the pod's DNS name.
        hostname=named,
        containers=tuple(map(_with_index, pod.spec.containers)),
        init_containers=tuple(map(_with_index, pod.spec.init_containers)),
    )
    metadata = msgspec.structs.replace(pod.metadata, generate_name=f"{named}-")
    return msgspec.structs.replace(pod, metadata=metadata, spec=spec)


def _with_index(container: Container) -> Container:
    if any(variable.name == INDEX_VARIABLE for variable in container.env):
        return container
    source = EnvVarSource(
        field_ref=ObjectFieldSelector(field_path=f"metadata.labels['{COMPLETION_INDEX}']")
    )
    variable = EnvVar(name=INDEX_VARIABLE, value_from=source)
    return msgspec.structs.replace(container, env=(*container.env, variable))


def _job_key(pod: Pod) -> Key | None:
    """The job a pod belongs or belonged to."""
    owner = controller_of(pod)
    if owner is not None:
        return Key(pod.metadata.namespace, owner.name) if owner.kind == "Job" else None
    name = pod.metadata.labels.get(JOB_NAME, "")
    return Key(pod.metadata.namespace, name) if name else None
