"""pods/log, exec, attach and portforward: what the API server hands on to the kubelet.

A client that speaks SPDY gets the kubelet's bytes as they are. One that speaks
WebSocket gets them translated: a remote process stream by stream, a
port-forward as SPDY inside of messages (`SPDY/3.1+portforward.k8s.io`).

Rule: what can be judged here is refused before any connection is opened. Where
the client and the kubelet speak the same, the client is answered after the
kubelet; a translated one is told of a refusal on its status channel, as upstream
does, because kubectl loses what is said before it is ready to hear.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from pybernetes.apimachinery.errors import BadRequest, InternalError, Invalid, StatusError
from pybernetes.apimachinery.fielderror import FieldError, Path
from pybernetes.apimachinery.timestamp import format_time, parse_time
from pybernetes.apiserver.hooks import Attributes, Operation
from pybernetes.apiserver.nodes import PORT_FORWARD, Nodes, refusal, unreachable_as_status
from pybernetes.apiserver.proxies import proxy_handlers
from pybernetes.apiserver.requestinfo import all_of, is_true
from pybernetes.wire.http import ConnectionClosed, Response
from pybernetes.wire.proxy import LINGER_SECONDS, AnswerBody, splice, tunnel
from pybernetes.wire.remoteprocess import (
    V4,
    WEBSOCKET_PROTOCOLS,
    RemoteProcess,
    Wanted,
    accept,
    open_over_spdy,
    relay,
)
from pybernetes.wire.spdy import SpdySession
from pybernetes.wire.websocket import (
    WebSocket,
    WebSocketConnection,
    accept_websocket,
    choose_subprotocol,
    is_websocket,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pybernetes.api.types.core_v1 import Pod
    from pybernetes.apiserver.backend import Backend
    from pybernetes.apiserver.call import Call
    from pybernetes.apiserver.catalog import Served
    from pybernetes.apiserver.hooks import Connect
    from pybernetes.wire.http import Connection, HttpTransport

DEFAULT_CONTAINER_ANNOTATION = "kubectl.kubernetes.io/default-container"
TUNNEL_PROTOCOL = f"SPDY/3.1+{PORT_FORWARD}"

_TEXT = [("Content-Type", "text/plain")]

# The headers of a stream request that the kubelet has to see; who asks is our business.
_STREAM_HEADERS = (
    "x-stream-protocol-version",
    "sec-websocket-key",
    "sec-websocket-version",
    "sec-websocket-protocol",
    "user-agent",
)


def stream_handlers(backend: Backend, nodes: Nodes) -> dict[tuple[str, str, str], Connect]:
    """Every subresource that is a connection, for `Plugins.connects`."""
    streams = _Streams(backend, nodes)
    return {
        ("", "pods", "log"): streams.log,
        ("", "pods", "exec"): streams.exec,
        ("", "pods", "attach"): streams.attach,
        ("", "pods", "portforward"): streams.port_forward,
        **proxy_handlers(nodes, streams.admit),
    }


class _Streams:
    def __init__(self, backend: Backend, nodes: Nodes) -> None:
        self._backend = backend
        self._nodes = nodes

    async def admit(self, call: Call, served: Served, namespace: str, name: str) -> None:
        """Ask admission about a connection."""
        attributes = Attributes(
            call,
            Operation.CONNECT,
            served,
            namespace,
            name,
            subresource=call.info.subresource,
            options=call.query,
        )
        await self._backend.admission.mutate(attributes)
        await self._backend.admission.validate(attributes)

    async def log(self, call: Call, served: Served, namespace: str, name: str) -> Response:
        pod = self._nodes.pod(namespace, name)
        query = log_query(call.query, name)
        container = chosen_container(pod, call.query.get("container", ""))
        if not pod.spec.node_name:
            return Response(200, list(_TEXT))  # Nobody has run it yet, so it has said nothing.
        transport = self._nodes.dial(pod.spec.node_name)
        target = _target("containerLogs", pod, container) + (f"?{query}" if query else "")
        try:
            with unreachable_as_status():
                answer = await transport.request("GET", target)
            if answer.status != 200:
                raise await refusal(answer)
        except BaseException:
            await transport.close()
            raise
        return Response(200, list(_TEXT), AnswerBody(answer, transport.close))

    async def exec(self, call: Call, served: Served, namespace: str, name: str) -> Response:
        await self.admit(call, served, namespace, name)
        pod = self._nodes.pod(namespace, name)
        container = chosen_container(pod, call.query.get("container", ""))
        wanted, parameters = _process_query(call)
        command = all_of(call.request.query, "command")
        query = urlencode([*parameters, *(("command", word) for word in command)])
        target = f"{_target('exec', pod, container)}?{query}"
        return await self._process(call, pod, target, wanted)

    async def attach(self, call: Call, served: Served, namespace: str, name: str) -> Response:
        await self.admit(call, served, namespace, name)
        pod = self._nodes.pod(namespace, name)
        container = chosen_container(pod, call.query.get("container", ""))
        wanted, parameters = _process_query(call)
        target = f"{_target('attach', pod, container)}?{urlencode(parameters)}"
        return await self._process(call, pod, target, wanted)

    async def port_forward(self, call: Call, served: Served, namespace: str, name: str) -> Response:
        await self.admit(call, served, namespace, name)
        pod = self._nodes.pod(namespace, name)
        ports = urlencode([("port", port) for port in all_of(call.request.query, "ports")])
        target = _target("portForward", pod) + (f"?{ports}" if ports else "")
        request = call.request
        if is_websocket(request) and choose_subprotocol(request, (TUNNEL_PROTOCOL,)):
            return await self._tunnelled(call, pod, target)
        return await self._tunnel(call, pod, target)

    # How the bytes go

    def _dial(self, pod: Pod) -> HttpTransport:
        if not pod.spec.node_name:
            raise BadRequest(f"pod {pod.metadata.name} does not have a host assigned")
        return self._nodes.dial(pod.spec.node_name)

    async def _process(self, call: Call, pod: Pod, target: str, wanted: Wanted) -> Response:
        request = call.request
        if is_websocket(request) and choose_subprotocol(request, WEBSOCKET_PROTOCOLS):
            return await self._translated(call, pod, target, wanted)
        return await self._tunnel(call, pod, target)

    async def _tunnel(self, call: Call, pod: Pod, target: str) -> Response:
        """The kubelet and the client speak the same: their bytes go through untouched."""
        request = call.request
        if not request.upgrade_protocol:
            raise BadRequest("Upgrade request required")
        transport = self._dial(pod)
        headers = [(n, v) for n, v in request.headers if n in _STREAM_HEADERS]
        with unreachable_as_status():
            return await tunnel(request, transport, target, headers=headers, close=transport.close)

    async def _open_spdy(self, transport: HttpTransport, target: str, protocol: str) -> Connection:
        headers = [
            ("Connection", "Upgrade"),
            ("Upgrade", "SPDY/3.1"),
            ("X-Stream-Protocol-Version", protocol),
        ]
        with unreachable_as_status():
            answer, connection = await transport.upgrade("POST", target, headers=headers)
        if connection is None:
            raise await refusal(answer)
        return connection

    async def _translated(self, call: Call, pod: Pod, target: str, wanted: Wanted) -> Response:
        """WebSocket channels for the client, SPDY streams for the kubelet."""
        transport = self._dial(pod)

        async def serve(client: RemoteProcess) -> None:
            try:
                status = await self._run_translated(client, transport, target, wanted)
            except StatusError as error:
                status = encode_status(error)
            finally:
                await transport.close()
            await client.finish(translated_status(status, as_json=client.json_status))

        return accept(call.request, wanted, serve)

    async def _run_translated(
        self, client: RemoteProcess, transport: HttpTransport, target: str, wanted: Wanted
    ) -> bytes:
        connection = await self._open_spdy(transport, target, V4)
        status = None
        with suppress(ConnectionClosed):
            async with SpdySession(connection, client=True) as session:
                status = await relay(client, await open_over_spdy(session, wanted))
        return status or encode_status(InternalError("the connection to the node was lost"))

    async def _tunnelled(self, call: Call, pod: Pod, target: str) -> Response:
        """SPDY as it is for the kubelet, cut into WebSocket messages for the client."""
        transport = self._dial(pod)
        try:
            connection = await self._open_spdy(transport, target, PORT_FORWARD)
        except BaseException:
            await transport.close()
            raise

        async def serve(websocket: WebSocket) -> None:
            try:
                await splice(WebSocketConnection(websocket), connection, linger=LINGER_SECONDS)
            finally:
                await transport.close()

        response = accept_websocket(call.request, serve, subprotocol=TUNNEL_PROTOCOL)
        if response.upgrade is None:
            connection.close()
            await transport.close()
        return response


# Pure


def chosen_container(pod: Pod, container: str) -> str:
    """The container that is meant. Raises BadRequest if that is not clear."""
    spec, name = pod.spec, pod.metadata.name
    if container:
        kinds = (spec.init_containers, spec.containers, spec.ephemeral_containers)
        if all(c.name != container for kind in kinds for c in kind):
            raise BadRequest(f"container {container} is not valid for pod {name}")
        return container
    names = [c.name for c in spec.containers]
    if len(names) == 1:
        return names[0]
    default = pod.metadata.annotations.get(DEFAULT_CONTAINER_ANNOTATION, "")
    if default in names:
        return default
    if not names:
        raise BadRequest(f"a container name must be specified for pod {name}")
    message = (
        f"a container name must be specified for pod {name}, choose one of: [{' '.join(names)}]"
    )
    if spec.init_containers:
        init_names = " ".join(c.name for c in spec.init_containers)
        message += f" or one of the init containers: [{init_names}]"
    raise BadRequest(message)


def log_query(query: Mapping[str, str], name: str) -> str:
    """The options of a log request as the kubelet reads them. Raises Invalid or BadRequest."""
    numbers: dict[str, int] = {}
    for key in ("tailLines", "limitBytes", "sinceSeconds"):
        if text := query.get(key, ""):
            numbers[key] = _integer(key, text)
    since = query.get("sinceTime", "")
    problems = list(_log_problems(numbers, bool(since)))
    if problems:
        raise Invalid("PodLogOptions", "", name, problems)
    parameters: list[tuple[str, str]] = [
        (flag, "true")
        for flag in ("follow", "previous", "timestamps")
        if flag in query and is_true(query[flag])
    ]
    parameters += [(key, str(value)) for key, value in numbers.items()]
    if since:
        try:
            parameters.append(("sinceTime", format_time(parse_time(since))))
        except ValueError as error:
            raise BadRequest(f"sinceTime: {error}") from None
    if stream := query.get("stream", ""):
        parameters.append(("stream", stream))
    return urlencode(parameters)


def _integer(key: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise BadRequest(f'strconv.ParseInt: parsing "{text}": invalid syntax ({key})') from None


def _log_problems(numbers: Mapping[str, int], since_time: bool) -> list[FieldError]:
    problems = []
    if numbers.get("tailLines", 0) < 0:
        detail = "must be greater than or equal to 0"
        problems.append(Path("tailLines").invalid(numbers["tailLines"], detail))
    if numbers.get("limitBytes", 1) < 1:
        problems.append(Path("limitBytes").invalid(numbers["limitBytes"], "must be greater than 0"))
    if "sinceSeconds" in numbers and since_time:
        detail = "at most one of `sinceTime` or `sinceSeconds` may be specified"
        problems.append(Path("").forbidden(detail))
    elif numbers.get("sinceSeconds", 1) < 1:
        detail = "must be greater than 0"
        problems.append(Path("sinceSeconds").invalid(numbers["sinceSeconds"], detail))
    return problems


def _process_query(call: Call) -> tuple[Wanted, list[tuple[str, str]]]:
    """The streams asked for, and the same in the kubelet's words."""
    wanted = Wanted(
        stdin=call.flag("stdin"),
        stdout=call.flag("stdout"),
        stderr=call.flag("stderr"),
        tty=call.flag("tty"),
    )
    words = (
        ("input", wanted.stdin),
        ("output", wanted.stdout),
        ("error", wanted.stderr),
        ("tty", wanted.tty),
    )
    return wanted, [(word, "1") for word, flag in words if flag]


def encode_status(error: StatusError) -> bytes:
    return json.dumps(error.status(), separators=(",", ":")).encode()


def translated_status(status: bytes, *, as_json: bool) -> bytes:
    """What the client is told at the end; old clients want plain text, and only of failures."""
    if as_json:
        return status
    try:
        said: Any = json.loads(status)
    except ValueError:
        return status
    if not isinstance(said, dict) or said.get("status") == "Success":
        return b""
    return str(said.get("message", "")).encode()


def _target(what: str, pod: Pod, *more: str) -> str:
    parts: Sequence[str] = (what, pod.metadata.namespace, pod.metadata.name, *more)
    return "/" + "/".join(quote(part, safe="") for part in parts)
