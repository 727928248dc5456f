"""NodeIpam: every node has a range of pod addresses of its own.

Watches nodes; writes spec.podCIDR and spec.podCIDRs of those that have none. Ranges that nodes
hold are never given twice, also not when they were set by hand or lie across several of ours.
"""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import TYPE_CHECKING

from pybernetes.api.types.core_v1 import Node
from pybernetes.apimachinery.meta import key_of
from pybernetes.client import TerminalError, changes_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import timedelta

    from pybernetes.apimachinery.meta import Key
    from pybernetes.controllers.context import ControllerContext


def free_range(
    network: IPv4Network, prefix_length: int, taken: Iterable[IPv4Network]
) -> IPv4Network | None:
    """The first range of that size which overlaps none that is taken; None if all are."""
    occupied = sorted(
        (int(t.network_address), int(t.broadcast_address)) for t in taken if t.overlaps(network)
    )
    size = 1 << (32 - prefix_length)
    start, end = int(network.network_address), int(network.broadcast_address)
    for first, last in occupied:
        if start + size - 1 < first:
            break
        if last >= start:
            # The next boundary of our size behind what is taken.
            start = (last // size + 1) * size
    if start + size - 1 > end:
        return None
    return IPv4Network((start, prefix_length))


class NodeIpamController:
    name = "node-controller"

    def __init__(self, context: ControllerContext) -> None:
        self._client = context.client_for(self.name)
        self._recorder = context.recorder_for(self.name)
        self._options = context.options
        self._nodes = context.caches.of(Node)
        # Given by us and perhaps not in the cache yet, by node name.
        self._given: dict[str, IPv4Network] = {}
        self.sources = (changes_of(self._nodes, self._node_changed),)

    async def reconcile(self, key: Key) -> timedelta | None:
        node = self._nodes.get(key)
        if node is None or node.spec.pod_cidr:
            return None
        network = self._options.pod_network
        if network is None:
            return None
        given = self._given.get(key.name)
        if given is None:
            given = free_range(network, self._options.node_prefix_length, self._taken())
            if given is None:
                said = f"Node {key.name} status is now: CIDRNotAvailable"
                self._recorder.record(node, "Normal", "CIDRNotAvailable", said)
                raise TerminalError(
                    f"no range of /{self._options.node_prefix_length} is left in {network};"
                    " choose a larger --pod-cidr"
                )
            # No await between choosing and noting it: two workers never give the same one.
            self._given[key.name] = given
        patch = {"spec": {"podCIDR": str(given), "podCIDRs": [str(given)]}}
        await self._client.patch(Node, key.name, patch=patch)
        return None

    def _node_changed(self, old: Node | None, new: Node | None) -> list[Key]:
        """A range that becomes free is news for those that wait for one."""
        node = new or old
        assert node is not None
        if new is None or new.spec.pod_cidr:
            self._given.pop(node.metadata.name, None)
        if new is None:
            return [key_of(waiting) for waiting in self._nodes if not waiting.spec.pod_cidr]
        return [key_of(new)]

    def _taken(self) -> list[IPv4Network]:
        held = [
            IPv4Network(cidr, strict=False)
            for node in self._nodes
            for cidr in {*node.spec.pod_cidrs, node.spec.pod_cidr}
            if cidr and ":" not in cidr
        ]
        return [*held, *self._given.values()]
