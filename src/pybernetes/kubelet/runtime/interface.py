"""What the kubelet asks of a container runtime, in the words of pods and containers.

A *sandbox* holds what the containers of one pod share (network, IPC, cgroup parent); containers
live in sandboxes. `cri.CriRuntime` speaks to containerd or CRI-O, `simulated.SimulatedRuntime`
runs scripted containers under virtual time. `testing/runtime_contract.py` says in tests what is
promised here, and both pass it. Nothing here knows of gRPC.

Rules every implementation keeps:

- All calls but `run_sandbox` and `create_container` may be repeated: stopping what is stopped and
  removing what is gone succeeds.
- Every failure is a `ContainerRuntimeError`; a runtime that does not answer is always
  `RuntimeUnavailable`, so a caller can tell "it said no" from "nobody is there".
- Events are hints to look again, not facts to act on: they may repeat, never carry a status, and
  `EventKind.RESYNC` means that some were lost and everything has to be listed again.
- Moments are aware datetimes in UTC.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from datetime import datetime, timedelta

    from pybernetes.wire.http import Connection

# Written by the runtime itself on every sandbox and container it makes for us, so that whoever
# lists containers knows their pod. Names are upstream's: crictl and log collectors read them.
POD_NAME_LABEL = "io.kubernetes.pod.name"
POD_NAMESPACE_LABEL = "io.kubernetes.pod.namespace"
POD_UID_LABEL = "io.kubernetes.pod.uid"
CONTAINER_NAME_LABEL = "io.kubernetes.container.name"

# Reasons a container that ended may report, as upstream's ContainerStateTerminated.reason.
REASON_COMPLETED = "Completed"
REASON_ERROR = "Error"
REASON_OOM_KILLED = "OOMKilled"
REASON_START_ERROR = "StartError"


# --- errors ---------------------------------------------------------------------------------------


class ContainerRuntimeError(Exception):
    """The runtime refused or failed; the text is its own sentence. `code` is a gRPC code name."""

    def __init__(self, message: str, *, code: str = "Unknown") -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class RuntimeUnavailable(ContainerRuntimeError):
    """Nobody answers: not installed, not started, died, or silent beyond the deadline."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="Unavailable")


class SandboxNotFound(ContainerRuntimeError):
    def __init__(self, message: str) -> None:
        super().__init__(message, code="NotFound")


class ContainerNotFound(ContainerRuntimeError):
    def __init__(self, message: str) -> None:
        super().__init__(message, code="NotFound")


class ImageNotFound(ContainerRuntimeError):
    """The image is not on this machine (what a registry does not have is `ImagePullFailed`)."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="NotFound")


class ImagePullFailed(ContainerRuntimeError):
    """A pull ended without an image; `reason` is what the container's waiting state shows.

    `ErrImagePull`, `RegistryUnavailable` or `SignatureValidationFailed`.
    """

    def __init__(
        self, message: str, *, reason: str = "ErrImagePull", code: str = "Unknown"
    ) -> None:
        super().__init__(message, code=code)
        self.reason = reason


class ExecTimeout(ContainerRuntimeError):
    """`exec_sync` ran into its timeout; the process has been killed."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="DeadlineExceeded")


# --- what is asked for ----------------------------------------------------------------------------


class NamespaceMode(Enum):
    POD = "POD"
    """Shared by the containers of the pod."""
    CONTAINER = "CONTAINER"
    """One for each container."""
    NODE = "NODE"
    """The machine's own."""
    TARGET = "TARGET"
    """That of another container (`target_id`), for ephemeral containers."""


class MountPropagation(Enum):
    PRIVATE = "None"
    HOST_TO_CONTAINER = "HostToContainer"
    BIDIRECTIONAL = "Bidirectional"


class ProfileType(Enum):
    RUNTIME_DEFAULT = "RuntimeDefault"
    UNCONFINED = "Unconfined"
    LOCALHOST = "Localhost"


@dataclass(frozen=True, slots=True)
class SecurityProfile:
    """A seccomp or AppArmor profile."""

    type: ProfileType
    localhost_ref: str = ""


@dataclass(frozen=True, slots=True)
class SelinuxOptions:
    user: str = ""
    role: str = ""
    type: str = ""
    level: str = ""


@dataclass(frozen=True, slots=True)
class IdMapping:
    container_id: int
    host_id: int
    length: int


@dataclass(frozen=True, slots=True)
class Namespaces:
    """Which namespaces a sandbox or container lives in. `user_mappings` non-empty: a user one."""

    network: NamespaceMode = NamespaceMode.POD
    pid: NamespaceMode = NamespaceMode.CONTAINER
    ipc: NamespaceMode = NamespaceMode.POD
    target_id: str = ""
    user_mappings: tuple[IdMapping, ...] = ()


@dataclass(frozen=True, slots=True)
class DnsSpec:
    """The content of /etc/resolv.conf."""

    servers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PortMapping:
    """A host port, carried out by the CNI portmap plugin. `protocol` is TCP, UDP or SCTP."""

    container_port: int
    host_port: int
    protocol: str = "TCP"
    host_ip: str = ""


@dataclass(frozen=True, slots=True)
class Resources:
    """Cgroup limits. None: not limited (or unchanged, in `update_resources`)."""

    cpu_shares: int | None = None
    cpu_quota_microseconds: int | None = None
    cpu_period_microseconds: int | None = None
    memory_limit_bytes: int | None = None
    memory_swap_limit_bytes: int | None = None
    oom_score_adj: int | None = None
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    pids_limit: int | None = None
    """Set on cgroup v2 (`pids.max`); on v1 the pod's cgroup carries it, CRI has no field for it."""
    hugepage_limits: tuple[tuple[str, int], ...] = ()
    """(page size as in the cgroup file, such as "2MB"; bytes)"""
    unified: Mapping[str, str] = field(default_factory=dict)
    """cgroup v2 files and what to write into them."""


@dataclass(frozen=True, slots=True)
class Security:
    """The security context of a container (or, for what applies, of its sandbox)."""

    privileged: bool = False
    add_capabilities: tuple[str, ...] = ()
    drop_capabilities: tuple[str, ...] = ()
    run_as_user: int | None = None
    run_as_username: str = ""
    run_as_group: int | None = None
    supplemental_groups: tuple[int, ...] = ()
    supplemental_groups_strict: bool = False
    readonly_rootfs: bool = False
    no_new_privileges: bool = False
    masked_paths: tuple[str, ...] | None = None
    """None: the runtime's usual ones; empty: none (procMount Unmasked)."""
    readonly_paths: tuple[str, ...] | None = None
    seccomp: SecurityProfile | None = None
    apparmor: SecurityProfile | None = None
    selinux: SelinuxOptions | None = None
    namespaces: Namespaces = Namespaces()


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """All that is known of a pod before its first container."""

    name: str
    namespace: str
    uid: str
    attempt: int = 0
    hostname: str = ""
    log_directory: str = ""
    dns: DnsSpec | None = None
    """None: a copy of the machine's resolv.conf."""
    port_mappings: tuple[PortMapping, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    cgroup_parent: str = ""
    sysctls: Mapping[str, str] = field(default_factory=dict)
    security: Security = Security()
    overhead: Resources | None = None
    resources: Resources | None = None
    runtime_handler: str = ""


@dataclass(frozen=True, slots=True)
class Mount:
    container_path: str
    host_path: str = ""
    readonly: bool = False
    recursive_read_only: bool = False
    selinux_relabel: bool = False
    propagation: MountPropagation = MountPropagation.PRIVATE
    image: str = ""
    """An image volume: mounted instead of `host_path`, where the runtime can."""
    image_sub_path: str = ""


@dataclass(frozen=True, slots=True)
class Device:
    container_path: str
    host_path: str
    permissions: str = "rwm"


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """One container. `image` is an id or reference that `image_status` knows."""

    name: str
    image: str
    attempt: int = 0
    user_specified_image: str = ""
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    working_dir: str = ""
    mounts: tuple[Mount, ...] = ()
    devices: tuple[Device, ...] = ()
    cdi_devices: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    log_path: str = ""
    """Relative to the sandbox's `log_directory`."""
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False
    stop_signal: str = ""
    resources: Resources = Resources()
    security: Security = Security()


@dataclass(frozen=True, slots=True)
class RegistryAuth:
    """Credentials for one registry; `auth` is base64 of user:password and may stand alone."""

    username: str = ""
    password: str = ""
    auth: str = ""
    server_address: str = ""
    identity_token: str = ""
    registry_token: str = ""

    def __repr__(self) -> str:
        # Reprs end up in logs.
        return f"RegistryAuth(server_address={self.server_address!r}, …)"


# --- what is answered -----------------------------------------------------------------------------


class SandboxState(Enum):
    READY = "ready"
    NOT_READY = "notready"


class ContainerState(Enum):
    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxSummary:
    """A line of `list_sandboxes`."""

    id: str
    name: str
    namespace: str
    uid: str
    attempt: int
    state: SandboxState
    created_at: datetime
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    runtime_handler: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxStatus(SandboxSummary):
    ips: tuple[str, ...] = ()
    """Empty for a pod on the host's network; the first is the primary."""
    network: NamespaceMode = NamespaceMode.POD


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSummary:
    """A line of `list_containers`."""

    id: str
    sandbox_id: str
    name: str
    attempt: int
    state: ContainerState
    created_at: datetime
    image: str
    """As the container was created with."""
    image_ref: str
    """Digest reference if there is one, else the image id: what pods report as imageID."""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def pod_uid(self) -> str:
        return self.labels.get(POD_UID_LABEL, "")


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerStatus(ContainerSummary):
    """`started_at` and `finished_at` are None until it happened; exit code counts if exited."""

    started_at: datetime | None = None
    finished_at: datetime | None = None
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    log_path: str = ""
    """Absolute."""
    resources: Resources | None = None
    """None: the runtime does not tell."""
    mounts: tuple[Mount, ...] = ()


@dataclass(frozen=True, slots=True)
class ImageStatus:
    id: str
    repo_tags: tuple[str, ...] = ()
    repo_digests: tuple[str, ...] = ()
    size_bytes: int = 0
    uid: int | None = None
    """The numeric user of the image, if it has one; else `username`, which may be empty (root)."""
    username: str = ""
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class RuntimeVersion:
    name: str
    version: str
    api_version: str


@dataclass(frozen=True, slots=True)
class RuntimeCondition:
    """`RuntimeReady` and `NetworkReady` are always reported."""

    type: str
    status: bool
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class RuntimeStatus:
    conditions: tuple[RuntimeCondition, ...]
    handlers: tuple[str, ...] = ("",)
    """Names a RuntimeClass may use; "" is the default one."""
    cgroup_driver: str = "cgroupfs"
    """`cgroupfs` or `systemd`: the form `cgroup_parent` must have. Empty: the runtime does not say."""

    @property
    def runtime_ready(self) -> bool:
        return self._is("RuntimeReady")

    @property
    def network_ready(self) -> bool:
        return self._is("NetworkReady")

    def _is(self, kind: str) -> bool:
        return any(condition.type == kind and condition.status for condition in self.conditions)


@dataclass(frozen=True, slots=True)
class FilesystemUsage:
    mountpoint: str
    used_bytes: int
    inodes_used: int
    at: datetime


@dataclass(frozen=True, slots=True)
class ContainerStats:
    """Usage of one running container. None: not known."""

    id: str
    name: str
    labels: Mapping[str, str]
    at: datetime
    cpu_usage_nanoseconds: int | None = None
    """Since the container started."""
    cpu_usage_nanocores: int | None = None
    memory_usage_bytes: int | None = None
    memory_working_set_bytes: int | None = None
    memory_available_bytes: int | None = None
    memory_rss_bytes: int | None = None
    page_faults: int | None = None
    major_page_faults: int | None = None
    swap_usage_bytes: int | None = None
    writable_layer_bytes: int | None = None
    writable_layer_inodes: int | None = None


# --- streams --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StreamUrl:
    """The runtime serves this stream itself, once, at an http URL on loopback.

    Whoever got the URL connects to it and hands the raw bytes of both sides through. It speaks
    SPDY/3.1 with the `v4.channel.k8s.io` and `portforward.k8s.io` subprotocols; the request's
    query has been said to the runtime already and need not be repeated.
    """

    url: str


class Output(NamedTuple):
    data: bytes
    is_stderr: bool = False


class ProcessStream(Protocol):
    """An exec or attach carried in this process: the other form of `StreamUrl`.

    `output()` ends when both outputs are closed; then `wait()` returns the exit code at once. For
    an attach, `wait()` returns when the container ends. `close()` kills an exec that still runs
    and leaves an attached container alone; it may be called twice.
    """

    async def write(self, data: bytes) -> None: ...
    async def close_stdin(self) -> None: ...
    def resize(self, width: int, height: int) -> None: ...
    def output(self) -> AsyncIterator[Output]: ...
    async def wait(self) -> int: ...
    async def close(self) -> None: ...


class PortStream(Protocol):
    """A port-forward carried in this process: opens one connection for each one asked for."""

    async def connect(self, port: int) -> Connection:
        """A connection to the port inside the pod; ConnectionRefusedError if nobody listens."""
        ...

    async def close(self) -> None: ...


class PodNetwork(Protocol):
    """Stands in for sockets where pods have addresses that lead nowhere (simulated pods)."""

    async def connect(self, host: str, port: int) -> Connection:
        """Like a TCP connect: OSError (refused, no route) or a wait until the caller gives up."""
        ...

    async def http_get(
        self, host: str, port: int, path: str, headers: Sequence[tuple[str, str]] = ()
    ) -> tuple[int, bytes]:
        """Status and body of a GET: what a connection would answer, without parsing HTTP."""
        ...

    async def grpc_health(self, host: str, port: int, service: str = "") -> bool:
        """Whether the gRPC health service there says SERVING. Raises what `connect` raises."""
        ...


class LogFile(Protocol):
    """A container log kept in memory, in the format of CRI log files."""

    @property
    def size(self) -> int: ...
    def read(self, offset: int, limit: int) -> bytes: ...
    async def wait_longer_than(self, size: int) -> None:
        """Return when the log is longer than size, or will not grow again."""
        ...


# --- events ---------------------------------------------------------------------------------------


class EventKind(Enum):
    CREATED = "created"
    STARTED = "started"
    STOPPED = "stopped"
    DELETED = "deleted"
    RESYNC = "resync"
    """Events were lost (the runtime was away, or the reader slow): list everything again."""


@dataclass(frozen=True, slots=True)
class RuntimeEvent:
    """Something happened to a container, or to a sandbox (then `container_id` is empty)."""

    kind: EventKind
    sandbox_id: str = ""
    container_id: str = ""
    pod_uid: str = ""
    """Empty if the runtime could not tell: then look at all pods."""


class EventStream(Protocol):
    """Events from the moment `events()` was called, not from the first `anext`.

    So: subscribe, then list, then read; nothing falls between. Never ends by itself, not even
    when the runtime goes away (it is reconnected to, then RESYNC). Close it, or use
    `contextlib.aclosing`.
    """

    def __aiter__(self) -> EventStream: ...
    async def __anext__(self) -> RuntimeEvent: ...
    async def aclose(self) -> None: ...


# --- the runtime ----------------------------------------------------------------------------------


class Runtime(Protocol):
    """See the rules at the top of this module. Ids are the runtime's own, without a scheme."""

    async def version(self) -> RuntimeVersion: ...

    async def status(self) -> RuntimeStatus:
        """Raises RuntimeUnavailable rather than report a condition when nobody answers."""
        ...

    async def run_sandbox(self, spec: SandboxSpec) -> str:
        """Create and start; returns the id. A failed attempt leaves nothing that runs."""
        ...

    async def stop_sandbox(self, sandbox_id: str) -> None:
        """Kill its containers at once, release its network; its address may be given out again."""
        ...

    async def remove_sandbox(self, sandbox_id: str) -> None:
        """Stop it if need be, and remove it with its containers."""
        ...

    async def sandbox_status(self, sandbox_id: str) -> SandboxStatus:
        """Raises SandboxNotFound."""
        ...

    async def list_sandboxes(
        self, *, state: SandboxState | None = None, labels: Mapping[str, str] | None = None
    ) -> Sequence[SandboxSummary]: ...

    async def create_container(
        self, sandbox_id: str, spec: ContainerSpec, sandbox: SandboxSpec
    ) -> str:
        """Returns the id. Raises ImageNotFound, SandboxNotFound."""
        ...

    async def start_container(self, container_id: str) -> None:
        """Failing (no such command …) leaves the container exited, reason StartError, code 128."""
        ...

    async def stop_container(self, container_id: str, timeout: timedelta) -> None:
        """Ask it to stop, kill it after the timeout (zero: at once), return when it has ended.

        May be called again with another timeout while the first call waits. If it is cancelled,
        what has been sent to the container is not taken back, but nothing more need follow.
        """
        ...

    async def remove_container(self, container_id: str) -> None:
        """Kill it if it runs, and remove it. A log file on disk stays; one in memory goes."""
        ...

    async def list_containers(
        self,
        *,
        sandbox_id: str = "",
        state: ContainerState | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Sequence[ContainerSummary]: ...

    async def container_status(self, container_id: str) -> ContainerStatus:
        """Raises ContainerNotFound."""
        ...

    async def update_resources(self, container_id: str, resources: Resources) -> None: ...

    async def reopen_log(self, container_id: str) -> None:
        """Write to a new file at the same path, after the old one has been renamed."""
        ...

    def open_log(self, log_path: str) -> LogFile | None:
        """A log held in memory; None if `log_path` names a file on disk: read that."""
        ...

    async def exec_sync(
        self, container_id: str, command: Sequence[str], timeout: timedelta | None = None
    ) -> tuple[bytes, bytes, int]:
        """(stdout, stderr, exit code). Raises ExecTimeout, ContainerNotFound."""
        ...

    async def exec(
        self,
        container_id: str,
        command: Sequence[str],
        *,
        stdin: bool = False,
        stdout: bool = True,
        stderr: bool = True,
        tty: bool = False,
    ) -> StreamUrl | ProcessStream: ...

    async def attach(
        self,
        container_id: str,
        *,
        stdin: bool = False,
        stdout: bool = True,
        stderr: bool = True,
        tty: bool = False,
    ) -> StreamUrl | ProcessStream: ...

    async def port_forward(
        self, sandbox_id: str, ports: Sequence[int] = ()
    ) -> StreamUrl | PortStream: ...

    @property
    def pod_network(self) -> PodNetwork | None:
        """None: pod addresses are real, use sockets. Else probes and proxies go through this."""
        ...

    async def pull_image(
        self, ref: str, auth: RegistryAuth | None = None, sandbox: SandboxSpec | None = None
    ) -> str:
        """Returns the reference to create containers with. Raises ImagePullFailed."""
        ...

    async def image_status(self, ref: str) -> ImageStatus | None: ...
    async def list_images(self) -> Sequence[ImageStatus]: ...
    async def remove_image(self, ref: str) -> None: ...
    async def image_filesystems(self) -> Sequence[FilesystemUsage]: ...

    async def container_stats(self, container_id: str) -> ContainerStats:
        """Raises ContainerNotFound."""
        ...

    async def list_container_stats(
        self, *, sandbox_id: str = "", labels: Mapping[str, str] | None = None
    ) -> Sequence[ContainerStats]: ...

    async def update_pod_cidr(self, cidr: str) -> None:
        """Tell runtimes that write their own CNI configuration; others ignore it."""
        ...

    def events(self) -> EventStream: ...
