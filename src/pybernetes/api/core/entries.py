"""All resources of core/v1, in the order of discovery."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pybernetes.api.core.bindings import BINDINGS
from pybernetes.api.core.configmaps import CONFIG_MAPS
from pybernetes.api.core.endpoints import ENDPOINTS
from pybernetes.api.core.events import EVENTS
from pybernetes.api.core.limitranges import LIMIT_RANGES
from pybernetes.api.core.namespaces import NAMESPACES
from pybernetes.api.core.nodes import NODES
from pybernetes.api.core.persistentvolumeclaims import PERSISTENT_VOLUME_CLAIMS
from pybernetes.api.core.persistentvolumes import PERSISTENT_VOLUMES
from pybernetes.api.core.pods import PODS
from pybernetes.api.core.podtemplates import POD_TEMPLATES
from pybernetes.api.core.replicationcontrollers import REPLICATION_CONTROLLERS
from pybernetes.api.core.resourcequotas import RESOURCE_QUOTAS
from pybernetes.api.core.secrets import SECRETS
from pybernetes.api.core.serviceaccounts import SERVICE_ACCOUNTS
from pybernetes.api.core.services import SERVICES

if TYPE_CHECKING:
    from pybernetes.api.resource import Resource

CORE_RESOURCES: tuple[Resource[Any], ...] = (
    BINDINGS,
    CONFIG_MAPS,
    ENDPOINTS,
    EVENTS,
    LIMIT_RANGES,
    NAMESPACES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    POD_TEMPLATES,
    REPLICATION_CONTROLLERS,
    RESOURCE_QUOTAS,
    SECRETS,
    SERVICE_ACCOUNTS,
    SERVICES,
)
