"""Making what is missing of the first objects: in two rounds, all of a round at once.

What is there is compared in the server's own caches, so a start where nothing changed writes
nothing; writes go through the API like everybody's and share commits of the store. Somebody
else doing the same at the same time (another server) is no error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from pybernetes.api.types.core_v1 import ConfigMap, Endpoints, Namespace, Service
from pybernetes.api.types.discovery_v1 import EndpointSlice
from pybernetes.api.types.networking_v1 import ServiceCIDR
from pybernetes.api.types.rbac_v1 import ClusterRole, ClusterRoleBinding, Role, RoleBinding
from pybernetes.api.types.scheduling_v1 import PriorityClass
from pybernetes.apimachinery.errors import AlreadyExists, Conflict, NotFound
from pybernetes.apiserver.bootstrap import objects, policy
from pybernetes.apiserver.bootstrap.reconcile import reconciled_binding, reconciled_role
from pybernetes.apiserver.typed import Typed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pybernetes.apiserver.bootstrap.objects import ServerFacts
    from pybernetes.apiserver.catalog import Catalog
    from pybernetes.client import Client

# From what is stored and what is wanted to what is to be written; None: leave it.
Reconcile = Callable[[Any, Any], Any]
Write = Coroutine[Any, Any, None]


async def ensure_first_objects(client: Client, catalog: Catalog, facts: ServerFacts) -> None:
    """Return when everything is there."""
    first = _writes(client, catalog, Namespace, objects.namespaces(), _leave)
    await _all(first)
    await _all(_second_round(client, catalog, facts))
    await _announce_range(client, catalog)


def _second_round(client: Client, catalog: Catalog, facts: ServerFacts) -> Iterator[Write]:
    def writes(kind: type[Any], wanted: Iterable[Any], reconcile: Reconcile) -> Iterator[Write]:
        return _writes(client, catalog, kind, wanted, reconcile)

    yield from writes(ClusterRole, policy.default_cluster_roles(), reconciled_role)
    yield from writes(
        ClusterRoleBinding, policy.default_cluster_role_bindings(), reconciled_binding
    )
    yield from writes(Role, policy.default_roles(), reconciled_role)
    yield from writes(RoleBinding, policy.default_role_bindings(), reconciled_binding)
    yield from writes(PriorityClass, objects.priority_classes(), _leave)
    yield from writes(ConfigMap, [objects.authentication_config(facts)], _with_data)
    yield from writes(Service, [objects.kubernetes_service(facts)], _with_ports)
    yield from writes(ServiceCIDR, [objects.service_range(facts)], _leave)
    if facts.address:
        yield from writes(Endpoints, [objects.kubernetes_endpoints(facts)], _with_subsets)
        yield from writes(EndpointSlice, [objects.kubernetes_endpoint_slice(facts)], _with_slice)


def _leave(stored: Any, wanted: Any) -> None:
    return None


def _with_data(stored: ConfigMap, wanted: ConfigMap) -> ConfigMap | None:
    if wanted.data.items() <= stored.data.items():
        return None
    return replace(stored, data={**stored.data, **wanted.data})


def _with_ports(stored: Service, wanted: Service) -> Service | None:
    if [p.target_port for p in stored.spec.ports] == [p.target_port for p in wanted.spec.ports]:
        return None
    return replace(stored, spec=replace(stored.spec, ports=wanted.spec.ports))


def _with_subsets(stored: Endpoints, wanted: Endpoints) -> Endpoints | None:
    return None if stored.subsets == wanted.subsets else replace(stored, subsets=wanted.subsets)


def _with_slice(stored: EndpointSlice, wanted: EndpointSlice) -> EndpointSlice | None:
    if (stored.endpoints, stored.ports) == (wanted.endpoints, wanted.ports):
        return None
    return replace(stored, endpoints=wanted.endpoints, ports=wanted.ports)


# -- carrying out


def _writes(
    client: Client,
    catalog: Catalog,
    kind: type[Any],
    wanted: Iterable[Any],
    reconcile: Reconcile,
) -> Iterator[Write]:
    stored = Typed(catalog, kind)
    if stored.served is None:
        return
    for obj in wanted:
        present = stored.get(obj.metadata.name, obj.metadata.namespace)
        if present is None:
            yield _create(client, obj)
        elif (changed := reconcile(present, obj)) is not None:
            yield _change(client, present, changed)


async def _announce_range(client: Client, catalog: Catalog) -> None:
    """Say of the range of Service addresses that it is in use; a status is a write of its own."""
    found = Typed(catalog, ServiceCIDR).get(objects.KUBERNETES)
    if found is not None and (ready := objects.with_ready_range(found)) is not None:
        try:
            await client.update_status(ready)
        except (Conflict, NotFound):
            return  # another server does it


async def _create(client: Client, obj: Any) -> None:
    try:
        await client.create(obj)
    except AlreadyExists:
        return


async def _change(client: Client, present: Any, changed: Any) -> None:
    try:
        if getattr(present, "role_ref", None) != getattr(changed, "role_ref", None):
            # What a binding binds to cannot be changed, only replaced.
            await client.delete(present)
            metadata = replace(changed.metadata, resource_version="", uid="")
            await client.create(replace(changed, metadata=metadata))
        else:
            await client.update(changed)
    except (AlreadyExists, Conflict, NotFound):
        return  # somebody was faster; the next start looks again


async def _all(writes: Iterable[Write]) -> None:
    async with asyncio.TaskGroup() as tasks:
        for write in writes:
            tasks.create_task(write)
