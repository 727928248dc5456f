"""Between our words and CRI's messages: pure functions, one for each direction of each thing.

Rule: nothing is invented on the way. What a runtime leaves out stays empty or None.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pybernetes.kubelet.runtime.interface import (
    ContainerState,
    ContainerStats,
    ContainerStatus,
    ContainerSummary,
    FilesystemUsage,
    ImageStatus,
    Mount,
    MountPropagation,
    NamespaceMode,
    ProfileType,
    Resources,
    SandboxState,
    SandboxStatus,
    SandboxSummary,
)
from pybernetes.kubelet.runtime.labels import container_labels, pod_labels
from pybernetes.kubelet.runtime.proto import cri_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pybernetes.kubelet.runtime.interface import (
        ContainerSpec,
        Namespaces,
        RegistryAuth,
        SandboxSpec,
        Security,
        SecurityProfile,
    )

# What a container may not see or not write below /proc and /sys unless it asks for
# `procMount: Unmasked`: the kernel's doors to the machine that namespaces do not close.
MASKED_PATHS = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

_NAMESPACE_MODES = {
    NamespaceMode.POD: pb.POD,
    NamespaceMode.CONTAINER: pb.CONTAINER,
    NamespaceMode.NODE: pb.NODE,
    NamespaceMode.TARGET: pb.TARGET,
}
_PROFILE_TYPES = {
    ProfileType.RUNTIME_DEFAULT: pb.SecurityProfile.RuntimeDefault,
    ProfileType.UNCONFINED: pb.SecurityProfile.Unconfined,
    ProfileType.LOCALHOST: pb.SecurityProfile.Localhost,
}
_PROPAGATIONS = {
    MountPropagation.PRIVATE: pb.PROPAGATION_PRIVATE,
    MountPropagation.HOST_TO_CONTAINER: pb.PROPAGATION_HOST_TO_CONTAINER,
    MountPropagation.BIDIRECTIONAL: pb.PROPAGATION_BIDIRECTIONAL,
}
_CONTAINER_STATES = {
    ContainerState.CREATED: pb.CONTAINER_CREATED,
    ContainerState.RUNNING: pb.CONTAINER_RUNNING,
    ContainerState.EXITED: pb.CONTAINER_EXITED,
    ContainerState.UNKNOWN: pb.CONTAINER_UNKNOWN,
}
_SANDBOX_STATES = {
    SandboxState.READY: pb.SANDBOX_READY,
    SandboxState.NOT_READY: pb.SANDBOX_NOTREADY,
}
_PROTOCOLS = {"TCP": pb.TCP, "UDP": pb.UDP, "SCTP": pb.SCTP}


# --- to CRI ---------------------------------------------------------------------------------------


def sandbox_config(spec: SandboxSpec) -> pb.PodSandboxConfig:
    on_host_network = spec.security.namespaces.network is NamespaceMode.NODE
    config = pb.PodSandboxConfig(
        metadata=pb.PodSandboxMetadata(
            name=spec.name, uid=spec.uid, namespace=spec.namespace, attempt=spec.attempt
        ),
        # On the host's network the host name is the host's too; runc refuses to set it.
        hostname="" if on_host_network else spec.hostname,
        log_directory=spec.log_directory,
        port_mappings=[
            pb.PortMapping(
                protocol=_PROTOCOLS[port.protocol],
                container_port=port.container_port,
                host_port=port.host_port,
                host_ip=port.host_ip,
            )
            for port in spec.port_mappings
        ],
        labels={**spec.labels, **pod_labels(spec)},
        annotations=dict(spec.annotations),
        linux=pb.LinuxPodSandboxConfig(
            cgroup_parent=spec.cgroup_parent,
            sysctls=dict(spec.sysctls),
            security_context=sandbox_security(spec.security),
        ),
    )
    if spec.dns is not None:
        config.dns_config.servers.extend(spec.dns.servers)
        config.dns_config.searches.extend(spec.dns.searches)
        config.dns_config.options.extend(spec.dns.options)
    if spec.overhead is not None:
        config.linux.overhead.CopyFrom(resources(spec.overhead))
    if spec.resources is not None:
        config.linux.resources.CopyFrom(resources(spec.resources))
    return config


def container_config(spec: ContainerSpec, sandbox: SandboxSpec) -> pb.ContainerConfig:
    return pb.ContainerConfig(
        metadata=pb.ContainerMetadata(name=spec.name, attempt=spec.attempt),
        image=pb.ImageSpec(
            image=spec.image, user_specified_image=spec.user_specified_image or spec.image
        ),
        command=spec.command,
        args=spec.args,
        working_dir=spec.working_dir,
        envs=[pb.KeyValue(key=name, value=value.encode()) for name, value in spec.env],
        mounts=[mount_message(mount) for mount in spec.mounts],
        devices=[
            pb.Device(
                container_path=device.container_path,
                host_path=device.host_path,
                permissions=device.permissions,
            )
            for device in spec.devices
        ],
        CDI_devices=[pb.CDIDevice(name=name) for name in spec.cdi_devices],
        labels={**spec.labels, **container_labels(spec, sandbox)},
        annotations=dict(spec.annotations),
        log_path=spec.log_path,
        stdin=spec.stdin,
        stdin_once=spec.stdin_once,
        tty=spec.tty,
        stop_signal=stop_signal(spec.stop_signal),
        linux=pb.LinuxContainerConfig(
            resources=resources(spec.resources), security_context=container_security(spec.security)
        ),
    )


def mount_message(mount: Mount) -> pb.Mount:
    message = pb.Mount(
        container_path=mount.container_path,
        host_path=mount.host_path,
        readonly=mount.readonly,
        recursive_read_only=mount.recursive_read_only,
        selinux_relabel=mount.selinux_relabel,
        propagation=_PROPAGATIONS[mount.propagation],
        image_sub_path=mount.image_sub_path,
    )
    if mount.image:
        message.image.image = mount.image
    return message


def resources(limits: Resources) -> pb.LinuxContainerResources:
    unified = dict(limits.unified)
    if limits.pids_limit is not None:
        unified.setdefault("pids.max", str(limits.pids_limit))
    return pb.LinuxContainerResources(
        cpu_period=limits.cpu_period_microseconds or 0,
        cpu_quota=limits.cpu_quota_microseconds or 0,
        cpu_shares=limits.cpu_shares or 0,
        memory_limit_in_bytes=limits.memory_limit_bytes or 0,
        memory_swap_limit_in_bytes=limits.memory_swap_limit_bytes or 0,
        oom_score_adj=limits.oom_score_adj or 0,
        cpuset_cpus=limits.cpuset_cpus,
        cpuset_mems=limits.cpuset_mems,
        hugepage_limits=[
            pb.HugepageLimit(page_size=size, limit=limit) for size, limit in limits.hugepage_limits
        ],
        unified=unified,
    )


def container_security(security: Security) -> pb.LinuxContainerSecurityContext:
    masked = MASKED_PATHS if security.masked_paths is None else security.masked_paths
    readonly = READONLY_PATHS if security.readonly_paths is None else security.readonly_paths
    message = pb.LinuxContainerSecurityContext(
        capabilities=pb.Capability(
            add_capabilities=security.add_capabilities, drop_capabilities=security.drop_capabilities
        ),
        privileged=security.privileged,
        namespace_options=namespace_options(security.namespaces),
        run_as_username=security.run_as_username,
        readonly_rootfs=security.readonly_rootfs,
        supplemental_groups=security.supplemental_groups,
        supplemental_groups_policy=_groups_policy(security),
        no_new_privs=security.no_new_privileges,
        # A privileged container sees everything; runtimes would mask what is listed.
        masked_paths=() if security.privileged else masked,
        readonly_paths=() if security.privileged else readonly,
    )
    _set_identity(message, security)
    return message


def sandbox_security(security: Security) -> pb.LinuxSandboxSecurityContext:
    message = pb.LinuxSandboxSecurityContext(
        namespace_options=namespace_options(security.namespaces),
        readonly_rootfs=security.readonly_rootfs,
        supplemental_groups=security.supplemental_groups,
        supplemental_groups_policy=_groups_policy(security),
        privileged=security.privileged,
    )
    _set_identity(message, security)
    return message


def _groups_policy(security: Security) -> pb.SupplementalGroupsPolicy:
    return pb.Strict if security.supplemental_groups_strict else pb.Merge


def _set_identity(
    message: pb.LinuxContainerSecurityContext | pb.LinuxSandboxSecurityContext, security: Security
) -> None:
    if security.run_as_user is not None:
        message.run_as_user.value = security.run_as_user
    if security.run_as_group is not None:
        message.run_as_group.value = security.run_as_group
    if security.seccomp is not None:
        message.seccomp.CopyFrom(_profile(security.seccomp))
    if security.apparmor is not None:
        message.apparmor.CopyFrom(_profile(security.apparmor))
    if security.selinux is not None:
        labels = security.selinux
        message.selinux_options.CopyFrom(
            pb.SELinuxOption(
                user=labels.user, role=labels.role, type=labels.type, level=labels.level
            )
        )


def _profile(profile: SecurityProfile) -> pb.SecurityProfile:
    return pb.SecurityProfile(
        profile_type=_PROFILE_TYPES[profile.type], localhost_ref=profile.localhost_ref
    )


def namespace_options(namespaces: Namespaces) -> pb.NamespaceOption:
    message = pb.NamespaceOption(
        network=_NAMESPACE_MODES[namespaces.network],
        pid=_NAMESPACE_MODES[namespaces.pid],
        ipc=_NAMESPACE_MODES[namespaces.ipc],
        target_id=namespaces.target_id,
    )
    if namespaces.user_mappings:
        mappings = [
            pb.IDMapping(host_id=m.host_id, container_id=m.container_id, length=m.length)
            for m in namespaces.user_mappings
        ]
        message.userns_options.CopyFrom(pb.UserNamespace(mode=pb.POD, uids=mappings, gids=mappings))
    return message


def stop_signal(name: str) -> str:
    """The name of CRI's enum value; protobuf takes a name for a number. Empty: the image's."""
    return f"SIGNAL_{name}" if name else "SIGNAL_RUNTIME_DEFAULT"


def auth_message(auth: RegistryAuth) -> pb.AuthConfig:
    return pb.AuthConfig(
        username=auth.username,
        password=auth.password,
        auth=auth.auth,
        server_address=auth.server_address,
        identity_token=auth.identity_token,
        registry_token=auth.registry_token,
    )


def container_filter(
    container_id: str = "",
    sandbox_id: str = "",
    state: ContainerState | None = None,
    labels: Mapping[str, str] | None = None,
) -> pb.ContainerFilter:
    message = pb.ContainerFilter(
        id=container_id, pod_sandbox_id=sandbox_id, label_selector=dict(labels or {})
    )
    if state is not None:
        message.state.state = _CONTAINER_STATES[state]
    return message


def sandbox_filter(
    state: SandboxState | None, labels: Mapping[str, str] | None
) -> pb.PodSandboxFilter:
    message = pb.PodSandboxFilter(label_selector=dict(labels or {}))
    if state is not None:
        message.state.state = _SANDBOX_STATES[state]
    return message


# --- from CRI -------------------------------------------------------------------------------------


def moment(nanoseconds: int) -> datetime:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC)


def moment_or_none(nanoseconds: int) -> datetime | None:
    # Zero, or (from Go's zero time) a large negative number: it has not happened.
    return moment(nanoseconds) if nanoseconds > 0 else None


def container_state(state: int) -> ContainerState:
    for ours, theirs in _CONTAINER_STATES.items():
        if theirs == state:
            return ours
    return ContainerState.UNKNOWN


def sandbox_state(state: int) -> SandboxState:
    return SandboxState.READY if state == pb.SANDBOX_READY else SandboxState.NOT_READY


def sandbox_summary(message: pb.PodSandbox) -> SandboxSummary:
    return SandboxSummary(
        id=message.id,
        name=message.metadata.name,
        namespace=message.metadata.namespace,
        uid=message.metadata.uid,
        attempt=message.metadata.attempt,
        state=sandbox_state(message.state),
        created_at=moment(message.created_at),
        labels=dict(message.labels),
        annotations=dict(message.annotations),
        runtime_handler=message.runtime_handler,
    )


def sandbox_status(message: pb.PodSandboxStatus) -> SandboxStatus:
    network = message.network
    ips = [network.ip, *(extra.ip for extra in network.additional_ips)] if network.ip else []
    modes = {theirs: ours for ours, theirs in _NAMESPACE_MODES.items()}
    return SandboxStatus(
        id=message.id,
        name=message.metadata.name,
        namespace=message.metadata.namespace,
        uid=message.metadata.uid,
        attempt=message.metadata.attempt,
        state=sandbox_state(message.state),
        created_at=moment(message.created_at),
        labels=dict(message.labels),
        annotations=dict(message.annotations),
        runtime_handler=message.runtime_handler,
        ips=tuple(ips),
        network=modes.get(message.linux.namespaces.options.network, NamespaceMode.POD),
    )


def container_summary(message: pb.Container) -> ContainerSummary:
    return ContainerSummary(
        id=message.id,
        sandbox_id=message.pod_sandbox_id,
        name=message.metadata.name,
        attempt=message.metadata.attempt,
        state=container_state(message.state),
        created_at=moment(message.created_at),
        image=message.image.image,
        image_ref=message.image_ref,
        labels=dict(message.labels),
        annotations=dict(message.annotations),
    )


def container_status(message: pb.ContainerStatus, sandbox_id: str) -> ContainerStatus:
    # containerd fills this message only once the limits have been changed.
    limits = message.resources.linux if message.resources.linux.ByteSize() else None
    return ContainerStatus(
        id=message.id,
        sandbox_id=sandbox_id,
        name=message.metadata.name,
        attempt=message.metadata.attempt,
        state=container_state(message.state),
        created_at=moment(message.created_at),
        image=message.image.user_specified_image or message.image.image,
        image_ref=message.image_ref,
        labels=dict(message.labels),
        annotations=dict(message.annotations),
        started_at=moment_or_none(message.started_at),
        finished_at=moment_or_none(message.finished_at),
        exit_code=message.exit_code,
        reason=message.reason,
        message=message.message,
        log_path=message.log_path,
        resources=None if limits is None else resources_of(limits),
        mounts=tuple(mount_of(mount) for mount in message.mounts),
    )


def mount_of(message: pb.Mount) -> Mount:
    propagations = {theirs: ours for ours, theirs in _PROPAGATIONS.items()}
    return Mount(
        container_path=message.container_path,
        host_path=message.host_path,
        readonly=message.readonly,
        recursive_read_only=message.recursive_read_only,
        selinux_relabel=message.selinux_relabel,
        propagation=propagations.get(message.propagation, MountPropagation.PRIVATE),
        image=message.image.image,
        image_sub_path=message.image_sub_path,
    )


def resources_of(message: pb.LinuxContainerResources) -> Resources:
    return Resources(
        cpu_shares=message.cpu_shares or None,
        cpu_quota_microseconds=message.cpu_quota or None,
        cpu_period_microseconds=message.cpu_period or None,
        memory_limit_bytes=message.memory_limit_in_bytes or None,
        memory_swap_limit_bytes=message.memory_swap_limit_in_bytes or None,
        oom_score_adj=message.oom_score_adj or None,
        cpuset_cpus=message.cpuset_cpus,
        cpuset_mems=message.cpuset_mems,
        hugepage_limits=tuple((page.page_size, page.limit) for page in message.hugepage_limits),
        unified=dict(message.unified),
    )


def image_status(message: pb.Image) -> ImageStatus:
    return ImageStatus(
        id=message.id,
        repo_tags=tuple(message.repo_tags),
        repo_digests=tuple(message.repo_digests),
        size_bytes=message.size,
        uid=message.uid.value if message.HasField("uid") else None,
        username=message.username,
        pinned=message.pinned,
    )


def filesystem_usage(message: pb.FilesystemUsage) -> FilesystemUsage:
    return FilesystemUsage(
        mountpoint=message.fs_id.mountpoint,
        used_bytes=message.used_bytes.value,
        inodes_used=message.inodes_used.value,
        at=moment(message.timestamp),
    )


def _value(message: pb.UInt64Value, *, known: bool) -> int | None:
    return message.value if known else None


def container_stats(message: pb.ContainerStats) -> ContainerStats:
    cpu, memory, layer = message.cpu, message.memory, message.writable_layer

    def cpu_value(name: str) -> int | None:
        return _value(getattr(cpu, name), known=cpu.HasField(name))

    def memory_value(name: str) -> int | None:
        return _value(getattr(memory, name), known=memory.HasField(name))

    return ContainerStats(
        id=message.attributes.id,
        name=message.attributes.metadata.name,
        labels=dict(message.attributes.labels),
        at=moment(cpu.timestamp or memory.timestamp or layer.timestamp),
        cpu_usage_nanoseconds=cpu_value("usage_core_nano_seconds"),
        cpu_usage_nanocores=cpu_value("usage_nano_cores"),
        memory_usage_bytes=memory_value("usage_bytes"),
        memory_working_set_bytes=memory_value("working_set_bytes"),
        memory_available_bytes=memory_value("available_bytes"),
        memory_rss_bytes=memory_value("rss_bytes"),
        page_faults=memory_value("page_faults"),
        major_page_faults=memory_value("major_page_faults"),
        swap_usage_bytes=_value(
            message.swap.swap_usage_bytes, known=message.swap.HasField("swap_usage_bytes")
        ),
        writable_layer_bytes=_value(layer.used_bytes, known=layer.HasField("used_bytes")),
        writable_layer_inodes=_value(layer.inodes_used, known=layer.HasField("inodes_used")),
    )
