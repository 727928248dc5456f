"""ServiceAccount: every pod runs as an account, and finds a token of it where clients look.

Fills in the account `default`, checks that the account is there, and mounts a projected volume
with a short-lived token, the CA and the namespace at the known path, unless pod or account say
no. A mirror pod stands for a static one and may use nothing of the API.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from msgspec.structs import replace

from pybernetes.api.types.core_v1 import (
    ConfigMapProjection,
    DownwardAPIProjection,
    DownwardAPIVolumeFile,
    KeyToPath,
    ObjectFieldSelector,
    ProjectedVolumeSource,
    ServiceAccount,
    ServiceAccountTokenProjection,
    Volume,
    VolumeMount,
    VolumeProjection,
)
from pybernetes.apimachinery.names import random_suffix
from pybernetes.apiserver.admission.plugin import MIRROR_POD, Plugin, is_pod, refused
from pybernetes.apiserver.hooks import Operation
from pybernetes.apiserver.typed import Typed

if TYPE_CHECKING:
    from random import Random

    from pybernetes.api.types.core_v1 import Container, Pod, PodSpec
    from pybernetes.apiserver.admission.world import World
    from pybernetes.apiserver.hooks import Attributes
    from pybernetes.apiserver.watchcache import Event

DEFAULT_ACCOUNT = "default"
MOUNT_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
VOLUME_PREFIX = "kube-api-access-"
# A little over an hour: by this number the token issuer knows these volumes.
TOKEN_SECONDS = 3607
# How long a pod waits for the default account of its namespace; upstream tries ten times.
_PATIENCE_SECONDS = 1.0

_SOURCES = (
    VolumeProjection(
        service_account_token=ServiceAccountTokenProjection(
            expiration_seconds=TOKEN_SECONDS, path="token"
        )
    ),
    VolumeProjection(
        config_map=ConfigMapProjection(
            name="kube-root-ca.crt", items=(KeyToPath(key="ca.crt", path="ca.crt"),)
        )
    ),
    VolumeProjection(
        downward_api=DownwardAPIProjection(
            items=(
                DownwardAPIVolumeFile(
                    path="namespace",
                    field_ref=ObjectFieldSelector(
                        api_version="v1", field_path="metadata.namespace"
                    ),
                ),
            )
        )
    ),
)


class ServiceAccounts(Plugin):
    def __init__(self, world: World) -> None:
        self._accounts = Typed(world.catalog, ServiceAccount)
        self._random = world.random
        # By key of an account, set when it is made: who waits for it.
        self._waiting: dict[str, asyncio.Event] = {}
        self._accounts.follow(self._on_change)

    async def mutate(self, attributes: Attributes) -> None:
        if attributes.operation is not Operation.CREATE or not is_pod(attributes):
            return
        pod: Pod = attributes.obj
        if MIRROR_POD in pod.metadata.annotations:
            self._check_mirror_pod(attributes, pod)
            return
        name = pod.spec.service_account_name or pod.spec.service_account or DEFAULT_ACCOUNT
        account = await self._account(name, attributes.namespace)
        if account is None:
            key = f"{attributes.namespace}/{name}"
            raise refused(
                attributes,
                f'error looking up service account {key}: serviceaccount "{name}" not found',
            )
        spec = replace(pod.spec, service_account_name=name, service_account=name)
        if wants_token(spec, account):
            spec = with_token(spec, self._random)
        if not spec.image_pull_secrets:
            spec = replace(spec, image_pull_secrets=account.image_pull_secrets)
        attributes.obj = replace(pod, spec=spec)

    async def _account(self, name: str, namespace: str) -> ServiceAccount | None:
        """The account. A new namespace has its default one a moment later: that is waited for."""
        account = self._accounts.get(name, namespace)
        if account is not None or name != DEFAULT_ACCOUNT:
            return account
        key = f"{namespace}/{name}"
        waiting = self._waiting.setdefault(key, asyncio.Event())
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await waiting.wait()
        except TimeoutError:
            pass
        finally:
            if self._waiting.get(key) is waiting:
                del self._waiting[key]
        return self._accounts.get(name, namespace)

    def _on_change(self, event: Event) -> None:
        if (waiting := self._waiting.pop(event.entry.key, None)) is not None:
            waiting.set()

    def _check_mirror_pod(self, attributes: Attributes, pod: Pod) -> None:
        if pod.spec.service_account_name:
            raise refused(attributes, "a mirror pod may not reference service accounts")
        if _references_secrets(pod.spec):
            raise refused(attributes, "a mirror pod may not reference secrets")
        for volume in pod.spec.volumes:
            if volume.projected and any(s.service_account_token for s in volume.projected.sources):
                raise refused(
                    attributes, "a mirror pod may not use ServiceAccountToken volume projections"
                )


def wants_token(spec: PodSpec, account: ServiceAccount) -> bool:
    if spec.automount_service_account_token is not None:
        return spec.automount_service_account_token
    return account.automount_service_account_token is not False


def with_token(spec: PodSpec, random: Random) -> PodSpec:
    """The spec with the token volume mounted where nothing else is mounted at that path."""
    present = next((v.name for v in spec.volumes if _is_token_volume(v)), "")
    name = present or f"{VOLUME_PREFIX}{random_suffix(random)}"
    mount = VolumeMount(name=name, read_only=True, mount_path=MOUNT_PATH)
    containers = tuple(_with_mount(c, mount) for c in spec.containers)
    init_containers = tuple(_with_mount(c, mount) for c in spec.init_containers)
    if containers == spec.containers and init_containers == spec.init_containers:
        return spec
    volumes = spec.volumes
    if not present:
        source = ProjectedVolumeSource(sources=_SOURCES, default_mode=0o644)
        volumes = (*volumes, Volume(name=name, projected=source))
    return replace(spec, containers=containers, init_containers=init_containers, volumes=volumes)


def _is_token_volume(volume: Volume) -> bool:
    return volume.projected is not None and volume.name.startswith(VOLUME_PREFIX)


def _with_mount(container: Container, mount: VolumeMount) -> Container:
    if any(present.mount_path == MOUNT_PATH for present in container.volume_mounts):
        return container
    return replace(container, volume_mounts=(*container.volume_mounts, mount))


def _references_secrets(spec: PodSpec) -> bool:
    from pybernetes.apiserver.authz.references import secrets_of

    return any(secrets_of(spec))
