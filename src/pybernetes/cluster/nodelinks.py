"""How the API server reaches the agents of nodes: over HTTPS, or directly those of its own process.

Simulated nodes have no port; their agents are called like a function. Everything above the
transport (streams, refusals, authorization by the agent) is the same.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from pybernetes.api.user import MASTERS, UserInfo
from pybernetes.apiserver.nodes import NodeEndpoint, dial_tls
from pybernetes.wire.http import Peer
from pybernetes.wire.memory import MemoryHttpClient

if TYPE_CHECKING:
    from pybernetes.apiserver.nodes import Dial
    from pybernetes.cluster.pki import Pki
    from pybernetes.kubelet.server import Access
    from pybernetes.wire.http import Handler, HttpTransport, Request

# Who the API server is to the agents of its own process: what its certificate says elsewhere.
APISERVER = UserInfo("kube-apiserver-kubelet-client", (MASTERS,))


class NodeLinks:
    """Dials nodes by name if they are in this process, else by address."""

    def __init__(self, keys: Pki | None = None) -> None:
        self._keys = keys
        # Agents of this process, by the name of their node.
        self._local: dict[str, Handler] = {}
        self._outside: Dial | None = None

    def add(self, node: str, handler: Handler) -> None:
        self._local[node] = handler

    def remove(self, node: str) -> None:
        self._local.pop(node, None)

    def dial(self, endpoint: NodeEndpoint) -> HttpTransport:
        """A fresh transport to an agent."""
        handler = self._local.get(endpoint.node)
        if handler is not None:
            peer = Peer(address="127.0.0.1", secure=True, identity=APISERVER)
            return MemoryHttpClient(handler, peer=peer)
        if self._outside is None:
            self._outside = dial_tls(self._context())
        return self._outside(endpoint)

    def _context(self) -> ssl.SSLContext:
        """They show a certificate of our CA, and we show them ours."""
        # Without the CAs of the system: they vouch for nobody here.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if self._keys is not None:
            pair = self._keys.apiserver_kubelet
            context.load_verify_locations(self._keys.ca.certificate)
            context.load_cert_chain(pair.certificate, pair.key)
        return context


async def authenticate(request: Request) -> UserInfo | None:
    """Who calls an agent: the identity of a caller in this process, else that of a certificate."""
    if isinstance(request.peer.identity, UserInfo):
        return request.peer.identity
    subject = request.peer.subject
    names = [value for name, value in subject if name == "commonName"]
    groups = tuple(value for name, value in subject if name == "organizationName")
    return UserInfo(names[0], groups) if names else None


async def authorize(user: UserInfo, access: Access) -> bool:
    """Only the API server comes to agents itself; others go through it and are judged there."""
    return user.in_group(MASTERS)
