"""What controllers of pods share: making them from a template, adopting and releasing them.

Ownership rules are upstream's: an object controls the pods whose controller reference has its uid.
Pods its selector names and nobody controls are adopted; pods it controls and no longer selects are
let go. Before adopting, the owner is read from the API itself: one that was deleted and made anew
must not take pods on behalf of the old.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from pybernetes.api.core.podstate import is_finished
from pybernetes.api.ownership import controller_of, owner_reference
from pybernetes.api.types.core_v1 import Pod
from pybernetes.api.types.meta_v1 import ObjectMeta
from pybernetes.apimachinery.errors import NotFound, StatusError
from pybernetes.client import NORMAL, WARNING, PatchType, changes_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping
    from datetime import timedelta

    from pybernetes.api.types.core_v1 import PodTemplateSpec
    from pybernetes.apimachinery.meta import Key
    from pybernetes.apimachinery.selector import Selector
    from pybernetes.client import Cache, Client, EventRecorder, Source

log = logging.getLogger(__name__)

# By namespace, what nobody controls.
ORPHAN_INDEX = "orphans"


class Owner(Protocol):
    """A typed object that has pods."""

    @property
    def kind(self) -> str: ...
    @property
    def api_version(self) -> str: ...
    @property
    def metadata(self) -> ObjectMeta: ...


def pod_from_template(
    template: PodTemplateSpec,
    owner: Owner,
    *,
    name: str = "",
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    finalizers: tuple[str, ...] = (),
) -> Pod:
    """A pod as the template says, controlled by `owner`; without a name it gets a random one."""
    given = template.metadata
    metadata = ObjectMeta(
        name=name,
        generate_name="" if name else f"{owner.metadata.name}-",
        namespace=owner.metadata.namespace,
        labels={**given.labels, **(labels or {})},
        annotations={**given.annotations, **(annotations or {})},
        finalizers=(*given.finalizers, *finalizers),
        owner_references=(owner_reference(owner),),
    )
    return Pod(metadata=metadata, spec=template.spec)


class PodControl:
    """Creates and deletes pods, and says so in events about their owner."""

    def __init__(self, client: Client, recorder: EventRecorder) -> None:
        self._client, self._recorder = client, recorder

    async def create(self, owner: Owner, pod: Pod) -> Pod:
        try:
            made = await self._client.create(pod)
        except StatusError as error:
            if not is_namespace_going(error):
                self._say(owner, WARNING, "FailedCreate", f"Error creating: {error.message}")
            raise
        self._say(owner, NORMAL, "SuccessfulCreate", f"Created pod: {made.metadata.name}")
        return made

    async def delete(self, owner: Owner, pod: Pod) -> None:
        """A pod that is gone already was deleted too."""
        try:
            await self._client.delete(pod)
        except NotFound:
            return
        except StatusError as error:
            self._say(owner, WARNING, "FailedDelete", f"Error deleting: {error.message}")
            raise
        self._say(owner, NORMAL, "SuccessfulDelete", f"Deleted pod: {pod.metadata.name}")

    def _say(self, owner: Owner, type_: str, reason: str, message: str) -> None:
        self._recorder.record(owner, type_, reason, message)


async def claim(
    client: Client, owner: Owner, selector: Selector, candidates: Iterable[Any]
) -> list[Any]:
    """The objects that belong to `owner`, after adopting and releasing what has to be.

    Works for pods, replica sets and revisions alike. What somebody else changed meanwhile is left
    for the next look.
    """
    owned: list[Any] = []
    may_adopt: bool | None = None
    for candidate in candidates:
        controller = controller_of(candidate)
        matches = selector.matches(candidate.metadata.labels)
        if controller is not None:
            if controller.uid != owner.metadata.uid:
                continue
            if matches:
                owned.append(candidate)
            elif owner.metadata.deletion_timestamp is None:
                await _release(client, owner, candidate)
            continue
        if not matches or not _adoptable(owner, candidate):
            continue
        if may_adopt is None:
            may_adopt = await _still_there(client, owner)
        if may_adopt and (adopted := await _adopt(client, owner, candidate)) is not None:
            owned.append(adopted)
    return owned


def candidates_of(cache: Cache[Any], owner: Owner, selector: Selector) -> list[Any]:
    """What the owner controls by now, and what it might adopt.

    Objects that others control are not even looked at: a namespace may have thousands of them.
    """
    cache.index(ORPHAN_INDEX, _orphanage)
    orphans = cache.by_index(ORPHAN_INDEX, owner.metadata.namespace)
    return [
        *cache.owned_by(owner),
        *(obj for obj in orphans if selector.matches(obj.metadata.labels)),
    ]


def _orphanage(obj: Any) -> tuple[str, ...]:
    return (obj.metadata.namespace,) if _is_orphan(obj) else ()


def is_namespace_going(error: StatusError) -> bool:
    """A namespace that is going away refuses everything new; that is no news to anybody."""
    return error.has_cause("NamespaceTerminating")


async def unless_namespace_goes(look: Awaitable[timedelta | None]) -> timedelta | None:
    """One look, which may end early when the namespace does: what is left in it will go too."""
    try:
        return await look
    except StatusError as error:
        if is_namespace_going(error):
            return None
        raise


def orphan_keys_of(
    children: Cache[Any], owners: Cache[Any], selector_for: Callable[[Any], Selector]
) -> Source:
    """Owners that might adopt an object, when it has come to be controlled by nobody."""

    def keys(old: Any, new: Any) -> list[Key]:
        if new is None or not _is_orphan(new) or new.metadata.deletion_timestamp is not None:
            return []
        if old is not None and _is_orphan(old) and old.metadata.labels == new.metadata.labels:
            return []
        return [
            owners.kind.key_of(owner)
            for owner in owners.list(new.metadata.namespace)
            if selector_for(owner).matches(new.metadata.labels)
        ]

    return changes_of(children, keys)


def _is_orphan(obj: Any) -> bool:
    return controller_of(obj) is None


def _adoptable(owner: Owner, candidate: Any) -> bool:
    if owner.metadata.deletion_timestamp is not None:
        return False
    if candidate.metadata.deletion_timestamp is not None:
        return False
    return not (isinstance(candidate, Pod) and is_finished(candidate))


async def _still_there(client: Client, owner: Owner) -> bool:
    fresh: Any = await client.get_or_none(
        type(owner), owner.metadata.name, owner.metadata.namespace
    )
    return (
        fresh is not None
        and fresh.metadata.uid == owner.metadata.uid
        and fresh.metadata.deletion_timestamp is None
    )


async def _adopt(client: Client, owner: Owner, candidate: Any) -> Any | None:
    reference = msgspec.to_builtins(owner_reference(owner))
    return await _patch_owners(client, candidate, {"ownerReferences": [reference]})


async def _release(client: Client, owner: Owner, candidate: Any) -> None:
    gone = {"$patch": "delete", "uid": owner.metadata.uid}
    await _patch_owners(client, candidate, {"ownerReferences": [gone]})


async def _patch_owners(client: Client, candidate: Any, metadata: dict[str, Any]) -> Any | None:
    patch = {"metadata": {"uid": candidate.metadata.uid, **metadata}}
    name, namespace = candidate.metadata.name, candidate.metadata.namespace
    try:
        return await client.patch(
            type(candidate), name, namespace, patch=patch, type=PatchType.STRATEGIC
        )
    except StatusError as error:
        # Gone, or somebody else's by now: both show in the cache soon.
        log.info("could not change the owner of %s/%s: %s", namespace, name, error)
        return None
