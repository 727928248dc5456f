"""Namespace: a namespace that is deleted is emptied first, then let go.

Watches namespaces; deletes everything of every kind in them; writes namespaces/status (what is
left, and why) and namespaces/finalize (takes the finalizer `kubernetes` out).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from pybernetes.api.conditions import FALSE, TRUE, with_condition
from pybernetes.api.types.core_v1 import Namespace, NamespaceCondition, Pod
from pybernetes.apimachinery.errors import MethodNotSupported, NotFound, StatusError
from pybernetes.apimachinery.meta import Key
from pybernetes.client import changes_of, keys_of
from pybernetes.client.discovery import served_resources

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pybernetes.client.discovery import ServedResource
    from pybernetes.controllers.context import ControllerContext

FINALIZER = "kubernetes"
# What is left is looked at again after this if nothing says how long it will take.
LOOK_AGAIN = timedelta(seconds=15)
# A finalizer of somebody else is looked at at this pace.
SOON = timedelta(seconds=1)


@dataclass(slots=True)
class Leftovers:
    """What could not be deleted yet."""

    # Objects that remain, by `plural.group`.
    remaining: Counter[str] = field(default_factory=Counter)
    # Finalizers on them.
    finalizers: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    # The longest grace that pods were given.
    grace: timedelta = timedelta(0)

    @property
    def empty(self) -> bool:
        return not self.remaining and not self.errors


def conditions_for(
    known: tuple[NamespaceCondition, ...], left: Leftovers, now: Any
) -> tuple[NamespaceCondition, ...]:
    """Upstream's five conditions of a namespace that is going, in its order and words."""
    conditions = known
    for type_, wrong, bad, good in (
        (
            "NamespaceDeletionDiscoveryFailure",
            "",
            "",
            ("ResourcesDiscovered", "All resources successfully discovered"),
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            "",
            "",
            ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
        ),
        (
            "NamespaceDeletionContentFailure",
            "Failed to delete all resource types, "
            f"{len(left.errors)} remaining: {', '.join(left.errors)}"
            if left.errors
            else "",
            "ContentDeletionFailed",
            (
                "ContentDeleted",
                "All content successfully deleted, may be waiting on finalization",
            ),
        ),
        (
            "NamespaceContentRemaining",
            f"Some resources are remaining: {_listed(left.remaining, 'has', 'resource instances')}"
            if left.remaining
            else "",
            "SomeResourcesRemain",
            ("ContentRemoved", "All content successfully removed"),
        ),
        (
            "NamespaceFinalizersRemaining",
            "Some content in the namespace has finalizers remaining: "
            f"{_listed(left.finalizers, 'in', 'resource instances')}"
            if left.finalizers
            else "",
            "SomeFinalizersRemain",
            ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
        ),
    ):
        reason, message = (bad, wrong) if wrong else good
        conditions = with_condition(
            conditions,
            NamespaceCondition(
                type=type_,
                status=TRUE if wrong else FALSE,
                reason=reason,
                message=message,
                last_transition_time=now.replace(microsecond=0),
            ),
        )
    return conditions


def _listed(counts: Mapping[str, int], verb: str, what: str) -> str:
    return ", ".join(f"{name} {verb} {count} {what}" for name, count in sorted(counts.items()))


class NamespaceController:
    name = "namespace-controller"

    def __init__(self, context: ControllerContext) -> None:
        self._client = context.client_for(self.name)
        self._clock = context.clock
        self._namespaces = context.caches.of(Namespace)
        self._pods = context.caches.of(Pod)
        self.sources = (
            keys_of(self._namespaces),
            changes_of(self._pods, self._pod_changed),
        )

    async def reconcile(self, key: Key) -> timedelta | None:
        namespace = self._namespaces.get(key)
        if namespace is None or namespace.metadata.deletion_timestamp is None:
            return None
        if namespace.status.phase != "Terminating":
            status = msgspec.structs.replace(namespace.status, phase="Terminating")
            namespace = await self._client.update_status(
                msgspec.structs.replace(namespace, status=status)
            )
        if FINALIZER not in namespace.spec.finalizers:
            return None
        left = await self._empty(key.name)
        if left.empty:
            await self._let_go(namespace)
            return None
        conditions = conditions_for(namespace.status.conditions, left, self._clock.now())
        if conditions != namespace.status.conditions:
            status = msgspec.structs.replace(namespace.status, conditions=conditions)
            try:
                await self._client.update_status(msgspec.structs.replace(namespace, status=status))
            except NotFound:
                return None
        return min(left.grace, LOOK_AGAIN) if left.grace else SOON

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> list[Key]:
        """A namespace that goes need not wait for longer than its last pod takes."""
        if new is not None or old is None:
            return []
        key = Key("", old.metadata.namespace)
        namespace = self._namespaces.get(key)
        if namespace is None or namespace.metadata.deletion_timestamp is None:
            return []
        return [] if self._pods.list(key.name) else [key]

    async def _empty(self, name: str) -> Leftovers:
        """Ask for the deletion of everything; what is still there afterwards."""
        left = Leftovers()
        resources = [r for r in await served_resources(self._client) if _is_content(r)]
        # Pods go first and with their grace.
        resources.sort(key=lambda r: (r.kind.group, r.kind.plural) != ("", "pods"))
        for resource in resources:
            try:
                await self._delete_all(resource, name)
                await self._count(resource, name, left)
            except (NotFound, MethodNotSupported):
                continue
            except StatusError as error:
                left.errors.append(f"{resource.group_resource}: {error.message}")
            if resource.group_resource == "pods" and not left.empty:
                # What they use stays until they are gone (KEP-5080).
                left.grace = await self._grace(name)
                return left
        return left

    async def _delete_all(self, resource: ServedResource, name: str) -> None:
        await self._client.delete_collection(resource.kind, name, propagation="Background")

    async def _count(self, resource: ServedResource, name: str, left: Leftovers) -> None:
        listing = await self._client.list(resource.kind, name)
        for obj in listing.items:
            left.remaining[resource.group_resource] += 1
            left.finalizers.update(obj.metadata.finalizers)

    async def _grace(self, name: str) -> timedelta:
        pods = (await self._client.list(Pod, name)).items
        seconds = [pod.metadata.deletion_grace_period_seconds or 0 for pod in pods]
        # Half of it on average, as upstream estimates, and a second at least.
        return timedelta(seconds=max(max(seconds, default=0) / 2, 1))

    async def _let_go(self, namespace: Namespace) -> None:
        kept = tuple(f for f in namespace.spec.finalizers if f != FINALIZER)
        spec = msgspec.structs.replace(namespace.spec, finalizers=kept)
        try:
            await self._client.update_subresource(
                Namespace,
                namespace.metadata.name,
                "",
                "finalize",
                msgspec.structs.replace(namespace, spec=spec),
            )
        except NotFound:
            return


def _is_content(resource: ServedResource) -> bool:
    return resource.kind.namespaced and {"delete", "list", "deletecollection"} <= resource.verbs
