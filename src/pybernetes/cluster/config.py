"""What a cluster on this machine is made of: one frozen value, kept in its data directory.

`p8s up` decides it once from its flags; every later command reads it back from
`<data dir>/cluster.json`, so that `p8s down` or a restarted server never depends on somebody
repeating the flags.
"""

from __future__ import annotations

import os
import socket
from ipaddress import IPv4Address, IPv4Network, ip_network
from pathlib import Path

import msgspec

FILE_NAME = "cluster.json"
DEFAULT_PORT = 6443
# What a machine without any network is reached at by its own pods; see server.advertised.
LONELY_ADDRESS = "198.18.255.254"
KUBELET_PORT = 10250
PARTS = ("agent", "scheduler", "controllers", "proxy", "dns")


class ConfigError(ValueError):
    """A setting that cannot work; the message says which and what to do."""


class ClusterConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Every setting of a cluster; see `p8s server --help` for what each means.

    Addresses and networks are strings here, because the file is read by people.
    """

    data_dir: str
    bind_address: str = "0.0.0.0"
    # How nodes and pods reach the API server; empty: the address of the default route, else loopback.
    advertise_address: str = ""
    port: int = DEFAULT_PORT
    kubelet_port: int = KUBELET_PORT
    node_name: str = ""
    service_cidr: str = "10.96.0.0/16"
    pod_cidr: str = "10.244.0.0/16"
    cluster_domain: str = "cluster.local"
    # Number of simulated nodes; None means that this machine is a real node.
    simulated_nodes: int | None = None
    # Number of real nodes in network namespaces of their own; 0 means not isolated.
    isolated_nodes: int = 0
    # Parts that this server leaves out, from PARTS.
    disabled: tuple[str, ...] = ()
    # A CRI socket to use instead of starting our own containerd.
    runtime_socket: str = ""
    # Labels that the local node registers with, as key=value.
    node_labels: tuple[str, ...] = ()
    feature_gates: str = ""
    log_level: str = "info"

    @property
    def directory(self) -> Path:
        return Path(self.data_dir)

    @property
    def pki_directory(self) -> Path:
        return self.directory / "pki"

    @property
    def kubeconfig(self) -> Path:
        return self.directory / "kubeconfig"

    @property
    def store_file(self) -> Path:
        return self.directory / "store.sqlite"

    @property
    def log_file(self) -> Path:
        return self.directory / "server.log"

    @property
    def pid_file(self) -> Path:
        return self.directory / "server.pid"

    @property
    def service_network(self) -> IPv4Network:
        return _network(self.service_cidr, "--service-cidr")

    @property
    def pod_network(self) -> IPv4Network:
        return _network(self.pod_cidr, "--pod-cidr")

    @property
    def kubernetes_address(self) -> IPv4Address:
        """The cluster IP of the `kubernetes` Service: the first of the range, as upstream."""
        return self.service_network[1]

    @property
    def dns_address(self) -> IPv4Address:
        """The cluster IP of `kube-dns`: the tenth of the range, as kubeadm chooses it."""
        return self.service_network[10]

    @property
    def node(self) -> str:
        return self.node_name or default_node_name()

    def has(self, part: str) -> bool:
        return part not in self.disabled

    def check(self) -> None:
        """Raise ConfigError for the first setting that cannot work."""
        if not 0 < self.port < 65536:
            raise ConfigError(f"--port {self.port} is not a port; choose one from 1 to 65535")
        if unknown := set(self.disabled) - set(PARTS):
            raise ConfigError(f"cannot disable {', '.join(sorted(unknown))}: parts are {PARTS}")
        services, pods = self.service_network, self.pod_network
        if services.overlaps(pods):
            raise ConfigError(
                f"--service-cidr {services} and --pod-cidr {pods} overlap; choose two ranges apart"
            )
        if services.prefixlen > 28 or pods.prefixlen > 24:
            raise ConfigError(
                "the service range needs a prefix of at most /28 and the pod range of at most /24"
            )


def load(data_dir: Path) -> ClusterConfig | None:
    """The cluster kept in `data_dir`, or None if there is none."""
    path = data_dir / FILE_NAME
    try:
        return msgspec.json.decode(path.read_bytes(), type=ClusterConfig)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, OSError) as error:
        raise ConfigError(
            f"cannot read {path}: {error}; mend or remove the file, then run p8s up again"
        ) from error


def save(config: ClusterConfig) -> None:
    config.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = config.directory / FILE_NAME
    temporary = path.with_suffix(".new")
    temporary.write_bytes(msgspec.json.format(msgspec.json.encode(config), indent=2) + b"\n")
    temporary.replace(path)


def default_data_dir() -> Path:
    """`/var/lib/pybernetes` as root, below the user's data directory otherwise."""
    if os.geteuid() == 0:
        return Path("/var/lib/pybernetes")
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local/share")
    return Path(base) / "pybernetes"


def default_node_name() -> str:
    """The host name in the form the API accepts: lower case, as upstream's kubelet makes it."""
    return socket.gethostname().strip().lower() or "localhost"


def local_address() -> str:
    """The address this machine would be reached at; empty where nothing leads out of it.

    Connecting a UDP socket sends nothing: it only asks the kernel which source it would use.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
        except OSError:
            return ""


def _network(text: str, flag: str) -> IPv4Network:
    try:
        network = ip_network(text)
    except ValueError as error:
        raise ConfigError(f"{flag} {text} is not a network such as 10.96.0.0/16: {error}") from None
    if not isinstance(network, IPv4Network):
        raise ConfigError(f"{flag} {text}: only IPv4 ranges are supported")
    return network
