"""What components ask about a node: is it ready, where is it reached."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pybernetes.api.conditions import has_condition

if TYPE_CHECKING:
    from pybernetes.api.types.core_v1 import Node

READY = "Ready"
INTERNAL_IP = "InternalIP"
HOSTNAME = "Hostname"


def is_ready(node: Node) -> bool:
    return has_condition(node.status.conditions, READY)


def address_of(node: Node, *types: str) -> str:
    """The first address of the first type the node has one of; empty if none (default: InternalIP)."""
    for type_ in types or (INTERNAL_IP,):
        for address in node.status.addresses:
            if address.type == type_:
                return address.address
    return ""
