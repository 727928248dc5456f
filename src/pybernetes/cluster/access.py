"""Who may do what in this cluster, and the objects every cluster begins with.

Puts the API server's plugins together: authentication, authorization, admission, discovery, and
the streams to nodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pybernetes.api.types.core_v1 import Namespace
from pybernetes.api.types.meta_v1 import ObjectMeta
from pybernetes.apimachinery.errors import AlreadyExists
from pybernetes.apiserver import Plugins

if TYPE_CHECKING:
    from pybernetes.apiserver import ApiServer
    from pybernetes.client import Client

NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessOptions:
    """What the plugins have to know of the cluster."""


def make_plugins(server: ApiServer, options: AccessOptions) -> Plugins:
    return Plugins()


async def bootstrap(client: Client, server: ApiServer, options: AccessOptions) -> None:
    """Make what is missing of the objects that every cluster has."""
    for name in NAMESPACES:
        if await client.get_or_none(Namespace, name) is None:
            try:
                await client.create(Namespace(metadata=ObjectMeta(name=name)))
            except AlreadyExists:
                continue
