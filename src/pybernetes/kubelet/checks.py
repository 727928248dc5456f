"""One attempt at a probe or hook action: HTTP GET, TCP connect, command, gRPC health, sleep.

Gives an `Outcome`, never raises for what the container did or did not do. In simulation the
runtime's scripted network answers; else real sockets do.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import ssl
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from pybernetes.kubelet.grpc_health import check_health
from pybernetes.kubelet.runtime.interface import ContainerRuntimeError, ExecTimeout
from pybernetes.wire.client import HttpClient
from pybernetes.wire.http import WireError

if TYPE_CHECKING:
    from datetime import timedelta

    from pybernetes.api.types.core_v1 import (
        ExecAction,
        GRPCAction,
        HTTPGetAction,
        LifecycleHandler,
        Probe,
        TCPSocketAction,
    )
    from pybernetes.kubelet.pod_state import AnyContainer
    from pybernetes.kubelet.runtime.interface import Runtime

log = logging.getLogger(__name__)

# What is kept of an answer or of a command's output.
MOST_OUTPUT = 10 * 1024
MOST_REDIRECTS = 10
USER_AGENT = "kube-probe/1.37"


class Result(Enum):
    SUCCESS = "success"
    FAILURE = "failure"
    UNKNOWN = "unknown"
    """It could not be tried: says nothing about the container."""


@dataclass(frozen=True, slots=True)
class Outcome:
    result: Result
    message: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """The container that is asked."""

    runtime: Runtime
    container: AnyContainer
    container_id: str
    ip: str


async def attempt(action: Probe | LifecycleHandler, target: Target, timeout: timedelta) -> Outcome:
    """Do what the action says, once."""
    try:
        return await _attempt(action, target, timeout)
    except Exception as error:  # a probe nobody can carry out must not end its pod
        log.exception("a probe or hook of %s", target.container.name)
        return Outcome(Result.UNKNOWN, str(error))


async def _attempt(action: Probe | LifecycleHandler, target: Target, timeout: timedelta) -> Outcome:
    if action.exec is not None:
        return await _exec(action.exec, target, timeout)
    if action.http_get is not None:
        return await _http(action.http_get, target, timeout)
    if action.tcp_socket is not None:
        return await _tcp(action.tcp_socket, target, timeout)
    grpc = getattr(action, "grpc", None)
    if grpc is not None:
        return await _grpc(grpc, target, timeout)
    sleep = getattr(action, "sleep", None)
    if sleep is not None:
        await asyncio.sleep(sleep.seconds)
        return Outcome(Result.SUCCESS)
    return Outcome(Result.UNKNOWN, "missing probe handler")


def port_of(container: AnyContainer, port: int | str) -> int:
    """A number, or the number behind a port's name. Raises LookupError."""
    if isinstance(port, int):
        return port
    for known in container.ports:
        if known.name == port:
            return known.container_port
    if port.isdecimal():
        return int(port)
    raise LookupError(f"couldn't find port: {port!r} in {container.name}")


async def _exec(action: ExecAction, target: Target, timeout: timedelta) -> Outcome:
    command = list(action.command)
    try:
        stdout, stderr, code = await target.runtime.exec_sync(target.container_id, command, timeout)
    except ExecTimeout:
        text = f'command timed out: "{" ".join(command)}" timed out after {_seconds(timeout)}'
        return Outcome(Result.FAILURE, text)
    except ContainerRuntimeError as error:
        return Outcome(Result.UNKNOWN, error.message)
    output = (stdout + stderr)[:MOST_OUTPUT].decode(errors="replace")
    return Outcome(Result.SUCCESS if code == 0 else Result.FAILURE, output)


async def _http(action: HTTPGetAction, target: Target, timeout: timedelta) -> Outcome:
    try:
        port = port_of(target.container, action.port)
    except LookupError as error:
        return Outcome(Result.UNKNOWN, str(error))
    host = action.host or target.ip
    path = action.path or "/"
    if not path.startswith("/"):
        path = "/" + path
    scheme = (action.scheme or "HTTP").lower()
    headers = [(header.name, header.value) for header in action.http_headers]
    url = f"{scheme}://{_bracketed(host)}:{port}{path}"
    try:
        async with asyncio.timeout(timeout.total_seconds()):
            status, body = await _follow(target.runtime, url, headers)
    except TimeoutError:
        text = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        return Outcome(Result.FAILURE, f'Get "{url}": {text}')
    except (OSError, WireError) as error:
        problem = _dial_problem(error, host, port) if isinstance(error, OSError) else str(error)
        return Outcome(Result.FAILURE, f'Get "{url}": {problem}')
    if 200 <= status < 400:
        return Outcome(Result.SUCCESS, body[:MOST_OUTPUT].decode(errors="replace"))
    return Outcome(Result.FAILURE, f"HTTP probe failed with statuscode: {status}")


async def _follow(runtime: Runtime, url: str, headers: list[tuple[str, str]]) -> tuple[int, bytes]:
    """The answer, behind redirects to the same host; one to another host is an answer as well."""
    for _ in range(MOST_REDIRECTS):
        status, body, location = await _get(runtime, url, headers)
        if not 300 <= status < 400 or not location:
            break
        further = urljoin(url, location)
        if urlsplit(further).hostname != urlsplit(url).hostname:
            break
        url = further
    return status, body


async def _get(
    runtime: Runtime, url: str, headers: list[tuple[str, str]]
) -> tuple[int, bytes, str]:
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    network = runtime.pod_network
    if network is not None:
        assert parts.hostname is not None
        status, body = await network.http_get(parts.hostname, parts.port or 80, target, headers)
        return status, body, ""
    names = {name.lower() for name, _ in headers}
    if "user-agent" not in names:
        headers = [*headers, ("User-Agent", USER_AGENT)]
    if "accept" not in names:
        headers = [*headers, ("Accept", "*/*")]
    client = HttpClient(
        f"{parts.scheme}://{parts.netloc}",
        tls=_trusting() if parts.scheme == "https" else None,
        idle_limit=0,
    )
    try:
        response = await client.request("GET", target, headers=[*headers, ("Connection", "close")])
        body = b""
        async for chunk in response:
            body += chunk
            if len(body) >= MOST_OUTPUT:
                break
        await response.close()
        return response.status, body, response.headers.get("location")
    finally:
        await client.close()


@cache
def _trusting() -> ssl.SSLContext:
    """Probes ask whether somebody answers, not who."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def _tcp(action: TCPSocketAction, target: Target, timeout: timedelta) -> Outcome:
    try:
        port = port_of(target.container, action.port)
    except LookupError as error:
        return Outcome(Result.UNKNOWN, str(error))
    host = action.host or target.ip
    try:
        async with asyncio.timeout(timeout.total_seconds()):
            network = target.runtime.pod_network
            if network is not None:
                (await network.connect(host, port)).close()
            else:
                _, writer = await asyncio.open_connection(host, port)
                writer.close()
    except TimeoutError:
        return Outcome(Result.FAILURE, f"dial tcp {_bracketed(host)}:{port}: i/o timeout")
    except OSError as error:
        return Outcome(Result.FAILURE, _dial_problem(error, host, port))
    return Outcome(Result.SUCCESS)


async def _grpc(action: GRPCAction, target: Target, timeout: timedelta) -> Outcome:
    host, service = target.ip, action.service or ""
    address = f"{_bracketed(host)}:{action.port}"
    try:
        async with asyncio.timeout(timeout.total_seconds()):
            network = target.runtime.pod_network
            if network is not None:
                serving = await network.grpc_health(host, action.port, service)
                status = "SERVING" if serving else "NOT_SERVING"
            else:
                status = await check_health(host, action.port, service)
    except (TimeoutError, OSError):
        text = f'timeout: failed to connect service "{address}" within {_seconds(timeout)}'
        return Outcome(Result.FAILURE, f"{text}: context deadline exceeded")
    if status == "SERVING":
        return Outcome(Result.SUCCESS, "service healthy")
    if status.startswith("error"):
        return Outcome(Result.FAILURE, status)
    return Outcome(Result.FAILURE, f'service unhealthy (responded with "{status}")')


def _dial_problem(error: OSError, host: str, port: int) -> str:
    text = os.strerror(error.errno).lower() if error.errno else str(error)
    if error.errno == errno.ETIMEDOUT:
        text = "connection timed out"
    return f"dial tcp {_bracketed(host)}:{port}: connect: {text}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _seconds(span: timedelta) -> str:
    return f"{span.total_seconds():g}s"
