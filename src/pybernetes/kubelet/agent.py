"""What the kubelet's HTTPS server may ask of the node: its pods, their logs, and into them.

Implements `server.NodeAgent`. Refusals are upstream's sentences.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pybernetes.apimachinery.errors import BadRequest, InternalError, NotFound
from pybernetes.apimachinery.meta import key_of
from pybernetes.kubelet.config import log_path
from pybernetes.kubelet.logs import FileLog, read_log
from pybernetes.kubelet.pod_state import spec_of
from pybernetes.kubelet.runtime.interface import ContainerNotFound, SandboxNotFound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from pybernetes.api.types.core_v1 import ContainerStatus, Pod
    from pybernetes.kubelet.kubelet import Kubelet
    from pybernetes.kubelet.pod_state import ContainerRecord, Incarnation
    from pybernetes.kubelet.runtime.interface import (
        LogFile,
        PortStream,
        ProcessStream,
        StreamUrl,
    )
    from pybernetes.kubelet.server import LogOptions
    from pybernetes.kubelet.worker import PodWorker
    from pybernetes.wire.remoteprocess import Wanted


class Agent:
    """The node as seen from its server."""

    def __init__(self, kubelet: Kubelet) -> None:
        self._kubelet = kubelet

    def pods(self) -> Sequence[Pod]:
        return [worker.pod for worker in self._kubelet.workers]

    def find_pod(self, namespace: str, name: str) -> Pod | None:
        worker = self._kubelet.worker_named(namespace, name)
        return None if worker is None else worker.pod

    def health(self) -> str | None:
        problem = self._kubelet.reporter.health.problem
        return problem or None

    # --- logs -------------------------------------------------------------------------------------

    async def read_log(self, pod: Pod, container: str, options: LogOptions) -> AsyncIterator[bytes]:
        worker, record = self._find(pod, container)
        incarnation = _wanted_incarnation(worker.pod, record, previous=options.previous)
        log = self._open_log(worker, container, incarnation)
        return _closing(log, read_log(log, options, self._kubelet.context.clock.now()))

    def _open_log(self, worker: PodWorker, container: str, which: Incarnation) -> LogFile:
        context = self._kubelet.context
        directory = context.config.pod_log_dir(worker.state.pod)
        path = f"{directory}/{log_path(container, which.attempt)}"
        in_memory = context.runtime.open_log(path)
        if in_memory is not None:
            return in_memory
        try:
            return FileLog(Path(path), None if which.ended else lambda: worker.ended(which.id))
        except OSError as error:
            text = f'failed to try resolving symlinks in path "{path}": {error.strerror}'
            raise InternalError(text) from error

    # --- processes --------------------------------------------------------------------------------

    async def exec(
        self, pod: Pod, container: str, command: Sequence[str], wanted: Wanted
    ) -> StreamUrl | ProcessStream:
        id_ = self._running_id(pod, container)
        return await self._kubelet.context.runtime.exec(
            id_,
            command,
            stdin=wanted.stdin,
            stdout=wanted.stdout,
            stderr=wanted.stderr,
            tty=wanted.tty,
        )

    async def attach(self, pod: Pod, container: str, wanted: Wanted) -> StreamUrl | ProcessStream:
        id_ = self._running_id(pod, container)
        spec = spec_of(pod, container)
        # What the container was started with: a terminal cannot be had afterwards.
        tty = bool(spec is not None and spec.tty)
        return await self._kubelet.context.runtime.attach(
            id_,
            stdin=wanted.stdin,
            stdout=wanted.stdout,
            stderr=wanted.stderr and not tty,
            tty=tty,
        )

    async def run(self, pod: Pod, container: str, command: Sequence[str]) -> bytes:
        id_ = self._running_id(pod, container)
        stdout, stderr, _ = await self._kubelet.context.runtime.exec_sync(id_, command)
        return stdout + stderr

    async def port_forward(self, pod: Pod, ports: Sequence[int]) -> StreamUrl | PortStream:
        worker = self._worker(pod)
        if not worker.state.sandbox_ready:
            name = pod.metadata.name
            raise SandboxNotFound(f"not able to find sandbox of pod {name}: it is not running")
        return await self._kubelet.context.runtime.port_forward(worker.state.sandbox_id, ports)

    # --- finding ----------------------------------------------------------------------------------

    def _worker(self, pod: Pod) -> PodWorker:
        worker = self._kubelet.worker_named(*key_of(pod))
        if worker is None:
            raise NotFound("pods", pod.metadata.name)
        return worker

    def _find(self, pod: Pod, container: str) -> tuple[PodWorker, ContainerRecord]:
        worker = self._worker(pod)
        record = worker.state.containers.get(container)
        if record is None:
            raise BadRequest(f'container "{container}" not found in pod "{pod.metadata.name}"')
        return worker, record

    def _running_id(self, pod: Pod, container: str) -> str:
        _, record = self._find(pod, container)
        if record.latest is None or record.latest.ended:
            raise ContainerNotFound(f'container not found ("{container}")')
        return record.latest.id


def _wanted_incarnation(pod: Pod, record: ContainerRecord, *, previous: bool) -> Incarnation:
    """The one whose log is meant. Raises BadRequest if there is none."""
    status = _status_of(pod, record.name)
    where = f'in pod "{pod.metadata.name}"'
    if previous:
        last = status.last_state.terminated if status is not None else None
        id_ = last.container_id.rpartition("/")[2] if last is not None else ""
        for incarnation in (record.latest, record.before):
            if incarnation is not None and incarnation.id == id_:
                return incarnation
        raise BadRequest(f'previous terminated container "{record.name}" {where} not found')
    if record.latest is not None:
        return record.latest
    waiting = status.state.waiting if status is not None else None
    reason = waiting.reason if waiting is not None else "ContainerCreating"
    texts = {
        "ErrImagePull": "image can't be pulled",
        "ImagePullBackOff": "trying and failing to pull image",
    }
    text = texts.get(reason, reason)
    raise BadRequest(f'container "{record.name}" {where} is waiting to start: {text}')


def _status_of(pod: Pod, name: str) -> ContainerStatus | None:
    status = pod.status
    lists = (
        status.container_statuses,
        status.init_container_statuses,
        status.ephemeral_container_statuses,
    )
    return next((s for statuses in lists for s in statuses if s.name == name), None)


async def _closing(log: LogFile, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    try:
        async for chunk in chunks:
            yield chunk
    finally:
        if isinstance(log, FileLog):
            log.close()
