"""Services and EndpointSlices for tests, every field with a sane value."""

from __future__ import annotations

from datetime import UTC, datetime

from pybernetes.api.types.core_v1 import (
    ClientIPConfig,
    LoadBalancerIngress,
    LoadBalancerStatus,
    Service,
    ServicePort,
    ServiceSpec,
    ServiceStatus,
    SessionAffinityConfig,
)
from pybernetes.api.types.discovery_v1 import (
    Endpoint,
    EndpointConditions,
    EndpointPort,
    EndpointSlice,
)
from pybernetes.api.types.meta_v1 import ObjectMeta

NODE = "node-0"
OTHER_NODE = "node-1"


def service(
    name: str = "web",
    *,
    address: str = "10.96.0.20",
    ports: tuple[ServicePort, ...] = (ServicePort(port=80, protocol="TCP"),),
    type: str = "ClusterIP",
    namespace: str = "default",
    internal: str = "Cluster",
    external: str = "",
    external_ips: tuple[str, ...] = (),
    ingress: tuple[str, ...] = (),
    ranges: tuple[str, ...] = (),
    affinity: int | None = None,
    labels: dict[str, str] | None = None,
    external_name: str = "",
    health_port: int | None = None,
    version: str = "1",
) -> Service:
    return Service(
        metadata=ObjectMeta(
            name=name,
            namespace=namespace,
            labels=labels or {},
            uid=f"uid-{name}",
            resource_version=version,
            creation_timestamp=datetime(2026, 1, 1, tzinfo=UTC),
        ),
        spec=ServiceSpec(
            type=type,
            cluster_ip=address,
            cluster_ips=(address,) if address else (),
            ports=ports,
            internal_traffic_policy=internal,
            external_traffic_policy=external,
            external_ips=external_ips,
            external_name=external_name,
            load_balancer_source_ranges=ranges,
            health_check_node_port=health_port,
            session_affinity="None" if affinity is None else "ClientIP",
            session_affinity_config=None
            if affinity is None
            else SessionAffinityConfig(client_ip=ClientIPConfig(timeout_seconds=affinity)),
        ),
        status=ServiceStatus(
            load_balancer=LoadBalancerStatus(
                ingress=tuple(LoadBalancerIngress(ip=text, ip_mode="VIP") for text in ingress)
            )
        ),
    )


def port(number: int = 80, *, name: str = "", protocol: str = "TCP", node: int = 0) -> ServicePort:
    return ServicePort(port=number, name=name, protocol=protocol, node_port=node or None)


def endpoint(
    address: str,
    *,
    ready: bool | None = True,
    serving: bool | None = None,
    terminating: bool | None = None,
    node: str = NODE,
    hostname: str = "",
) -> Endpoint:
    return Endpoint(
        addresses=(address,),
        node_name=node,
        hostname=hostname,
        conditions=EndpointConditions(ready=ready, serving=serving, terminating=terminating),
    )


def endpoint_slice(
    *endpoints: Endpoint | str,
    service: str = "web",
    namespace: str = "default",
    ports: tuple[EndpointPort, ...] = (EndpointPort(name="", port=8080, protocol="TCP"),),
    suffix: str = "1",
    version: str = "1",
    labels: dict[str, str] | None = None,
) -> EndpointSlice:
    return EndpointSlice(
        metadata=ObjectMeta(
            name=f"{service}-{suffix}",
            namespace=namespace,
            uid=f"uid-{service}-{suffix}",
            resource_version=version,
            labels={"kubernetes.io/service-name": service, **(labels or {})},
        ),
        address_type="IPv4",
        ports=ports,
        endpoints=tuple(endpoint(e) if isinstance(e, str) else e for e in endpoints),
    )
