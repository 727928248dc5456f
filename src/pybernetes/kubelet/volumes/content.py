"""What files a volume holds that is made of objects: ConfigMap, Secret, downward API, projected.

Pure, but for the token of a service account, which is handed in.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pybernetes.kubelet.downward import FieldProblem, field_value, resource_value
from pybernetes.kubelet.volumes.atomic import File

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pybernetes.api.types.core_v1 import (
        ConfigMap,
        DownwardAPIVolumeFile,
        KeyToPath,
        Pod,
        Secret,
        ServiceAccountTokenProjection,
        Volume,
        VolumeProjection,
    )
    from pybernetes.kubelet.volumes.atomic import Payload

DEFAULT_MODE = 0o644
# Of a token, where the pod's processes have a group of their own to read it with.
TOKEN_MODE = 0o600


class ContentProblem(Exception):
    """The files cannot be made: something they are made of is not there."""


@dataclass(frozen=True, slots=True)
class ContentFacts:
    """What contents are made from. Objects that are not there are None."""

    pod: Pod
    ips: tuple[str, ...]
    host_ips: tuple[str, ...]
    allocatable: Mapping[str, str]
    config_map: Callable[[str], ConfigMap | None]
    secret: Callable[[str], Secret | None]
    token: Callable[[ServiceAccountTokenProjection], str]


def is_made_of_objects(volume: Volume) -> bool:
    return bool(volume.config_map or volume.secret or volume.downward_api or volume.projected)


def tokens_of(volume: Volume) -> list[ServiceAccountTokenProjection]:
    if volume.projected is None:
        return []
    found = [source.service_account_token for source in volume.projected.sources]
    return [token for token in found if token is not None]


def content_of(volume: Volume, facts: ContentFacts) -> Payload:
    """Path → file. Raises ContentProblem."""
    if (config_map := volume.config_map) is not None:
        mode = _mode(config_map.default_mode)
        return _config_map(
            config_map.name, config_map.items, bool(config_map.optional), mode, facts
        )
    if (secret := volume.secret) is not None:
        mode = _mode(secret.default_mode)
        return _secret(secret.secret_name, secret.items, bool(secret.optional), mode, facts)
    if (downward := volume.downward_api) is not None:
        return _downward(downward.items, _mode(downward.default_mode), facts)
    if (projected := volume.projected) is not None:
        mode = _mode(projected.default_mode)
        found: Payload = {}
        problems = []
        for source in projected.sources:
            try:
                found.update(_projection(source, mode, facts))
            except ContentProblem as error:
                problems.append(str(error))
        if problems:
            raise ContentProblem(problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]")
        return found
    return {}


def _mode(mode: int | None) -> int:
    return DEFAULT_MODE if mode is None else mode


def _projection(source: VolumeProjection, mode: int, facts: ContentFacts) -> Payload:
    if (config_map := source.config_map) is not None:
        return _config_map(
            config_map.name, config_map.items, bool(config_map.optional), mode, facts
        )
    if (secret := source.secret) is not None:
        return _secret(secret.name, secret.items, bool(secret.optional), mode, facts)
    if source.downward_api is not None:
        return _downward(source.downward_api.items, mode, facts)
    if (token := source.service_account_token) is not None:
        security = facts.pod.spec.security_context
        own_group = security is not None and security.fs_group is not None
        data = facts.token(token).encode()
        return {token.path: File(data, TOKEN_MODE if own_group else mode)}
    raise ContentProblem("this kind of projected volume source is not supported by this node")


def _config_map(
    name: str, items: Sequence[KeyToPath], optional: bool, mode: int, facts: ContentFacts
) -> Payload:
    found = facts.config_map(name)
    if found is None:
        if optional:
            return {}
        raise ContentProblem(f'configmap "{name}" not found')
    data = {key: value.encode() for key, value in found.data.items()}
    data |= {key: _decoded(value) for key, value in found.binary_data.items()}
    return _selected(data, items, optional, mode, "configmap references non-existent config key: ")


def _secret(
    name: str, items: Sequence[KeyToPath], optional: bool, mode: int, facts: ContentFacts
) -> Payload:
    found = facts.secret(name)
    if found is None:
        if optional:
            return {}
        raise ContentProblem(f'secret "{name}" not found')
    data = {key: _decoded(value) for key, value in found.data.items()}
    return _selected(data, items, optional, mode, "references non-existent secret key: ")


def _selected(
    data: Mapping[str, bytes],
    items: Sequence[KeyToPath],
    optional: bool,
    mode: int,
    missing: str,
) -> Payload:
    if not items:
        return {key: File(value, mode) for key, value in data.items()}
    found: Payload = {}
    for item in items:
        if item.key not in data:
            if optional:
                continue
            raise ContentProblem(missing + item.key)
        found[item.path] = File(data[item.key], mode if item.mode is None else item.mode)
    return found


def _downward(items: Sequence[DownwardAPIVolumeFile], mode: int, facts: ContentFacts) -> Payload:
    found: Payload = {}
    for item in items:
        try:
            if item.field_ref is not None:
                text = field_value(
                    facts.pod, item.field_ref.field_path, ips=facts.ips, host_ips=facts.host_ips
                )
            elif (selector := item.resource_field_ref) is not None:
                containers = (*facts.pod.spec.containers, *facts.pod.spec.init_containers)
                named = [c for c in containers if c.name == selector.container_name]
                if not named:
                    raise ContentProblem(f"container {selector.container_name} not found")
                text = resource_value(named[0], selector, facts.allocatable)
            else:
                continue
        except FieldProblem as error:
            raise ContentProblem(str(error)) from error
        found[item.path] = File(text.encode(), mode if item.mode is None else item.mode)
    return found


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ContentProblem(f"value is not base64: {error}") from error
