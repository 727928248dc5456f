"""The CNI configuration a container runtime reads to put a pod on the network.

Pods hang on a bridge and get their addresses from the node's own range. Where the kernel cannot
show bridged packets to the packet rules (no br_netfilter), a reply between two pods of one node
would bypass translation; there every pod gets a point-to-point link to the node instead.

Rule: one file in a directory of our own, replaced in one step, so that a runtime never reads half
of it; address leases lie beside it and are kept over restarts.
"""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ipaddress import IPv4Network
    from pathlib import Path

log = logging.getLogger(__name__)

NETWORK = "p8s"
BRIDGE = "p8s0"
FILE_NAME = "10-p8s.conflist"
# Understood by containerd 1.6 and the plugins of Debian 12.
_CNI_VERSION = "1.0.0"


@dataclass(frozen=True, slots=True)
class CniConfig:
    """Where the configuration goes and what it says beyond the node's pod range."""

    # What the container runtime is told to read.
    conf_dir: Path
    # Where host-local keeps which pod has which address.
    lease_dir: Path
    # 0 leaves it to the plugin.
    mtu: int = 0
    bridge: bool = True


def conflist(config: CniConfig, pods: IPv4Network) -> dict[str, Any]:
    """The configuration list for one node's pod range."""
    link: dict[str, Any] = {
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": str(pods)}]],
            "dataDir": str(config.lease_dir),
        },
        # The pod network masquerades itself, and only what leaves the cluster.
        "ipMasq": False,
    }
    if config.mtu:
        link["mtu"] = config.mtu
    if config.bridge:
        # Hairpin: a pod that reaches itself through its Service comes back on the same port.
        link |= {
            "type": "bridge",
            "bridge": BRIDGE,
            "isDefaultGateway": True,
            "hairpinMode": True,
            "forceAddress": True,
        }
    else:
        link |= {"type": "ptp"}
        link["ipam"]["routes"] = [{"dst": "0.0.0.0/0"}]
    # Host ports are not a plugin's business here: see hostports.py.
    return {"cniVersion": _CNI_VERSION, "name": NETWORK, "plugins": [link]}


def write_config(config: CniConfig, pods: IPv4Network) -> bool:
    """Write the file; did that change anything?"""
    text = json.dumps(conflist(config, pods), indent=2) + "\n"
    path = config.conf_dir / FILE_NAME
    if path.exists() and path.read_text() == text:
        return False
    config.conf_dir.mkdir(parents=True, exist_ok=True)
    config.lease_dir.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    temporary.write_text(text)
    temporary.replace(path)
    return True


def remove_config(config: CniConfig) -> None:
    (config.conf_dir / FILE_NAME).unlink(missing_ok=True)
    shutil.rmtree(config.lease_dir, ignore_errors=True)
