"""The kubeconfig files a cluster hands out: to its administrator, and to nodes that run alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pybernetes.client.kubeconfig import (
    Cluster,
    Context,
    Kubeconfig,
    User,
    embed_files,
    write_kubeconfig,
)

if TYPE_CHECKING:
    from pybernetes.cluster.pki import KeyPair, Pki

CLUSTER_NAME = "pybernetes"
ADMIN_NAME = "admin@pybernetes"
# For kubeconfigs that are not files: relative paths in them lead nowhere.
NOWHERE = Path("/nonexistent")


def write_admin(path: Path, pki: Pki, server: str) -> None:
    """The administrator's, with everything in it: the file can be carried elsewhere."""
    _write(path, pki, pki.admin, server, user=ADMIN_NAME)


def write_node(path: Path, pki: Pki, pair: KeyPair, server: str, node: str) -> None:
    """A node agent's own."""
    _write(path, pki, pair, server, user=f"system:node:{node}")


def _write(path: Path, pki: Pki, pair: KeyPair, server: str, *, user: str) -> None:
    config = Kubeconfig(
        clusters={
            CLUSTER_NAME: Cluster(server=server, certificate_authority=str(pki.ca.certificate))
        },
        users={user: User(client_certificate=str(pair.certificate), client_key=str(pair.key))},
        contexts={CLUSTER_NAME: Context(cluster=CLUSTER_NAME, user=user)},
        current_context=CLUSTER_NAME,
    )
    write_kubeconfig(path, embed_files(config))
