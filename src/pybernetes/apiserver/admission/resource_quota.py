"""ResourceQuota: nothing comes in that would take a namespace over its limits.

What a write uses is added to the quota's status by compare-and-set before the object is stored,
so that two writes, or two servers, can never both take the last place. The controller that adds
up what is really there puts the figure right when a counted write fails afterwards or an object
goes. Writes of one namespace that count take turns here, so they do not lose races to each other.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from pybernetes.api.quota import (
    added,
    counts,
    exceeded,
    masked,
    subtracted,
    told,
    unsaid,
    usage_of,
)
from pybernetes.api.types.core_v1 import ResourceQuota
from pybernetes.apimachinery.errors import Conflict, InternalError
from pybernetes.apimachinery.quantity import parse_quantity
from pybernetes.apiserver.admission.plugin import Plugin, refused
from pybernetes.apiserver.hooks import Operation
from pybernetes.apiserver.typed import Typed
from pybernetes.apiserver.verbs.write import until_seen
from pybernetes.storage import Durability, KeyNotFound, RevisionMismatch, StoreFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pybernetes.apiserver.admission.world import World
    from pybernetes.apiserver.entry import Entry
    from pybernetes.apiserver.hooks import Attributes

_ATTEMPTS = 5
# What may use more after an update; all else is counted when it is made.
_GROWING = frozenset({"services", "persistentvolumeclaims"})


class ResourceQuotas(Plugin):
    def __init__(self, world: World) -> None:
        self._backend = world.backend
        self._clock = world.clock
        self._quotas = Typed(world.catalog, ResourceQuota)
        # By namespace, while somebody is in it.
        self._turns: dict[str, asyncio.Lock] = {}

    async def validate(self, attributes: Attributes) -> None:
        if attributes.subresource or not attributes.namespace or not _is_counted(attributes):
            return
        namespace = attributes.namespace
        if attributes.operation is Operation.CREATE and _is_there(attributes):
            return  # will be refused: not counted, or it would stay so
        if not any(True for _ in self._quotas.list(namespace)):
            return
        turn = self._turns.setdefault(namespace, asyncio.Lock())
        try:
            async with turn:
                for quota in tuple(self._quotas.list(namespace)):
                    await self._charge(attributes, quota.metadata.name)
        finally:
            if not turn.locked():
                self._turns.pop(namespace, None)

    async def _charge(self, attributes: Attributes, name: str) -> None:
        served = self._quotas.served
        assert served is not None
        for _ in range(_ATTEMPTS):
            entry = self._quotas.entry(name, attributes.namespace)
            quota = self._quotas.get(name, attributes.namespace)
            if entry is None or quota is None:
                return
            delta = self._delta(attributes, quota)
            if not delta:
                return
            used = self._checked(attributes, quota, delta)
            if attributes.dry_run or used == quota.status.used:
                return
            changed = replace(quota, status=replace(quota.status, used=used))
            try:
                await self._store(entry, served.encode(changed))
            except RevisionMismatch as lost:
                await until_seen(self._backend, served, entry, lost)
                continue
            except KeyNotFound:
                return
            except StoreFailed as error:
                raise InternalError(str(error)) from None
            return
        raise Conflict("resourcequotas", name)

    async def _store(self, entry: Entry, value: bytes) -> None:
        cache = self._quotas.cache
        assert cache is not None
        # A crash may lose the figure: the controller counts anew when it starts.
        await self._backend.store.put(
            cache.prefix + entry.key,
            value,
            if_revision=entry.revision,
            durability=Durability.RELAXED,
        )

    def _delta(self, attributes: Attributes, quota: ResourceQuota) -> dict[str, str]:
        """What the write uses of the quota beyond what it used before."""
        group, plural = attributes.group, attributes.resource
        hard = quota.spec.hard
        if not counts(quota, attributes.obj, group, plural):
            return {}
        now = self._clock.now()
        usage = masked(usage_of(attributes.obj, group, plural, now), hard)
        if attributes.operation is Operation.CREATE and plural == "pods" and not group:
            self._check_said(attributes, quota, attributes.obj)
        if attributes.old is not None and counts(quota, attributes.old, group, plural):
            usage = subtracted(usage, masked(usage_of(attributes.old, group, plural, now), hard))
        return {name: amount for name, amount in usage.items() if parse_quantity(amount) > 0}

    def _check_said(self, attributes: Attributes, quota: ResourceQuota, pod: Any) -> None:
        if lacking := unsaid(pod, quota.spec.hard):
            what = "; ".join(f"{name} for: {','.join(of)}" for name, of in lacking.items())
            name = quota.metadata.name
            raise refused(attributes, f"failed quota: {name}: must specify {what}")

    def _checked(
        self, attributes: Attributes, quota: ResourceQuota, delta: Mapping[str, str]
    ) -> dict[str, str]:
        """What will be used. Raises Forbidden."""
        name, hard, present = quota.metadata.name, quota.status.hard, quota.status.used
        if unknown := sorted(set(delta) - set(hard)):
            raise refused(
                attributes, f"status unknown for quota: {name}, resources: {','.join(unknown)}"
            )
        used = added(present, delta)
        if over := exceeded(masked(used, delta), hard):
            raise refused(
                attributes,
                f"exceeded quota: {name}, requested: {told(delta, over)},"
                f" used: {told(present, over)}, limited: {told(hard, over)}",
            )
        return used


def _is_there(attributes: Attributes) -> bool:
    served = attributes.served
    key = served.key(attributes.namespace, attributes.name)
    return served.is_stored and key in served.cache.entries


def _is_counted(attributes: Attributes) -> bool:
    if attributes.operation is Operation.CREATE:
        return True
    return (
        attributes.operation is Operation.UPDATE
        and not attributes.group
        and attributes.resource in _GROWING
    )
