"""Which ConfigMaps and Secrets a pod refers to. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pybernetes.api.types.core_v1 import ConfigMap, Secret
from pybernetes.apimachinery.meta import Key
from pybernetes.kubelet.pod_state import containers_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pybernetes.api.types.core_v1 import Pod, Volume
    from pybernetes.kubelet.pod_state import AnyContainer

Reference = tuple[type[Any], Key]


def references_of(pod: Pod) -> set[Reference]:
    found = set(pull_secrets_of(pod))
    for volume in pod.spec.volumes:
        found.update(references_of_volume(pod, volume))
    for container in containers_of(pod):
        found.update(references_of_container(pod, container))
    return found


def pull_secrets_of(pod: Pod) -> Iterator[Reference]:
    for reference in pod.spec.image_pull_secrets:
        if reference.name:
            yield Secret, Key(pod.metadata.namespace, reference.name)


def references_of_container(pod: Pod, container: AnyContainer) -> Iterator[Reference]:
    """Those that its environment needs."""
    namespace = pod.metadata.namespace
    for source in container.env_from:
        if source.config_map_ref is not None and source.config_map_ref.name:
            yield ConfigMap, Key(namespace, source.config_map_ref.name)
        if source.secret_ref is not None and source.secret_ref.name:
            yield Secret, Key(namespace, source.secret_ref.name)
    for variable in container.env:
        value = variable.value_from
        if value is None:
            continue
        if value.config_map_key_ref is not None and value.config_map_key_ref.name:
            yield ConfigMap, Key(namespace, value.config_map_key_ref.name)
        if value.secret_key_ref is not None and value.secret_key_ref.name:
            yield Secret, Key(namespace, value.secret_key_ref.name)


def references_of_volume(pod: Pod, volume: Volume) -> Iterator[Reference]:
    namespace = pod.metadata.namespace
    if volume.config_map is not None and volume.config_map.name:
        yield ConfigMap, Key(namespace, volume.config_map.name)
    if volume.secret is not None and volume.secret.secret_name:
        yield Secret, Key(namespace, volume.secret.secret_name)
    for source in volume.projected.sources if volume.projected is not None else ():
        if source.config_map is not None and source.config_map.name:
            yield ConfigMap, Key(namespace, source.config_map.name)
        if source.secret is not None and source.secret.name:
            yield Secret, Key(namespace, source.secret.name)
