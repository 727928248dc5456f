"""The volumes of one pod: made before its sandbox, kept up to date, removed with it.

On a simulated node nothing is written, but what contents are made of must be there all the same.
"""

from __future__ import annotations

import asyncio
import os
import stat
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pybernetes.api.types._struct import wire_name
from pybernetes.api.types.authentication_v1 import (
    BoundObjectReference,
    TokenRequest,
    TokenRequestSpec,
)
from pybernetes.api.types.core_v1 import ConfigMap, Secret, ServiceAccount
from pybernetes.apimachinery.errors import StatusError
from pybernetes.apimachinery.quantity import int_value
from pybernetes.kubelet.references import references_of_volume
from pybernetes.kubelet.volumes.atomic import write_atomically
from pybernetes.kubelet.volumes.content import (
    ContentFacts,
    ContentProblem,
    content_of,
    is_made_of_objects,
    tokens_of,
)
from pybernetes.kubelet.volumes.mount import mount_memory, remove_tree
from pybernetes.wire.http import WireError

if TYPE_CHECKING:
    from datetime import datetime

    from pybernetes.api.types.core_v1 import (
        EmptyDirVolumeSource,
        HostPathVolumeSource,
        Pod,
        ServiceAccountTokenProjection,
        Volume,
    )
    from pybernetes.kubelet.context import NodeContext

DEFAULT_TOKEN_SECONDS = 3600
# A token is replaced when so much of its life is over, or after a day.
RENEW_SHARE = 0.8
RENEW_AFTER = timedelta(hours=24)

_PLUGINS = (
    ("empty_dir", "kubernetes.io~empty-dir"),
    ("config_map", "kubernetes.io~configmap"),
    ("secret", "kubernetes.io~secret"),
    ("downward_api", "kubernetes.io~downward-api"),
    ("projected", "kubernetes.io~projected"),
)


class VolumeProblem(Exception):
    """A volume cannot be made (yet); the text names it."""


class PodVolumes:
    """`pod` may be replaced by a newer version of it before `refresh`."""

    def __init__(self, context: NodeContext, pod: Pod) -> None:
        self._context = context
        self.pod = pod
        self.ips: tuple[str, ...] = ()
        self.renew_at: datetime | None = None
        # By volume and path in it: the newest token and when it is to be replaced.
        self._tokens: dict[tuple[str, str], tuple[str, datetime]] = {}

    @property
    def _directory(self) -> Path | None:
        return self._context.config.pod_dir(self.pod.metadata.uid)

    def path_of(self, name: str) -> Path | None:
        """Where the volume is on this machine; None if it is nowhere."""
        volume = next((v for v in self.pod.spec.volumes if v.name == name), None)
        if volume is None or self._directory is None:
            return None
        if volume.host_path is not None:
            return Path(volume.host_path.path)
        plugin = _plugin_of(volume)
        return None if plugin is None else self._directory / "volumes" / plugin / name

    def is_read_only(self, name: str) -> bool:
        """What is written here must not be written by containers."""
        return any(v.name == name and is_made_of_objects(v) for v in self.pod.spec.volumes)

    async def prepare(self) -> None:
        """Make them all; what is there already stays. Raises VolumeProblem."""
        for volume in self.pod.spec.volumes:
            try:
                await self._set_up(volume)
            except (ContentProblem, OSError, StatusError, WireError) as error:
                raise VolumeProblem(
                    f'MountVolume.SetUp failed for volume "{volume.name}" : {error}'
                ) from error

    async def refresh(self) -> None:
        """Write again what has changed: objects, labels, tokens. Raises VolumeProblem."""
        for volume in self.pod.spec.volumes:
            if not is_made_of_objects(volume):
                continue
            try:
                await self._write_content(volume)
            except (ContentProblem, OSError, StatusError, WireError) as error:
                raise VolumeProblem(
                    f'MountVolume.SetUp failed for volume "{volume.name}" : {error}'
                ) from error

    async def remove(self) -> None:
        directory = self._directory
        if directory is not None:
            await asyncio.to_thread(remove_tree, directory)

    async def _set_up(self, volume: Volume) -> None:
        path = self.path_of(volume.name)
        if is_made_of_objects(volume):
            if path is not None:
                path.mkdir(parents=True, exist_ok=True)
                if volume.secret is not None or tokens_of(volume):
                    self._keep_in_memory(path)
                path.chmod(0o755)
            await self._write_content(volume)
            return
        if volume.host_path is not None:
            if path is not None:
                set_up_host_path(volume.host_path)
        elif volume.empty_dir is not None:
            if path is not None:
                self._make_empty_dir(path, volume.empty_dir)
        elif volume.image is None:
            raise ContentProblem(
                f"volumes of type {_kind_of(volume)} are not supported by this node"
            )

    def _make_empty_dir(self, path: Path, source: EmptyDirVolumeSource) -> None:
        there = path.is_dir()
        path.mkdir(parents=True, exist_ok=True)
        if source.medium == "Memory":
            # After a reboot the directory is there and the mount is not.
            limit = int_value(source.size_limit) if source.size_limit else None
            there = not mount_memory(path, limit)
        if there:
            return
        path.chmod(0o777)
        group = self._group
        if group is not None:
            os.chown(path, -1, group)
            path.chmod(0o2777)

    @property
    def _group(self) -> int | None:
        security = self.pod.spec.security_context
        return None if security is None else security.fs_group

    # --- contents ---------------------------------------------------------------------------------

    async def _write_content(self, volume: Volume) -> None:
        objects: dict[tuple[type[Any], str], Any] = {}
        for kind, key in references_of_volume(self.pod, volume):
            objects[kind, key.name] = await self._context.objects.get(kind, key)
        tokens = {token.path: await self._token(volume.name, token) for token in tokens_of(volume)}

        def config_map(name: str) -> ConfigMap | None:
            found: ConfigMap | None = objects.get((ConfigMap, name))
            return found

        def secret(name: str) -> Secret | None:
            found: Secret | None = objects.get((Secret, name))
            return found

        facts = ContentFacts(
            pod=self.pod,
            ips=self.ips,
            host_ips=self._context.facts.addresses,
            allocatable=self._context.facts.allocatable,
            config_map=config_map,
            secret=secret,
            token=lambda token: tokens[token.path],
        )
        payload = content_of(volume, facts)
        path = self.path_of(volume.name)
        if path is None:
            return
        write_atomically(path, payload, self._context.clock.now(), group=self._group)

    def _keep_in_memory(self, path: Path) -> None:
        """What is secret does not belong on a disk; without the right to mount it must."""
        try:
            mount_memory(path)
        except PermissionError:
            return

    async def _token(self, volume: str, projection: ServiceAccountTokenProjection) -> str:
        if self._context.config.is_simulated:
            return "simulated"
        now = self._context.clock.now()
        known = self._tokens.get((volume, projection.path))
        if known is not None and now < known[1]:
            return known[0]
        pod = self.pod
        seconds = projection.expiration_seconds or DEFAULT_TOKEN_SECONDS
        request = TokenRequest(
            spec=TokenRequestSpec(
                audiences=(projection.audience,) if projection.audience else (),
                expiration_seconds=seconds,
                bound_object_ref=BoundObjectReference(
                    kind="Pod", api_version="v1", name=pod.metadata.name, uid=pod.metadata.uid
                ),
            )
        )
        answer = await self._context.client.create_subresource(
            ServiceAccount,
            pod.spec.service_account_name or "default",
            pod.metadata.namespace,
            "token",
            request,
        )
        expires = answer.status.expiration_timestamp
        life = expires - now if expires is not None else timedelta(seconds=seconds)
        due = now + min(life * RENEW_SHARE, RENEW_AFTER)
        self._tokens[volume, projection.path] = (answer.status.token, due)
        self.renew_at = min(due for _, due in self._tokens.values())
        return answer.status.token


def _plugin_of(volume: Volume) -> str | None:
    for attribute, plugin in _PLUGINS:
        if getattr(volume, attribute) is not None:
            return plugin
    return None


def _kind_of(volume: Volume) -> str:
    """The name of its source, as in a manifest."""
    found = [wire_name(n) for n in volume.__struct_fields__ if n != "name" and getattr(volume, n)]
    return found[0] if found else "unknown"


def set_up_host_path(source: HostPathVolumeSource) -> None:
    """Check or make what the volume promises to be. Raises ContentProblem."""
    path, kind = Path(source.path), source.type or ""
    if kind == "DirectoryOrCreate" and not path.exists():
        path.mkdir(parents=True, mode=0o755)
    elif kind == "FileOrCreate" and not path.exists():
        path.touch(mode=0o644)
    checks = {
        "Directory": (stat.S_ISDIR, "directory"),
        "DirectoryOrCreate": (stat.S_ISDIR, "directory"),
        "File": (stat.S_ISREG, "file"),
        "FileOrCreate": (stat.S_ISREG, "file"),
        "Socket": (stat.S_ISSOCK, "socket file"),
        "CharDevice": (stat.S_ISCHR, "character device"),
        "BlockDevice": (stat.S_ISBLK, "block device"),
    }
    if kind not in checks:
        return
    check, what = checks[kind]
    if not path.exists() or not check(path.stat().st_mode):
        raise ContentProblem(f"hostPath type check failed: {path} is not a {what}")


def sub_path_of(root: Path, sub_path: str) -> Path:
    """A path below the volume, made a directory if it is not there. Raises ContentProblem.

    Links are followed now and never again: a container cannot move what it was given outside.
    """
    path = (root / sub_path).resolve()
    if not path.is_relative_to(root.resolve()):
        raise ContentProblem(f"subPath {sub_path} leads out of the volume")
    if not path.exists():
        path.mkdir(parents=True, mode=0o750)
    return path
