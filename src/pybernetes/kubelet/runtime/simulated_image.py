"""The images of a simulated runtime: a registry that has everything, unless it was scripted not to."""

from __future__ import annotations

import asyncio
import hashlib
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from pybernetes.kubelet.runtime.interface import ImagePullFailed, ImageStatus
from pybernetes.kubelet.runtime.script import ImageScript

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pybernetes.kubelet.runtime.interface import RegistryAuth

EVERYTHING = ImageScript()


def full_reference(ref: str) -> str:
    """As registries know it: `busybox` is docker.io/library/busybox:latest."""
    first, slash, _ = ref.partition("/")
    if not slash:
        ref = f"docker.io/library/{ref}"
    elif "." not in first and ":" not in first and first != "localhost":
        ref = f"docker.io/{ref}"
    if "@" not in ref and ":" not in ref.rpartition("/")[2]:
        ref += ":latest"
    return ref


def repository_of(full: str) -> str:
    name = full.partition("@")[0]
    head, slash, last = name.rpartition("/")
    return head + slash + last.partition(":")[0]


class SimulatedImages:
    """What is on the node, and what pulling does."""

    def __init__(self) -> None:
        # Images on the node, by id.
        self._present: dict[str, ImageStatus] = {}
        # Every name of them (full reference, digest reference, id) → id.
        self._names: dict[str, str] = {}
        # (pattern over short or full references, what a pull does), later ones win.
        self._scripts: list[tuple[str, ImageScript]] = []
        # Pulls that were begun, by full reference.
        self._pulls: dict[str, int] = {}

    def script(self, pattern: str, script: ImageScript) -> None:
        self._scripts.append((pattern, script))

    def add(self, ref: str) -> str:
        """Put an image on the node; returns its id."""
        full = full_reference(ref)
        script = self._script_of(ref)
        digest = "sha256:" + hashlib.sha256(full.encode()).hexdigest()
        image_id = "sha256:" + hashlib.sha256(digest.encode()).hexdigest()
        by_digest = f"{repository_of(full)}@{digest}"
        self._present[image_id] = ImageStatus(
            id=image_id,
            repo_tags=() if "@" in full else (full,),
            repo_digests=(full if "@" in full else by_digest,),
            size_bytes=script.size_bytes,
            uid=script.uid,
            username=script.username,
        )
        for name in (full, by_digest, image_id):
            self._names[name] = image_id
        return image_id

    def find(self, ref: str) -> ImageStatus | None:
        image_id = self._names.get(ref) or self._names.get(full_reference(ref))
        return self._present.get(image_id) if image_id else None

    def remove(self, ref: str) -> None:
        image = self.find(ref)
        if image is not None:
            del self._present[image.id]
            self._names = {name: own for name, own in self._names.items() if own != image.id}

    def all(self) -> Sequence[ImageStatus]:
        return list(self._present.values())

    def pull_count(self, ref: str) -> int:
        return self._pulls.get(full_reference(ref), 0)

    async def pull(self, ref: str, auth: RegistryAuth | None = None) -> str:
        full = full_reference(ref)
        script = self._script_of(ref)
        earlier = self._pulls.get(full, 0)
        self._pulls[full] = earlier + 1
        if script.after:
            await asyncio.sleep(script.after.total_seconds())
        let_in = script.wants is not None and auth is not None and script.wants == auth.username
        failed = script.failures is None or earlier < script.failures
        if script.error and failed and not let_in:
            raise ImagePullFailed(
                script.error.format(ref=full), reason=script.reason, code=script.code
            )
        return self.add(ref)

    def _script_of(self, ref: str) -> ImageScript:
        full = full_reference(ref)
        for pattern, script in reversed(self._scripts):
            if fnmatchcase(ref, pattern) or fnmatchcase(full, pattern):
                return script
        return EVERYTHING
