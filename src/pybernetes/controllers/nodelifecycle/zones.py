"""How fast nodes may be emptied, zone by zone. Pure: it is told the time.

When many nodes of a zone fail at once, the fault is more often in the network or in the control
plane than in the nodes, and moving every pod would make it worse. Upstream's rules and figures:
one node per ten seconds; one per hundred, or none in a small zone, when most of the zone fails;
none at all when nothing is ready anywhere.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pybernetes.api.types.core_v1 import Node

RATE = 0.1
SECONDARY_RATE = 0.01
LARGE_ZONE = 50
UNHEALTHY_FRACTION = 0.55

_REGION, _ZONE = "topology.kubernetes.io/region", "topology.kubernetes.io/zone"


class ZoneState(Enum):
    NORMAL = "normal"
    PARTIAL = "most nodes are not ready"
    FULL = "no node is ready"


def zone_of(node: Node) -> str:
    """Region and zone; every node without labels is in one zone."""
    labels = node.metadata.labels
    return f"{labels.get(_REGION, '')}/{labels.get(_ZONE, '')}"


def zone_state(ready: int, not_ready: int) -> ZoneState:
    if ready == 0 and not_ready > 0:
        return ZoneState.FULL
    if not_ready > 2 and not_ready / (not_ready + ready) >= UNHEALTHY_FRACTION:
        return ZoneState.PARTIAL
    return ZoneState.NORMAL


def pace(state: ZoneState, size: int) -> float:
    """Nodes per second."""
    if state is ZoneState.PARTIAL:
        return SECONDARY_RATE if size > LARGE_ZONE else 0.0
    return RATE


@dataclass(slots=True)
class _Zone:
    # Nodes by whether they are ready.
    nodes: Counter[bool]
    # Before this moment (monotonic seconds) no further node may be emptied.
    next_at: float = 0.0
    rate: float = RATE

    @property
    def state(self) -> ZoneState:
        return zone_state(self.nodes[True], self.nodes[False])


class Zones:
    """Which nodes are where and how they are; who may be emptied when."""

    def __init__(self) -> None:
        self._zones: dict[str, _Zone] = {}
        # Zone and readiness of each node, by name.
        self._nodes: dict[str, tuple[str, bool]] = {}

    def note(self, name: str, place: tuple[str, bool] | None) -> bool:
        """A node's zone and readiness; None: it is gone. Whether anybody's pace has changed."""
        before = self._nodes.get(name)
        if before == place:
            return False
        seen = self._picture()
        if before is not None:
            zone = self._zones[before[0]]
            zone.nodes[before[1]] -= 1
            del self._nodes[name]
            if not zone.nodes.total():
                del self._zones[before[0]]
        if place is not None:
            self._nodes[name] = place
            self._zones.setdefault(place[0], _Zone(Counter())).nodes[place[1]] += 1
        return seen != self._picture()

    @property
    def all_down(self) -> bool:
        """No node is ready anywhere: it is more likely that we hear nothing."""
        return bool(self._zones) and all(
            zone.state is ZoneState.FULL for zone in self._zones.values()
        )

    def names(self) -> list[str]:
        return list(self._nodes)

    def seconds_to_wait(self, name: str, now: float) -> float | None:
        """Zero gives leave to empty the node, and uses it up; None: not while this lasts."""
        if name not in self._nodes:
            return None
        zone = self._zones[self._nodes[name][0]]
        rate = pace(zone.state, zone.nodes.total())
        if rate == 0.0 or self.all_down:
            return None
        if rate != zone.rate:
            zone.rate, zone.next_at = rate, min(zone.next_at, now + 1 / rate)
        if now < zone.next_at:
            return zone.next_at - now
        zone.next_at = now + 1 / rate
        return 0.0

    def _picture(self) -> tuple[bool, Mapping[str, float]]:
        paces = {name: pace(z.state, z.nodes.total()) for name, z in self._zones.items()}
        return self.all_down, paces
