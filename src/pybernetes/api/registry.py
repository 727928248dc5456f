"""Every resource that is served, in one visible place and in order; nothing registers itself.

A kind is served when its entry is in one of the tuples below. Kinds that are published
but have no entry yet are known to `api.types` all the same, for clients of other servers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pybernetes.api.admissionregistration import ADMISSIONREGISTRATION_RESOURCES
from pybernetes.api.apiextensions import APIEXTENSIONS_RESOURCES
from pybernetes.api.apiregistration import APIREGISTRATION_RESOURCES
from pybernetes.api.apps import APPS_RESOURCES
from pybernetes.api.authentication import AUTHENTICATION_RESOURCES
from pybernetes.api.authorization import AUTHORIZATION_RESOURCES
from pybernetes.api.autoscaling import AUTOSCALING_RESOURCES
from pybernetes.api.batch import BATCH_RESOURCES
from pybernetes.api.certificates import CERTIFICATES_RESOURCES
from pybernetes.api.coordination import COORDINATION_RESOURCES
from pybernetes.api.core.entries import CORE_RESOURCES
from pybernetes.api.discovery import DISCOVERY_RESOURCES
from pybernetes.api.events import EVENTS_RESOURCES
from pybernetes.api.flowcontrol import FLOWCONTROL_RESOURCES
from pybernetes.api.networking import NETWORKING_RESOURCES
from pybernetes.api.node import NODE_RESOURCES
from pybernetes.api.podgroups import PODGROUP_RESOURCES
from pybernetes.api.policy import POLICY_RESOURCES
from pybernetes.api.rbac import RBAC_RESOURCES
from pybernetes.api.resourceapi import RESOURCE_RESOURCES
from pybernetes.api.scheduling import SCHEDULING_RESOURCES
from pybernetes.api.storageapi import STORAGE_RESOURCES
from pybernetes.api.storagemigration import STORAGEMIGRATION_RESOURCES
from pybernetes.api.types._index import GROUP_ORDER

if TYPE_CHECKING:
    from pybernetes.api.resource import Resource

RESOURCES: tuple[Resource[Any], ...] = (
    *CORE_RESOURCES,
    *APPS_RESOURCES,
    *AUTHENTICATION_RESOURCES,
    *AUTHORIZATION_RESOURCES,
    *EVENTS_RESOURCES,
    *BATCH_RESOURCES,
    *AUTOSCALING_RESOURCES,
    *CERTIFICATES_RESOURCES,
    *COORDINATION_RESOURCES,
    *DISCOVERY_RESOURCES,
    *POLICY_RESOURCES,
    *RBAC_RESOURCES,
    *SCHEDULING_RESOURCES,
    *NETWORKING_RESOURCES,
    *STORAGE_RESOURCES,
    *NODE_RESOURCES,
    *FLOWCONTROL_RESOURCES,
    *ADMISSIONREGISTRATION_RESOURCES,
    *APIREGISTRATION_RESOURCES,
    *APIEXTENSIONS_RESOURCES,
    *RESOURCE_RESOURCES,
    *STORAGEMIGRATION_RESOURCES,
    *PODGROUP_RESOURCES,
)

_BY_KIND: dict[type[Any], Resource[Any]] = {entry.kind: entry for entry in RESOURCES}
_BY_PLACE = {(entry.group, entry.version, entry.plural): entry for entry in RESOURCES}


def resource_for_kind(kind: type[Any]) -> Resource[Any]:
    """The entry of a class. Raises LookupError for a kind that is not served."""
    try:
        return _BY_KIND[kind]
    except KeyError:
        raise LookupError(f"{kind.__name__} is not served") from None


def resource_at(group: str, version: str, plural: str) -> Resource[Any] | None:
    return _BY_PLACE.get((group, version, plural))


def group_versions() -> tuple[tuple[str, str], ...]:
    """Every (group, version) with a resource; the core first, groups in discovery's order."""
    order = {"": -1, **{group: place for place, group in enumerate(GROUP_ORDER)}}
    found = dict.fromkeys((entry.group, entry.version) for entry in RESOURCES)
    return tuple(sorted(found, key=lambda pair: order.get(pair[0], len(order))))
