"""Taint eviction: pods leave a node whose NoExecute taints they do not tolerate, or not for ever.

Watches pods and nodes; writes pods/status (why it goes) and deletes pods. When a pod has to go
follows from when the taint was added, or from when the pod came if that was later. Taints of ours
say when that was, so that a restart gives nobody more time; for others it is when we first saw it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from pybernetes.api.conditions import TRUE, condition_of
from pybernetes.api.core.taints import NO_EXECUTE, tolerates_taint
from pybernetes.api.types.core_v1 import Node, Pod
from pybernetes.apimachinery.errors import NotFound
from pybernetes.apimachinery.meta import key_of
from pybernetes.client import NORMAL, changes_of
from pybernetes.controllers.nodepods import index_by_node, mark_disrupted, pods_on

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pybernetes.api.types.core_v1 import Taint
    from pybernetes.apimachinery.meta import Key
    from pybernetes.controllers.context import ControllerContext

_ALWAYS = datetime.min.replace(tzinfo=UTC)


def expelling_taints(node: Node | None) -> tuple[Taint, ...]:
    if node is None:
        return ()
    return tuple(taint for taint in node.spec.taints if taint.effect == NO_EXECUTE)


def dated(taints: Sequence[Taint], known: Sequence[Taint], now: datetime) -> tuple[Taint, ...]:
    """The same taints, each with the time it was added; who knows it already knows since when."""
    since = {(t.key, t.value): t.time_added for t in known}
    return tuple(
        taint
        if taint.time_added
        else msgspec.structs.replace(taint, time_added=since.get((taint.key, taint.value), now))
        for taint in taints
    )


def eviction_moment(pod: Pod, taints: Sequence[Taint]) -> datetime | None:
    """When the pod has to go; None: it may stay. A moment long past: at once.

    Of several tolerations that match, the shortest counts, as upstream.
    """
    moments: list[datetime] = []
    for taint in taints:
        matching = [t for t in pod.spec.tolerations if tolerates_taint(t, taint)]
        if not matching:
            return _ALWAYS
        limited = [t.toleration_seconds for t in matching if t.toleration_seconds is not None]
        if limited:
            began = max(taint.time_added or _ALWAYS, _placed_at(pod))
            moments.append(began + timedelta(seconds=max(min(limited), 0)))
    return min(moments, default=None)


def _placed_at(pod: Pod) -> datetime:
    scheduled = condition_of(pod.status.conditions, "PodScheduled")
    if scheduled is not None and scheduled.status == TRUE and scheduled.last_transition_time:
        return scheduled.last_transition_time
    return pod.metadata.creation_timestamp or _ALWAYS


class TaintEvictionController:
    name = "taint-eviction-controller"
    # Upstream lets it act as the node controller.
    account = "node-controller"

    def __init__(self, context: ControllerContext) -> None:
        self._client = context.client_for(self.account)
        self._recorder = context.recorder_for(self.name)
        self._clock = context.clock
        self._pods = context.caches.of(Pod)
        index_by_node(self._pods)
        # The taints by which each node expels pods, by its name; all of them say since when.
        self._taints: dict[str, tuple[Taint, ...]] = {}
        # Pods that will have to go if nothing changes.
        self._pending: set[Key] = set()
        self.sources = (
            changes_of(self._pods, self._pod_changed),
            changes_of(context.caches.of(Node), self._node_changed),
        )

    async def reconcile(self, key: Key) -> timedelta | None:
        pod = self._pods.get(key)
        if pod is None or pod.metadata.deletion_timestamp is not None:
            self._pending.discard(key)
            return None
        moment = eviction_moment(pod, self._taints.get(pod.spec.node_name, ()))
        if moment is None:
            if key in self._pending:
                self._pending.discard(key)
                said = f"Cancelling deletion of Pod {key}"
                self._recorder.record(pod, NORMAL, "TaintManagerEviction", said)
            return None
        now = self._clock.now()
        if now < moment:
            self._pending.add(key)
            return moment - now
        await self._evict(key, pod)
        return None

    async def _evict(self, key: Key, pod: Pod) -> None:
        said = f"Marking for deletion Pod {key}"
        self._recorder.record(pod, NORMAL, "TaintManagerEviction", said)
        try:
            await mark_disrupted(
                self._client,
                pod,
                reason="DeletionByTaintManager",
                message="Taint manager: deleting due to NoExecute taint",
                now=self._clock.now(),
            )
            await self._client.delete(pod)
        except NotFound:
            # It went by itself.
            pass
        self._pending.discard(key)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> Iterable[Key]:
        if new is None:
            return () if old is None else self._if_pending(key_of(old))
        if old is not None and (
            old.spec.node_name == new.spec.node_name
            and old.spec.tolerations == new.spec.tolerations
        ):
            return ()
        if new.spec.node_name not in self._taints:
            return self._if_pending(key_of(new))
        return (key_of(new),)

    def _if_pending(self, key: Key) -> Iterable[Key]:
        return (key,) if key in self._pending else ()

    def _node_changed(self, old: Node | None, new: Node | None) -> Iterable[Key]:
        node = new or old
        assert node is not None
        name = node.metadata.name
        before = self._taints.pop(name, ())
        taints = dated(expelling_taints(new), before, self._clock.now())
        if taints:
            self._taints[name] = taints
        if taints == before:
            return ()
        return [key_of(pod) for pod in pods_on(self._pods, name)]
