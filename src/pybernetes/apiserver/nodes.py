"""How the API server reaches a node's kubelet, and through it the ports of pods.

`Nodes` looks up a node's address and dials. Who dials, and with which
certificate, comes from outside: a cluster in one process connects the handlers
in memory.

Rule: no packet goes from here to a pod's address. A connection to a pod is a
forwarded port of its kubelet, so it works wherever the API server runs, and a
pod address that no route leads to is never tried on the default route.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any, TypeVar

from pybernetes.apimachinery.errors import (
    BadRequest,
    InternalError,
    NotFound,
    ServiceUnavailable,
    StatusError,
)
from pybernetes.wire.client import HttpClient
from pybernetes.wire.http import ConnectionClosed, WireError
from pybernetes.wire.spdy import SpdySession

if TYPE_CHECKING:
    import ssl

    from pybernetes.api.types.core_v1 import Node, Pod
    from pybernetes.apiserver.backend import Backend
    from pybernetes.wire.http import ClientResponse, Connection, HttpTransport
    from pybernetes.wire.spdy import SpdyStream

T = TypeVar("T")

KUBELET_PORT = 10250

# Which of a node's addresses is tried: the first of the first type that it has.
ADDRESS_TYPES = ("InternalIP", "Hostname", "InternalDNS", "ExternalDNS", "ExternalIP")

# What a kubelet may say to explain a refusal.
_REFUSAL_LIMIT = 50_000

PORT_FORWARD = "portforward.k8s.io"


@dataclass(frozen=True, slots=True)
class NodeEndpoint:
    """Where a kubelet listens."""

    node: str
    host: str
    port: int

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"https://{host}:{self.port}"


# A fresh transport to a kubelet; whoever gets it closes it.
Dial = Callable[[NodeEndpoint], "HttpTransport"]


# Ranges for benchmarks and documentation (RFC 2544, RFC 5737, RFC 3849). Simulated nodes and pods
# have such addresses; a packet to one would leave by the default route and reach a stranger. The
# other half of the first range belongs to isolated nodes, which are real.
_NOWHERE = tuple(
    map(
        ip_network,
        ["198.19.0.0/16", "192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32"],
    )
)


def check_dialled(host: str) -> None:
    """Raises ServiceUnavailable for an address that must never be tried."""
    try:
        address = ip_address(host)
    except ValueError:
        return
    if any(address in network for network in _NOWHERE):
        raise ServiceUnavailable(f"{host} is the address of something simulated, not of a machine")


def dial_tls(context: ssl.SSLContext) -> Dial:
    """Over HTTPS, with the certificate that is loaded in the context."""

    def dial(endpoint: NodeEndpoint) -> HttpTransport:
        check_dialled(endpoint.host)
        return HttpClient(endpoint.url, tls=context)

    return dial


class Nodes:
    """The nodes of one API server."""

    def __init__(self, backend: Backend, dial: Dial) -> None:
        self._backend = backend
        self._dial = dial

    def find(self, plural: str, namespace: str, name: str) -> Any:
        """A core object from the cache. Raises NotFound."""
        served = self._backend.catalog.find("", "v1", plural)
        entry = None
        if served is not None:
            entry = served.cache.entries.get(served.key(namespace, name))
        if served is None or entry is None:
            raise NotFound(plural, name)
        return served.decode(entry)

    def pod(self, namespace: str, name: str) -> Pod:
        pod: Pod = self.find("pods", namespace, name)
        return pod

    def endpoint(self, node_name: str) -> NodeEndpoint:
        node: Node = self.find("nodes", "", node_name)
        addresses = node.status.addresses
        host = next((a.address for kind in ADDRESS_TYPES for a in addresses if a.type == kind), "")
        if not host:
            raise InternalError(
                f"no preferred addresses found; known addresses: {addresses_of(node)}"
            )
        port = node.status.daemon_endpoints.kubelet_endpoint.port or KUBELET_PORT
        return NodeEndpoint(node_name, host, port)

    def dial(self, node_name: str, *, port: int | None = None) -> HttpTransport:
        endpoint = self.endpoint(node_name)
        if port is not None:
            endpoint = NodeEndpoint(node_name, endpoint.host, port)
        return self._dial(endpoint)

    def choose(self, candidates: Sequence[T]) -> T:
        return self._backend.random.choice(candidates)

    async def pod_ports(self, pod: Pod) -> PodPorts:
        """Connections to a pod's ports; whoever asked closes it."""
        if not pod.spec.node_name:
            raise BadRequest(f"pod {pod.metadata.name} does not have a host assigned")
        transport = self.dial(pod.spec.node_name)
        try:
            connection = await self._open(pod, transport)
        except BaseException:
            await transport.close()
            raise
        return PodPorts(SpdySession(connection, client=True).start(), transport)

    async def _open(self, pod: Pod, transport: HttpTransport) -> Connection:
        metadata = pod.metadata
        headers = [
            ("Connection", "Upgrade"),
            ("Upgrade", "SPDY/3.1"),
            ("X-Stream-Protocol-Version", PORT_FORWARD),
        ]
        target = f"/portForward/{metadata.namespace}/{metadata.name}"
        with unreachable_as_status():
            answer, connection = await transport.upgrade("POST", target, headers=headers)
        if connection is None:
            raise await refusal(answer)
        return connection


class PodPorts:
    """Opens connections to the ports of one pod over one session."""

    def __init__(self, session: SpdySession, transport: HttpTransport) -> None:
        self._session = session
        self._transport = transport
        self._requests = 0

    async def connect(self, port: int) -> Connection:
        """Raises ServiceUnavailable if nobody listens there."""
        self._requests += 1
        fields = [("port", str(port)), ("requestid", str(self._requests))]
        try:
            error = await self._session.open([("streamtype", "error"), *fields])
            data = await self._session.open([("streamtype", "data"), *fields])
        except ConnectionClosed as failure:
            raise ServiceUnavailable(f"error trying to reach service: {failure}") from None
        return PodConnection(data, error)

    async def close(self) -> None:
        await self._session.close()
        await self._transport.close()


class PodConnection:
    """A forwarded connection: one stream for the bytes, one for what went wrong."""

    def __init__(self, data: SpdyStream, error: SpdyStream) -> None:
        self._data = data
        self._error = error
        # We have nothing to say on it, and say so, as Go's client does.
        error.write_eof()
        self._received = False

    async def read(self) -> bytes:
        data = await self._data.read()
        if data:
            self._received = True
        elif not self._received and (message := await self._error.read()):
            raise ConnectionClosed(message.decode(errors="replace"))
        return data

    def write(self, data: bytes) -> None:
        self._data.write(data)

    async def drain(self) -> None:
        await self._data.drain()

    def write_eof(self) -> None:
        self._data.write_eof()

    def close(self) -> None:
        self._data.close()
        self._error.close()

    async def wait_closed(self) -> None:
        await self._data.wait_closed()


def addresses_of(node: Node) -> list[str]:
    return [f"{address.type}={address.address}" for address in node.status.addresses]


@contextmanager
def unreachable_as_status() -> Iterator[None]:
    """What goes wrong on the way to a kubelet, as an answer of the API."""
    try:
        yield
    except (WireError, OSError, TimeoutError) as error:
        text = str(error) or type(error).__name__
        raise InternalError(f"error dialing backend: {text}") from error


async def refusal(answer: ClientResponse) -> StatusError:
    """What a kubelet said instead of doing it, as an error of the API."""
    try:
        async with answer:
            text = (await answer.read(_REFUSAL_LIMIT)).decode(errors="replace").strip()
    except WireError:
        text = ""
    if answer.status == 400:
        return BadRequest(text)
    if answer.status in (401, 403):
        # The API server itself was refused: whoever asks it can do nothing about that.
        return InternalError(f"the kubelet does not let the API server in: {text}")
    if answer.status == 500 or answer.status < 400:
        return InternalError(text or f"the kubelet answered {answer.status}")
    reasons = {404: "NotFound", 429: "TooManyRequests", 503: "ServiceUnavailable"}
    return StatusError(text, code=answer.status, reason=reasons.get(answer.status, "InternalError"))
