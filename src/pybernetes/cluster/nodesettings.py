"""One real node of a cluster: its name, address and directories, and what its parts are told.

Both who starts a node and who removes its traces work from this value, so that they can never
disagree about where something lies.
"""

from __future__ import annotations

import hashlib
from ipaddress import IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from pybernetes.cluster.pki import KeyPair
from pybernetes.cluster.preflight import cni_directory
from pybernetes.kubelet.runtime.containerd import ContainerdOptions
from pybernetes.network.podnetwork import PodNetworkConfig
from pybernetes.network.proxy.proxy import ProxyConfig
from pybernetes.network.proxy.ruleset import RulesetConfig

if TYPE_CHECKING:
    from pybernetes.cluster.config import ClusterConfig

FILE_NAME = "node.json"


class NodeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a node agent has to know before it first asks the API."""

    data_dir: str
    name: str
    address: str
    kubelet_port: int
    pod_cidr: str
    service_cidr: str
    dns_address: str
    cluster_domain: str
    # A CRI socket to use instead of our own containerd.
    runtime_socket: str = ""
    labels: tuple[str, ...] = ()
    proxy: bool = True
    dns: bool = True
    # The network namespace it lives in; empty is the machine's own.
    namespace: str = ""

    @property
    def directory(self) -> Path:
        return Path(self.data_dir)

    @property
    def kubelet_directory(self) -> Path:
        return self.directory / "kubelet"

    @property
    def kubeconfig(self) -> Path:
        return self.directory / "kubeconfig"

    @property
    def pair(self) -> KeyPair:
        """Client and serving certificate of a node that is not in the server's process."""
        return KeyPair(self.directory / "node.crt", self.directory / "node.key")

    @property
    def client_ca(self) -> Path:
        """The CA of the certificates that its HTTPS server looks at."""
        return self.directory / "ca.crt"

    @property
    def log_file(self) -> Path:
        return self.directory / "agent.log"

    @property
    def pid_file(self) -> Path:
        return self.directory / "agent.pid"

    @property
    def cgroup_parent(self) -> str:
        """Below which the cgroups of this node's pods are.

        Of the directory's name, so that no two nodes of a machine, whatever cluster they belong
        to, ever touch each other's.
        """
        return f"p8s-{hashlib.sha256(self.data_dir.encode()).hexdigest()[:8]}"

    def containerd(self) -> ContainerdOptions:
        return ContainerdOptions(
            directory=self.directory / "containerd",
            cni_conf_dir=self._cni_conf_dir,
            cni_bin_dir=cni_directory(),
        )

    def pod_network(self) -> PodNetworkConfig:
        return PodNetworkConfig(
            node_name=self.name,
            node_address=self.address,
            pod_cidr=self.pod_cidr,
            service_cidr=self.service_cidr,
            dns_address=self.dns_address,
            cni_conf_dir=self._cni_conf_dir,
            state_dir=self.directory / "network",
        )

    def service_proxy(self) -> ProxyConfig:
        return ProxyConfig(
            node_name=self.name,
            rules=RulesetConfig(service_cidr=self.service_cidr, pod_cidr=self.pod_cidr),
            exempt=frozenset({self.dns_address}),
        )

    @property
    def networks(self) -> tuple[IPv4Network, IPv4Network]:
        """The ranges of services and pods."""
        return IPv4Network(self.service_cidr), IPv4Network(self.pod_cidr)

    @property
    def _cni_conf_dir(self) -> Path:
        return self.directory / "cni"


def local_settings(config: ClusterConfig, address: str) -> NodeSettings:
    """The node that runs in the server's own process."""
    return settings_of(config, config.node, address, config.directory / "node")


def settings_of(
    config: ClusterConfig, name: str, address: str, directory: Path, *, namespace: str = ""
) -> NodeSettings:
    return NodeSettings(
        data_dir=str(directory),
        name=name,
        address=address,
        kubelet_port=config.kubelet_port,
        pod_cidr=config.pod_cidr,
        service_cidr=config.service_cidr,
        dns_address=str(config.dns_address),
        cluster_domain=config.cluster_domain,
        runtime_socket=config.runtime_socket,
        labels=config.node_labels,
        proxy=config.has("proxy"),
        dns=config.has("dns"),
        namespace=namespace,
    )


def save(settings: NodeSettings) -> None:
    """Keep the settings in the node's directory, for whoever removes it later."""
    settings.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = settings.directory / FILE_NAME
    temporary = path.with_suffix(".new")
    temporary.write_bytes(msgspec.json.format(msgspec.json.encode(settings), indent=2) + b"\n")
    temporary.replace(path)


def load(directory: Path) -> NodeSettings | None:
    try:
        return msgspec.json.decode((directory / FILE_NAME).read_bytes(), type=NodeSettings)
    except FileNotFoundError:
        return None


def all_nodes(config: ClusterConfig) -> list[NodeSettings]:
    """Every real node of this cluster that was started on this machine."""
    directories = [config.directory / "node", *sorted((config.directory / "nodes").glob("*"))]
    found = [load(directory) for directory in directories]
    return [settings for settings in found if settings is not None]
