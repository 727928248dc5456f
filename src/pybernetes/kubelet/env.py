"""A container's environment: from values, ConfigMaps, Secrets, the pod itself, and Services.

Pure. Later sources win: Services, then `envFrom` in order, then `env` in order; `$(NAME)` in a value
stands for what was defined before it, `$$` for a dollar.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pybernetes.kubelet.downward import FieldProblem, field_value, resource_value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from pybernetes.api.types.core_v1 import (
        ConfigMap,
        EnvFromSource,
        EnvVar,
        Pod,
        Secret,
        Service,
    )
    from pybernetes.kubelet.pod_state import AnyContainer

# The only service every pod is told of.
KUBERNETES = ("default", "kubernetes")

_VARIABLE = re.compile(r"\$(?:\$|\(([^()]*)\))")


class ConfigProblem(Exception):
    """The container cannot be described: what it refers to is not there."""


@dataclass(frozen=True, slots=True)
class EnvFacts:
    """What variables may refer to. Objects that are not there are None."""

    pod: Pod
    ips: tuple[str, ...]
    host_ips: tuple[str, ...]
    allocatable: Mapping[str, str]
    services: Sequence[Service]
    config_map: Callable[[str], ConfigMap | None]
    secret: Callable[[str], Secret | None]


def environment_of(container: AnyContainer, facts: EnvFacts) -> dict[str, str]:
    """Name → value, in the order they were defined. Raises ConfigProblem."""
    found = _service_variables(facts)
    for source in container.env_from:
        found.update(_from_object(source, facts))
    for variable in container.env:
        value = _value_of(variable, container, facts, found)
        if value is not None:
            # A later definition takes the place in the order, too.
            found.pop(variable.name, None)
            found[variable.name] = value
    return found


def expand(text: str, values: Mapping[str, str]) -> str:
    """Replace `$(NAME)`; an unknown name stays as it is written."""

    def replacement(match: re.Match[str]) -> str:
        name = match[1]
        if name is None:
            return "$"
        return values.get(name, match[0])

    return _VARIABLE.sub(replacement, text)


def _value_of(
    variable: EnvVar, container: AnyContainer, facts: EnvFacts, before: Mapping[str, str]
) -> str | None:
    """None: not to be defined (optional, and not there)."""
    source = variable.value_from
    if source is None:
        return expand(variable.value, before)
    meta = facts.pod.metadata
    try:
        if source.field_ref is not None:
            return field_value(
                facts.pod, source.field_ref.field_path, ips=facts.ips, host_ips=facts.host_ips
            )
        if (resource := source.resource_field_ref) is not None:
            target = _named(facts.pod, resource.container_name) or container
            return resource_value(target, resource, facts.allocatable)
    except FieldProblem as error:
        raise ConfigProblem(str(error)) from error
    if (config_key := source.config_map_key_ref) is not None:
        config_map = facts.config_map(config_key.name)
        if config_map is None:
            if config_key.optional:
                return None
            raise ConfigProblem(f'configmap "{config_key.name}" not found')
        if config_key.key in config_map.data:
            return config_map.data[config_key.key]
        if config_key.optional:
            return None
        name = f"{meta.namespace}/{config_key.name}"
        raise ConfigProblem(f"couldn't find key {config_key.key} in ConfigMap {name}")
    if (secret_key := source.secret_key_ref) is not None:
        secret = facts.secret(secret_key.name)
        if secret is None:
            if secret_key.optional:
                return None
            raise ConfigProblem(f'secret "{secret_key.name}" not found')
        if secret_key.key in secret.data:
            return decoded(secret.data[secret_key.key]).decode(errors="replace")
        if secret_key.optional:
            return None
        name = f"{meta.namespace}/{secret_key.name}"
        raise ConfigProblem(f"couldn't find key {secret_key.key} in Secret {name}")
    return ""


def _from_object(source: EnvFromSource, facts: EnvFacts) -> dict[str, str]:
    values: Iterable[tuple[str, str]]
    if (reference := source.config_map_ref) is not None:
        config_map = facts.config_map(reference.name)
        if config_map is None:
            if reference.optional:
                return {}
            raise ConfigProblem(f'configmap "{reference.name}" not found')
        values = config_map.data.items()
    elif (secret_reference := source.secret_ref) is not None:
        secret = facts.secret(secret_reference.name)
        if secret is None:
            if secret_reference.optional:
                return {}
            raise ConfigProblem(f'secret "{secret_reference.name}" not found')
        values = [(k, decoded(v).decode(errors="replace")) for k, v in secret.data.items()]
    else:
        return {}
    # A name with "=" in it would become another variable.
    return {source.prefix + k: v for k, v in values if k and "=" not in k}


def decoded(text: str) -> bytes:
    """The bytes of a Secret's value."""
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ConfigProblem(f"secret value is not base64: {error}") from error


def _named(pod: Pod, name: str) -> AnyContainer | None:
    containers = (*pod.spec.containers, *pod.spec.init_containers)
    return next((c for c in containers if name and c.name == name), None)


# --- services -------------------------------------------------------------------------------------


def _service_variables(facts: EnvFacts) -> dict[str, str]:
    namespace = facts.pod.metadata.namespace
    links = facts.pod.spec.enable_service_links is not False
    chosen: dict[str, Service] = {}
    for service in facts.services:
        meta = service.metadata
        if (meta.namespace, meta.name) == KUBERNETES:
            # A service of the pod's own namespace with that name wins.
            chosen.setdefault(meta.name, service)
        elif links and meta.namespace == namespace:
            chosen[meta.name] = service
    found: dict[str, str] = {}
    for name in sorted(chosen):
        found.update(service_variables(chosen[name]))
    return found


def service_variables(service: Service) -> dict[str, str]:
    """The variables of Docker links, and Kubernetes' own two."""
    address, ports = service.spec.cluster_ip, service.spec.ports
    if not address or address == "None" or not ports:
        return {}
    prefix = _variable_name(service.metadata.name)
    host = f"[{address}]" if ":" in address else address
    found = {f"{prefix}_SERVICE_HOST": address, f"{prefix}_SERVICE_PORT": str(ports[0].port)}
    for port in ports:
        if port.name:
            found[f"{prefix}_SERVICE_PORT_{_variable_name(port.name)}"] = str(port.port)
    for number, port in enumerate(ports):
        protocol = port.protocol or "TCP"
        url = f"{protocol.lower()}://{host}:{port.port}"
        if number == 0:
            found[f"{prefix}_PORT"] = url
        one = f"{prefix}_PORT_{port.port}_{protocol.upper()}"
        found[one] = url
        found[f"{one}_PROTO"] = protocol.lower()
        found[f"{one}_PORT"] = str(port.port)
        found[f"{one}_ADDR"] = address
    return found


def _variable_name(name: str) -> str:
    return name.upper().replace("-", "_")
