"""`--isolated`: a cluster whose nodes are network namespaces of this machine, without a route out.

The server runs inside the first node's namespace, and every further node is a `p8s agent` in its
own. Their certificates are signed here, because the CA is on this machine: nobody has to join.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from pybernetes.cluster import isolation, kubeconfigs, nodesettings, pki
from pybernetes.cluster.teardown import isolation_name

if TYPE_CHECKING:
    from pybernetes.cluster.config import ClusterConfig
    from pybernetes.cluster.isolation import IsolatedCluster
    from pybernetes.cluster.nodesettings import NodeSettings


def make_namespaces(config: ClusterConfig) -> tuple[ClusterConfig, IsolatedCluster]:
    """The namespaces, made as far as they are missing, and the settings that follow from them."""
    lab = isolation.create(isolation_name(config), config.isolated_nodes)
    address = str(lab.api_address)
    config = msgspec.structs.replace(
        config,
        advertise_address=address,
        # All addresses: pods come through the Service, the caller through the veth.
        bind_address="0.0.0.0",
        node_name=config.node_name or "node-0",
    )
    return config, lab


def further_nodes(config: ClusterConfig, lab: IsolatedCluster) -> list[NodeSettings]:
    """The settings of all nodes but the first, written where their agents look for them."""
    keys = pki.Pki(config.pki_directory)
    server = f"https://{lab.api_address}:{config.port}"
    found = []
    for node in lab.nodes[1:]:
        name, address = f"node-{node.index}", str(node.address)
        directory = config.directory / "nodes" / name
        settings = nodesettings.settings_of(
            config, name, address, directory, namespace=node.namespace
        )
        nodesettings.save(settings)
        pair = pki.ensure_node(keys, name, [address, "127.0.0.1"], datetime.now(UTC))
        kubeconfigs.write_node(settings.kubeconfig, keys, pair, server, name)
        pki.copy_pair(pair, settings.pair)
        settings.client_ca.write_bytes(keys.ca.certificate.read_bytes())
        found.append(settings)
    return found
