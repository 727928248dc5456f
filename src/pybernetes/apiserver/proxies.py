"""pods/proxy, services/proxy and nodes/proxy: HTTP through the API server.

The name may carry a scheme and a port (`https:web:8443`); what follows `/proxy/`
is the path there. A pod is reached through its kubelet (see `nodes`), a service
through one of its ready endpoints, a node is its kubelet.

Rule: what authenticated the caller here is not shown to whoever is behind.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pybernetes.apimachinery.errors import BadRequest, NotFound, ServiceUnavailable, StatusError
from pybernetes.apiserver.nodes import check_dialled, unreachable_as_status
from pybernetes.wire.client import HttpClient
from pybernetes.wire.http import Response, WireError
from pybernetes.wire.proxy import end_to_end, forward, tunnel

if TYPE_CHECKING:
    from pybernetes.api.types.core_v1 import EndpointAddress, Pod
    from pybernetes.apiserver.call import Call
    from pybernetes.apiserver.catalog import Served
    from pybernetes.apiserver.hooks import Connect
    from pybernetes.apiserver.nodes import Nodes, PodPorts
    from pybernetes.wire.http import Connection, HttpTransport, Request

Admit = Callable[["Call", "Served", str, str], Awaitable[None]]

# Credentials, and what only we may say.
_NOT_HANDED_ON = frozenset(
    [
        "authorization",
        "host",
        "x-forwarded-uri",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-remote-user",
        "x-remote-group",
        "expect",
    ]
)


def proxy_handlers(nodes: Nodes, admit: Admit) -> dict[tuple[str, str, str], Connect]:
    proxies = _Proxies(nodes, admit)
    return {
        ("", "pods", "proxy"): proxies.pod,
        ("", "services", "proxy"): proxies.service,
        ("", "nodes", "proxy"): proxies.node,
    }


class _Proxies:
    def __init__(self, nodes: Nodes, admit: Admit) -> None:
        self._nodes = nodes
        self._admit = admit

    async def pod(self, call: Call, served: Served, namespace: str, name: str) -> Response:
        await self._admit(call, served, namespace, name)
        scheme, pod_name, port = split_name(name)
        pod = self._nodes.pod(namespace, pod_name)
        return await self._through_pod(call, pod, scheme, _pod_port(pod, port))

    async def service(self, call: Call, served: Served, namespace: str, name: str) -> Response:
        await self._admit(call, served, namespace, name)
        scheme, service_name, port = split_name(name)
        service = self._nodes.find("services", namespace, service_name)
        port_name = _service_port(service, port)
        try:
            endpoints = self._nodes.find("endpoints", namespace, service_name)
        except NotFound:
            endpoints = None
        choices = _ready(endpoints, port_name) if endpoints is not None else []
        if not choices:
            what = f'"{scheme + ":" if scheme else ""}{service_name}{":" + port if port else ""}"'
            raise ServiceUnavailable(f"no endpoints available for service {what}")
        address, number = self._nodes.choose(choices)
        target = address.target_ref
        if target is not None and target.kind == "Pod":
            pod = self._nodes.pod(target.namespace or namespace, target.name)
            return await self._through_pod(call, pod, scheme, number)
        check_dialled(address.ip)
        host = f"[{address.ip}]" if ":" in address.ip else address.ip
        url = f"{scheme or 'http'}://{host}:{number}"
        return await self._hand_on(call, HttpClient(url, tls=_no_verification(scheme)))

    async def node(self, call: Call, served: Served, namespace: str, name: str) -> Response:
        await self._admit(call, served, namespace, name)
        _, node_name, port = split_name(name)
        transport = self._nodes.dial(node_name, port=int(port) if port.isdecimal() else None)
        return await self._hand_on(call, transport)

    async def _through_pod(self, call: Call, pod: Pod, scheme: str, port: int) -> Response:
        if scheme == "https":
            raise BadRequest("https is not proxied to pods: forward the port instead")
        ports = await self._nodes.pod_ports(pod)
        return await self._hand_on(call, _PodTransport(ports, pod, port))

    async def _hand_on(self, call: Call, transport: HttpTransport) -> Response:
        request = call.request
        prefix, path = _split_path(call)
        if not path and request.method in ("GET", "HEAD"):
            await transport.close()
            query = f"?{request.query}" if request.query else ""
            return Response(301, [("Location", f"{prefix}/{query}")])
        target = (path or "/") + (f"?{request.query}" if request.query else "")
        headers = _headers(request, prefix)
        try:
            if request.upgrade_protocol:
                with unreachable_as_status():
                    return await tunnel(
                        request, transport, target, headers=headers, close=transport.close
                    )
            return await forward(request, transport, target, headers=headers, close=transport.close)
        except (WireError, OSError, TimeoutError) as error:
            await transport.close()
            raise ServiceUnavailable(f"error trying to reach service: {error}") from None
        except StatusError:
            await transport.close()
            raise


class _PodTransport(HttpClient):
    """HTTP over forwarded ports; closing it closes the session they belong to."""

    def __init__(self, ports: PodPorts, pod: Pod, port: int) -> None:
        async def connect() -> Connection:
            return await ports.connect(port)

        address = pod.status.pod_ip or pod.metadata.name
        host = f"[{address}]" if ":" in address else address
        super().__init__(f"http://{host}:{port}", connect=connect)
        self._ports = ports

    async def close(self) -> None:
        await super().close()
        await self._ports.close()


def split_name(name: str) -> tuple[str, str, str]:
    """`name`, `name:port` or `scheme:name:port` as (scheme, name, port)."""
    parts = name.split(":")
    if len(parts) == 1:
        return "", name, ""
    if len(parts) == 2 and parts[0]:
        return "", parts[0], parts[1]
    if len(parts) == 3 and parts[0] in ("", "http", "https") and parts[1]:
        return parts[0], parts[1], parts[2]
    raise BadRequest(f'invalid name "{name}" in a proxy request')


def _pod_port(pod: Pod, port: str) -> int:
    ports = [p for container in pod.spec.containers for p in container.ports]
    if not port:
        return ports[0].container_port if ports else 80
    if port.isdecimal() and 0 < int(port) < 65536:
        return int(port)
    named = next((p.container_port for p in ports if p.name == port), None)
    if named is None:
        raise BadRequest(f'pod {pod.metadata.name} has no port "{port}"')
    return named


def _service_port(service: Any, port: str) -> str:
    """The name of the service's port; endpoints have the same names."""
    if not port:
        if len(service.spec.ports) == 1:
            return str(service.spec.ports[0].name or "")
        return ""
    for candidate in service.spec.ports:
        if port in (candidate.name, str(candidate.port)):
            return str(candidate.name or "")
    raise ServiceUnavailable(
        f'no service port "{port}" found for service "{service.metadata.name}"'
    )


def _ready(endpoints: Any, port_name: str) -> list[tuple[EndpointAddress, int]]:
    return [
        (address, port.port)
        for subset in endpoints.subsets
        for port in subset.ports
        if (port.name or "") == port_name
        for address in subset.addresses
    ]


def _no_verification(scheme: str) -> Any:
    """Services have certificates nobody here can check; upstream does not either."""
    if scheme != "https":
        return None
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _split_path(call: Call) -> tuple[str, str]:
    """What stands before the proxied path, and the proxied path as the client wrote it."""
    marker = f"/{quote(call.info.name, safe=':')}/proxy"
    before, found, after = call.request.path.partition(marker)
    if not found:
        return call.request.path, f"/{call.info.remainder}" if call.info.remainder else ""
    return before + marker, after


def _headers(request: Request, prefix: str) -> list[tuple[str, str]]:
    kept = [
        (name, value)
        for name, value in end_to_end(request.headers)
        if name not in _NOT_HANDED_ON and not name.startswith("impersonate-")
    ]
    return [
        *kept,
        ("X-Forwarded-Uri", prefix),
        ("X-Forwarded-Host", request.headers.get("host")),
        ("X-Forwarded-Proto", "https" if request.peer.secure else "http"),
    ]
