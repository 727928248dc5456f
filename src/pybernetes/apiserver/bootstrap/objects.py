"""The objects every cluster has besides its policy. Pure: settings in, objects out."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network

from msgspec.structs import replace

from pybernetes.api.scheduling import SYSTEM_CLASSES
from pybernetes.api.types.core_v1 import (
    ConfigMap,
    EndpointAddress,
    EndpointPort,
    Endpoints,
    EndpointSubset,
    Namespace,
    Service,
    ServicePort,
    ServiceSpec,
)
from pybernetes.api.types.discovery_v1 import Endpoint, EndpointConditions, EndpointSlice
from pybernetes.api.types.discovery_v1 import EndpointPort as SlicePort
from pybernetes.api.types.meta_v1 import Condition, ObjectMeta
from pybernetes.api.types.networking_v1 import ServiceCIDR, ServiceCIDRSpec
from pybernetes.api.types.scheduling_v1 import PriorityClass

NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
KUBERNETES = "kubernetes"
HTTPS_PORT = 443
# Where nobody chooses another.
SERVICE_NETWORK = IPv4Network("10.96.0.0/16")

_DESCRIPTIONS = {
    "system-cluster-critical": "Used for system critical pods that must run in the cluster, but"
    " can be moved to another node if necessary.",
    "system-node-critical": "Used for system critical pods that must not be moved from their"
    " current node.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """Where the API server is, for those who look for it inside the cluster."""

    service_network: IPv4Network = SERVICE_NETWORK
    # Address and port that nodes and pods reach it at; without an address nobody is told.
    address: str = ""
    port: int = 6443
    # PEM of the CA of client certificates, and of the one of front proxies.
    client_ca: str = ""
    front_proxy_ca: str = ""


def namespaces() -> list[Namespace]:
    return [Namespace(metadata=ObjectMeta(name=name)) for name in NAMESPACES]


def priority_classes() -> list[PriorityClass]:
    return [
        PriorityClass(metadata=ObjectMeta(name=name), value=value, description=_DESCRIPTIONS[name])
        for name, value in SYSTEM_CLASSES.items()
    ]


def kubernetes_service(facts: ServerFacts) -> Service:
    """The Service that pods find the API server by; its address is the first of the range."""
    address = str(facts.service_network[1])
    port = ServicePort(name="https", protocol="TCP", port=HTTPS_PORT, target_port=facts.port)
    return Service(
        metadata=ObjectMeta(
            name=KUBERNETES,
            namespace="default",
            labels={"component": "apiserver", "provider": KUBERNETES},
        ),
        spec=ServiceSpec(
            type="ClusterIP",
            cluster_ip=address,
            cluster_ips=(address,),
            ip_families=("IPv4",),
            ip_family_policy="SingleStack",
            session_affinity="None",
            ports=(port,),
        ),
    )


def kubernetes_endpoints(facts: ServerFacts) -> Endpoints:
    return Endpoints(
        metadata=ObjectMeta(
            name=KUBERNETES,
            namespace="default",
            # There is a slice already: nobody shall mirror these into another.
            labels={"endpointslice.kubernetes.io/skip-mirror": "true"},
        ),
        subsets=(
            EndpointSubset(
                addresses=(EndpointAddress(ip=facts.address),),
                ports=(EndpointPort(name="https", port=facts.port, protocol="TCP"),),
            ),
        ),
    )


def kubernetes_endpoint_slice(facts: ServerFacts) -> EndpointSlice:
    return EndpointSlice(
        metadata=ObjectMeta(
            name=KUBERNETES,
            namespace="default",
            labels={"kubernetes.io/service-name": KUBERNETES},
        ),
        address_type="IPv4",
        endpoints=(
            Endpoint(addresses=(facts.address,), conditions=EndpointConditions(ready=True)),
        ),
        ports=(SlicePort(name="https", port=facts.port, protocol="TCP"),),
    )


def service_range(facts: ServerFacts) -> ServiceCIDR:
    return ServiceCIDR(
        metadata=ObjectMeta(name=KUBERNETES),
        spec=ServiceCIDRSpec(cidrs=(str(facts.service_network),)),
    )


def with_ready_range(found: ServiceCIDR) -> ServiceCIDR | None:
    """The range as one that addresses are given from; None if it says so."""
    if any(c.type == "Ready" and c.status == "True" for c in found.status.conditions):
        return None
    ready = Condition(
        type="Ready",
        status="True",
        last_transition_time=found.metadata.creation_timestamp,
        message="Kubernetes Service CIDR is ready",
    )
    return replace(found, status=replace(found.status, conditions=(ready,)))


def authentication_config(facts: ServerFacts) -> ConfigMap:
    """What an extension API server needs to know whom we believe (field: requestheader-*)."""
    data = {}
    if facts.client_ca:
        data["client-ca-file"] = facts.client_ca
    if facts.front_proxy_ca:
        data["requestheader-client-ca-file"] = facts.front_proxy_ca
        data["requestheader-allowed-names"] = '["front-proxy-client"]'
        data["requestheader-username-headers"] = '["X-Remote-User"]'
        data["requestheader-group-headers"] = '["X-Remote-Group"]'
        data["requestheader-extra-headers-prefix"] = '["X-Remote-Extra-"]'
    return ConfigMap(
        metadata=ObjectMeta(name="extension-apiserver-authentication", namespace="kube-system"),
        data=data,
    )
