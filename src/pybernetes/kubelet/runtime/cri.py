"""A runtime behind the Container Runtime Interface, version 1: containerd or CRI-O.

Calls go over one connection that is made when needed, and again after the runtime came back. As an
async context manager it also reads events (see `cri_events`); calls work outside it too.

Rule: who waits for this runtime waits at most for a deadline, and is told which one it missed.
"""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from pybernetes.kubelet.runtime import cri_messages as messages
from pybernetes.kubelet.runtime.cri_events import EventPump
from pybernetes.kubelet.runtime.events import EventSource
from pybernetes.kubelet.runtime.grpc_channel import GrpcChannel, RpcFailed
from pybernetes.kubelet.runtime.interface import (
    ContainerNotFound,
    ContainerRuntimeError,
    ExecTimeout,
    ImageNotFound,
    ImagePullFailed,
    RuntimeCondition,
    RuntimeStatus,
    RuntimeVersion,
    SandboxNotFound,
    StreamUrl,
)
from pybernetes.kubelet.runtime.proto import cri_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from random import Random
    from types import TracebackType

    from google.protobuf.message import Message

    from pybernetes.kubelet.runtime.events import Events
    from pybernetes.kubelet.runtime.interface import (
        ContainerSpec,
        ContainerState,
        ContainerStats,
        ContainerStatus,
        ContainerSummary,
        FilesystemUsage,
        ImageStatus,
        RegistryAuth,
        Resources,
        SandboxSpec,
        SandboxState,
        SandboxStatus,
        SandboxSummary,
    )

Reply = TypeVar("Reply", bound="Message")

log = logging.getLogger(__name__)

RUNTIME_SERVICE = "/runtime.v1.RuntimeService/"
IMAGE_SERVICE = "/runtime.v1.ImageService/"

# Reasons a runtime may put at the start of a failed pull's message; kubelets show them as such.
PULL_REASONS = ("RegistryUnavailable", "SignatureValidationFailed")


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long to wait for an answer."""

    quick: timedelta = timedelta(seconds=30)
    """Questions, and what changes little."""
    slow: timedelta = timedelta(minutes=2)
    """Sandboxes and containers: CNI plugins and runc have work to do."""
    pull: timedelta = timedelta(hours=1)
    """The runtime itself gives up on pulls that make no progress."""


class CriRuntime:
    """The `Runtime` at the other end of a CRI socket."""

    def __init__(
        self,
        socket_path: str,
        *,
        random: Random,
        timeouts: Timeouts = Timeouts(),
        relist_interval: timedelta = timedelta(minutes=1),
    ) -> None:
        self._timeouts = timeouts
        self._channel = GrpcChannel(socket_path)
        self._events = EventSource()
        self._pump = EventPump(
            self, self._channel, self._events.publish, random=random, relist=relist_interval
        )
        # Empty until it was told, or if the runtime does not tell.
        self._known_cgroup_driver = ""
        # Both set while the context is entered.
        self._tasks: asyncio.TaskGroup | None = None
        self._pumping: asyncio.Task[None] | None = None

    async def __aenter__(self) -> CriRuntime:
        self._tasks = await asyncio.TaskGroup().__aenter__()
        self._pumping = self._tasks.create_task(self._pump.run(), name="cri events")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._tasks is not None
        assert self._pumping is not None
        self._pumping.cancel()
        try:
            await self._tasks.__aexit__(None, None, None)
        finally:
            self.close()

    def close(self) -> None:
        """Drop the connection; for who only called and never entered the context."""
        self._channel.close()

    @property
    def socket_path(self) -> str:
        return self._channel.socket_path

    @property
    def pod_network(self) -> None:
        return None

    def events(self) -> Events:
        return self._events.open()

    # --- runtime ----------------------------------------------------------------------------------

    async def version(self) -> RuntimeVersion:
        reply = await self._ask("Version", pb.VersionRequest(version="v1"), pb.VersionResponse)
        return RuntimeVersion(reply.runtime_name, reply.runtime_version, reply.runtime_api_version)

    async def status(self) -> RuntimeStatus:
        reply = await self._ask("Status", pb.StatusRequest(), pb.StatusResponse)
        conditions = tuple(
            RuntimeCondition(condition.type, condition.status, condition.reason, condition.message)
            for condition in reply.status.conditions
        )
        return RuntimeStatus(
            conditions=conditions,
            handlers=tuple(handler.name for handler in reply.runtime_handlers) or ("",),
            cgroup_driver=await self._cgroup_driver(),
        )

    async def _cgroup_driver(self) -> str:
        # It cannot change while the runtime runs, and statuses are asked for often.
        if not self._known_cgroup_driver:
            self._known_cgroup_driver = await self._ask_cgroup_driver()
        return self._known_cgroup_driver

    async def _ask_cgroup_driver(self) -> str:
        try:
            reply = await self._ask(
                "RuntimeConfig", pb.RuntimeConfigRequest(), pb.RuntimeConfigResponse
            )
        except RpcFailed as error:
            if not error.unimplemented:
                raise
            # containerd before 2.0 does not say, but shows its configuration.
            return driver_in(await self.configuration())
        return "systemd" if reply.linux.cgroup_driver == pb.SYSTEMD else "cgroupfs"

    async def configuration(self) -> dict[str, Any]:
        """containerd's configuration of CRI, in its own words; empty for other runtimes."""
        reply = await self._ask("Status", pb.StatusRequest(verbose=True), pb.StatusResponse)
        try:
            found = json.loads(reply.info.get("config", "{}"))
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    async def update_pod_cidr(self, cidr: str) -> None:
        config = pb.RuntimeConfig(network_config=pb.NetworkConfig(pod_cidr=cidr))
        await self._ask(
            "UpdateRuntimeConfig",
            pb.UpdateRuntimeConfigRequest(runtime_config=config),
            pb.UpdateRuntimeConfigResponse,
        )

    # --- sandboxes --------------------------------------------------------------------------------

    async def run_sandbox(self, spec: SandboxSpec) -> str:
        reply = await self._do(
            "RunPodSandbox",
            pb.RunPodSandboxRequest(
                config=messages.sandbox_config(spec), runtime_handler=spec.runtime_handler
            ),
            pb.RunPodSandboxResponse,
        )
        self._pump.learn(reply.pod_sandbox_id, sandbox_id=reply.pod_sandbox_id, pod_uid=spec.uid)
        return reply.pod_sandbox_id

    async def stop_sandbox(self, sandbox_id: str) -> None:
        request = pb.StopPodSandboxRequest(pod_sandbox_id=sandbox_id)
        try:
            await self._do("StopPodSandbox", request, pb.StopPodSandboxResponse)
        except RpcFailed as error:
            if not error.not_found:
                raise

    async def remove_sandbox(self, sandbox_id: str) -> None:
        request = pb.RemovePodSandboxRequest(pod_sandbox_id=sandbox_id)
        try:
            # Some runtimes refuse to remove a sandbox that was not stopped.
            await self.stop_sandbox(sandbox_id)
            await self._do("RemovePodSandbox", request, pb.RemovePodSandboxResponse)
        except RpcFailed as error:
            if not error.not_found:
                raise

    async def sandbox_status(self, sandbox_id: str) -> SandboxStatus:
        request = pb.PodSandboxStatusRequest(pod_sandbox_id=sandbox_id)
        try:
            reply = await self._ask("PodSandboxStatus", request, pb.PodSandboxStatusResponse)
        except RpcFailed as error:
            if error.not_found:
                raise SandboxNotFound(error.message) from error
            raise
        return messages.sandbox_status(reply.status)

    async def list_sandboxes(
        self, *, state: SandboxState | None = None, labels: Mapping[str, str] | None = None
    ) -> Sequence[SandboxSummary]:
        request = pb.ListPodSandboxRequest(filter=messages.sandbox_filter(state, labels))
        reply = await self._ask("ListPodSandbox", request, pb.ListPodSandboxResponse)
        return [messages.sandbox_summary(item) for item in reply.items]

    # --- containers -------------------------------------------------------------------------------

    async def create_container(
        self, sandbox_id: str, spec: ContainerSpec, sandbox: SandboxSpec
    ) -> str:
        request = pb.CreateContainerRequest(
            pod_sandbox_id=sandbox_id,
            config=messages.container_config(spec, sandbox),
            sandbox_config=messages.sandbox_config(sandbox),
        )
        try:
            reply = await self._do("CreateContainer", request, pb.CreateContainerResponse)
        except RpcFailed as error:
            if error.not_found:
                raise await self._what_was_not_found(error, sandbox_id, spec) from error
            raise
        self._pump.learn(reply.container_id, sandbox_id=sandbox_id, pod_uid=sandbox.uid)
        return reply.container_id

    async def _what_was_not_found(
        self, error: RpcFailed, sandbox_id: str, spec: ContainerSpec
    ) -> ContainerRuntimeError:
        # The code says NotFound for the image, for the sandbox, and for a user or a path alike.
        if await self.image_status(spec.image) is None:
            return ImageNotFound(error.message)
        try:
            await self.sandbox_status(sandbox_id)
        except SandboxNotFound:
            return SandboxNotFound(error.message)
        return error

    async def start_container(self, container_id: str) -> None:
        request = pb.StartContainerRequest(container_id=container_id)
        try:
            await self._do("StartContainer", request, pb.StartContainerResponse)
        except RpcFailed as error:
            # NotFound is also the code of "no such executable": then the container is there.
            if error.not_found and not await self._exists(container_id):
                raise ContainerNotFound(error.message) from error
            raise

    async def _exists(self, container_id: str) -> bool:
        try:
            await self.container_status(container_id)
        except ContainerNotFound:
            return False
        return True

    async def stop_container(self, container_id: str, timeout: timedelta) -> None:
        seconds = max(0, -(-timeout // timedelta(seconds=1)))
        request = pb.StopContainerRequest(container_id=container_id, timeout=seconds)
        try:
            await self._call(
                RUNTIME_SERVICE + "StopContainer",
                request,
                pb.StopContainerResponse,
                self._timeouts.slow + timeout,
            )
        except RpcFailed as error:
            if not error.not_found:
                raise

    async def remove_container(self, container_id: str) -> None:
        request = pb.RemoveContainerRequest(container_id=container_id)
        try:
            await self._do("RemoveContainer", request, pb.RemoveContainerResponse)
        except RpcFailed as error:
            if not error.not_found:
                raise

    async def list_containers(
        self,
        *,
        sandbox_id: str = "",
        state: ContainerState | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Sequence[ContainerSummary]:
        return await self._list_containers(
            messages.container_filter(sandbox_id=sandbox_id, state=state, labels=labels)
        )

    async def find_container(self, container_id: str) -> ContainerSummary | None:
        """The line of `list_containers` for one id, if there is one."""
        found = await self._list_containers(messages.container_filter(container_id=container_id))
        return found[0] if found else None

    async def _list_containers(self, which: pb.ContainerFilter) -> list[ContainerSummary]:
        request = pb.ListContainersRequest(filter=which)
        reply = await self._ask("ListContainers", request, pb.ListContainersResponse)
        return [messages.container_summary(item) for item in reply.containers]

    async def container_status(self, container_id: str) -> ContainerStatus:
        request = pb.ContainerStatusRequest(container_id=container_id)
        try:
            reply = await self._ask("ContainerStatus", request, pb.ContainerStatusResponse)
        except RpcFailed as error:
            if error.not_found:
                raise ContainerNotFound(error.message) from error
            raise
        sandbox_id = await self._pump.sandbox_of(container_id)
        return messages.container_status(reply.status, sandbox_id)

    async def update_resources(self, container_id: str, resources: Resources) -> None:
        request = pb.UpdateContainerResourcesRequest(
            container_id=container_id, linux=messages.resources(resources)
        )
        await self._container_call(
            "UpdateContainerResources", request, pb.UpdateContainerResourcesResponse
        )

    async def reopen_log(self, container_id: str) -> None:
        request = pb.ReopenContainerLogRequest(container_id=container_id)
        await self._container_call("ReopenContainerLog", request, pb.ReopenContainerLogResponse)

    def open_log(self, log_path: str) -> None:
        return None

    # --- streams ----------------------------------------------------------------------------------

    async def exec_sync(
        self, container_id: str, command: Sequence[str], timeout: timedelta | None = None
    ) -> tuple[bytes, bytes, int]:
        # The runtime kills the process at its own timeout; ours is for a runtime that does not.
        seconds = 0 if timeout is None else max(1, -(-timeout // timedelta(seconds=1)))
        patience = self._timeouts.slow + timedelta(seconds=seconds)
        request = pb.ExecSyncRequest(container_id=container_id, cmd=command, timeout=seconds)
        try:
            reply = await self._call(
                RUNTIME_SERVICE + "ExecSync", request, pb.ExecSyncResponse, patience
            )
        except RpcFailed as error:
            if error.code == "DeadlineExceeded" or "deadline exceeded" in error.message:
                raise ExecTimeout(f"command {list(command)} timed out") from error
            raise await self._container_error(error, container_id) from error
        return reply.stdout, reply.stderr, reply.exit_code

    async def exec(
        self,
        container_id: str,
        command: Sequence[str],
        *,
        stdin: bool = False,
        stdout: bool = True,
        stderr: bool = True,
        tty: bool = False,
    ) -> StreamUrl:
        request = pb.ExecRequest(
            container_id=container_id,
            cmd=command,
            tty=tty,
            stdin=stdin,
            stdout=stdout,
            # A terminal has one output; runtimes refuse to be asked for two.
            stderr=stderr and not tty,
        )
        reply = await self._container_call("Exec", request, pb.ExecResponse)
        return StreamUrl(reply.url)

    async def attach(
        self,
        container_id: str,
        *,
        stdin: bool = False,
        stdout: bool = True,
        stderr: bool = True,
        tty: bool = False,
    ) -> StreamUrl:
        request = pb.AttachRequest(
            container_id=container_id,
            stdin=stdin,
            tty=tty,
            stdout=stdout,
            stderr=stderr and not tty,
        )
        reply = await self._container_call("Attach", request, pb.AttachResponse)
        return StreamUrl(reply.url)

    async def port_forward(self, sandbox_id: str, ports: Sequence[int] = ()) -> StreamUrl:
        request = pb.PortForwardRequest(pod_sandbox_id=sandbox_id, port=ports)
        try:
            reply = await self._ask("PortForward", request, pb.PortForwardResponse)
        except RpcFailed as error:
            if error.not_found:
                raise SandboxNotFound(error.message) from error
            raise
        return StreamUrl(reply.url)

    # --- images -----------------------------------------------------------------------------------

    async def pull_image(
        self, ref: str, auth: RegistryAuth | None = None, sandbox: SandboxSpec | None = None
    ) -> str:
        request = pb.PullImageRequest(image=pb.ImageSpec(image=ref, user_specified_image=ref))
        if auth is not None:
            request.auth.CopyFrom(messages.auth_message(auth))
        if sandbox is not None:
            request.sandbox_config.CopyFrom(messages.sandbox_config(sandbox))
        try:
            reply = await self._call(
                IMAGE_SERVICE + "PullImage", request, pb.PullImageResponse, self._timeouts.pull
            )
        except RpcFailed as error:
            reason = next(
                (reason for reason in PULL_REASONS if error.message.startswith(reason)),
                "ErrImagePull",
            )
            raise ImagePullFailed(error.message, reason=reason, code=error.code) from error
        return reply.image_ref

    async def image_status(self, ref: str) -> ImageStatus | None:
        request = pb.ImageStatusRequest(image=pb.ImageSpec(image=ref))
        try:
            reply = await self._ask_images("ImageStatus", request, pb.ImageStatusResponse)
        except RpcFailed as error:
            if error.not_found:
                return None
            raise
        return messages.image_status(reply.image) if reply.HasField("image") else None

    async def list_images(self) -> Sequence[ImageStatus]:
        reply = await self._ask_images("ListImages", pb.ListImagesRequest(), pb.ListImagesResponse)
        return [messages.image_status(image) for image in reply.images]

    async def remove_image(self, ref: str) -> None:
        request = pb.RemoveImageRequest(image=pb.ImageSpec(image=ref))
        try:
            await self._ask_images("RemoveImage", request, pb.RemoveImageResponse)
        except RpcFailed as error:
            if not error.not_found:
                raise

    async def image_filesystems(self) -> Sequence[FilesystemUsage]:
        reply = await self._ask_images(
            "ImageFsInfo", pb.ImageFsInfoRequest(), pb.ImageFsInfoResponse
        )
        return [messages.filesystem_usage(usage) for usage in reply.image_filesystems]

    # --- statistics -------------------------------------------------------------------------------

    async def container_stats(self, container_id: str) -> ContainerStats:
        request = pb.ContainerStatsRequest(container_id=container_id)
        reply = await self._container_call("ContainerStats", request, pb.ContainerStatsResponse)
        return messages.container_stats(reply.stats)

    async def list_container_stats(
        self, *, sandbox_id: str = "", labels: Mapping[str, str] | None = None
    ) -> Sequence[ContainerStats]:
        which = pb.ContainerStatsFilter(
            pod_sandbox_id=sandbox_id, label_selector=dict(labels or {})
        )
        reply = await self._ask(
            "ListContainerStats",
            pb.ListContainerStatsRequest(filter=which),
            pb.ListContainerStatsResponse,
        )
        return [messages.container_stats(stats) for stats in reply.stats]

    # --- calling ----------------------------------------------------------------------------------

    async def _ask(self, method: str, request: Message, reply: type[Reply]) -> Reply:
        return await self._call(RUNTIME_SERVICE + method, request, reply, self._timeouts.quick)

    async def _ask_images(self, method: str, request: Message, reply: type[Reply]) -> Reply:
        return await self._call(IMAGE_SERVICE + method, request, reply, self._timeouts.quick)

    async def _do(self, method: str, request: Message, reply: type[Reply]) -> Reply:
        return await self._call(RUNTIME_SERVICE + method, request, reply, self._timeouts.slow)

    async def _container_call(self, method: str, request: Message, reply: type[Reply]) -> Reply:
        try:
            return await self._ask(method, request, reply)
        except RpcFailed as error:
            raise await self._container_error(error, request.container_id) from error  # type: ignore[attr-defined]

    async def _container_error(self, error: RpcFailed, container_id: str) -> ContainerRuntimeError:
        # Runtimes do not agree on the code for "no such container", so the question is asked.
        if await self._exists(container_id):
            return error
        return ContainerNotFound(error.message)

    async def _call(
        self, method: str, request: Message, reply: type[Reply], timeout: timedelta
    ) -> Reply:
        return await self._channel.call(method, request, reply, timeout=timeout.total_seconds())


def driver_in(configuration: dict[str, Any]) -> str:
    """The cgroup driver of containerd's default runtime; empty if it is not there."""
    containerd = configuration.get("containerd") or {}
    runtimes = containerd.get("runtimes") or {}
    runtime = runtimes.get(containerd.get("defaultRuntimeName")) or {}
    options = runtime.get("options")
    if options is None:
        return ""
    return "systemd" if options.get("SystemdCgroup") else "cgroupfs"
