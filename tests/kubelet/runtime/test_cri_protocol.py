"""CRI as it goes over the wire, with a server that says what a test wants.

Real: gRPC over a unix socket, our client. Fake: the server, because the runtimes it stands for (newer
than the one at hand, broken, silent) are not here.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Server

from pybernetes.kubelet.runtime.cri import CriRuntime, Timeouts
from pybernetes.kubelet.runtime.grpc_channel import RpcFailed
from pybernetes.kubelet.runtime.interface import (
    ContainerSpec,
    ContainerState,
    EventKind,
    ExecTimeout,
    IdMapping,
    ImagePullFailed,
    NamespaceMode,
    Namespaces,
    Resources,
    RuntimeUnavailable,
    SandboxSpec,
    Security,
)
from pybernetes.kubelet.runtime.proto import containerd_events_pb2 as events_pb
from pybernetes.kubelet.runtime.proto import cri_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path
    from random import Random

    from google.protobuf.message import Message

pytestmark = pytest.mark.realtime

Answer = Any  # a message, an exception, or a coroutine function of the stream

EVENTS = "RuntimeService/GetContainerEvents"
NOTHING_YET = {
    "RuntimeService/ListPodSandbox": pb.ListPodSandboxResponse(),
    "RuntimeService/ListContainers": pb.ListContainersResponse(),
}


class FakeServer:
    """Answers the methods it is told to, and remembers what it was asked."""

    def __init__(self, answers: dict[str, Answer]) -> None:
        self.answers = answers
        self.requests: list[tuple[str, Message]] = []

    def __mapping__(self) -> dict[str, Handler]:
        mapping = {}
        for messages in (pb, events_pb):
            for service in messages.DESCRIPTOR.services_by_name.values():
                for method in service.methods:
                    name = f"{service.name}/{method.name}"
                    streams = method.server_streaming
                    mapping[f"/{service.full_name}/{method.name}"] = Handler(
                        self._answering(name),
                        Cardinality.UNARY_STREAM if streams else Cardinality.UNARY_UNARY,
                        getattr(messages, method.input_type.name),
                        getattr(messages, method.output_type.name),
                    )
        return mapping

    def _answering(self, name: str) -> Callable[[Any], Awaitable[None]]:
        async def answer(stream: Any) -> None:
            self.requests.append((name, await stream.recv_message()))
            # As a Go server says it; grpclib's own words for a method it does not have are odd.
            value = self.answers.get(name, GRPCError(Status.UNIMPLEMENTED, "unknown method"))
            if isinstance(value, Exception):
                raise value
            if callable(value):
                await value(stream)
            else:
                await stream.send_message(value)

        return answer


class HangingUpServer(Server):
    """Closes its connections too when it is closed, as a process that ends does."""

    def __init__(self, handlers: list[FakeServer]) -> None:
        super().__init__(handlers)
        self._protocols: list[Any] = []

    def _protocol_factory(self) -> Any:
        protocol = super()._protocol_factory()
        self._protocols.append(protocol)
        return protocol

    def hang_up(self) -> None:
        self.close()
        for protocol in self._protocols:
            protocol.connection.close()


@asynccontextmanager
async def serving(path: Path, answers: dict[str, Answer]) -> AsyncIterator[FakeServer]:
    fake = FakeServer(answers)
    server = HangingUpServer([fake])
    await server.start(path=str(path))
    try:
        yield fake
    finally:
        server.hang_up()
        await server.wait_closed()


@pytest.fixture
def socket_path(tmp_path: Path) -> Path:
    return tmp_path / "cri.sock"


@pytest.fixture
async def runtime(socket_path: Path, random: Random) -> AsyncIterator[CriRuntime]:
    quick = Timeouts(quick=timedelta(seconds=0.3), slow=timedelta(seconds=0.3))
    runtime = CriRuntime(str(socket_path), random=random, timeouts=quick)
    yield runtime
    runtime.close()


# --- nobody there ---------------------------------------------------------------------------------


async def test_no_socket_is_said_in_one_sentence(runtime: CriRuntime, socket_path: Path) -> None:
    with pytest.raises(RuntimeUnavailable) as caught:
        await runtime.version()
    assert str(caught.value) == (
        f"the container runtime at {socket_path} is not running: there is no such socket"
    )


@pytest.mark.slow
async def test_a_silent_runtime_is_unavailable(runtime: CriRuntime, socket_path: Path) -> None:
    async def silence(stream: Any) -> None:
        await asyncio.sleep(60)

    async with serving(socket_path, {"RuntimeService/Version": silence}):
        with pytest.raises(RuntimeUnavailable, match=r"did not answer within 0\.3 s"):
            await runtime.version()


async def test_a_runtime_that_comes_back_is_found(runtime: CriRuntime, socket_path: Path) -> None:
    answers = {"RuntimeService/Version": pb.VersionResponse(runtime_name="r", version="0.1.0")}
    for _ in range(2):
        async with serving(socket_path, answers):
            assert (await runtime.version()).name == "r"
        with pytest.raises(RuntimeUnavailable):
            await runtime.version()


async def test_a_refusal_keeps_the_runtimes_words(runtime: CriRuntime, socket_path: Path) -> None:
    error = GRPCError(Status.FAILED_PRECONDITION, "cni config uninitialized")
    async with serving(socket_path, {"RuntimeService/RunPodSandbox": error}):
        with pytest.raises(RpcFailed, match=r"^cni config uninitialized$") as caught:
            await runtime.run_sandbox(SandboxSpec("web", "default", "1"))
    assert caught.value.code == "FailedPrecondition"


# --- what is said ---------------------------------------------------------------------------------


async def test_a_sandbox_is_described_in_full(runtime: CriRuntime, socket_path: Path) -> None:
    spec = SandboxSpec(
        name="web",
        namespace="default",
        uid="1",
        attempt=2,
        hostname="web",
        runtime_handler="kata",
        sysctls={"net.core.somaxconn": "1024"},
        security=Security(
            run_as_user=0,
            namespaces=Namespaces(
                pid=NamespaceMode.POD, user_mappings=(IdMapping(0, 65536, 65536),)
            ),
        ),
        overhead=Resources(memory_limit_bytes=1),
    )
    answer = {"RuntimeService/RunPodSandbox": pb.RunPodSandboxResponse(pod_sandbox_id="s")}
    async with serving(socket_path, answer) as server:
        assert await runtime.run_sandbox(spec) == "s"
    [(_, request)] = server.requests
    assert isinstance(request, pb.RunPodSandboxRequest)
    config = request.config
    assert request.runtime_handler == "kata"
    assert config.metadata == pb.PodSandboxMetadata(
        name="web", uid="1", namespace="default", attempt=2
    )
    assert config.labels["io.kubernetes.pod.uid"] == "1"
    context = config.linux.security_context
    # Zero is a user, not the lack of one.
    assert context.HasField("run_as_user")
    assert not context.HasField("run_as_group")
    assert context.namespace_options.pid == pb.POD
    assert context.namespace_options.userns_options.uids[0].host_id == 65536
    assert config.linux.overhead.memory_limit_in_bytes == 1
    assert not config.HasField("dns_config")


async def test_privileged_containers_have_nothing_masked(
    runtime: CriRuntime, socket_path: Path
) -> None:
    sandbox = SandboxSpec("web", "default", "1")
    answer = {"RuntimeService/CreateContainer": pb.CreateContainerResponse(container_id="c")}
    async with serving(socket_path, answer) as server:
        for security in (Security(), Security(privileged=True), Security(masked_paths=())):
            spec = ContainerSpec("main", "image", security=security, stop_signal="SIGUSR1")
            await runtime.create_container("s", spec, sandbox)
    contexts = [
        request.config.linux.security_context
        for _, request in server.requests
        if isinstance(request, pb.CreateContainerRequest)
    ]
    assert "/proc/kcore" in contexts[0].masked_paths
    assert "/proc/sys" in contexts[0].readonly_paths
    assert not contexts[1].masked_paths
    assert not contexts[1].readonly_paths
    assert not contexts[2].masked_paths
    first = server.requests[0][1]
    assert isinstance(first, pb.CreateContainerRequest)
    assert first.config.stop_signal == pb.SIGNAL_SIGUSR1


async def test_a_status_is_read_in_full(runtime: CriRuntime, socket_path: Path) -> None:
    moment = int(datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC).timestamp() * 1e9)
    status = pb.ContainerStatus(
        id="c",
        metadata=pb.ContainerMetadata(name="main", attempt=1),
        state=pb.CONTAINER_EXITED,
        created_at=moment,
        started_at=moment,
        # Go's zero time, in nanoseconds.
        finished_at=-6795364578871345152,
        exit_code=137,
        reason="OOMKilled",
        image=pb.ImageSpec(image="sha256:1", user_specified_image="busybox"),
        image_ref="busybox@sha256:2",
        log_path="/log",
        resources=pb.ContainerResources(linux=pb.LinuxContainerResources(cpu_shares=2)),
    )
    answers = {
        "RuntimeService/ContainerStatus": pb.ContainerStatusResponse(status=status),
        "RuntimeService/ListContainers": pb.ListContainersResponse(
            containers=[pb.Container(id="c", pod_sandbox_id="s")]
        ),
    }
    async with serving(socket_path, answers):
        read = await runtime.container_status("c")
    assert (read.sandbox_id, read.name, read.attempt) == ("s", "main", 1)
    assert read.state is ContainerState.EXITED
    assert read.created_at == datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
    assert read.finished_at is None
    assert (read.image, read.image_ref) == ("busybox", "busybox@sha256:2")
    assert read.resources == Resources(cpu_shares=2)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("RegistryUnavailable: pull failed", "RegistryUnavailable"),
        ("SignatureValidationFailed: not signed", "SignatureValidationFailed"),
        ("not found", "ErrImagePull"),
    ],
)
async def test_the_reason_of_a_failed_pull_is_the_runtimes(
    runtime: CriRuntime, socket_path: Path, message: str, reason: str
) -> None:
    answer = {"ImageService/PullImage": GRPCError(Status.UNKNOWN, message)}
    async with serving(socket_path, answer):
        with pytest.raises(ImagePullFailed) as caught:
            await runtime.pull_image("busybox")
    assert caught.value.reason == reason


async def test_a_commands_timeout_is_told_from_the_runtimes(
    runtime: CriRuntime, socket_path: Path
) -> None:
    error = GRPCError(Status.DEADLINE_EXCEEDED, "timeout 1s exceeded")
    async with serving(socket_path, {"RuntimeService/ExecSync": error}) as server:
        with pytest.raises(ExecTimeout):
            await runtime.exec_sync("c", ["x"], timedelta(seconds=0.2))
    [(_, request)] = server.requests
    assert isinstance(request, pb.ExecSyncRequest)
    # CRI counts whole seconds, and 0 would be none at all.
    assert request.timeout == 1


def config_with(options: dict[str, object]) -> str:
    runtimes = {"runc": {"options": options}}
    return json.dumps({"containerd": {"defaultRuntimeName": "runc", "runtimes": runtimes}})


async def test_the_cgroup_driver_is_the_runtimes(runtime: CriRuntime, socket_path: Path) -> None:
    answers = {
        "RuntimeService/Status": pb.StatusResponse(),
        "RuntimeService/RuntimeConfig": pb.RuntimeConfigResponse(
            linux=pb.LinuxRuntimeConfiguration(cgroup_driver=pb.SYSTEMD)
        ),
    }
    async with serving(socket_path, answers):
        assert (await runtime.status()).cgroup_driver == "systemd"


@pytest.mark.parametrize(
    ("configuration", "driver"),
    [
        ("{}", ""),
        ("not json", ""),
        (config_with({}), "cgroupfs"),
        (config_with({"SystemdCgroup": True}), "systemd"),
    ],
)
async def test_an_old_containerds_driver_is_in_its_configuration(
    runtime: CriRuntime, socket_path: Path, configuration: str, driver: str
) -> None:
    answer = {"RuntimeService/Status": pb.StatusResponse(info={"config": configuration})}
    async with serving(socket_path, answer):
        assert (await runtime.status()).cgroup_driver == driver


# --- events ---------------------------------------------------------------------------------------


def event_message(kind: int, container_id: str) -> pb.ContainerEventResponse:
    return pb.ContainerEventResponse(
        container_id=container_id,
        container_event_type=kind,  # type: ignore[arg-type]  # enum values are ints
        pod_sandbox_status=pb.PodSandboxStatus(
            id="s", metadata=pb.PodSandboxMetadata(name="web", uid="1", namespace="default")
        ),
    )


def container_answers(*states: int) -> Callable[[Any], Awaitable[None]]:
    """ContainerStatus with one state after the other, the last one for ever."""
    left = list(states)

    async def answer(stream: Any) -> None:
        state = left.pop(0) if len(left) > 1 else left[0]
        await stream.send_message(
            pb.ContainerStatusResponse(status=pb.ContainerStatus(id="c", state=state))  # type: ignore[arg-type]  # enum values are ints
        )

    return answer


async def test_events_of_cri_itself_are_used_where_they_are(
    runtime: CriRuntime, socket_path: Path
) -> None:
    async def tell(stream: Any) -> None:
        await stream.send_message(event_message(pb.CONTAINER_STARTED_EVENT, "s"))
        await stream.send_message(event_message(pb.CONTAINER_STARTED_EVENT, "c"))
        await stream.send_message(event_message(pb.CONTAINER_STOPPED_EVENT, "c"))
        await stream.send_message(event_message(pb.CONTAINER_DELETED_EVENT, "c"))
        await asyncio.sleep(60)

    # The status lags behind the event: twice it still says that the container runs.
    lagging = container_answers(pb.CONTAINER_RUNNING, pb.CONTAINER_RUNNING, pb.CONTAINER_EXITED)
    answers = {**NOTHING_YET, EVENTS: tell, "RuntimeService/ContainerStatus": lagging}
    async with serving(socket_path, answers), aclosing(runtime.events()) as events, runtime:
        async with asyncio.timeout(5):
            seen = [await anext(events) for _ in range(4)]
    assert seen[0].kind is EventKind.RESYNC
    told = [(event.kind, event.sandbox_id, event.container_id, event.pod_uid) for event in seen]
    assert told[1] == (EventKind.STARTED, "s", "", "1")
    assert told[2] == (EventKind.STARTED, "s", "c", "1")
    assert told[3][0] in (EventKind.STOPPED, EventKind.DELETED)


async def test_an_end_is_told_when_the_status_shows_it(
    runtime: CriRuntime, socket_path: Path
) -> None:
    async def tell(stream: Any) -> None:
        await stream.send_message(event_message(pb.CONTAINER_STOPPED_EVENT, "c"))
        await asyncio.sleep(60)

    lagging = container_answers(*[pb.CONTAINER_RUNNING] * 5, pb.CONTAINER_EXITED)
    answers = {**NOTHING_YET, EVENTS: tell, "RuntimeService/ContainerStatus": lagging}
    async with serving(socket_path, answers) as server:
        async with aclosing(runtime.events()) as events, runtime, asyncio.timeout(5):
            while (await anext(events)).kind is not EventKind.STOPPED:
                pass
        asked = [name for name, _ in server.requests if name.endswith("/ContainerStatus")]
    assert len(asked) == 6


@pytest.mark.slow
async def test_lists_stand_in_for_events(runtime: CriRuntime, socket_path: Path) -> None:
    """Neither CRI's events nor containerd's: everything is listed every second."""
    answers: dict[str, Answer] = dict(NOTHING_YET)
    async with serving(socket_path, answers), aclosing(runtime.events()) as events, runtime:
        async with asyncio.timeout(5):
            assert (await anext(events)).kind is EventKind.RESYNC
            container = pb.Container(
                id="c", pod_sandbox_id="s", labels={"io.kubernetes.pod.uid": "1"}
            )
            for state, kind in (
                (pb.CONTAINER_RUNNING, EventKind.STARTED),
                (pb.CONTAINER_EXITED, EventKind.STOPPED),
                (None, EventKind.DELETED),
            ):
                if state is not None:
                    container.state = state
                listed = [] if state is None else [container]
                answers["RuntimeService/ListContainers"] = pb.ListContainersResponse(
                    containers=listed
                )
                event = await anext(events)
                assert (event.kind, event.container_id, event.pod_uid) == (kind, "c", "1")


@pytest.mark.slow
async def test_events_go_on_after_the_runtime_was_away(
    runtime: CriRuntime, socket_path: Path
) -> None:
    async def tell(stream: Any) -> None:
        await asyncio.sleep(60)

    answers = {**NOTHING_YET, EVENTS: tell}
    async with aclosing(runtime.events()) as events, runtime, asyncio.timeout(10):
        for _ in range(2):
            async with serving(socket_path, answers):
                assert (await anext(events)).kind is EventKind.RESYNC
