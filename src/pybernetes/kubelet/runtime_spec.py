"""Pods and containers as the runtime is asked for them.

`sandbox_spec` and `container_spec` gather what all the other modules say (names, environment,
security, limits, mounts) into the runtime's words. They decide nothing.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pybernetes.api.core.podresources import GUARANTEED, qos_class
from pybernetes.api.types.core_v1 import ConfigMap, EphemeralContainer, Secret
from pybernetes.kubelet.cgroups import container_resources
from pybernetes.kubelet.config import log_path
from pybernetes.kubelet.env import ConfigProblem, EnvFacts, environment_of, expand
from pybernetes.kubelet.names import dns_of, hostname_of, hosts_file, parse_resolv_conf
from pybernetes.kubelet.pod_state import spec_of
from pybernetes.kubelet.references import references_of_container
from pybernetes.kubelet.runtime.interface import (
    ContainerSpec,
    DnsSpec,
    Mount,
    MountPropagation,
    PortMapping,
    SandboxSpec,
)
from pybernetes.kubelet.security import container_security, sandbox_security
from pybernetes.kubelet.volumes.content import ContentProblem
from pybernetes.kubelet.volumes.pod import sub_path_of

if TYPE_CHECKING:
    from pybernetes.api.types.core_v1 import Pod, VolumeMount
    from pybernetes.kubelet.context import NodeContext
    from pybernetes.kubelet.pod_state import AnyContainer
    from pybernetes.kubelet.runtime.interface import ImageStatus
    from pybernetes.kubelet.volumes.pod import PodVolumes

HOSTS_PATH = "/etc/hosts"
# The annotation by which a container that was adopted says what it was made from.
RESTART_COUNT = "io.kubernetes.container.restartCount"


def sandbox_spec(
    context: NodeContext, pod: Pod, attempt: int, runtime_handler: str = ""
) -> SandboxSpec:
    config, meta, spec = context.config, pod.metadata, pod.spec
    return SandboxSpec(
        name=meta.name,
        namespace=meta.namespace,
        uid=meta.uid,
        attempt=attempt,
        hostname=""
        if spec.host_network
        else hostname_of(pod, config.node_name, config.cluster_domain),
        log_directory=config.pod_log_dir(pod),
        dns=_dns(context, pod),
        port_mappings=() if spec.host_network else _port_mappings(pod),
        labels={**meta.labels, **config.owner_labels},
        annotations=meta.annotations,
        cgroup_parent=cgroup_parent(context, pod),
        sysctls=_sysctls(pod),
        security=sandbox_security(pod),
        runtime_handler=runtime_handler,
    )


def _dns(context: NodeContext, pod: Pod) -> DnsSpec:
    config = context.config
    host = DnsSpec()
    if not config.is_simulated:
        with suppress(OSError):
            host = parse_resolv_conf(config.resolv_conf.read_text())
    return dns_of(pod, host, config.cluster_dns, config.cluster_domain)


def _port_mappings(pod: Pod) -> tuple[PortMapping, ...]:
    return tuple(
        PortMapping(port.container_port, port.host_port, port.protocol or "TCP", port.host_ip)
        for container in (*pod.spec.containers, *pod.spec.init_containers)
        for port in container.ports
        if port.host_port
    )


def _sysctls(pod: Pod) -> dict[str, str]:
    security = pod.spec.security_context
    return {} if security is None else {s.name: s.value for s in security.sysctls}


def cgroup_parent(context: NodeContext, pod: Pod) -> str:
    """Below the quality of service: `/kubepods/burstable/pod<uid>`, or systemd's form of it."""
    root = context.config.cgroup_root.strip("/")
    if not root:
        return ""
    quality = pod.status.qos_class or qos_class(pod)
    uid = pod.metadata.uid
    if context.cgroup_driver == "systemd":
        parts = [root] if quality == GUARANTEED else [root, quality.lower()]
        return "-".join([*parts, "pod" + uid.replace("-", "_")]) + ".slice"
    parts = [root] if quality == GUARANTEED else [root, quality.lower()]
    return "/" + "/".join([*parts, f"pod{uid}"])


async def container_spec(
    context: NodeContext,
    pod: Pod,
    container: AnyContainer,
    *,
    attempt: int,
    ips: tuple[str, ...],
    image: ImageStatus,
    volumes: PodVolumes,
    target_id: str = "",
) -> ContainerSpec:
    """Raises ConfigProblem for what refers to something that is not there."""
    values = environment_of(container, await _env_facts(context, pod, container, ips))
    try:
        mounts = [
            *_mounts(container, values, volumes),
            *_own_files(context, pod, container, attempt, ips),
        ]
    except (ContentProblem, OSError) as error:
        raise ConfigProblem(str(error)) from error
    lifecycle = container.lifecycle
    return ContainerSpec(
        name=container.name,
        image=image.id,
        attempt=attempt,
        user_specified_image=container.image,
        command=tuple(expand(word, values) for word in container.command),
        args=tuple(expand(word, values) for word in container.args),
        env=tuple(values.items()),
        working_dir=container.working_dir,
        mounts=tuple(mounts),
        labels=context.config.owner_labels,
        annotations={RESTART_COUNT: str(attempt)},
        log_path=log_path(container.name, attempt),
        stdin=bool(container.stdin),
        stdin_once=bool(container.stdin_once),
        tty=bool(container.tty),
        stop_signal=lifecycle.stop_signal if lifecycle is not None else "",
        resources=container_resources(
            pod,
            container,
            node_memory=context.facts.memory_bytes,
            least_score=context.facts.least_oom_score,
        ),
        security=container_security(
            pod,
            container,
            image,
            seccomp_root=_seccomp_root(context),
            target_id=target_id,
        ),
    )


def _seccomp_root(context: NodeContext) -> Path | None:
    root = context.config.root_dir
    return None if root is None else root / "seccomp"


async def _env_facts(
    context: NodeContext, pod: Pod, container: AnyContainer, ips: tuple[str, ...]
) -> EnvFacts:
    objects: dict[tuple[type[Any], str], Any] = {}
    for kind, key in references_of_container(pod, container):
        objects[kind, key.name] = await context.objects.get(kind, key)
    await context.objects.services.wait_synced()

    def config_map(name: str) -> ConfigMap | None:
        found: ConfigMap | None = objects.get((ConfigMap, name))
        return found

    def secret(name: str) -> Secret | None:
        found: Secret | None = objects.get((Secret, name))
        return found

    namespace = pod.metadata.namespace
    services = context.objects.services.list(namespace)
    if namespace != "default":
        services += context.objects.services.list("default")
    return EnvFacts(
        pod=pod,
        ips=ips,
        host_ips=context.facts.addresses,
        allocatable=context.facts.allocatable,
        services=services,
        config_map=config_map,
        secret=secret,
    )


# --- mounts ---------------------------------------------------------------------------------------

_PROPAGATION = {
    "HostToContainer": MountPropagation.HOST_TO_CONTAINER,
    "Bidirectional": MountPropagation.BIDIRECTIONAL,
}


def _mounts(container: AnyContainer, values: dict[str, str], volumes: PodVolumes) -> list[Mount]:
    found = []
    for mount in container.volume_mounts:
        root = volumes.path_of(mount.name)
        if root is None:
            continue
        path = _with_sub_path(root, mount, values)
        found.append(
            Mount(
                container_path=mount.mount_path
                if mount.mount_path.startswith("/")
                else f"/{mount.mount_path}",
                host_path=str(path),
                readonly=bool(mount.read_only) or volumes.is_read_only(mount.name),
                recursive_read_only=mount.recursive_read_only in ("Enabled", "IfPossible")
                and bool(mount.read_only),
                propagation=_PROPAGATION.get(mount.mount_propagation, MountPropagation.PRIVATE),
            )
        )
    return found


def _with_sub_path(root: Path, mount: VolumeMount, values: dict[str, str]) -> Path:
    sub_path = mount.sub_path
    if mount.sub_path_expr:
        sub_path = expand(mount.sub_path_expr, values)
    return sub_path_of(root, sub_path) if sub_path else root


def _own_files(
    context: NodeContext, pod: Pod, container: AnyContainer, attempt: int, ips: tuple[str, ...]
) -> list[Mount]:
    """/etc/hosts, and where the container may leave its last words."""
    directory = context.config.pod_dir(pod.metadata.uid)
    if directory is None:
        return []
    found = []
    if not any(m.mount_path.rstrip("/") == HOSTS_PATH for m in container.volume_mounts):
        hosts = directory / "etc-hosts"
        node_hosts = ""
        if pod.spec.host_network:
            with suppress(OSError):
                node_hosts = Path(HOSTS_PATH).read_text()
        text = hosts_file(pod, ips, context.config.cluster_domain, node_hosts)
        if not hosts.exists() or hosts.read_text() != text:
            directory.mkdir(parents=True, exist_ok=True)
            hosts.write_text(text)
            hosts.chmod(0o644)
        found.append(Mount(HOSTS_PATH, str(hosts)))
    message = termination_file(context, pod, container.name, attempt)
    if message is not None and container.termination_message_path:
        message.parent.mkdir(parents=True, exist_ok=True)
        message.touch()
        # Whatever user the container runs as is to write there.
        os.chmod(message, 0o666)  # noqa: PTH101
        found.append(Mount(container.termination_message_path, str(message)))
    return found


def termination_file(context: NodeContext, pod: Pod, container: str, attempt: int) -> Path | None:
    directory = context.config.pod_dir(pod.metadata.uid)
    return None if directory is None else directory / "containers" / container / str(attempt)


def target_of(pod: Pod, container: str) -> str:
    """The container whose processes an ephemeral container wants to see."""
    spec = spec_of(pod, container)
    return spec.target_container_name if isinstance(spec, EphemeralContainer) else ""
