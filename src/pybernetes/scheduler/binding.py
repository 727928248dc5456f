"""The binding cycle of one pod: Permit, PreBind, Bind and PostBind, beside the loop.

The pod holds its place on the node meanwhile. Whatever goes wrong gives the place back and is
told to the caller; Reserve comes before, in the loop, because it must not wait.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pybernetes.apimachinery.errors import Conflict, NotFound, StatusError
from pybernetes.apimachinery.meta import key_of
from pybernetes.wire.http import WireError

if TYPE_CHECKING:
    from pybernetes.api.types.core_v1 import Pod
    from pybernetes.client import Client, EventRecorder
    from pybernetes.scheduler.framework import Profile
    from pybernetes.scheduler.reasons import Refusal

log = logging.getLogger(__name__)

# Bindings on their way to the API at once.
BINDINGS_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it ended: bound, refused by a plugin, gone, or none of them: then try again."""

    bound: bool = False
    gone: bool = False
    refusal: Refusal | None = None


class Binder:
    def __init__(self, client: Client, recorder: EventRecorder) -> None:
        self._client, self._recorder = client, recorder
        self._free = asyncio.Semaphore(BINDINGS_AT_ONCE)

    async def bind(self, profile: Profile, pod: Pod, node: str) -> Outcome:
        """Never raises what an API or a connection can give."""
        try:
            for permit in profile.permit:
                if (refusal := await permit.permit(pod, node)) is not None:
                    return Outcome(refusal=refusal)
            async with self._free:
                for first in profile.pre_bind:
                    if (refusal := await first.pre_bind(pod, node)) is not None:
                        return Outcome(refusal=refusal)
                if not await self._bind(profile, pod, node):
                    return Outcome()
        except NotFound:
            return Outcome(gone=True)
        except (StatusError, WireError) as error:
            # Somebody else bound it or changed it: the watch will tell.
            if not isinstance(error, Conflict):
                extra = {"pod": str(key_of(pod)), "error": str(error)}
                log.warning("binding failed, will retry", extra=extra)
            return Outcome()
        for last in profile.post_bind:
            last.post_bind(pod, node)
        said = f"Successfully assigned {key_of(pod)} to {node}"
        self._recorder.record(pod, "Normal", "Scheduled", said, action="Binding")
        return Outcome(bound=True)

    async def _bind(self, profile: Profile, pod: Pod, node: str) -> bool:
        for plugin in profile.bind:
            if await plugin.bind(self._client, pod, node):
                return True
        log.warning("no plugin binds pods", extra={"profile": profile.scheduler_name})
        return False
