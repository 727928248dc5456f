"""DefaultTolerationSeconds: a pod stays five minutes on a node that is not ready or not reached.

Only where the pod does not say otherwise itself (KEP-166).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from pybernetes.api.core.taints import NO_EXECUTE, NOT_READY, UNREACHABLE
from pybernetes.api.types.core_v1 import Toleration
from pybernetes.apiserver.admission.plugin import Plugin, is_pod
from pybernetes.apiserver.hooks import Operation

if TYPE_CHECKING:
    from pybernetes.apiserver.admission.world import World
    from pybernetes.apiserver.hooks import Attributes

_SECONDS = 300
_DEFAULTS = tuple(
    Toleration(key=key, operator="Exists", effect=NO_EXECUTE, toleration_seconds=_SECONDS)
    for key in (NOT_READY, UNREACHABLE)
)


class DefaultTolerationSeconds(Plugin):
    def __init__(self, world: World) -> None:
        pass

    async def mutate(self, attributes: Attributes) -> None:
        if not is_pod(attributes) or attributes.operation is Operation.DELETE:
            return
        present = attributes.obj.spec.tolerations
        lacking = tuple(t for t in _DEFAULTS if not any(_speaks_of(p, t.key) for p in present))
        if lacking:
            spec = replace(attributes.obj.spec, tolerations=(*present, *lacking))
            attributes.obj = replace(attributes.obj, spec=spec)


def _speaks_of(toleration: Toleration, key: str) -> bool:
    return toleration.key in ("", key) and toleration.effect in ("", NO_EXECUTE)
