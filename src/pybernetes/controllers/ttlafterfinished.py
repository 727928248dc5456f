"""TtlAfterFinished: jobs that say so are deleted some time after they finished.

Watches and deletes jobs (spec.ttlSecondsAfterFinished, KEP-592), in the foreground, so that a job
is there as long as its pods are. Each is woken by the time it has left; nothing is polled.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from pybernetes.api.conditions import TRUE
from pybernetes.api.types.batch_v1 import Job
from pybernetes.apimachinery.errors import Conflict, NotFound
from pybernetes.client import keys_of

if TYPE_CHECKING:
    from pybernetes.apimachinery.meta import Key
    from pybernetes.controllers.context import ControllerContext


def finished_at(job: Job) -> datetime | None:
    """When it completed or failed; None while it runs."""
    for condition in job.status.conditions:
        if condition.type in ("Complete", "Failed") and condition.status == TRUE:
            return condition.last_transition_time
    return None


def end_of(job: Job) -> datetime | None:
    """When it is to be deleted; None: not as things are."""
    seconds, finished = job.spec.ttl_seconds_after_finished, finished_at(job)
    if seconds is None or finished is None or job.metadata.deletion_timestamp is not None:
        return None
    return finished + timedelta(seconds=seconds)


class TtlAfterFinishedController:
    name = "ttl-after-finished-controller"

    def __init__(self, context: ControllerContext) -> None:
        self._client = context.client_for(self.name)
        self._clock = context.clock
        self._jobs = context.caches.of(Job)
        self.sources = (keys_of(self._jobs),)

    async def reconcile(self, key: Key) -> timedelta | None:
        job = self._jobs.get(key)
        end = None if job is None else end_of(job)
        if job is None or end is None:
            return None
        left = end - self._clock.now()
        if left > timedelta(0):
            return left
        # Somebody may have given it more time a moment ago: then the version is another.
        version = job.metadata.resource_version
        with suppress(NotFound, Conflict):
            await self._client.delete(job, resource_version=version, propagation="Foreground")
        return None
