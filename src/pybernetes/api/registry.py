"""Every resource that is served, in one visible place and in order; nothing registers itself."""

from __future__ import annotations

from typing import Any

from pybernetes.api.apps import APPS_RESOURCES
from pybernetes.api.batch import BATCH_RESOURCES
from pybernetes.api.coordination import COORDINATION_RESOURCES
from pybernetes.api.core.pods import PODS
from pybernetes.api.discovery import DISCOVERY_RESOURCES
from pybernetes.api.policy import POLICY_RESOURCES
from pybernetes.api.rbac import RBAC_RESOURCES
from pybernetes.api.resource import Finalize, Proxy, Resource, Scope, Status, Strategy, Token
from pybernetes.api.scheduling import SCHEDULING_RESOURCES
from pybernetes.api.types._index import KindInfo, served_kinds

_PARTS = {"status": Status(), "finalize": Finalize(), "proxy": Proxy(), "token": Token()}


def _plain(info: KindInfo) -> Resource[Any]:
    """A kind without rules of its own yet."""
    return Resource(
        group=info.group,
        version=info.version,
        kind=info.load(),
        plural=info.plural,
        scope=Scope.NAMESPACED if info.namespaced else Scope.CLUSTER,
        strategy=Strategy(generation_follows=()),
        subresources=tuple(_PARTS[s.name] for s in info.subresources if s.name in _PARTS),
        relaxed=info.kind == "Event",
    )


_WRITTEN = (
    PODS,
    *APPS_RESOURCES,
    *BATCH_RESOURCES,
    *COORDINATION_RESOURCES,
    *DISCOVERY_RESOURCES,
    *POLICY_RESOURCES,
    *RBAC_RESOURCES,
    *SCHEDULING_RESOURCES,
)
_HAVE = {(entry.group, entry.version, entry.plural) for entry in _WRITTEN}

RESOURCES: tuple[Resource[Any], ...] = (
    *_WRITTEN,
    *(
        _plain(info)
        for info in served_kinds()
        if (info.group, info.version) == ("", "v1")
        and info.plural not in ("bindings", "componentstatuses")
        and (info.group, info.version, info.plural) not in _HAVE
    ),
)
