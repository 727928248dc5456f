"""Whether this node takes a pod that was bound to it: the scheduler may err, or not have been asked.

Pure. Reasons and sentences are upstream's; they become the pod's status.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pybernetes.api.core.nodeselector import may_be_on
from pybernetes.api.core.podresources import pod_requests
from pybernetes.api.core.taints import tolerates
from pybernetes.apimachinery.quantity import Amount, int_value, parse_quantity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pybernetes.api.types.core_v1 import Node, Pod

NO_EXECUTE = "NoExecute"


@dataclass(frozen=True, slots=True)
class Refusal:
    reason: str
    message: str


def why_refused(pod: Pod, others: Sequence[Pod], node: Node) -> Refusal | None:
    """None: it is welcome. `others` are the pods that use the node already."""
    if not may_be_on(pod, node):
        text = "node(s) didn't match Pod's node affinity/selector"
        return Refusal("NodeAffinity", f"Predicate NodeAffinity failed: {text}")
    for taint in node.spec.taints:
        if taint.effect == NO_EXECUTE and not tolerates(pod.spec.tolerations, taint):
            text = f"node had taint {{{taint.key}: {taint.value}}}, that the pod didn't tolerate"
            return Refusal("TaintToleration", f"Predicate TaintToleration failed: {text}")
    taken = {port for other in others for port in _host_ports(other)}
    if any(_collide(port, other) for port in _host_ports(pod) for other in taken):
        text = "node(s) didn't have free ports for the requested pod ports"
        return Refusal("NodePorts", f"Predicate NodePorts failed: {text}")
    return _without_room(pod, others, node)


_HostPort = tuple[str, str, int]


def _host_ports(pod: Pod) -> set[_HostPort]:
    """(address, protocol, number); no address is all of them."""
    return {
        (port.host_ip if port.host_ip != "0.0.0.0" else "", port.protocol or "TCP", port.host_port)
        for container in (*pod.spec.containers, *pod.spec.init_containers)
        for port in container.ports
        if port.host_port
    }


def _collide(one: _HostPort, other: _HostPort) -> bool:
    return one[1:] == other[1:] and (one[0] == other[0] or not one[0] or not other[0])


def _without_room(pod: Pod, others: Sequence[Pod], node: Node) -> Refusal | None:
    allocatable = node.status.allocatable
    if "pods" in allocatable and len(others) + 1 > int_value(allocatable["pods"]):
        return _out_of("pods", 1, len(others), parse_quantity(allocatable["pods"]))
    wanted = pod_requests(pod)
    used: dict[str, Amount] = {}
    for other in others:
        for name, amount in pod_requests(other).items():
            used[name] = used.get(name, 0) + amount
    for name, amount in wanted.items():
        if name not in allocatable:
            # Somebody else counts it, or nobody does.
            continue
        there = parse_quantity(allocatable[name])
        if amount and used.get(name, 0) + amount > there:
            return _out_of(name, amount, used.get(name, 0), there)
    return None


def _out_of(name: str, wanted: Amount, used: Amount, there: Amount) -> Refusal:
    def text(amount: Amount) -> str:
        # Processors are counted in thousandths.
        return str(-(-amount * 1000 // 1)) if name == "cpu" else str(-(-amount // 1))

    return Refusal(
        f"OutOf{name}",
        f"Node didn't have enough resource: {name}, requested: {text(wanted)}, "
        f"used: {text(used)}, capacity: {text(there)}",
    )
