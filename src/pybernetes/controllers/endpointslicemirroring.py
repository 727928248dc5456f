"""EndpointSliceMirroring: Endpoints that somebody wrote by hand are served as slices, too.

Watches services without a selector, their Endpoints and the slices made here; writes slices.
Endpoints may ask to be left alone (label `endpointslice.kubernetes.io/skip-mirror`).
"""

from __future__ import annotations

from contextlib import suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING

from pybernetes.api.ownership import owner_reference
from pybernetes.api.types.core_v1 import Endpoints, Service
from pybernetes.api.types.discovery_v1 import (
    Endpoint,
    EndpointConditions,
    EndpointPort,
    EndpointSlice,
)
from pybernetes.apimachinery.errors import NotFound
from pybernetes.client import Expectations, keys_of, owner_keys_of
from pybernetes.controllers.endpointplan import SlicePlan, SliceShape, plan_family
from pybernetes.controllers.endpointslice import MANAGED_BY, SERVICE_NAME

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from pybernetes.api.types.core_v1 import EndpointAddress, EndpointSubset
    from pybernetes.apimachinery.meta import Key
    from pybernetes.controllers.context import ControllerContext
    from pybernetes.controllers.endpointplan import Ports

MANAGER = "endpointslicemirroring-controller.k8s.io"
SKIP = "endpointslice.kubernetes.io/skip-mirror"
# Endpoints were once locks for leader election: those are no addresses.
LEADER = "control-plane.alpha.kubernetes.io/leader"
_NOT_COPIED = frozenset(
    [
        "kubectl.kubernetes.io/last-applied-configuration",
        "endpoints.kubernetes.io/last-change-trigger-time",
    ]
)
# Of each subset; upstream's --mirroring-max-endpoints-per-subset.
MAX_PER_SUBSET = 1000
FAMILIES = ("IPv4", "IPv6")


def is_mirrored(endpoints: Endpoints, service: Service | None) -> bool:
    metadata = endpoints.metadata
    return (
        service is not None
        and not service.spec.selector
        and metadata.deletion_timestamp is None
        and metadata.labels.get(SKIP) != "true"
        and LEADER not in metadata.annotations
    )


def plan_mirror(endpoints: Endpoints, existing: Sequence[EndpointSlice]) -> SlicePlan:
    metadata = endpoints.metadata
    shape = SliceShape(
        generate_name=f"{metadata.name}-",
        namespace=metadata.namespace,
        labels={**metadata.labels, SERVICE_NAME: metadata.name, MANAGED_BY: MANAGER},
        annotations={k: v for k, v in metadata.annotations.items() if k not in _NOT_COPIED},
        owner=owner_reference(endpoints),
        identity=lambda endpoint: endpoint.addresses[0],
        keeps_one=False,
    )
    plans = [
        plan_family(
            shape,
            family,
            _wanted(endpoints, family),
            [found for found in existing if found.address_type == family],
        )
        for family in FAMILIES
    ]
    return SlicePlan(
        tuple(new for plan in plans for new in plan.create),
        tuple(changed for plan in plans for changed in plan.update),
        tuple(gone for plan in plans for gone in plan.delete),
    )


def _wanted(endpoints: Endpoints, family: str) -> dict[Ports, dict[str, Endpoint]]:
    wanted: dict[Ports, dict[str, Endpoint]] = {}
    for subset in endpoints.subsets:
        ports = _ports_of(subset)
        found = [(address, True) for address in subset.addresses]
        found += [(address, False) for address in subset.not_ready_addresses]
        for address, ready in found[:MAX_PER_SUBSET]:
            if _family_of(address) == family:
                endpoint = _endpoint_of(address, ready=ready)
                wanted.setdefault(ports, {})[address.ip] = endpoint
    return wanted


def _ports_of(subset: EndpointSubset) -> Ports:
    return tuple(
        EndpointPort(
            name=port.name,
            port=port.port,
            protocol=port.protocol or "TCP",
            app_protocol=port.app_protocol or None,
        )
        for port in subset.ports
    )


def _family_of(address: EndpointAddress) -> str:
    try:
        return f"IPv{ip_address(address.ip).version}"
    except ValueError:
        return ""


def _endpoint_of(address: EndpointAddress, *, ready: bool) -> Endpoint:
    return Endpoint(
        addresses=(address.ip,),
        conditions=EndpointConditions(ready=ready),
        hostname=address.hostname,
        node_name=address.node_name,
        target_ref=address.target_ref,
    )


class EndpointSliceMirroringController:
    name = "endpointslicemirroring-controller"

    def __init__(self, context: ControllerContext) -> None:
        self._client = context.client_for(self.name)
        self._services = context.caches.of(Service)
        self._endpoints = context.caches.of(Endpoints)
        self._slices = context.caches.of(EndpointSlice)
        self._expectations = Expectations()
        self._expectations.follow(self._slices, Endpoints)
        self.sources = (
            keys_of(self._endpoints),
            # A service has the name of its Endpoints.
            keys_of(self._services),
            owner_keys_of(self._slices, Endpoints),
        )

    async def reconcile(self, key: Key) -> timedelta | None:
        endpoints = self._endpoints.get(key)
        if endpoints is None:
            # Its slices go with it, by their owner reference.
            self._expectations.forget(key)
            return None
        if not self._expectations.met(key):
            return self._expectations.expires_in(key)
        existing = [
            found
            for found in self._slices.owned_by(endpoints)
            if found.metadata.labels.get(MANAGED_BY) == MANAGER
        ]
        if is_mirrored(endpoints, self._services.get(key)):
            await self._carry_out(key, plan_mirror(endpoints, existing))
        else:
            await self._carry_out(key, SlicePlan(delete=tuple(existing)))
        return None

    async def _carry_out(self, key: Key, plan: SlicePlan) -> None:
        for new in plan.create:
            with self._expectations.creation(key):
                await self._client.create(new)
        for changed in plan.update:
            await self._client.update(changed)
        for gone in plan.delete:
            with suppress(NotFound), self._expectations.deletion(key, gone):
                await self._client.delete(gone)
