"""PodGC: pods that nobody would ever finish off are deleted without grace.

Watches pods and nodes; writes pods/status (why it goes) and deletes pods. Three ways for a pod to
be left over: its node is gone; it was deleted before it had a node; its node is declared out of
service while it is terminating. And finished pods are kept as a record only up to a number.

Nothing is polled: a pod is looked at when it or its node changes into such a state, and once more
when the time for which an absent node is given the benefit of the doubt is over.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from pybernetes.api.core.nodestate import is_ready
from pybernetes.api.core.podstate import is_finished, is_terminating
from pybernetes.api.core.taints import NO_EXECUTE
from pybernetes.api.types.core_v1 import Node, Pod
from pybernetes.apimachinery.errors import NotFound
from pybernetes.apimachinery.meta import Key, key_of
from pybernetes.client import changes_of
from pybernetes.controllers.nodepods import index_by_node, mark_disrupted, pods_on

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pybernetes.controllers.context import ControllerContext

# Upstream's --terminated-pod-gc-threshold.
FINISHED_LIMIT = 12500
# A node may be missing from the cache for a moment (it registers anew under its name).
QUARANTINE = timedelta(seconds=40)
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"

_FINISHED_INDEX, _FINISHED = "finished", "yes"
_REASON = "DeletionByPodGC"


def surplus(finished: Sequence[Pod], limit: int) -> list[Pod]:
    """The finished pods above the limit: evicted ones first, then the oldest."""
    if len(finished) <= limit:
        return []
    ranked = sorted(
        finished,
        key=lambda pod: (
            pod.status.reason != "Evicted",
            pod.metadata.creation_timestamp is not None,
            pod.metadata.creation_timestamp,
            pod.metadata.name,
        ),
    )
    return ranked[: len(finished) - limit]


def is_out_of_service(node: Node) -> bool:
    """An administrator says the machine is off: what it runs is over (KEP-2268)."""
    return not is_ready(node) and any(
        taint.key == OUT_OF_SERVICE and taint.effect == NO_EXECUTE for taint in node.spec.taints
    )


class PodGarbageCollector:
    name = "pod-garbage-collector"

    def __init__(self, context: ControllerContext, *, finished_limit: int = FINISHED_LIMIT) -> None:
        self._client = context.client_for(self.name)
        self._clock = context.clock
        self._limit = finished_limit
        self._nodes = context.caches.of(Node)
        self._pods = context.caches.of(Pod)
        index_by_node(self._pods)
        self._pods.index(_FINISHED_INDEX, lambda pod: (_FINISHED,) if is_finished(pod) else ())
        # Since when the node of a pod has been missing, by the node's name; monotonic seconds.
        self._missing: dict[str, float] = {}
        self.sources = (
            changes_of(self._pods, self._pod_changed),
            changes_of(self._nodes, self._node_changed),
        )

    async def reconcile(self, key: Key) -> timedelta | None:
        pod = self._pods.get(key)
        if pod is None:
            return None
        node_name = pod.spec.node_name
        if not node_name:
            if is_terminating(pod):
                await self._delete(pod, "PodGC: node name is empty and pod is terminating")
                return None
        else:
            node = self._nodes.get(Key("", node_name))
            if node is None:
                return await self._judge_orphan(pod)
            self._missing.pop(node_name, None)
            if is_terminating(pod) and is_out_of_service(node):
                await self._delete(pod, "PodGC: node is out of service")
                return None
        if is_finished(pod):
            await self._trim()
        return None

    async def _judge_orphan(self, pod: Pod) -> timedelta | None:
        node_name, now = pod.spec.node_name, self._clock.monotonic()
        waited = timedelta(seconds=now - self._missing.setdefault(node_name, now))
        if waited < QUARANTINE:
            return QUARANTINE - waited
        # The cache may be behind; a pod is not deleted on a rumour.
        if await self._client.get_or_none(Node, node_name) is None:
            await self._delete(pod, "PodGC: node no longer exists")
        return None

    async def _trim(self) -> None:
        for pod in surplus(self._pods.by_index(_FINISHED_INDEX, _FINISHED), self._limit):
            if not is_terminating(pod):
                await self._delete(pod)

    async def _delete(self, pod: Pod, why: str = "") -> None:
        """Without grace: nobody is there who could use it."""
        try:
            if why and not is_finished(pod):
                await mark_disrupted(
                    self._client,
                    pod,
                    reason=_REASON,
                    message=why,
                    now=self._clock.now(),
                    phase="Failed",
                )
            await self._client.delete(pod, grace_seconds=0)
        except NotFound:
            return

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> Iterable[Key]:
        """Only changes into a state that may need us: most changes of most pods do not."""
        if new is None:
            return ()
        node_name = new.spec.node_name
        if not node_name:
            relevant = is_terminating(new)
        else:
            node = self._nodes.get(Key("", node_name))
            relevant = node is None or (is_terminating(new) and is_out_of_service(node))
        if is_finished(new) and (old is None or not is_finished(old)):
            relevant |= len(self._pods.by_index(_FINISHED_INDEX, _FINISHED)) > self._limit
        return (key_of(new),) if relevant else ()

    def _node_changed(self, old: Node | None, new: Node | None) -> Iterable[Key]:
        if new is not None:
            self._missing.pop(new.metadata.name, None)
            if not is_out_of_service(new) or (old is not None and is_out_of_service(old)):
                return ()
        node = new or old
        assert node is not None
        if new is None:
            self._missing[node.metadata.name] = self._clock.monotonic()
        return [key_of(pod) for pod in pods_on(self._pods, node.metadata.name)]
