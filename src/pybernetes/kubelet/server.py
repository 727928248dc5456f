"""The kubelet's HTTPS API, as a handler: logs, exec, attach, port-forward, pods, metrics.

The API server is the usual client and speaks for users it has authorized; this
server asks on its own account too (`Authenticate`, `Authorize`), because anybody
can reach the port. What a node is and does comes through `NodeAgent`, so nothing
here knows how pods are run.

Paths, parameters and the plain-text errors are those of the Go kubelet, whose
clients they were made for.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from urllib.parse import parse_qsl

from pybernetes.api.codec import encode
from pybernetes.apimachinery.errors import StatusError
from pybernetes.apimachinery.timestamp import parse_time
from pybernetes.kubelet.runtime.interface import (
    ContainerRuntimeError,
    PortStream,
    ProcessStream,
    RuntimeUnavailable,
    StreamUrl,
)
from pybernetes.kubelet.streams import serve_ports, serve_process
from pybernetes.wire.http import Request, Response
from pybernetes.wire.remoteprocess import Wanted, refused

if TYPE_CHECKING:
    from datetime import datetime

    from pybernetes.api.types.core_v1 import Pod
    from pybernetes.api.user import UserInfo

log = logging.getLogger(__name__)

_TEXT = [("Content-Type", "text/plain; charset=utf-8")]
_JSON = [("Content-Type", "application/json")]


@dataclass(frozen=True, slots=True)
class LogOptions:
    """Which part of a container's log is wanted, and how; None: no limit."""

    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    tail_lines: int | None = None
    limit_bytes: int | None = None
    since_seconds: int | None = None
    since: datetime | None = None
    # "Stdout", "Stderr" or "All".
    stream: str = "All"


@dataclass(frozen=True, slots=True)
class Access:
    """What a request wants of this node, in the words of authorization."""

    verb: str
    subresource: str


Authenticate = Callable[[Request], Awaitable["UserInfo | None"]]
Authorize = Callable[["UserInfo", Access], Awaitable[bool]]
PathHandler = Callable[[Request], Awaitable[Response]]


class NodeAgent(Protocol):
    """What this server asks of the node agent.

    `container` is the name in the spec of the pod, of an init or ephemeral container
    too. Refusals are StatusError (its code and message reach the client as text) or
    ContainerRuntimeError.
    """

    def pods(self) -> Sequence[Pod]:
        """All pods of the node with their newest status, static ones too."""

    def find_pod(self, namespace: str, name: str) -> Pod | None: ...

    async def read_log(self, pod: Pod, container: str, options: LogOptions) -> AsyncIterator[bytes]:
        """The log as it is shown, in chunks; with `follow` until the container ends."""

    async def exec(
        self, pod: Pod, container: str, command: Sequence[str], wanted: Wanted
    ) -> StreamUrl | ProcessStream: ...

    async def attach(
        self, pod: Pod, container: str, wanted: Wanted
    ) -> StreamUrl | ProcessStream: ...

    async def run(self, pod: Pod, container: str, command: Sequence[str]) -> bytes:
        """Both outputs of a command that has run to its end."""

    async def port_forward(self, pod: Pod, ports: Sequence[int]) -> StreamUrl | PortStream: ...

    def health(self) -> str | None:
        """What is wrong with the agent, in a sentence; None: nothing."""


class KubeletServer:
    """Routes requests to the agent. `handle` is a wire handler."""

    def __init__(
        self,
        agent: NodeAgent,
        *,
        authenticate: Authenticate,
        authorize: Authorize,
        more: Mapping[str, PathHandler] | None = None,
    ) -> None:
        self._agent = agent
        self._authenticate = authenticate
        self._authorize = authorize
        # Paths whose answers are made elsewhere: /metrics, /stats/summary, /configz.
        self._more = dict(more or {})

    async def handle(self, request: Request) -> Response:
        user = await self._authenticate(request)
        if user is None:
            return Response(401, list(_TEXT), b"Unauthorized")
        access = access_of(request.method, request.path)
        if not await self._authorize(user, access):
            text = (
                f"Forbidden (user={user.name}, verb={access.verb}, resource=nodes, "
                f"subresource(s)=[{access.subresource}])\n"
            )
            return _text(403, text)
        try:
            return await self._route(request)
        except StatusError as error:
            return _text(error.code, error.message)
        except RuntimeUnavailable as error:
            return _text(503, error.message)
        except ContainerRuntimeError as error:
            return _text(404 if error.code == "NotFound" else 500, error.message)
        except ValueError as error:
            return _text(400, str(error))

    async def _route(self, request: Request) -> Response:
        parts = request.decoded_path.strip("/").split("/")
        root = parts[0]
        if (handler := self._more.get("/" + "/".join(parts))) is not None:
            return await handler(request)
        if root == "healthz":
            problem = self._agent.health()
            return _text(200, "ok") if problem is None else _text(500, problem)
        if root in ("pods", "runningpods") and len(parts) == 1:
            return self._pods()
        handle = {
            "containerLogs": self._logs,
            "exec": self._exec,
            "attach": self._attach,
            "run": self._run,
            "portForward": self._port_forward,
        }.get(root)
        with_container = root != "portForward"
        # .../namespace/name[/uid]/container
        if handle is None or len(parts) not in ((4, 5) if with_container else (3, 4)):
            return _text(404, "404 page not found\n")
        if request.method not in ("GET", "POST"):
            return Response(405, [("Allow", "GET, POST")], b"405: Method Not Allowed")
        pod = self._agent.find_pod(parts[1], parts[2])
        uid = parts[3] if len(parts) == (5 if with_container else 4) else ""
        if pod is None or (uid and pod.metadata.uid != uid):
            if root == "containerLogs":
                return _text(404, f'pod "{parts[2]}" does not exist\n')
            return _text(404, "pod does not exist")
        return await handle(request, pod, parts[-1])

    def _pods(self) -> Response:
        items = b",".join(encode(pod) for pod in self._agent.pods())
        head = b'{"kind":"PodList","apiVersion":"v1","metadata":{},"items":['
        return Response(200, list(_JSON), [head, items, b"]}"])

    async def _logs(self, request: Request, pod: Pod, container: str) -> Response:
        if container not in container_names(pod):
            text = f'container "{container}" not found in pod "{pod.metadata.name}"\n'
            return _text(404, text)
        chunks = await self._agent.read_log(pod, container, log_options(request.query))
        return Response(200, list(_TEXT), chunks)

    async def _exec(self, request: Request, pod: Pod, container: str) -> Response:
        command, wanted = _all_of(request.query, "command"), wanted_streams(request.query)
        if not wanted:
            return _text(400, "you must specify at least 1 of stdin, stdout, stderr")
        if container not in container_names(pod):
            return _text(500, f'container not found ("{container}")')
        if (refusal := refused(request)) is not None:
            return refusal
        stream = await self._agent.exec(pod, container, command, wanted)
        return await serve_process(request, wanted, stream)

    async def _attach(self, request: Request, pod: Pod, container: str) -> Response:
        wanted = wanted_streams(request.query)
        if not wanted:
            return _text(400, "you must specify at least 1 of stdin, stdout, stderr")
        if container not in container_names(pod):
            return _text(500, f'container "{container}" not found')
        if (refusal := refused(request)) is not None:
            return refusal
        stream = await self._agent.attach(pod, container, wanted)
        return await serve_process(request, wanted, stream)

    async def _run(self, request: Request, pod: Pod, container: str) -> Response:
        if container not in container_names(pod):
            return _text(500, f'container not found ("{container}")')
        command = " ".join(_all_of(request.query, "cmd")).split(" ")
        return Response(200, list(_TEXT), await self._agent.run(pod, container, command))

    async def _port_forward(self, request: Request, pod: Pod, _: str) -> Response:
        ports = [
            _port(text) for text in ",".join(_all_of(request.query, "port")).split(",") if text
        ]
        stream = await self._agent.port_forward(pod, ports)
        name = f"{pod.metadata.name}, uid {pod.metadata.uid}"
        return await serve_ports(request, ports, stream, pod=name)


_VERBS = {"POST": "create", "GET": "get", "HEAD": "get", "PUT": "update"}
_VERBS |= {"PATCH": "patch", "DELETE": "delete"}


def access_of(method: str, path: str) -> Access:
    """Parts of this API are subresources of the node; the rest is `nodes/proxy`."""
    root = path.strip("/").split("/", 1)[0]
    subresources = {
        "stats": "stats",
        "metrics": "metrics",
        "logs": "log",
        "checkpoint": "checkpoint",
        "pods": "pods",
        "runningpods": "pods",
        "healthz": "healthz",
        "configz": "configz",
    }
    return Access(_VERBS.get(method, ""), subresources.get(root, "proxy"))


def wanted_streams(query: str) -> Wanted:
    """The streams an exec or attach asks for; a terminal's stderr is its stdout."""
    values = dict(parse_qsl(query, keep_blank_values=True))
    flags = {name: _is_true(values.get(name, "")) for name in ("input", "output", "error", "tty")}
    return Wanted(
        stdin=flags["input"],
        stdout=flags["output"],
        stderr=flags["error"] and not flags["tty"],
        tty=flags["tty"],
    )


def log_options(query: str) -> LogOptions:
    """Raises ValueError for what is not a number or a time."""
    values = dict(parse_qsl(query, keep_blank_values=True))
    tail = values.get("tailLines", "")
    return LogOptions(
        follow=_flag(values, "follow"),
        previous=_flag(values, "previous"),
        timestamps=_flag(values, "timestamps"),
        tail_lines=None if tail in ("", "all") else max(int(tail), 0),
        limit_bytes=_number(values, "limitBytes"),
        since_seconds=_number(values, "sinceSeconds"),
        since=parse_time(values["sinceTime"]) if values.get("sinceTime") else None,
        stream=values.get("stream") or "All",
    )


def container_names(pod: Pod) -> list[str]:
    """Of all kinds of containers, in the order of the spec."""
    spec = pod.spec
    kinds = (spec.init_containers, spec.containers, spec.ephemeral_containers)
    return [container.name for kind in kinds for container in kind]


def _flag(values: Mapping[str, str], name: str) -> bool:
    """As Go's query decoding: there without a value means yes."""
    return name in values and values[name] not in ("false", "0")


def _is_true(text: str) -> bool:
    return text in ("1", "t", "T", "true", "TRUE", "True")


def _number(values: Mapping[str, str], name: str) -> int | None:
    return int(values[name]) if values.get(name) else None


def _all_of(query: str, name: str) -> list[str]:
    return [value for known, value in parse_qsl(query, keep_blank_values=True) if known == name]


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise ValueError(f'unable to parse "{text}" as a port')
    return int(text)


def _text(status: int, text: str) -> Response:
    return Response(status, list(_TEXT), text.encode())
