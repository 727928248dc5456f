"""TaintNodesByCondition: a new node takes no pods until it is known to be ready.

The taint goes when the node lifecycle controller sees the node ready, so that nothing is placed
in the moment between registration and the first heartbeat.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from pybernetes.api.core.taints import NO_SCHEDULE, NOT_READY
from pybernetes.api.types.core_v1 import Taint
from pybernetes.apiserver.admission.plugin import Plugin
from pybernetes.apiserver.hooks import Operation

if TYPE_CHECKING:
    from pybernetes.apiserver.admission.world import World
    from pybernetes.apiserver.hooks import Attributes

_TAINT = Taint(key=NOT_READY, effect=NO_SCHEDULE)


class TaintNodesByCondition(Plugin):
    def __init__(self, world: World) -> None:
        pass

    async def mutate(self, attributes: Attributes) -> None:
        if attributes.operation is not Operation.CREATE or not attributes.is_for("", "nodes"):
            return
        spec = attributes.obj.spec
        if any((t.key, t.effect) == (NOT_READY, NO_SCHEDULE) for t in spec.taints):
            return
        spec = replace(spec, taints=(*spec.taints, _TAINT))
        attributes.obj = replace(attributes.obj, spec=spec)
