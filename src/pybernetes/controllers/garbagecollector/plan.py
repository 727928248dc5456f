"""What is to be done about one object whose owners changed. Pure.

Upstream's rule: as long as one owner is there for good, only the references to owners that are
gone (or going) are taken out. When none is, the object goes as well, in the way its own
finalizers say.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from pybernetes.controllers.garbagecollector.graph import FOREGROUND, ORPHAN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pybernetes.controllers.garbagecollector.graph import GraphNode


class OwnerState(Enum):
    """What became of an owner."""

    SOLID = "there"
    ABSENT = "gone"
    WAITING = "waits for its dependents to go first"


class Action(Enum):
    NOTHING = "nothing"
    DROP_REFERENCES = "drop references"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Plan:
    action: Action = Action.NOTHING
    # Uids of the owners whose references are to be taken out.
    owners: tuple[str, ...] = ()
    propagation: str = ""


def plan_collection(
    node: GraphNode, states: Sequence[tuple[str, OwnerState]], *, has_dependents: bool
) -> Plan:
    """`states` are the owners' by uid, in the order of the references."""
    if not states or (node.is_deleting and not node.deletes_dependents):
        return Plan()
    absent = [uid for uid, state in states if state is OwnerState.ABSENT]
    waiting = [uid for uid, state in states if state is OwnerState.WAITING]
    if len(absent) + len(waiting) < len(states):
        if not absent and not waiting:
            return Plan()
        return Plan(Action.DROP_REFERENCES, tuple(absent + waiting))
    if node.is_deleting:
        return Plan()
    if waiting and has_dependents:
        # Its own dependents go first too, or the owner's deletion would not be in the foreground.
        return Plan(Action.DELETE, propagation="Foreground")
    if ORPHAN in node.finalizers:
        return Plan(Action.DELETE, propagation="Orphan")
    if FOREGROUND in node.finalizers:
        return Plan(Action.DELETE, propagation="Foreground")
    return Plan(Action.DELETE, propagation="Background")
