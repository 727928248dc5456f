"""RuntimeClass: a pod of a class gets its overhead, and goes where the class runs (KEP-585)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from pybernetes.api.types.node_v1 import RuntimeClass
from pybernetes.apiserver.admission.plugin import Plugin, is_pod, refused
from pybernetes.apiserver.hooks import Operation
from pybernetes.apiserver.typed import Typed

if TYPE_CHECKING:
    from pybernetes.api.types.core_v1 import PodSpec
    from pybernetes.apiserver.admission.world import World
    from pybernetes.apiserver.hooks import Attributes


class RuntimeClasses(Plugin):
    def __init__(self, world: World) -> None:
        self._classes = Typed(world.catalog, RuntimeClass)

    async def mutate(self, attributes: Attributes) -> None:
        if attributes.operation is not Operation.CREATE or not is_pod(attributes):
            return
        spec: PodSpec = attributes.obj.spec
        if not spec.runtime_class_name or self._classes.served is None:
            return
        found = self._classes.get(spec.runtime_class_name)
        if found is None:
            name = spec.runtime_class_name
            raise refused(attributes, f'pod rejected: RuntimeClass "{name}" not found')
        overhead = {} if found.overhead is None else found.overhead.pod_fixed
        if spec.overhead and spec.overhead != overhead:
            raise refused(
                attributes,
                "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead",
            )
        spec = replace(spec, overhead=overhead)
        if found.scheduling is not None:
            selector = found.scheduling.node_selector
            for key, value in selector.items():
                if spec.node_selector.get(key, value) != value:
                    raise refused(
                        attributes,
                        f"conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value};"
                        f" pod.spec.nodeSelector[{key}] = {spec.node_selector[key]}",
                    )
            more = tuple(t for t in found.scheduling.tolerations if t not in spec.tolerations)
            spec = replace(
                spec,
                node_selector={**spec.node_selector, **selector},
                tolerations=(*spec.tolerations, *more),
            )
        attributes.obj = replace(attributes.obj, spec=spec)
