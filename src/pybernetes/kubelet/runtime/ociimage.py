"""Writes container images: layers, configuration and index, as one tar archive.

The archive is an OCI image layout (`oci-layout`, `index.json`, `blobs/`) with Docker's
`manifest.json` beside it, so that containerd, CRI-O's tools and `docker load` all read it.

Rule: the same content gives the same bytes, and so the same image id: no clock, no file modes or
owners from this machine, entries sorted.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import stat
import tarfile
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"

# Machine names as Linux says them → as images say them.
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "riscv64": "riscv64"}

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class File:
    """A regular file."""

    content: bytes
    mode: int = 0o644
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory with an owner or mode of its own; plain ones need not be said."""

    mode: int = 0o755
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True)
class Symlink:
    target: str


Entry = File | Directory | Symlink


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """What a container of the image does unless its pod says otherwise."""

    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    user: str = ""
    working_directory: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    exposed_ports: tuple[str, ...] = ()
    """Such as "80/tcp"."""
    volumes: tuple[str, ...] = ()
    stop_signal: str = ""


@dataclass(frozen=True, slots=True)
class Image:
    """A finished image; `id` is the digest of its configuration, as runtimes report it."""

    id: str
    manifest_digest: str
    manifest: bytes
    # Every blob of the image by digest: layers, configuration, manifest.
    blobs: Mapping[str, bytes] = field(repr=False)
    # Digests of the layers, lowest first.
    layers: tuple[str, ...]


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def this_architecture() -> str:
    return ARCHITECTURES.get(platform.machine(), platform.machine())


def layer(entries: Mapping[str, Entry]) -> bytes:
    """An uncompressed layer. Paths are absolute or relative to the root; parents are added."""
    tree: dict[str, Entry] = {}
    for path, entry in entries.items():
        name = path.strip("/")
        for parent in list(Path(name).parents)[:-1]:
            tree.setdefault(str(parent), Directory())
        tree[name] = entry
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        # Sorted: a directory stands before what is in it.
        for name, entry in sorted(tree.items()):
            content = entry.content if isinstance(entry, File) else b""
            archive.addfile(_tar_header(name, entry), io.BytesIO(content))
    return buffer.getvalue()


def entries_of(directory: Path, prefix: str = "/") -> dict[str, Entry]:
    """The files below a directory of this machine, owned by root, with their permissions."""
    entries: dict[str, Entry] = {}
    for path in sorted(directory.rglob("*")):
        name = str(Path(prefix) / path.relative_to(directory))
        mode = stat.S_IMODE(path.lstat().st_mode)
        if path.is_symlink():
            entries[name] = Symlink(str(path.readlink()))
        elif path.is_dir():
            entries[name] = Directory(mode)
        elif path.is_file():
            entries[name] = File(path.read_bytes(), mode)
    return entries


def _tar_header(name: str, entry: Entry) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    match entry:
        case File():
            header.size, header.mode = len(entry.content), entry.mode
            header.uid, header.gid = entry.uid, entry.gid
        case Directory():
            header.type, header.mode = tarfile.DIRTYPE, entry.mode
            header.uid, header.gid = entry.uid, entry.gid
        case Symlink():
            header.type, header.mode, header.linkname = tarfile.SYMTYPE, 0o777, entry.target
    return header


def build_image(
    layers: Sequence[bytes],
    config: ImageConfig = ImageConfig(),
    *,
    architecture: str = "",
    created_at: datetime = EPOCH,
) -> Image:
    """Put uncompressed layers together, lowest first."""
    blobs = {digest_of(content): content for content in layers}
    layer_digests = tuple(digest_of(content) for content in layers)
    configuration = _json(
        {
            "created": created_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "architecture": architecture or this_architecture(),
            "os": "linux",
            "config": _runtime_config(config),
            "rootfs": {"type": "layers", "diff_ids": list(layer_digests)},
        }
    )
    image_id = digest_of(configuration)
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": _descriptor(CONFIG_TYPE, configuration),
            "layers": [_descriptor(LAYER_TYPE, content) for content in layers],
        }
    )
    manifest_digest = digest_of(manifest)
    blobs |= {image_id: configuration, manifest_digest: manifest}
    return Image(image_id, manifest_digest, manifest, blobs, layer_digests)


def _runtime_config(config: ImageConfig) -> dict[str, Any]:
    fields = {
        "User": config.user,
        "ExposedPorts": {port: {} for port in config.exposed_ports},
        "Env": [f"{name}={value}" for name, value in config.env.items()],
        "Entrypoint": list(config.entrypoint),
        "Cmd": list(config.command),
        "Volumes": {path: {} for path in config.volumes},
        "WorkingDir": config.working_directory,
        "Labels": dict(config.labels),
        "StopSignal": config.stop_signal,
    }
    return {name: value for name, value in fields.items() if value}


def archive(images: Mapping[str, Image] | Iterable[tuple[str, Image]]) -> bytes:
    """One archive with the images under their full names ("localhost/hello:1").

    An image may stand there under several names.
    """
    named = list(images.items() if hasattr(images, "items") else images)
    index = {
        "schemaVersion": 2,
        "mediaType": INDEX_TYPE,
        "manifests": [_index_line(name, image) for name, image in named],
    }
    files = {
        "oci-layout": _json({"imageLayoutVersion": "1.0.0"}),
        "index.json": _json(index),
        "manifest.json": _json(_docker_manifest(named)),
    }
    for _, image in named:
        for digest, content in image.blobs.items():
            files[_blob_path(digest)] = content
    return layer({name: File(content) for name, content in files.items()})


def _index_line(name: str, image: Image) -> dict[str, Any]:
    return {
        **_descriptor(MANIFEST_TYPE, image.manifest),
        "annotations": {
            # The first is containerd's full name, the second the OCI layout's tag.
            "io.containerd.image.name": name,
            "org.opencontainers.image.ref.name": name.rpartition(":")[2],
        },
    }


def _docker_manifest(named: list[tuple[str, Image]]) -> list[dict[str, Any]]:
    names: dict[str, list[str]] = {}
    images: dict[str, Image] = {}
    for name, image in named:
        names.setdefault(image.id, []).append(name)
        images[image.id] = image
    return [
        {
            "Config": _blob_path(image_id),
            "RepoTags": tags,
            "Layers": [_blob_path(digest) for digest in images[image_id].layers],
        }
        for image_id, tags in names.items()
    ]


def _blob_path(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _descriptor(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()
