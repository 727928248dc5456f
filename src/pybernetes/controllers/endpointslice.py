"""EndpointSlice: the addresses behind a Service, in pieces that stay small when they change.

Watches services, pods, nodes and slices; writes slices (KEP-752). A pod is an endpoint from when it
has an address until it has ended: `ready` says whether it should get new connections, `serving`
and `terminating` tell a pod that is shutting down from one that is broken (KEP-1672).

Planning is pure and minimal: an endpoint that exists stays in its slice, new ones fill slices that
are written anyway, then slices with room, and only then make new ones.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING

import msgspec

from pybernetes.api.core.podstate import is_ready
from pybernetes.api.ownership import owner_reference
from pybernetes.api.types.core_v1 import Node, ObjectReference, Pod, Service
from pybernetes.api.types.discovery_v1 import (
    Endpoint,
    EndpointConditions,
    EndpointPort,
    EndpointSlice,
)
from pybernetes.api.types.meta_v1 import ObjectMeta
from pybernetes.apimachinery.errors import NotFound
from pybernetes.apimachinery.meta import Key, key_of
from pybernetes.apimachinery.selector import equality_selector
from pybernetes.client import Expectations, changes_of, keys_of, owner_keys_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import timedelta

    from pybernetes.api.types.core_v1 import ServicePort
    from pybernetes.client import Cache, Source
    from pybernetes.controllers.context import ControllerContext

MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
MANAGER = "endpointslice-controller.kubernetes.io"
SERVICE_NAME = "kubernetes.io/service-name"
HEADLESS = "service.kubernetes.io/headless"
ZONE = "topology.kubernetes.io/zone"
# Upstream's --max-endpoints-per-slice.
MAX_ENDPOINTS = 100

Ports = tuple[EndpointPort, ...]


@dataclass(frozen=True, slots=True)
class SlicePlan:
    """What has to be written so that the slices say what is true."""

    create: tuple[EndpointSlice, ...] = ()
    update: tuple[EndpointSlice, ...] = ()
    delete: tuple[EndpointSlice, ...] = ()


@dataclass(slots=True)
class _Draft:
    """A slice as it is being planned."""

    ports: Ports
    endpoints: list[Endpoint] = field(default_factory=list)
    existing: EndpointSlice | None = None
    changed: bool = False

    @property
    def room(self) -> int:
        return MAX_ENDPOINTS - len(self.endpoints)


def plan_slices(
    service: Service,
    pods: Sequence[Pod],
    existing: Sequence[EndpointSlice],
    zones: Mapping[str, str],
) -> SlicePlan:
    """`existing` are the slices of ours that the service has; `zones` maps node names to zones."""
    create: list[EndpointSlice] = []
    update: list[EndpointSlice] = []
    delete: list[EndpointSlice] = []
    families = address_types_of(service)
    for family in families:
        here = [s for s in existing if s.address_type == family]
        plan = _plan_family(service, family, _wanted(service, pods, family, zones), here)
        create += plan.create
        update += plan.update
        delete += plan.delete
    delete += [s for s in existing if s.address_type not in families]
    return SlicePlan(tuple(create), tuple(update), tuple(delete))


def endpoint_ports(service: Service, pod: Pod) -> Ports:
    """The service's ports as they are on this pod; a name the pod does not have is left out."""
    found = []
    for port in service.spec.ports:
        number = target_port(pod, port)
        if number:
            found.append(
                EndpointPort(
                    name=port.name,
                    protocol=port.protocol or "TCP",
                    port=number,
                    app_protocol=port.app_protocol or None,
                )
            )
    return tuple(found)


def target_port(pod: Pod, port: ServicePort) -> int | None:
    """The number of a service port on this pod, looked up by name if the service names it."""
    target = port.target_port
    if target is None or target == "" or target == 0:
        return port.port
    if isinstance(target, int):
        return target
    sidecars = (c for c in pod.spec.init_containers if c.restart_policy == "Always")
    for container in (*pod.spec.containers, *sidecars):
        for candidate in container.ports:
            same_protocol = (candidate.protocol or "TCP") == (port.protocol or "TCP")
            if candidate.name == target and same_protocol:
                return candidate.container_port
    return None


def is_endpoint(pod: Pod) -> bool:
    """Whether the pod has an address that means something (also while it is terminating)."""
    return bool(pod.status.pod_ip) and pod.status.phase not in ("Succeeded", "Failed")


def address_types_of(service: Service) -> tuple[str, ...]:
    return tuple(service.spec.ip_families) or ("IPv4",)


def is_headless(service: Service) -> bool:
    return service.spec.cluster_ip == "None"


def endpoint_of(
    service: Service, pod: Pod, addresses: tuple[str, ...], zones: Mapping[str, str]
) -> Endpoint:
    serving = is_ready(pod)
    terminating = pod.metadata.deletion_timestamp is not None
    published = bool(service.spec.publish_not_ready_addresses)
    named = pod.spec.hostname and pod.spec.subdomain == service.metadata.name
    same_namespace = pod.metadata.namespace == service.metadata.namespace
    return Endpoint(
        addresses=addresses,
        conditions=EndpointConditions(
            ready=published or (serving and not terminating),
            serving=serving,
            terminating=terminating,
        ),
        hostname=pod.spec.hostname if named and same_namespace else "",
        node_name=pod.spec.node_name,
        zone=zones.get(pod.spec.node_name, ""),
        target_ref=ObjectReference(
            kind="Pod",
            namespace=pod.metadata.namespace,
            name=pod.metadata.name,
            uid=pod.metadata.uid,
        ),
    )


def labels_of(service: Service) -> dict[str, str]:
    """The service's labels, and those by which everybody finds its slices."""
    reserved = (MANAGED_BY, SERVICE_NAME, HEADLESS)
    labels = {k: v for k, v in service.metadata.labels.items() if k not in reserved}
    if is_headless(service):
        labels[HEADLESS] = ""
    labels[SERVICE_NAME] = service.metadata.name
    labels[MANAGED_BY] = MANAGER
    return labels


def _wanted(
    service: Service, pods: Iterable[Pod], family: str, zones: Mapping[str, str]
) -> dict[Ports, dict[str, Endpoint]]:
    """Endpoints by the ports they have and the pod they are, in a stable order."""
    wanted: dict[Ports, dict[str, Endpoint]] = {}
    for pod in sorted(pods, key=lambda p: p.metadata.name):
        addresses = tuple(_addresses(pod, family))
        if not addresses or not is_endpoint(pod):
            continue
        ports = endpoint_ports(service, pod)
        if service.spec.ports and not ports:
            continue
        endpoint = endpoint_of(service, pod, addresses, zones)
        wanted.setdefault(ports, {})[pod.metadata.uid] = endpoint
    return wanted


def _addresses(pod: Pod, family: str) -> Iterator[str]:
    version = 6 if family == "IPv6" else 4
    known = [ip.ip for ip in pod.status.pod_ips] or [pod.status.pod_ip]
    for address in known:
        if address and ip_address(address).version == version:
            yield address


def _plan_family(
    service: Service,
    family: str,
    wanted: dict[Ports, dict[str, Endpoint]],
    existing: Sequence[EndpointSlice],
) -> SlicePlan:
    drafts = [_keep(s, wanted.get(s.ports, {})) for s in existing]
    kept = {(d.ports, _uid(e)) for d in drafts for e in d.endpoints}
    for ports, endpoints in wanted.items():
        new = [e for uid, e in endpoints.items() if (ports, uid) not in kept]
        drafts += _fill([d for d in drafts if d.ports == ports], new, ports)
    labels = labels_of(service)
    filled = [draft for draft in drafts if draft.endpoints]
    empty = [draft.existing for draft in drafts if draft.existing and not draft.endpoints]
    if not filled:
        # Upstream keeps one slice without endpoints, so that "no endpoints" is said and not guessed.
        placeholder = _Draft(ports=(), existing=empty.pop(0) if empty else None)
        placeholder.changed = bool(placeholder.existing and placeholder.existing.ports) or (
            placeholder.existing is not None and bool(placeholder.existing.endpoints)
        )
        filled = [placeholder]
    create, update = [], []
    for draft in filled:
        if draft.existing is None:
            create.append(_new_slice(service, family, draft, labels))
        elif draft.changed or draft.existing.metadata.labels != labels:
            metadata = msgspec.structs.replace(draft.existing.metadata, labels=labels)
            update.append(
                msgspec.structs.replace(
                    draft.existing,
                    metadata=metadata,
                    ports=draft.ports,
                    endpoints=tuple(draft.endpoints),
                )
            )
    return SlicePlan(tuple(create), tuple(update), tuple(empty))


def _keep(existing: EndpointSlice, wanted: Mapping[str, Endpoint]) -> _Draft:
    """The slice with what is still wanted of it, brought up to date."""
    draft = _Draft(ports=existing.ports, existing=existing)
    for endpoint in existing.endpoints:
        now = wanted.get(_uid(endpoint))
        if now is None:
            draft.changed = True
            continue
        draft.changed |= now != endpoint
        draft.endpoints.append(now)
    return draft


def _fill(drafts: list[_Draft], new: list[Endpoint], ports: Ports) -> list[_Draft]:
    """Put new endpoints where there is room, first where a write is due anyway."""
    added: list[_Draft] = []
    for draft in sorted(drafts, key=lambda d: (not d.changed, d.room)):
        if not new:
            break
        take, new = new[: draft.room], new[draft.room :]
        draft.endpoints += take
        draft.changed |= bool(take)
    for start in range(0, len(new), MAX_ENDPOINTS):
        added.append(_Draft(ports=ports, endpoints=new[start : start + MAX_ENDPOINTS]))
    return added


def _new_slice(
    service: Service, family: str, draft: _Draft, labels: dict[str, str]
) -> EndpointSlice:
    return EndpointSlice(
        metadata=ObjectMeta(
            generate_name=f"{service.metadata.name}-",
            namespace=service.metadata.namespace,
            labels=labels,
            owner_references=(owner_reference(service, controller=True),),
        ),
        address_type=family,
        endpoints=tuple(draft.endpoints),
        ports=draft.ports,
    )


def _uid(endpoint: Endpoint) -> str:
    return endpoint.target_ref.uid if endpoint.target_ref else ""


def services_of_pods(services: Cache[Service], pods: Cache[Pod]) -> Source:
    """The services that select a pod, whenever the pod changed in a way endpoints show."""

    def keys(old: Pod | None, new: Pod | None) -> list[Key]:
        if old is not None and new is not None and _facts(old) == _facts(new):
            return []
        found: dict[Key, None] = {}
        for pod in (old, new):
            if pod is None:
                continue
            for service in services.list(pod.metadata.namespace):
                wanted, labels = service.spec.selector, pod.metadata.labels
                if wanted and all(labels.get(k) == v for k, v in wanted.items()):
                    found[key_of(service)] = None
        return list(found)

    return changes_of(pods, keys)


def _facts(pod: Pod) -> tuple[object, ...]:
    """All of a pod that an endpoint is made of."""
    return (
        pod.metadata.labels,
        pod.metadata.deletion_timestamp is not None,
        pod.spec.node_name,
        pod.status.phase in ("Succeeded", "Failed"),
        pod.status.pod_ips,
        pod.status.pod_ip,
        is_ready(pod),
    )


class EndpointSliceController:
    name = "endpointslice-controller"

    def __init__(self, context: ControllerContext) -> None:
        self._client = context.client_for(self.name)
        self._services = context.caches.of(Service)
        self._pods = context.caches.of(Pod)
        self._nodes = context.caches.of(Node)
        self._slices = context.caches.of(EndpointSlice)
        self._expectations = Expectations()
        self._expectations.follow(self._slices, Service)
        self.sources = (
            keys_of(self._services),
            services_of_pods(self._services, self._pods),
            owner_keys_of(self._slices, Service),
        )

    async def reconcile(self, key: Key) -> timedelta | None:
        service = self._services.get(key)
        if service is None:
            self._expectations.forget(key)
            return None
        # A service that is gone takes its slices along by owner references; slices of one that
        # lost its selector are somebody else's business from then on, as upstream.
        if not service.spec.selector or service.spec.type == "ExternalName":
            return None
        if service.metadata.deletion_timestamp is not None:
            return None
        if not self._expectations.met(key):
            return self._expectations.expires_in(key)
        pods = self._pods.list(key.namespace, equality_selector(service.spec.selector))
        existing = [
            found
            for found in self._slices.owned_by(service)
            if found.metadata.labels.get(MANAGED_BY) == MANAGER
        ]
        await self._carry_out(key, plan_slices(service, pods, existing, self._zones(pods)))
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

    def _zones(self, pods: Iterable[Pod]) -> dict[str, str]:
        names = {pod.spec.node_name for pod in pods}
        nodes = [node for name in names if (node := self._nodes.get(Key("", name))) is not None]
        return {
            node.metadata.name: zone for node in nodes if (zone := node.metadata.labels.get(ZONE))
        }
