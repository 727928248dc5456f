"""Writes a pod's status to the API: the newest one, one write at a time, only if it differs.

Whoever knows better of the rest of the object keeps it: a conflict means that the object is read
again and the status computed anew on top of it.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import TYPE_CHECKING

from msgspec.structs import replace

from pybernetes.api.types.core_v1 import Pod
from pybernetes.apimachinery.errors import AlreadyExists, Conflict, NotFound, StatusError
from pybernetes.kubelet.pod_events import Forgotten
from pybernetes.kubelet.pod_status import pod_status
from pybernetes.kubelet.static import mirror_of
from pybernetes.wire.http import WireError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pybernetes.api.types.core_v1 import Node, PodStatus
    from pybernetes.kubelet.context import NodeContext
    from pybernetes.kubelet.pod_state import PodState
    from pybernetes.kubelet.worker import PodWorker

log = logging.getLogger(__name__)

RETRY = timedelta(seconds=1)
# A mirror may be refused for long: there is no such namespace, say.
MIRROR_RETRY = timedelta(seconds=10)
# Writes for one pod in a second; a pod that starts needs three.
MOST_WRITES = 10


class StatusWriter:
    """For one pod. Has a task only while there is something to write."""

    def __init__(self, context: NodeContext, worker: PodWorker) -> None:
        self._context = context
        self._worker = worker
        self.known = worker.state.pod
        # What we wrote last: the server may keep it in another form, which is no reason to repeat.
        self._sent: PodStatus | None = None
        self._task: asyncio.Task[None] | None = None
        # Set when something changed while a write was under way.
        self._again = False
        self._stopped = False
        # When the present second began, and the writes in it.
        self._second, self._writes = context.clock.monotonic(), 0

    def heard(self, pod: Pod) -> None:
        """The watch shows this version; it may be older than what our own write returned."""
        if _version(pod) >= _version(self.known):
            self.known = pod

    def pod_now(self, state: PodState) -> Pod:
        return replace(self.known, status=self._wanted(state))

    def look(self) -> None:
        """The pod's state changed."""
        self._again = True
        if self._task is None and not self._stopped:
            name = f"status of {self.known.metadata.name}"
            self._task = self._worker.create_task(self._write(), name)

    async def flush(self) -> None:
        """Wait until what there is to say is said."""
        while self._task is not None:
            await asyncio.wait([self._task])

    def stop(self) -> None:
        self._stopped = True
        if self._task is not None:
            self._task.cancel()

    def _wanted(self, state: PodState) -> PodStatus:
        now = self._context.clock.now()
        return pod_status(state, self.known.status, self._context.facts, now)

    async def _write(self) -> None:
        try:
            while self._again and not self._stopped:
                self._again = False
                state = self._worker.state
                if state.forgotten:
                    return
                status = self._wanted(state)
                if self._is_said(status):
                    continue
                await self._rest()
                if not await self._send(status):
                    self._again = True
        finally:
            self._task = None

    def _is_said(self, status: PodStatus) -> bool:
        return status in (self.known.status, self._sent)

    async def _rest(self) -> None:
        """Whatever makes a status change so often, the API server must not suffer from it."""
        clock = self._context.clock
        if clock.monotonic() - self._second > 1.0:
            self._second, self._writes = clock.monotonic(), 0
        self._writes += 1
        if self._writes > MOST_WRITES:
            await asyncio.sleep(RETRY.total_seconds())

    async def _send(self, status: PodStatus) -> bool:
        """False: something stood in the way, look again."""
        client, meta = self._context.client, self.known.metadata
        try:
            self.known = await client.update_status(replace(self.known, status=status))
        except Conflict:
            try:
                found = await client.get(Pod, meta.name, meta.namespace)
            except (StatusError, WireError, OSError):
                await asyncio.sleep(RETRY.total_seconds())
                return False
            if found.metadata.uid != meta.uid:
                self._worker.post(Forgotten())
                return True
            self.known = found
            return False
        except NotFound:
            # The watch says so too, or already has.
            self._worker.post(Forgotten())
            return True
        except (StatusError, WireError, OSError) as error:
            log.warning("status of %s: %s, trying again", meta.name, error)
            await asyncio.sleep(RETRY.total_seconds())
            return False
        self._sent = status
        return True


class MirrorWriter(StatusWriter):
    """Of a static pod: its mirror in the API carries the status, and is made if there is none."""

    def __init__(
        self, context: NodeContext, worker: PodWorker, node: Callable[[], Node | None]
    ) -> None:
        super().__init__(context, worker)
        self._node = node
        self._mirror: Pod | None = None

    def mirror_changed(self, mirror: Pod | None) -> None:
        """What the watch shows of it."""
        if (
            mirror is not None
            and self._mirror is not None
            and _version(mirror) < _version(self._mirror)
        ):
            return
        self._mirror = mirror
        self._sent = None
        if mirror is not None:
            self.known = mirror

    async def remove(self) -> None:
        """The static pod is gone: nothing is left to be shown."""
        client, meta = self._context.client, self._worker.state.pod.metadata
        mirror = self._mirror
        if mirror is None:
            return
        try:
            await client.delete(mirror, grace_seconds=0)
        except (StatusError, WireError, OSError) as error:
            # Whoever sees it next finds that it mirrors nothing.
            log.warning("mirror of %s: %s", meta.name, error)

    def _is_said(self, status: PodStatus) -> bool:
        return self._mirror is not None and not _is_going(self._mirror) and super()._is_said(status)

    async def _send(self, status: PodStatus) -> bool:
        client = self._context.client
        try:
            if self._mirror is not None and _is_going(self._mirror):
                await client.delete(self._mirror, grace_seconds=0)
                self._mirror = None
            if self._mirror is None:
                wanted = mirror_of(self._worker.state.pod, self._node())
                self._mirror = self.known = await client.create(wanted)
            self.known = self._mirror = await client.update_status(
                replace(self._mirror, status=status)
            )
        except (Conflict, NotFound, AlreadyExists):
            meta = self._worker.state.pod.metadata
            try:
                self.mirror_changed(await client.get_or_none(Pod, meta.name, meta.namespace))
            except (StatusError, WireError, OSError):
                await asyncio.sleep(RETRY.total_seconds())
            return False
        except (StatusError, WireError, OSError) as error:
            log.warning("mirror of %s: %s", self._worker.state.pod.metadata.name, error)
            await asyncio.sleep(MIRROR_RETRY.total_seconds())
            return False
        self._sent = status
        return True


def _is_going(pod: Pod) -> bool:
    return pod.metadata.deletion_timestamp is not None


def _version(pod: Pod) -> int:
    text = pod.metadata.resource_version
    return int(text) if text.isdecimal() else 0
