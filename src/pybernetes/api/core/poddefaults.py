"""What the API fills into pods and pod templates.

Everything here is idempotent and returns its argument itself if nothing was missing: it
runs on every read of a stored pod, and a stored pod is whole.

A few defaults are for pods only and never for templates: requests from limits, pod-level
resources, host ports, service links. `default_pod_template` is for every workload kind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from msgspec.structs import replace

from pybernetes.api.core.image import default_pull_policy
from pybernetes.api.core.podresources import aggregate_texts, is_hugepages, is_pod_level
from pybernetes.api.core.volumedefaults import default_volume
from pybernetes.api.types.core_v1 import (
    Container,
    ContainerPort,
    EnvVar,
    EphemeralContainer,
    GRPCAction,
    HTTPGetAction,
    Lifecycle,
    LifecycleHandler,
    Pod,
    PodSecurityContext,
    PodSpec,
    PodTemplateSpec,
    Probe,
    ResourceRequirements,
)
from pybernetes.api.validation import changed_each, rounded_amounts

if TYPE_CHECKING:
    from collections.abc import Callable

C = TypeVar("C", Container, EphemeralContainer)

DEFAULT_GRACE_SECONDS = 30
DEFAULT_SCHEDULER = "default-scheduler"


def default_pod(pod: Pod) -> Pod:
    spec = pod.spec
    changes: dict[str, Any] = {}
    if spec.enable_service_links is None:
        changes["enable_service_links"] = True
    # Requests follow limits before anything else is made of them.
    containers = changed_each(spec.containers, _default_requests)
    init_containers = changed_each(spec.init_containers, _default_requests)
    if spec.host_network:
        containers = changed_each(containers, _default_host_ports)
        init_containers = changed_each(init_containers, _default_host_ports)
    if containers is not spec.containers:
        changes["containers"] = containers
    if init_containers is not spec.init_containers:
        changes["init_containers"] = init_containers
    if changes:
        spec = replace(spec, **changes)
    spec = _default_pod_resources(default_pod_spec(spec))
    return pod if spec is pod.spec else replace(pod, spec=spec)


def default_pod_template(template: PodTemplateSpec) -> PodTemplateSpec:
    spec = default_pod_spec(template.spec)
    return template if spec is template.spec else replace(template, spec=spec)


def default_pod_spec(spec: PodSpec) -> PodSpec:
    changes: dict[str, Any] = {}
    if not spec.dns_policy:
        changes["dns_policy"] = "ClusterFirst"
    if not spec.restart_policy:
        changes["restart_policy"] = "Always"
    if spec.security_context is None:
        changes["security_context"] = PodSecurityContext()
    if spec.termination_grace_period_seconds is None:
        changes["termination_grace_period_seconds"] = DEFAULT_GRACE_SECONDS
    if not spec.scheduler_name:
        changes["scheduler_name"] = DEFAULT_SCHEDULER
    # Two names of one field; the newer wins.
    account = spec.service_account_name or spec.service_account
    if account and (account != spec.service_account_name or account != spec.service_account):
        changes["service_account_name"] = changes["service_account"] = account
    containers = changed_each(spec.containers, default_container)
    if containers is not spec.containers:
        changes["containers"] = containers
    if spec.init_containers:
        init_containers = changed_each(spec.init_containers, default_container)
        if init_containers is not spec.init_containers:
            changes["init_containers"] = init_containers
    if spec.ephemeral_containers:
        ephemeral = changed_each(spec.ephemeral_containers, default_container)
        if ephemeral is not spec.ephemeral_containers:
            changes["ephemeral_containers"] = ephemeral
    volumes = changed_each(spec.volumes, default_volume)
    if volumes is not spec.volumes:
        changes["volumes"] = volumes
    if spec.overhead:
        changes["overhead"] = rounded_amounts(spec.overhead)
    if spec.resources is not None:
        changes["resources"] = _rounded(spec.resources)
    if all(getattr(spec, name) is value for name, value in changes.items()):
        return spec
    return replace(spec, **changes)


def default_container(container: C) -> C:
    changes: dict[str, Any] = {}
    if not container.image_pull_policy:
        changes["image_pull_policy"] = default_pull_policy(container.image)
    if not container.termination_message_path:
        changes["termination_message_path"] = "/dev/termination-log"
    if not container.termination_message_policy:
        changes["termination_message_policy"] = "File"
    if container.ports:
        ports = changed_each(container.ports, _default_port)
        if ports is not container.ports:
            changes["ports"] = ports
    if container.env:
        env = changed_each(container.env, _default_env)
        if env is not container.env:
            changes["env"] = env
    resources = container.resources
    if (resources.limits or resources.requests) and (
        rounded := _rounded(resources)
    ) is not resources:
        changes["resources"] = rounded
    if container.liveness_probe is not None:
        _change(changes, container, "liveness_probe", default_probe)
    if container.readiness_probe is not None:
        _change(changes, container, "readiness_probe", default_probe)
    if container.startup_probe is not None:
        _change(changes, container, "startup_probe", default_probe)
    if container.lifecycle is not None:
        _change(changes, container, "lifecycle", _default_lifecycle)
    return replace(container, **changes) if changes else container


def _change(
    changes: dict[str, Any], struct: object, name: str, change: Callable[[Any], Any]
) -> None:
    value = getattr(struct, name)
    changed = change(value)
    if changed is not value:
        changes[name] = changed


def _default_port(port: ContainerPort) -> ContainerPort:
    return port if port.protocol else replace(port, protocol="TCP")


def _default_env(env: EnvVar) -> EnvVar:
    source = env.value_from
    if source is None:
        return env
    changes: dict[str, Any] = {}
    if source.field_ref is not None and not source.field_ref.api_version:
        changes["field_ref"] = replace(source.field_ref, api_version="v1")
    if source.resource_field_ref is not None and not source.resource_field_ref.divisor:
        changes["resource_field_ref"] = replace(source.resource_field_ref, divisor="0")
    if source.file_key_ref is not None and source.file_key_ref.optional is None:
        changes["file_key_ref"] = replace(source.file_key_ref, optional=False)
    return replace(env, value_from=replace(source, **changes)) if changes else env


def _rounded(resources: ResourceRequirements) -> ResourceRequirements:
    limits, requests = rounded_amounts(resources.limits), rounded_amounts(resources.requests)
    if limits is resources.limits and requests is resources.requests:
        return resources
    return replace(resources, limits=limits, requests=requests)


def default_probe(probe: Probe) -> Probe:
    changes: dict[str, Any] = {}
    # Zero is taken for absent: none of these means anything when it is zero.
    if not probe.timeout_seconds:
        changes["timeout_seconds"] = 1
    if not probe.period_seconds:
        changes["period_seconds"] = 10
    if not probe.success_threshold:
        changes["success_threshold"] = 1
    if not probe.failure_threshold:
        changes["failure_threshold"] = 3
    if probe.http_get is not None:
        _change(changes, probe, "http_get", _default_http_get)
    if probe.grpc is not None:
        _change(changes, probe, "grpc", _default_grpc)
    return replace(probe, **changes) if changes else probe


def _default_http_get(action: HTTPGetAction) -> HTTPGetAction:
    if action.path and action.scheme:
        return action
    return replace(action, path=action.path or "/", scheme=action.scheme or "HTTP")


def _default_grpc(action: GRPCAction) -> GRPCAction:
    return action if action.service is not None else replace(action, service="")


def _default_lifecycle(lifecycle: Lifecycle) -> Lifecycle:
    changes: dict[str, Any] = {}
    if lifecycle.post_start is not None:
        _change(changes, lifecycle, "post_start", _default_handler)
    if lifecycle.pre_stop is not None:
        _change(changes, lifecycle, "pre_stop", _default_handler)
    return replace(lifecycle, **changes) if changes else lifecycle


def _default_handler(handler: LifecycleHandler) -> LifecycleHandler:
    if handler.http_get is None:
        return handler
    http_get = _default_http_get(handler.http_get)
    return handler if http_get is handler.http_get else replace(handler, http_get=http_get)


# --- pods only ----------------------------------------------------------------------------


def _default_requests(container: Container) -> Container:
    resources = container.resources
    if resources.limits.keys() <= resources.requests.keys():
        return container
    requests = {**resources.limits, **resources.requests}
    return replace(container, resources=replace(resources, requests=requests))


def _default_host_ports(container: Container) -> Container:
    ports = changed_each(
        container.ports,
        lambda port: port if port.host_port else replace(port, host_port=port.container_port),
    )
    return container if ports is container.ports else replace(container, ports=ports)


def _default_pod_resources(spec: PodSpec) -> PodSpec:
    """Complete what the pod says about itself as a whole from what its containers say."""
    resources = spec.resources
    if resources is None:
        return spec
    limits, requests = dict(resources.limits), dict(resources.requests)
    container_limits = aggregate_texts(spec, "limits")
    for name, amount in container_limits.items():
        if is_hugepages(name):
            limits.setdefault(name, amount)
    if requests and not limits:
        for name in requests:
            if name in container_limits and all(
                name in container.resources.limits for container in spec.containers
            ):
                limits[name] = container_limits[name]
    if limits:
        for name, amount in aggregate_texts(spec, "requests").items():
            if is_pod_level(name) and not is_hugepages(name):
                requests.setdefault(name, amount)
        for name, text in limits.items():
            if is_pod_level(name):
                requests.setdefault(name, text)
    if limits == resources.limits and requests == resources.requests:
        return spec
    return replace(spec, resources=replace(resources, limits=limits, requests=requests))
