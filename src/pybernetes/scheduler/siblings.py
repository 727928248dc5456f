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
    from collections.abc import Callable

    from pybernetes.api.types.core_v1 import Pod
    from pybernetes.client import Caches


class Siblings:
    """Answers from the caches of Services and workload controllers."""

    def __init__(self, caches: Caches) -> None:
        # Selectors of services by namespace and one label they ask for, so that a pod is compared
        # only with services that share a label with it.
        self._selecting: dict[tuple[str, str, str], dict[str, Selector]] = {}
        self._services = caches.of(Service)
        self._replica_sets = caches.of(ReplicaSet)
        self._stateful_sets = caches.of(StatefulSet)
        self._replication_controllers = caches.of(ReplicationController)

    def follow(self) -> Callable[[], None]:
        """Keep up with the services; gives the function that ends it."""
        return self._services.subscribe(self._service_changed)

    def selector_of(self, pod: Pod) -> Selector | None:
        """None if nothing selects the pod together with others."""
        namespace, labels = pod.metadata.namespace, pod.metadata.labels
        parts = [
            selector
            for key, value in sorted(labels.items())
            for _, selector in sorted(self._selecting.get((namespace, key, value), {}).items())
            if selector.matches(labels)
        ]
        if (owner := self._selector_of_owner(pod)) is not None:
            parts.append(owner)
        requirements = dict.fromkeys(r for part in parts for r in part.requirements)
        return Selector(tuple(requirements)) if requirements else None

    def _service_changed(self, old: Service | None, new: Service | None) -> None:
        if old is not None and (place := _place(old)) is not None:
            named = self._selecting.get(place, {})
            named.pop(old.metadata.name, None)
            if not named:
                self._selecting.pop(place, None)
        if new is not None and (place := _place(new)) is not None:
            selector = equality_selector(new.spec.selector)
            self._selecting.setdefault(place, {})[new.metadata.name] = selector

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


def _place(service: Service) -> tuple[str, str, str] | None:
    """The namespace and the first label the service asks for; None if it selects nothing."""
    if not service.spec.selector:
        return None
    key, value = min(service.spec.selector.items())
    return service.metadata.namespace, key, value
