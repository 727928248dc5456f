"""Static pods: manifests in a directory of the node, run without asking the API.

Each has a *mirror pod* in the API, which shows it and carries its status, and is made again when
somebody deletes it. The uid of a static pod is derived from the node and its manifest: a changed
manifest is another pod, and a kubelet that comes back recognises what it started.
"""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from pybernetes.api import codec
from pybernetes.api.core.poddefaults import default_pod
from pybernetes.api.types.core_v1 import Pod, PodStatus, Toleration
from pybernetes.api.types.meta_v1 import ObjectMeta, OwnerReference
from pybernetes.apimachinery.yamltext import load_yaml

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pybernetes.api.types.core_v1 import Node

log = logging.getLogger(__name__)

SOURCE, HASH = "kubernetes.io/config.source", "kubernetes.io/config.hash"
MIRROR = "kubernetes.io/config.mirror"
# What is neither edited by somebody right now nor hidden.
ENDINGS = (".yaml", ".yml", ".json", ".manifest")


class ManifestProblem(Exception):
    """The file is not a pod."""


def is_mirror(pod: Pod) -> bool:
    return MIRROR in pod.metadata.annotations


def read_manifests(directory: Path, node_name: str) -> dict[str, Pod]:
    """All static pods, by uid. A file that is not one is logged and passed over."""
    found: dict[str, Pod] = {}
    for path in _files(directory):
        try:
            pod = static_pod(path.read_bytes(), str(path), node_name)
        except (OSError, ManifestProblem) as problem:
            log.warning("manifest %s: %s", path, problem)
        else:
            found[pod.metadata.uid] = pod
    return found


def _files(directory: Path) -> Iterator[Path]:
    if directory.is_dir():
        for path in sorted(directory.iterdir()):
            if path.suffix in ENDINGS and not path.name.startswith(".") and path.is_file():
                yield path


def static_pod(data: bytes, source: str, node_name: str) -> Pod:
    """The pod of a manifest, as this node runs it. Raises ManifestProblem."""
    try:
        value: Any = load_yaml(data)[0]
        if not isinstance(value, dict) or value.get("kind") != "Pod":
            raise ManifestProblem("not a Pod")
        pod = default_pod(codec.from_dict(Pod, value))
    except ValueError as error:
        raise ManifestProblem(str(error)) from error
    if not pod.metadata.name or not pod.spec.containers:
        raise ManifestProblem("a pod needs a name and containers")
    text = b"\0".join([node_name.encode(), source.encode(), data])
    uid = hashlib.sha256(text).hexdigest()[:32]
    annotations = {**pod.metadata.annotations, HASH: uid, SOURCE: "file"}
    # It belongs to this node, so nothing that happens to the node drives it away.
    stays = Toleration(operator="Exists", effect="NoExecute")
    return replace(
        pod,
        metadata=replace(
            pod.metadata,
            name=f"{pod.metadata.name}-{node_name}",
            namespace=pod.metadata.namespace or "default",
            uid=uid,
            annotations=annotations,
        ),
        spec=replace(pod.spec, node_name=node_name, tolerations=(*pod.spec.tolerations, stays)),
        status=PodStatus(phase="Pending"),
    )


def mirror_of(pod: Pod, node: Node | None) -> Pod:
    """What shows a static pod in the API."""
    meta = pod.metadata
    owners: tuple[OwnerReference, ...] = ()
    if node is not None:
        owners = (
            OwnerReference(
                api_version="v1",
                kind="Node",
                name=node.metadata.name,
                uid=node.metadata.uid,
                controller=True,
            ),
        )
    return Pod(
        metadata=ObjectMeta(
            name=meta.name,
            namespace=meta.namespace,
            labels=meta.labels,
            annotations={**meta.annotations, MIRROR: meta.annotations[HASH]},
            owner_references=owners,
        ),
        spec=pod.spec,
    )
