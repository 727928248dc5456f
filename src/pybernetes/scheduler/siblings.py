"""Which selector names a pod's siblings, for spreading them by default.

Upstream merges the selectors of all Services that select the pod with the one of its controller.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pybernetes.api.types.apps_v1 import ReplicaSet, StatefulSet
from pybernetes.api.types.core_v1 import ReplicationController, Service
from pybernetes.apimachinery.meta import Key
from pybernetes.apimachinery.selector import Selector, equality_selector, selector_of

if TYPE_CHECKING:
    from pybernetes.api.types.core_v1 import Pod
    from pybernetes.client import Caches


class Siblings:
    """Answers from the caches of Services and workload controllers."""

    def __init__(self, caches: Caches) -> None:
        self._services = caches.of(Service)
        self._replica_sets = caches.of(ReplicaSet)
        self._stateful_sets = caches.of(StatefulSet)
        self._replication_controllers = caches.of(ReplicationController)

    def selector_of(self, pod: Pod) -> Selector | None:
        """None if nothing selects the pod together with others."""
        parts = [
            equality_selector(service.spec.selector)
            for service in self._services.list(pod.metadata.namespace)
            if service.spec.selector
            and equality_selector(service.spec.selector).matches(pod.metadata.labels)
        ]
        if (owner := self._selector_of_owner(pod)) is not None:
            parts.append(owner)
        requirements = dict.fromkeys(r for part in parts for r in part.requirements)
        return Selector(tuple(requirements)) if requirements else None

    def _selector_of_owner(self, pod: Pod) -> Selector | None:
        for reference in pod.metadata.owner_references:
            if not reference.controller:
                continue
            key = Key(pod.metadata.namespace, reference.name)
            if reference.kind == "ReplicaSet":
                replica_set = self._replica_sets.get(key)
                return selector_of(replica_set.spec.selector) if replica_set else None
            if reference.kind == "StatefulSet":
                stateful_set = self._stateful_sets.get(key)
                return selector_of(stateful_set.spec.selector) if stateful_set else None
            if reference.kind == "ReplicationController":
                controller = self._replication_controllers.get(key)
                return equality_selector(controller.spec.selector) if controller else None
        return None
