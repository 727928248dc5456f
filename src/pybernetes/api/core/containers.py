"""Validation of containers: regular, init and ephemeral, in pods and in templates."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pybernetes.api.core.downwardapi import (
    ENV_FIELDS,
    validate_field_ref,
    validate_resource_field_ref,
)
from pybernetes.api.core.podresources import is_sidecar
from pybernetes.api.core.probes import (
    validate_lifecycle,
    validate_liveness,
    validate_readiness,
    validate_startup,
)
from pybernetes.api.core.resourcelists import validate_requirements
from pybernetes.api.core.securitycontexts import validate_security_context
from pybernetes.api.core.volumes import validate_descending_path
from pybernetes.api.validation import validate_dns_label, validate_one_of, validate_with
from pybernetes.apimachinery.names import (
    config_key_errors,
    dns_subdomain_errors,
    env_name_errors,
    port_errors,
    port_name_errors,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from pybernetes.api.types.core_v1 import (
        Container,
        ContainerPort,
        EnvFromSource,
        EnvVar,
        EphemeralContainer,
        PodSpec,
        Volume,
        VolumeMount,
    )
    from pybernetes.apimachinery.fielderror import FieldError, Path

    AnyContainer = Container | EphemeralContainer

PROTOCOLS = frozenset({"TCP", "UDP", "SCTP"})
PULL_POLICIES = frozenset({"Always", "IfNotPresent", "Never"})
_MESSAGE_POLICIES = ("File", "FallbackToLogsOnError")
RESTART_POLICIES = ("Always", "OnFailure", "Never")
_MOST_RESTART_RULES = 20
_MOST_EXIT_CODES = 255
_ONLY_SIDECARS = "may not be set for init containers without restartPolicy=Always"
_NOT_EPHEMERAL = "cannot be set for an Ephemeral Container"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a container is judged together with."""

    volumes: Mapping[str, Volume]
    claim_names: AbstractSet[str] = field(default_factory=frozenset)
    grace_seconds: int = 0
    os: str = ""
    # Whether the pod shares the users of the host.
    host_users: bool = True


def validate_all_containers(
    spec: PodSpec, around: Surroundings, path: Path
) -> Iterator[FieldError]:
    """Regular, then init, then ephemeral containers; names are unique over all of them."""
    names: set[str] = set()
    if not spec.containers:
        yield path.containers.required()
    for index, container in enumerate(spec.containers):
        here = path.containers[index]
        yield from _validate_common(container, around, here)
        yield from _validate_unique(container.name, names, here)
        yield from _validate_long_running(container, around, here)
        yield from _validate_restart_policy(container, here)
    yield from _validate_host_ports(spec.containers, path.containers)
    for index, container in enumerate(spec.init_containers):
        here = path.initContainers[index]
        yield from _validate_common(container, around, here)
        yield from _validate_unique(container.name, names, here)
        yield from _validate_restart_policy(container, here)
        yield from _validate_host_ports((container,), path.initContainers, index)
        yield from _validate_init(container, around, here)
    regular = {container.name for container in (*spec.containers, *spec.init_containers)}
    for index, ephemeral in enumerate(spec.ephemeral_containers):
        here = path.ephemeralContainers[index]
        yield from _validate_common(ephemeral, around, here)
        yield from _validate_unique(ephemeral.name, names, here)
        yield from _validate_ephemeral(ephemeral, regular, here)


def _validate_unique(name: str, names: set[str], path: Path) -> Iterator[FieldError]:
    if name in names:
        yield path.name.duplicate(name)
    names.add(name)


def _validate_common(
    container: AnyContainer, around: Surroundings, path: Path
) -> Iterator[FieldError]:
    if not container.name:
        yield path.name.required()
    else:
        yield from validate_dns_label(container.name, path.name)
    if not container.image:
        yield path.image.required()
    if container.termination_message_policy not in _MESSAGE_POLICIES:
        yield from validate_one_of(
            container.termination_message_policy,
            frozenset(_MESSAGE_POLICIES),
            path.terminationMessagePolicy,
        )
    if container.ports:
        yield from _validate_ports(container.ports, path.ports)
    for index, variable in enumerate(container.env):
        yield from _validate_env(variable, path.env[index])
    for index, source in enumerate(container.env_from):
        yield from _validate_env_from(source, path.envFrom[index])
    if container.volume_mounts:
        yield from _validate_mounts(container, around, path.volumeMounts)
    if container.volume_devices:
        yield from _validate_devices(container, around, path.volumeDevices)
    if container.image_pull_policy not in PULL_POLICIES:
        yield from validate_one_of(container.image_pull_policy, PULL_POLICIES, path.imagePullPolicy)
    yield from validate_requirements(container.resources, around.claim_names, path.resources)
    if container.resize_policy:
        yield from _validate_resize_policy(container, path.resizePolicy)
    if container.security_context is not None:
        yield from validate_security_context(
            container.security_context, path.securityContext, host_users=around.host_users
        )


def _validate_long_running(
    container: Container, around: Surroundings, path: Path
) -> Iterator[FieldError]:
    """What only containers have that keep running: probes and hooks."""
    grace = around.grace_seconds
    if container.lifecycle is not None:
        yield from validate_lifecycle(
            container.lifecycle, path.lifecycle, grace_seconds=grace, os=around.os
        )
    if container.liveness_probe is not None:
        yield from validate_liveness(container.liveness_probe, path.livenessProbe)
    if container.readiness_probe is not None:
        yield from validate_readiness(container.readiness_probe, path.readinessProbe)
    if container.startup_probe is not None:
        yield from validate_startup(container.startup_probe, path.startupProbe)


def _validate_init(container: Container, around: Surroundings, path: Path) -> Iterator[FieldError]:
    if is_sidecar(container):
        yield from _validate_long_running(container, around, path)
        return
    if container.lifecycle is not None:
        yield path.lifecycle.forbidden(_ONLY_SIDECARS)
    if container.liveness_probe is not None:
        yield path.livenessProbe.forbidden(_ONLY_SIDECARS)
    if container.readiness_probe is not None:
        yield path.readinessProbe.forbidden(_ONLY_SIDECARS)
    if container.startup_probe is not None:
        yield path.startupProbe.forbidden(_ONLY_SIDECARS)
    if container.resize_policy:
        yield path.resizePolicy.invalid(
            container.resize_policy, "must not be set for init containers"
        )


def _validate_ephemeral(
    container: EphemeralContainer, regular: AbstractSet[str], path: Path
) -> Iterator[FieldError]:
    target = container.target_container_name
    if target and target not in regular:
        yield path.targetContainerName.not_found(target)
    for wire_name, present in (
        ("ports", container.ports),
        ("lifecycle", container.lifecycle),
        ("livenessProbe", container.liveness_probe),
        ("readinessProbe", container.readiness_probe),
        ("startupProbe", container.startup_probe),
        ("resizePolicy", container.resize_policy),
        ("restartPolicy", container.restart_policy),
        ("restartPolicyRules", container.restart_policy_rules),
    ):
        if present:
            yield path.child(wire_name).forbidden(_NOT_EPHEMERAL)
    resources = container.resources
    if resources.limits or resources.requests or resources.claims:
        yield path.resources.forbidden(_NOT_EPHEMERAL)
    for index, mount in enumerate(container.volume_mounts):
        if mount.sub_path:
            yield path.volumeMounts[index].subPath.forbidden(_NOT_EPHEMERAL)
        if mount.sub_path_expr:
            yield path.volumeMounts[index].subPathExpr.forbidden(_NOT_EPHEMERAL)


def _validate_restart_policy(container: Container, path: Path) -> Iterator[FieldError]:
    policy, rules = container.restart_policy, container.restart_policy_rules
    if policy and policy not in RESTART_POLICIES:
        yield path.restartPolicy.not_supported(policy, frozenset(RESTART_POLICIES))
    if not rules:
        return
    path = path.restartPolicyRules
    if not policy:
        yield path.required("must specify restartPolicy when restart rules are used")
    if len(rules) > _MOST_RESTART_RULES:
        yield path.too_long(_MOST_RESTART_RULES)
    for index, rule in enumerate(rules):
        here = path[index]
        yield from validate_one_of(
            rule.action, frozenset({"Restart", "RestartAllContainers"}), here.action
        )
        if rule.exit_codes is None:
            yield here.exitCodes.required("must be specified")
            continue
        yield from validate_one_of(
            rule.exit_codes.operator, frozenset({"In", "NotIn"}), here.exitCodes.operator
        )
        codes = rule.exit_codes.values
        if not codes:
            yield here.exitCodes.child("values").required("at least one value is required")
        elif len(codes) > _MOST_EXIT_CODES:
            yield here.exitCodes.child("values").too_many(len(codes), _MOST_EXIT_CODES)


def _validate_ports(ports: Sequence[ContainerPort], path: Path) -> Iterator[FieldError]:
    names: set[str] = set()
    for index, port in enumerate(ports):
        if port.name:
            if errors := port_name_errors(port.name):
                for message in errors:
                    yield path[index].name.invalid(port.name, message)
            elif port.name in names:
                yield path[index].name.duplicate(port.name)
            names.add(port.name)
        if port.container_port == 0:
            yield path[index].containerPort.required()
        else:
            for message in port_errors(port.container_port):
                yield path[index].containerPort.invalid(port.container_port, message)
        if port.host_port:
            for message in port_errors(port.host_port):
                yield path[index].hostPort.invalid(port.host_port, message)
        if port.protocol not in PROTOCOLS:
            yield from validate_one_of(port.protocol, PROTOCOLS, path[index].protocol)


def _validate_host_ports(
    containers: Sequence[Container], path: Path, first: int = 0
) -> Iterator[FieldError]:
    taken: set[tuple[str, str, int]] = set()
    for index, container in enumerate(containers, first):
        for number, port in enumerate(container.ports):
            if not port.host_port:
                continue
            place = (port.protocol, port.host_ip, port.host_port)
            if place in taken:
                here = path[index].ports[number].hostPort
                yield here.duplicate("/".join(map(str, place)))
            taken.add(place)


def _validate_env(variable: EnvVar, path: Path) -> Iterator[FieldError]:
    if not variable.name:
        yield path.name.required()
    else:
        for message in env_name_errors(variable.name):
            yield path.name.invalid(variable.name, message)
    source = variable.value_from
    if source is None:
        return
    path = path.valueFrom
    sources = 0
    if source.field_ref is not None:
        sources += 1
        yield from validate_field_ref(source.field_ref, ENV_FIELDS, path.fieldRef)
    if source.resource_field_ref is not None:
        sources += 1
        yield from validate_resource_field_ref(
            source.resource_field_ref, path.resourceFieldRef, in_volume=False
        )
    for reference, where in (
        (source.config_map_key_ref, path.configMapKeyRef),
        (source.secret_key_ref, path.secretKeyRef),
    ):
        if reference is not None:
            sources += 1
            yield from _validate_object_name(reference.name, where)
            if not reference.key:
                yield where.child("key").required()
            else:
                yield from validate_with(config_key_errors, reference.key, where.child("key"))
    if source.file_key_ref is not None:
        sources += 1
        for wire_name, value in (
            ("key", source.file_key_ref.key),
            ("volumeName", source.file_key_ref.volume_name),
            ("path", source.file_key_ref.path),
        ):
            if not value:
                yield path.fileKeyRef.child(wire_name).required()
    if sources == 0:
        yield path.invalid(
            "",
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, "
            "`secretKeyRef` or `fileKeyRef`",
        )
    elif variable.value:
        yield path.invalid("", "may not be specified when `value` is not empty")
    elif sources > 1:
        yield path.invalid("", "may not have more than one field specified at a time")


def _validate_object_name(name: str, path: Path) -> Iterator[FieldError]:
    # Old objects have an empty name, which names nothing but was always allowed.
    if name:
        yield from validate_with(dns_subdomain_errors, name, path.name)


def _validate_env_from(source: EnvFromSource, path: Path) -> Iterator[FieldError]:
    if source.prefix:
        yield from validate_with(env_name_errors, source.prefix, path.prefix)
    if source.config_map_ref is not None:
        yield from _validate_named(source.config_map_ref.name, path.configMapRef)
    if source.secret_ref is not None:
        yield from _validate_named(source.secret_ref.name, path.secretRef)
    if source.config_map_ref is None and source.secret_ref is None:
        yield path.invalid("", "must specify one of: `configMapRef` or `secretRef`")
    elif source.config_map_ref is not None and source.secret_ref is not None:
        yield path.invalid("", "may not have more than one field specified at a time")


def _validate_named(name: str, path: Path) -> Iterator[FieldError]:
    if not name:
        yield path.name.required()
    else:
        yield from validate_with(dns_subdomain_errors, name, path.name)


def _validate_mounts(
    container: AnyContainer, around: Surroundings, path: Path
) -> Iterator[FieldError]:
    mounted: set[str] = set()
    device_names = {device.name for device in container.volume_devices}
    device_paths = {device.device_path for device in container.volume_devices}
    for index, mount in enumerate(container.volume_mounts):
        if not mount.name:
            yield path[index].name.required()
        if mount.name not in around.volumes:
            yield path[index].name.not_found(mount.name)
        if not mount.mount_path:
            yield path[index].mountPath.required()
        if mount.mount_path in mounted:
            yield path[index].mountPath.invalid(mount.mount_path, "must be unique")
        mounted.add(mount.mount_path)
        if mount.name in device_names:
            yield path[index].name.invalid(mount.name, "must not already exist in volumeDevices")
        if mount.mount_path in device_paths:
            yield path[index].mountPath.invalid(
                mount.mount_path, "must not already exist as a path in volumeDevices"
            )
        if (
            mount.sub_path
            or mount.sub_path_expr
            or mount.mount_propagation
            or mount.recursive_read_only
        ):
            yield from _validate_mount_options(mount, container, path[index])


def _validate_mount_options(
    mount: VolumeMount, container: AnyContainer, path: Path
) -> Iterator[FieldError]:
    if mount.sub_path:
        yield from validate_descending_path(mount.sub_path, path.subPath)
    if mount.sub_path_expr:
        if mount.sub_path:
            yield path.subPathExpr.invalid(
                mount.sub_path_expr, "subPathExpr and subPath are mutually exclusive"
            )
        yield from validate_descending_path(mount.sub_path_expr, path.subPathExpr)
    propagation = mount.mount_propagation
    if propagation:
        supported = {"Bidirectional", "HostToContainer", "None"}
        if propagation not in supported:
            yield path.mountPropagation.not_supported(propagation, supported)
        context = container.security_context
        if propagation == "Bidirectional" and not (context is not None and context.privileged):
            yield path.mountPropagation.forbidden(
                "Bidirectional mount propagation is available only to privileged containers"
            )
    recursive = mount.recursive_read_only
    if recursive in ("Enabled", "IfPossible"):
        if not mount.read_only:
            yield path.recursiveReadOnly.forbidden("may only be specified when readOnly is true")
        if propagation not in ("", "None"):
            yield path.recursiveReadOnly.forbidden(
                "may only be specified when mountPropagation is None or not specified"
            )
    elif recursive not in ("", "Disabled"):
        yield path.recursiveReadOnly.not_supported(recursive, {"Disabled", "IfPossible", "Enabled"})


def _validate_devices(
    container: AnyContainer, around: Surroundings, path: Path
) -> Iterator[FieldError]:
    names: set[str] = set()
    paths: set[str] = set()
    mount_names = {mount.name for mount in container.volume_mounts}
    mount_paths = {mount.mount_path for mount in container.volume_mounts}
    for index, device in enumerate(container.volume_devices):
        here = path[index]
        volume = around.volumes.get(device.name)
        if not device.name:
            yield here.name.required()
        if device.name in names:
            yield here.name.invalid(device.name, "must be unique")
        if volume is None:
            yield here.name.not_found(device.name)
        elif volume.persistent_volume_claim is None and volume.ephemeral is None:
            yield here.name.invalid(
                device.name,
                "can only use volume source type of PersistentVolumeClaim or Ephemeral for "
                "block mode",
            )
        if not device.device_path:
            yield here.devicePath.required()
        if device.device_path in paths:
            yield here.devicePath.invalid(device.device_path, "must be unique")
        if device.device_path and ".." in device.device_path.split("/"):
            yield here.devicePath.invalid(device.device_path, "can not contain backsteps ('..')")
        if device.name in mount_names:
            yield here.name.invalid(device.name, "must not already exist in volumeMounts")
        if device.device_path in mount_paths:
            yield here.devicePath.invalid(
                device.device_path, "must not already exist as a path in volumeMounts"
            )
        names.add(device.name)
        paths.add(device.device_path)


def _validate_resize_policy(container: AnyContainer, path: Path) -> Iterator[FieldError]:
    seen: set[str] = set()
    for index, policy in enumerate(container.resize_policy):
        if policy.resource_name in seen:
            yield path[index].duplicate(policy.resource_name)
        seen.add(policy.resource_name)
        yield from validate_one_of(
            policy.resource_name, frozenset({"cpu", "memory"}), path[index].resourceName
        )
        yield from validate_one_of(
            policy.restart_policy,
            frozenset({"NotRequired", "RestartContainer"}),
            path[index].restartPolicy,
        )
