"""Priority: the class of a pod becomes a number, and at most one class is the default.

Users name classes, never numbers; without a class the default one counts, and without that
zero (KEP-268).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from pybernetes.api.types.scheduling_v1 import PriorityClass
from pybernetes.apiserver.admission.plugin import Plugin, is_pod, refused
from pybernetes.apiserver.hooks import Operation
from pybernetes.apiserver.typed import Typed

if TYPE_CHECKING:
    from pybernetes.apiserver.admission.world import World
    from pybernetes.apiserver.hooks import Attributes

_DEFAULT_POLICY = "PreemptLowerPriority"
_GROUP = "scheduling.k8s.io"


class Priority(Plugin):
    def __init__(self, world: World) -> None:
        self._classes = Typed(world.catalog, PriorityClass)

    async def mutate(self, attributes: Attributes) -> None:
        if not is_pod(attributes):
            return
        if attributes.operation is Operation.CREATE:
            self._resolve(attributes)
        elif attributes.operation is Operation.UPDATE:
            self._keep(attributes)

    def _resolve(self, attributes: Attributes) -> None:
        spec = attributes.obj.spec
        name, value, policy = spec.priority_class_name, 0, _DEFAULT_POLICY
        found = self._classes.get(name) if name else self._default()
        if found is None and name:
            raise refused(attributes, f"no PriorityClass with name {name} was found")
        if found is not None:
            name, value = found.metadata.name, found.value
            policy = found.preemption_policy or _DEFAULT_POLICY
        if spec.priority is not None and spec.priority != value:
            raise refused(
                attributes,
                f"the integer value of priority ({spec.priority}) must not be provided in pod"
                f" spec; priority admission controller computed {value} from the given"
                " PriorityClass name",
            )
        if spec.preemption_policy and spec.preemption_policy != policy:
            raise refused(
                attributes,
                f"the string value of PreemptionPolicy ({spec.preemption_policy}) must not be"
                f" provided in pod spec; priority admission controller computed {policy} from the"
                " given PriorityClass name",
            )
        spec = replace(spec, priority_class_name=name, priority=value, preemption_policy=policy)
        attributes.obj = replace(attributes.obj, spec=spec)

    def _keep(self, attributes: Attributes) -> None:
        """An update that leaves the number out does not mean to change it."""
        spec, old = attributes.obj.spec, attributes.old.spec
        if spec.priority is None or not spec.preemption_policy:
            spec = replace(
                spec,
                priority=old.priority if spec.priority is None else spec.priority,
                preemption_policy=spec.preemption_policy or old.preemption_policy,
            )
            attributes.obj = replace(attributes.obj, spec=spec)

    def _default(self) -> PriorityClass | None:
        """Of several defaults (there should be one) the lowest, as upstream chooses."""
        defaults = [found for found in self._classes.list() if found.global_default]
        return min(defaults, key=lambda found: found.value, default=None)

    async def validate(self, attributes: Attributes) -> None:
        if not attributes.is_for(_GROUP, "priorityclasses"):
            return
        if attributes.operation is Operation.DELETE or not attributes.obj.global_default:
            return
        present = self._default()
        if present is not None and present.metadata.name != attributes.name:
            raise refused(
                attributes,
                f"PriorityClass {present.metadata.name} is already marked as default. Only one"
                " default can exist",
            )
