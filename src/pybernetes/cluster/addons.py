"""What a cluster of ours has besides what every Kubernetes has: its DNS Service, and how to join.

`kube-system/kube-dns` has no endpoints: every node answers on its address itself. Two config maps
of kube-public are for machines that join: `cluster-info` with the CA, which anybody may read (as
with kubeadm), and `p8s-cluster` with the settings a node agent needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from pybernetes.api.types.core_v1 import ConfigMap, Service, ServicePort, ServiceSpec
from pybernetes.api.types.meta_v1 import ObjectMeta
from pybernetes.apimachinery.errors import AlreadyExists
from pybernetes.client.kubeconfig import Cluster, Kubeconfig, format_kubeconfig

if TYPE_CHECKING:
    from pybernetes.client import Client
    from pybernetes.cluster.config import ClusterConfig

KUBE_SYSTEM, KUBE_PUBLIC = "kube-system", "kube-public"
DNS_SERVICE = "kube-dns"
CLUSTER_INFO = "cluster-info"
SETTINGS = "p8s-cluster"
DNS_PORT = 53


@dataclass(frozen=True, slots=True)
class Addons:
    """The objects, as they should be."""

    config: ClusterConfig
    server: str
    ca: bytes

    def objects(self) -> list[Any]:
        return [self.dns_service(), self.cluster_info(), self.settings()]

    def dns_service(self) -> Service:
        address = str(self.config.dns_address)
        labels = {
            "k8s-app": DNS_SERVICE,
            "kubernetes.io/cluster-service": "true",
            "kubernetes.io/name": "CoreDNS",
        }
        return Service(
            metadata=ObjectMeta(name=DNS_SERVICE, namespace=KUBE_SYSTEM, labels=labels),
            spec=ServiceSpec(
                type="ClusterIP",
                cluster_ip=address,
                cluster_ips=(address,),
                ports=(
                    ServicePort(name="dns", protocol="UDP", port=DNS_PORT, target_port=DNS_PORT),
                    ServicePort(
                        name="dns-tcp", protocol="TCP", port=DNS_PORT, target_port=DNS_PORT
                    ),
                ),
            ),
        )

    def cluster_info(self) -> ConfigMap:
        kubeconfig = Kubeconfig(
            clusters={"": Cluster(server=self.server, certificate_authority_data=self.ca)}
        )
        return ConfigMap(
            metadata=ObjectMeta(name=CLUSTER_INFO, namespace=KUBE_PUBLIC),
            data={"kubeconfig": format_kubeconfig(kubeconfig)},
        )

    def settings(self) -> ConfigMap:
        config = self.config
        return ConfigMap(
            metadata=ObjectMeta(name=SETTINGS, namespace=KUBE_PUBLIC),
            data={
                "serviceCIDR": config.service_cidr,
                "podCIDR": config.pod_cidr,
                "dnsAddress": str(config.dns_address),
                "clusterDomain": config.cluster_domain,
            },
        )


async def ensure_addons(client: Client, addons: Addons) -> None:
    """Make what is missing; a config map that says something else is put right."""
    for wanted in addons.objects():
        metadata = wanted.metadata
        known: Any = await client.get_or_none(type(wanted), metadata.name, metadata.namespace)
        if known is None:
            try:
                await client.create(wanted)
            except AlreadyExists:
                continue
        elif isinstance(known, ConfigMap):
            # A signer may have added its own keys to cluster-info.
            data = {**known.data, **wanted.data}
            if data != known.data:
                await client.update(msgspec.structs.replace(known, data=data))
