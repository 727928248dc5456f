"""Who owns whom: every object that owns or is owned, by uid. Pure.

An owner that is only known from references to it is *virtual* until it is seen or found absent.
What has no owners and no dependents is not kept: most objects of a cluster cost nothing here.

Invariants (`check_invariants`): a dependent is in the set of each owner it names; every owner that
somebody names has a node.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pybernetes.api.types.meta_v1 import ObjectMeta, OwnerReference

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"


@dataclass(frozen=True, slots=True)
class Identity:
    """Which object it is, in the words a client needs to ask for it."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str


@dataclass(slots=True)
class GraphNode:
    """An object as the garbage collector sees it."""

    identity: Identity
    owners: tuple[OwnerReference, ...] = ()
    # Uids of those that name it as an owner.
    dependents: set[str] = field(default_factory=set)
    finalizers: tuple[str, ...] = ()
    is_deleting: bool = False
    # Known from references only.
    is_virtual: bool = False

    @property
    def deletes_dependents(self) -> bool:
        """It goes in the foreground: its dependents first."""
        return self.is_deleting and FOREGROUND in self.finalizers

    @property
    def orphans_dependents(self) -> bool:
        return self.is_deleting and ORPHAN in self.finalizers


class Graph:
    """See the module. Every change says which uids have to be looked at."""

    def __init__(self) -> None:
        self._nodes: dict[str, GraphNode] = {}

    def get(self, uid: str) -> GraphNode | None:
        return self._nodes.get(uid)

    def __len__(self) -> int:
        return len(self._nodes)

    def dependents(self, node: GraphNode) -> list[GraphNode]:
        return [found for uid in node.dependents if (found := self._nodes.get(uid)) is not None]

    def blocking_dependents(self, node: GraphNode) -> list[GraphNode]:
        """Those that a foreground deletion waits for."""
        return [
            dependent
            for dependent in self.dependents(node)
            if any(
                owner.uid == node.identity.uid and owner.block_owner_deletion
                for owner in dependent.owners
            )
        ]

    def saw(self, identity: Identity, metadata: ObjectMeta) -> Iterator[str]:
        """The object exists in this state."""
        node = self._nodes.get(identity.uid)
        fresh = node is None or node.is_virtual
        if node is None:
            if not metadata.owner_references and not metadata.finalizers:
                return
            node = self._nodes[identity.uid] = GraphNode(identity)
        before = node.owners
        began = not node.is_deleting and metadata.deletion_timestamp is not None
        finalizers = tuple(metadata.finalizers)
        # A deletion may get its finalizer after it began.
        asked = began or (node.is_deleting and finalizers != node.finalizers)
        node.identity, node.is_virtual = identity, False
        node.owners, node.finalizers = metadata.owner_references, finalizers
        node.is_deleting = metadata.deletion_timestamp is not None
        self._link(node, before)
        for owner in node.owners:
            known = self._nodes[owner.uid]
            if known.is_virtual or (owner not in before and known.deletes_dependents):
                yield owner.uid
        if asked and (node.deletes_dependents or node.orphans_dependents):
            yield identity.uid
        if node.owners and (fresh or node.owners != before):
            yield identity.uid
            for gone in before:
                yield gone.uid
        self._forget_if_alone(node)

    def lost(self, uid: str) -> Iterator[str]:
        """The object is gone, or was found to be absent."""
        node = self._nodes.get(uid)
        if node is None:
            return
        yield from list(node.dependents)
        owners = node.owners
        node.owners = ()
        self._link(node, owners)
        for owner in owners:
            known = self._nodes.get(owner.uid)
            if known is not None and known.deletes_dependents:
                yield owner.uid
        if node.dependents:
            # Its dependents still name it; it stays as what they name.
            node.is_virtual, node.is_deleting, node.finalizers = True, False, ()
        else:
            del self._nodes[uid]

    def check_invariants(self) -> None:
        for uid, node in self._nodes.items():
            assert node.identity.uid == uid
            for owner in node.owners:
                assert uid in self._nodes[owner.uid].dependents, f"{owner.uid} misses {uid}"
            for dependent in node.dependents:
                named = {owner.uid for owner in self._nodes[dependent].owners}
                assert uid in named, f"{dependent} does not name {uid}"

    def _link(self, node: GraphNode, before: tuple[OwnerReference, ...]) -> None:
        uid = node.identity.uid
        now = {owner.uid: owner for owner in node.owners}
        for owner in before:
            if owner.uid not in now and (known := self._nodes.get(owner.uid)) is not None:
                known.dependents.discard(uid)
                self._forget_if_alone(known)
        for owner in now.values():
            known = self._nodes.get(owner.uid)
            if known is None:
                known = self._nodes[owner.uid] = GraphNode(
                    Identity(
                        owner.api_version,
                        owner.kind,
                        node.identity.namespace,
                        owner.name,
                        owner.uid,
                    ),
                    is_virtual=True,
                )
            known.dependents.add(uid)

    def _forget_if_alone(self, node: GraphNode) -> None:
        needed = node.dependents or node.owners or (node.finalizers and not node.is_virtual)
        if not needed:
            self._nodes.pop(node.identity.uid, None)
