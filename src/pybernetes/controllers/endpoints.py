"""Endpoints: the older form of EndpointSlice, one object per Service, for those who still read it.

Watches services and pods; writes v1 Endpoints. Addresses are grouped into subsets of pods with the
same ports, ready and not ready apart; more than a thousand are cut off and the object says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from pybernetes.api.core.podstate import is_ready
from pybernetes.api.types.core_v1 import (
    EndpointAddress,
    EndpointPort,
    Endpoints,
    EndpointSubset,
    ObjectReference,
    Pod,
    Service,
)
from pybernetes.api.types.meta_v1 import ObjectMeta
from pybernetes.apimachinery.errors import AlreadyExists, NotFound
from pybernetes.apimachinery.meta import key_of
from pybernetes.apimachinery.selector import equality_selector
from pybernetes.client import changes_of, keys_of
from pybernetes.controllers.endpointplan import Pace
from pybernetes.controllers.endpointslice import (
    HEADLESS,
    endpoint_ports,
    is_endpoint,
    is_headless,
    services_of_pods,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from pybernetes.apimachinery.meta import Key
    from pybernetes.controllers.context import ControllerContext

# Upstream's limit, and the annotation that says it was reached.
MAX_ADDRESSES = 1000
OVER_CAPACITY = "endpoints.kubernetes.io/over-capacity"
TRUNCATED = "truncated"
MANAGED_BY = "endpoints.kubernetes.io/managed-by"
MANAGER = "endpoint-controller"


def plan_subsets(service: Service, pods: Sequence[Pod]) -> tuple[tuple[EndpointSubset, ...], bool]:
    """The subsets, and whether some addresses had to be left out (the not ready ones first)."""
    found: list[tuple[tuple[EndpointPort, ...], EndpointAddress, bool]] = []
    for pod in pods:
        # Unlike slices, Endpoints never hold pods that are shutting down, unless asked for.
        published = bool(service.spec.publish_not_ready_addresses)
        if not is_endpoint(pod) or (pod.metadata.deletion_timestamp is not None and not published):
            continue
        ports = tuple(
            EndpointPort(
                name=port.name or "",
                port=port.port or 0,
                protocol=port.protocol,
                app_protocol=port.app_protocol or "",
            )
            for port in endpoint_ports(service, pod)
        )
        if service.spec.ports and not ports:
            continue
        found.append((ports, _address_of(service, pod), published or is_ready(pod)))
    found.sort(key=lambda entry: (not entry[2], entry[1].ip))
    kept = found[:MAX_ADDRESSES]
    return _subsets(kept), len(found) > len(kept)


def _subsets(
    entries: Sequence[tuple[tuple[EndpointPort, ...], EndpointAddress, bool]],
) -> tuple[EndpointSubset, ...]:
    groups: dict[tuple[EndpointPort, ...], tuple[list[EndpointAddress], list[EndpointAddress]]] = {}
    for ports, address, ready in entries:
        groups.setdefault(ports, ([], []))[0 if ready else 1].append(address)
    subsets = [
        EndpointSubset(
            addresses=tuple(ready),
            not_ready_addresses=tuple(waiting),
            ports=tuple(sorted(ports, key=lambda p: (p.name, p.port, p.protocol))),
        )
        for ports, (ready, waiting) in groups.items()
    ]
    return tuple(sorted(subsets, key=lambda s: tuple((p.name, p.port) for p in s.ports)))


def _address_of(service: Service, pod: Pod) -> EndpointAddress:
    named = pod.spec.hostname and pod.spec.subdomain == service.metadata.name
    return EndpointAddress(
        ip=pod.status.pod_ip,
        hostname=pod.spec.hostname if named else "",
        node_name=pod.spec.node_name,
        target_ref=ObjectReference(
            kind="Pod",
            namespace=pod.metadata.namespace,
            name=pod.metadata.name,
            uid=pod.metadata.uid,
        ),
    )


class EndpointsController:
    name = "endpoint-controller"

    def __init__(self, context: ControllerContext) -> None:
        self._client = context.client_for(self.name)
        self._services = context.caches.of(Service)
        self._pods = context.caches.of(Pod)
        self._endpoints = context.caches.of(Endpoints)
        self._pace = Pace(context.clock)
        # Keys of services that were deleted before our eyes and not looked at since.
        self._bereft: set[Key] = set()
        self.sources = (
            changes_of(self._services, self._service_changed),
            services_of_pods(self._services, self._pods),
            keys_of(self._endpoints),
        )

    async def reconcile(self, key: Key) -> timedelta | None:
        service = self._services.get(key)
        known = self._endpoints.get(key)
        if service is None:
            # A service takes its endpoints with it, also those made by hand. Endpoints that never
            # had a service may be waiting for theirs.
            ours = known is not None and known.metadata.labels.get(MANAGED_BY) == MANAGER
            if known is not None and (ours or key in self._bereft):
                await self._delete(known)
            self._bereft.discard(key)
            return None
        self._bereft.discard(key)
        if not service.spec.selector or service.metadata.deletion_timestamp is not None:
            return None
        pods = self._pods.list(key.namespace, equality_selector(service.spec.selector))
        if (wait := self._pace.wait(key, len(pods))) is not None:
            return wait
        wanted = self._wanted(service, known, pods)
        try:
            if known is None:
                await self._client.create(wanted)
            elif wanted != known:
                await self._client.update(wanted)
        except AlreadyExists:
            # The cache will show it in a moment.
            return None
        return None

    def _wanted(self, service: Service, known: Endpoints | None, pods: Sequence[Pod]) -> Endpoints:
        subsets, truncated = plan_subsets(service, pods)
        labels = {**service.metadata.labels, MANAGED_BY: MANAGER}
        labels.pop(HEADLESS, None)
        if is_headless(service):
            labels[HEADLESS] = ""
        metadata = (
            known.metadata
            if known
            else ObjectMeta(name=service.metadata.name, namespace=service.metadata.namespace)
        )
        annotations = {k: v for k, v in metadata.annotations.items() if k != OVER_CAPACITY}
        if truncated:
            annotations[OVER_CAPACITY] = TRUNCATED
        metadata = msgspec.structs.replace(metadata, labels=labels, annotations=annotations)
        return Endpoints(metadata=metadata, subsets=subsets)

    def _service_changed(self, old: Service | None, new: Service | None) -> list[Key]:
        service = new or old
        assert service is not None
        key = key_of(service)
        if new is None:
            self._bereft.add(key)
        return [key]

    async def _delete(self, known: Endpoints) -> None:
        try:
            await self._client.delete(known)
        except NotFound:
            return
