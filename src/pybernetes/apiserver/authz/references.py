"""What a pod refers to by name in its namespace. Pure; one walk over the spec.

What a node may read follows from it (see `node`), and what a mirror pod must not have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pybernetes.api.types.core_v1 import Container, EphemeralContainer, PodSpec, Volume

# (resource, name)
Reference = tuple[str, str]

SECRETS, CONFIG_MAPS = "secrets", "configmaps"
CLAIMS, ACCOUNTS = "persistentvolumeclaims", "serviceaccounts"
RESOURCE_CLAIMS = "resourceclaims"

# Volume sources that name a secret in a field `secretRef`, by attribute.
_WITH_SECRET_REF = ("cephfs", "iscsi", "rbd", "scale_io", "storageos", "flex_volume")


def references_of(pod_name: str, spec: PodSpec) -> Iterator[Reference]:
    """Every secret, config map, claim and account that the pod names; some more than once."""
    if spec.service_account_name:
        yield ACCOUNTS, spec.service_account_name
    for secret in spec.image_pull_secrets:
        yield SECRETS, secret.name
    containers: tuple[Container | EphemeralContainer, ...]
    containers = (*spec.containers, *spec.init_containers, *spec.ephemeral_containers)
    for container in containers:
        for source in container.env_from:
            if source.config_map_ref is not None:
                yield CONFIG_MAPS, source.config_map_ref.name
            if source.secret_ref is not None:
                yield SECRETS, source.secret_ref.name
        for variable in container.env:
            value = variable.value_from
            if value is not None and value.config_map_key_ref is not None:
                yield CONFIG_MAPS, value.config_map_key_ref.name
            if value is not None and value.secret_key_ref is not None:
                yield SECRETS, value.secret_key_ref.name
    for volume in spec.volumes:
        yield from _of_volume(pod_name, volume)
    for claim in spec.resource_claims:
        if claim.resource_claim_name:
            yield RESOURCE_CLAIMS, claim.resource_claim_name


def _of_volume(pod_name: str, volume: Volume) -> Iterator[Reference]:
    if volume.secret is not None:
        yield SECRETS, volume.secret.secret_name
    if volume.config_map is not None:
        yield CONFIG_MAPS, volume.config_map.name
    if volume.persistent_volume_claim is not None:
        yield CLAIMS, volume.persistent_volume_claim.claim_name
    if volume.ephemeral is not None:
        yield CLAIMS, f"{pod_name}-{volume.name}"
    if volume.projected is not None:
        for source in volume.projected.sources:
            if source.secret is not None:
                yield SECRETS, source.secret.name
            if source.config_map is not None:
                yield CONFIG_MAPS, source.config_map.name
    if volume.azure_file is not None:
        yield SECRETS, volume.azure_file.secret_name
    if volume.csi is not None and volume.csi.node_publish_secret_ref is not None:
        yield SECRETS, volume.csi.node_publish_secret_ref.name
    for attribute in _WITH_SECRET_REF:
        source = getattr(volume, attribute)
        if source is not None and source.secret_ref is not None:
            yield SECRETS, source.secret_ref.name


def secrets_of(spec: PodSpec) -> Iterator[str]:
    return (name for resource, name in references_of("", spec) if resource == SECRETS)
