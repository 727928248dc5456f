"""The loop of node life cycle: notes every sign of life, and is woken when one is overdue.

Watches nodes, their leases and their pods; writes nodes, nodes/status and pods/status. Nothing is
polled: each node has the moment at which its silence has lasted too long, and a sign of life only
moves that moment.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from pybernetes.api.conditions import FALSE, TRUE, UNKNOWN, condition_of
from pybernetes.api.core.nodestate import READY
from pybernetes.api.core.podstate import is_ready
from pybernetes.api.types.coordination_v1 import Lease
from pybernetes.api.types.core_v1 import Node, Pod
from pybernetes.apimachinery.errors import Conflict, NotFound
from pybernetes.apimachinery.meta import Key
from pybernetes.client import NORMAL, WARNING, changes_of
from pybernetes.controllers.nodelifecycle.health import (
    has_spoken,
    plan_taints,
    readiness_of,
    silent_status,
)
from pybernetes.controllers.nodelifecycle.zones import Zones, zone_of
from pybernetes.controllers.nodepods import index_by_node, mark_condition, pods_on

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pybernetes.api.types.core_v1 import Taint
    from pybernetes.controllers.context import ControllerContext

# How long a node may be silent, and one that never said anything.
GRACE_SECONDS = 40.0
STARTUP_GRACE_SECONDS = 60.0
# Less than a clock can tell would be no wait at all.
SHORTEST = timedelta(milliseconds=1)
LEASE_NAMESPACE = "kube-node-lease"


class NodeLifecycleController:
    name = "node-lifecycle-controller"
    # Upstream's identity and event source.
    account = "node-controller"

    def __init__(self, context: ControllerContext) -> None:
        self._client = context.client_for(self.account)
        self._recorder = context.recorder_for(self.account)
        self._clock = context.clock
        self._nodes = context.caches.of(Node)
        self._pods = context.caches.of(Pod)
        index_by_node(self._pods)
        self._zones = Zones()
        # When each node was heard of, by name; monotonic seconds.
        self._heard: dict[str, float] = {}
        # Nodes that are not ready and whose pods have been told: False or Unknown.
        self._told: dict[str, str] = {}
        # Whether no node was ready anywhere when we last looked.
        self._was_down = False
        self.sources = (
            changes_of(self._nodes, self._node_changed),
            # All leases, not only those of nodes: the garbage collector shares this cache.
            changes_of(context.caches.of(Lease), self._lease_changed),
        )

    async def reconcile(self, key: Key) -> timedelta | None:
        node = self._nodes.get(key)
        if node is None:
            return None
        wait = self._silence_left(node)
        if wait <= 0:
            status = silent_status(node, self._clock.now())
            if status != node.status:
                # The cache will show it, and how the zone stands with it; only then we go on.
                await self._client.update_status(msgspec.structs.replace(node, status=status))
                return None
        readiness = readiness_of(node)
        await self._tell_pods(node, readiness)
        plan = plan_taints(node, self._clock.now(), may_empty=not self._zones.all_down)
        taints, pause = plan.taints, None
        if plan.begins_emptying:
            pause = self._zones.seconds_to_wait(key.name, self._clock.monotonic())
            if pause != 0.0:
                taints = plan.gently
        if taints != node.spec.taints:
            await self._write_taints(node, taints)
        # Without a moment: a node that is silent already, a zone that is left alone.
        waits = [seconds for seconds in (wait, pause or 0.0) if seconds > 0]
        return max(timedelta(seconds=min(waits)), SHORTEST) if waits else None

    def _silence_left(self, node: Node) -> float:
        """Seconds until the node has been silent for too long."""
        now = self._clock.monotonic()
        grace = GRACE_SECONDS if has_spoken(node) else STARTUP_GRACE_SECONDS
        return self._heard.setdefault(node.metadata.name, now) + grace - now

    async def _tell_pods(self, node: Node, readiness: str) -> None:
        """The pods of a node that stops being ready are not ready either.

        Once for each time: a node that is alive reports its pods as it sees them, and is right.
        """
        name = node.metadata.name
        if readiness == TRUE:
            self._told.pop(name, None)
            return
        if self._told.get(name) == readiness or not has_spoken(node):
            return
        if name not in self._told:
            said = f"Node {name} status is now: NodeNotReady"
            self._recorder.record(node, NORMAL, "NodeNotReady", said)
        for pod in pods_on(self._pods, name):
            if not is_ready(pod):
                continue
            try:
                await mark_condition(
                    self._client, pod, {"type": READY, "status": FALSE}, self._clock.now()
                )
            except (NotFound, Conflict):
                continue
            self._recorder.record(pod, WARNING, "NodeNotReady", "Node is not ready")
        self._told[name] = readiness

    async def _write_taints(self, node: Node, taints: tuple[Taint, ...]) -> None:
        # With the version that was judged: somebody's taint of this moment is not written over.
        metadata = {"resourceVersion": node.metadata.resource_version}
        patch = {"metadata": metadata, "spec": {"taints": list(taints) or None}}
        await self._client.patch(Node, node.metadata.name, patch=patch)

    def _node_changed(self, old: Node | None, new: Node | None) -> Iterable[Key]:
        node = new or old
        assert node is not None
        name = node.metadata.name
        if new is None:
            self._forget(node)
            place = None
        else:
            if old is None:
                self._recorder.record(
                    new,
                    NORMAL,
                    "RegisteredNode",
                    f"Node {name} event: Registered Node {name} in Controller",
                )
            if _heartbeat(old) != _heartbeat(new):
                self._hear(name)
            elif old is None:
                self._heard[name] = self._clock.monotonic() - self._age(new)
            place = (zone_of(new), readiness_of(new) == TRUE)
        keys = [Key("", name)]
        if self._zones.note(name, place):
            keys += [Key("", other) for other in self._zones.names() if other != name]
            self._leave_outage()
        return keys

    def _lease_changed(self, old: Lease | None, new: Lease | None) -> Iterable[Key]:
        if new is None or new.metadata.namespace != LEASE_NAMESPACE:
            return ()
        if old is None or old.spec.renew_time != new.spec.renew_time:
            self._hear(new.metadata.name)
        return ()

    def _hear(self, name: str) -> None:
        self._heard[name] = self._clock.monotonic()

    def _age(self, node: Node) -> float:
        created = node.metadata.creation_timestamp
        return max((self._clock.now() - created).total_seconds(), 0.0) if created else 0.0

    def _leave_outage(self) -> None:
        """After a time in which nothing was heard, everybody gets the full grace again."""
        down = self._zones.all_down
        if self._was_down and not down:
            for name in self._zones.names():
                self._hear(name)
        self._was_down = down

    def _forget(self, node: Node) -> None:
        name = node.metadata.name
        self._heard.pop(name, None)
        self._told.pop(name, None)
        said = f"Node {name} event: Removing Node {name} from Controller"
        self._recorder.record(node, NORMAL, "RemovingNode", said)


def _heartbeat(node: Node | None) -> Any:
    """What changes when a node speaks of itself; our own words (Unknown) are not its."""
    if node is None:
        return None
    condition = condition_of(node.status.conditions, READY)
    if condition is None or condition.status == UNKNOWN:
        return None
    return condition.last_heartbeat_time, condition.status
