"""Images: is it here, may it be pulled, what does pulling it say.

One `Images` per node: pulls of the same image by several pods share one, and no more than a few run
at the same time. The back-off between tries is the pod machine's.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

from pybernetes.kubelet.runtime.interface import (
    ContainerRuntimeError,
    ImagePullFailed,
    ImageStatus,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import timedelta

    from pybernetes.aio.clock import Clock
    from pybernetes.kubelet.runtime.interface import RegistryAuth, Runtime

ALWAYS, IF_NOT_PRESENT, NEVER = "Always", "IfNotPresent", "Never"
MOST_PULLS = 5


# Of reference: optional domain, path components, tag, digest (distribution's grammar).
_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_DOMAIN = (
    r"(?:(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
    r"(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
)
_REFERENCE = re.compile(
    rf"(?:{_DOMAIN}/)?{_COMPONENT}(?:/{_COMPONENT})*(?::[\w][\w.-]{{0,127}})?"
    r"(?:@[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,})?",
    re.ASCII,
)


class ImageProblem(Exception):
    """No image to start from; `reason` and the text are what the container waits with."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason, self.message = reason, message


def is_reference(image: str) -> bool:
    return len(image) <= 4096 and _REFERENCE.fullmatch(image) is not None


def full_reference(image: str) -> str:
    """As runtimes know it: `busybox` is docker.io/library/busybox:latest."""
    first, slash, _ = image.partition("/")
    if not slash:
        image = f"docker.io/library/{image}"
    elif "." not in first and ":" not in first and first != "localhost":
        image = f"docker.io/{image}"
    if "@" not in image and ":" not in image.rpartition("/")[2]:
        image += ":latest"
    return image


class Images:
    def __init__(self, runtime: Runtime, clock: Clock) -> None:
        self._runtime, self._clock = runtime, clock
        self._room = asyncio.Semaphore(MOST_PULLS)

    async def ensure(
        self,
        image: str,
        policy: str,
        auths: Sequence[RegistryAuth],
        say: Callable[[str, str, str], None],
    ) -> ImageStatus:
        """The image on this node, pulled if the policy says so. Raises ImageProblem."""
        if not is_reference(image):
            message = (
                f'Failed to apply default image tag "{image}": couldn\'t parse image name '
                f'"{image}": invalid reference format'
            )
            say("Warning", "InspectFailed", message)
            say("Warning", "Failed", "Error: InvalidImageName")
            raise ImageProblem("InvalidImageName", message)
        try:
            present = await self._runtime.image_status(full_reference(image))
        except ContainerRuntimeError as error:
            message = f'Failed to inspect image "{image}": {error.message}'
            say("Warning", "InspectFailed", message)
            raise ImageProblem("ImageInspectError", message) from error
        if present is not None and (policy != ALWAYS):
            say("Normal", "Pulled", f'Container image "{image}" already present on machine')
            return present
        if policy == NEVER:
            message = f'Container image "{image}" is not present with pull policy of Never'
            say("Warning", "ErrImageNeverPull", message)
            say("Warning", "Failed", "Error: ErrImageNeverPull")
            raise ImageProblem("ErrImageNeverPull", message)
        return await self._pull(image, auths, say)

    async def _pull(
        self,
        image: str,
        auths: Sequence[RegistryAuth],
        say: Callable[[str, str, str], None],
    ) -> ImageStatus:
        say("Normal", "Pulling", f'Pulling image "{image}"')
        asked_at = self._clock.now()
        async with self._room:
            begun_at = self._clock.now()
            try:
                await self._try(image, auths)
                found = await self._runtime.image_status(full_reference(image))
            except ContainerRuntimeError as error:
                reason = error.reason if isinstance(error, ImagePullFailed) else "ErrImagePull"
                say("Warning", "Failed", f'Failed to pull image "{image}": {error.message}')
                say("Warning", "Failed", f"Error: {reason}")
                raise ImageProblem(reason, error.message) from error
            done_at = self._clock.now()
        if found is None:
            raise ImageProblem("ErrImagePull", f'image "{image}" was pulled and is not there')
        say(
            "Normal",
            "Pulled",
            f'Successfully pulled image "{image}" in {_text(done_at - begun_at)} '
            f"({_text(done_at - asked_at)} including waiting). "
            f"Image size: {found.size_bytes} bytes.",
        )
        return found

    async def _try(self, image: str, auths: Sequence[RegistryAuth]) -> None:
        """With each credential in turn, as several may be for one registry."""
        if not auths:
            await self._runtime.pull_image(full_reference(image))
            return
        for number, auth in enumerate(auths, 1):
            try:
                await self._runtime.pull_image(full_reference(image), auth)
                return
            except ImagePullFailed:
                if number == len(auths):
                    raise


def _text(span: timedelta) -> str:
    """As Go prints a duration rounded to milliseconds: 0s, 35ms, 1.204s, 1m3.5s."""
    milliseconds = round(span.total_seconds() * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms" if milliseconds else "0s"
    minutes, rest = divmod(milliseconds, 60_000)
    seconds = f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    return f"{minutes}m{seconds}" if minutes else seconds
