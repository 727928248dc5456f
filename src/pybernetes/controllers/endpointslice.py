"""EndpointSlice: the addresses behind a Service, in pieces that stay small when they change.

Watches services, pods, nodes and slices; writes slices (KEP-752). A pod is an endpoint from when it
has an address until it has ended: `ready` says whether it should get new connections, `serving`
and `terminating` tell a pod that is shutting down from one that is broken (KEP-1672).

Which endpoint goes into which slice is decided by `endpointplan`, for the mirroring of Endpoints too.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from pybernetes.api.core.podstate import is_ready
from pybernetes.api.ownership import owner_reference
from pybernetes.api.types.core_v1 import Node, ObjectReference, Pod, Service
from pybernetes.api.types.discovery_v1 import (
    Endpoint,
    EndpointConditions,
    EndpointPort,
    EndpointSlice,
)
from pybernetes.apimachinery.errors import NotFound
from pybernetes.apimachinery.meta import Key, key_of
from pybernetes.apimachinery.selector import equality_selector
from pybernetes.client import Expectations, changes_of, keys_of, owner_keys_of
from pybernetes.controllers.endpointplan import Pace, SlicePlan, SliceShape, plan_family
from pybernetes.controllers.nodepods import index_by_node, pods_on

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import timedelta

    from pybernetes.api.types.core_v1 import ServicePort
    from pybernetes.client import Cache, Source
    from pybernetes.controllers.context import ControllerContext
    from pybernetes.controllers.endpointplan import Ports

MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
MANAGER = "endpointslice-controller.k8s.io"
SERVICE_NAME = "kubernetes.io/service-name"
HEADLESS = "service.kubernetes.io/headless"
ZONE = "topology.kubernetes.io/zone"


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
    shape = SliceShape(
        generate_name=f"{service.metadata.name}-",
        namespace=service.metadata.namespace,
        labels=labels_of(service),
        owner=owner_reference(service),
        identity=_uid,
        keeps_one=True,
    )
    for family in families:
        here = [s for s in existing if s.address_type == family]
        plan = plan_family(shape, family, _wanted(service, pods, family, zones), here)
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
    # Addresses were validated when they were written; only IPv6 has colons.
    known = [ip.ip for ip in pod.status.pod_ips] or [pod.status.pod_ip]
    for address in known:
        if address and (":" in address) == (family == "IPv6"):
            yield address


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
            found.update(dict.fromkeys(selecting(services, pod)))
        return list(found)

    return changes_of(pods, keys)


def selecting(services: Cache[Service], pod: Pod) -> Iterator[Key]:
    """The services whose selector matches the pod."""
    labels = pod.metadata.labels
    for service in services.list(pod.metadata.namespace):
        wanted = service.spec.selector
        if wanted and all(labels.get(k) == v for k, v in wanted.items()):
            yield key_of(service)


def _zone(node: Node | None) -> str:
    return "" if node is None else node.metadata.labels.get(ZONE, "")


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
        index_by_node(self._pods)
        self._nodes = context.caches.of(Node)
        self._slices = context.caches.of(EndpointSlice)
        self._pace = Pace(context.clock)
        self._expectations = Expectations()
        self._expectations.follow(self._slices, Service)
        self.sources = (
            keys_of(self._services),
            services_of_pods(self._services, self._pods),
            owner_keys_of(self._slices, Service),
            changes_of(self._nodes, self._services_in_zone),
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
        if (wait := self._pace.wait(key, len(pods))) is not None:
            return wait
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

    def _services_in_zone(self, old: Node | None, new: Node | None) -> list[Key]:
        """The services with a pod on a node whose zone has changed."""
        node = new or old
        if node is None or _zone(old) == _zone(new):
            return []
        found: dict[Key, None] = {}
        for pod in pods_on(self._pods, node.metadata.name):
            found.update(dict.fromkeys(selecting(self._services, pod)))
        return list(found)

    def _zones(self, pods: Iterable[Pod]) -> dict[str, str]:
        names = {pod.spec.node_name for pod in pods}
        nodes = [node for name in names if (node := self._nodes.get(Key("", name))) is not None]
        return {
            node.metadata.name: zone for node in nodes if (zone := node.metadata.labels.get(ZONE))
        }
