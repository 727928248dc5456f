"""Carries a review to a webhook: HTTPS only, with the certificates that its configuration names.

Connections are kept per place and certificate bundle. A redirect is an answer like any other that
is not 200: a failure. Texts are those that Go's client would give, for people search for them.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pybernetes.api.types.core_v1 import Service
from pybernetes.apiserver.typed import Typed
from pybernetes.wire.channel import connect_tcp
from pybernetes.wire.client import HttpClient
from pybernetes.wire.http import BodyTooLarge, ConnectionClosed, WireError

if TYPE_CHECKING:
    from pybernetes.api.types.admissionregistration_v1 import WebhookClientConfig
    from pybernetes.apiserver.catalog import Catalog
    from pybernetes.wire.http import Connection

# An answer may carry a patch as large as any object, in base64.
ANSWER_LIMIT = 8 * 1024 * 1024
# Places whose connections are kept; the one that was used longest ago goes first.
KEPT_CLIENTS = 64
_SHOWN = 1024

# How to reach a place: host, port, TLS, and the name that its certificate must have.
Dial = Callable[[str, int, ssl.SSLContext, str], Awaitable["Connection"]]


class CallFailed(Exception):
    """No answer that could be used; the text says why."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a webhook is: by URL, or a service whose address is looked up when it is dialled."""

    host: str
    port: int
    path: str
    # What stands in Host and in messages; without the port that https has anyway for a URL.
    authority: str
    service: tuple[str, str] | None = None


def place_of(config: WebhookClientConfig) -> Place:
    service = config.service
    if service is not None:
        host = f"{service.name}.{service.namespace}.svc"
        port = 443 if service.port is None else service.port
        path = service.path if service.path.startswith("/") else f"/{service.path}"
        return Place(host, port, path, f"{host}:{port}", (service.namespace, service.name))
    url = urlsplit(config.url)
    return Place(url.hostname or "", url.port or 443, url.path, url.netloc.rpartition("@")[2])


async def dial_tcp(host: str, port: int, tls: ssl.SSLContext, name: str) -> Connection:
    return await connect_tcp(host, port, tls=tls, server_hostname=name)


class WebhookClients:
    def __init__(self, catalog: Catalog, *, dial: Dial = dial_tcp) -> None:
        self._services = Typed(catalog, Service, keep=64)
        self._dial = dial
        # By place and certificate bundle; the most recently used last.
        self._clients: dict[tuple[Place, str], HttpClient] = {}

    async def call(self, config: WebhookClientConfig, body: bytes, seconds: int) -> bytes:
        """The body of a 200. Raises CallFailed."""
        place = place_of(config)
        target = f"{place.path}?timeout={seconds}s"
        client = await self._client(place, config.ca_bundle)
        try:
            async with asyncio.timeout(seconds):
                status, answer = await _post(client, target, body)
        except (WireError, OSError, ValueError) as error:
            url = f"https://{place.authority}{target}"
            text = f'Post "{url}": {_reason(error, place)}'
            raise CallFailed(f"failed to call webhook: {text}") from None
        if status != 200:
            raise CallFailed(f"failed to call webhook: {_refusal(status, answer)}")
        return answer

    async def close(self) -> None:
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.close()

    async def _client(self, place: Place, ca_bundle: str) -> HttpClient:
        key = (place, ca_bundle)
        client = self._clients.pop(key, None)
        if client is None:
            tls = _trusting(ca_bundle)

            async def connect() -> Connection:
                host, port = self._address(place)
                return await self._dial(host, port, tls, place.host)

            client = HttpClient(f"https://{place.authority}", connect=connect)
        self._clients[key] = client
        if len(self._clients) > KEPT_CLIENTS:
            await self._clients.pop(next(iter(self._clients))).close()
        return client

    def _address(self, place: Place) -> tuple[str, int]:
        """Raises OSError in words if a service leads nowhere."""
        if place.service is None:
            return place.host, place.port
        namespace, name = place.service
        return service_address(self._services.get(name, namespace), name, place.port)


def service_address(service: Any, name: str, port: int) -> tuple[str, int]:
    if service is None:
        raise OSError(f'service "{name}" not found')
    spec = service.spec
    if spec.type == "ExternalName":
        return spec.external_name, port
    if spec.cluster_ip in ("", "None"):
        raise OSError(f'cannot route to service with ClusterIP "{spec.cluster_ip}"')
    if not any(one.port == port for one in spec.ports):
        raise OSError(f'no service port {port} found for service "{name}"')
    return spec.cluster_ip, port


def _trusting(ca_bundle: str) -> ssl.SSLContext:
    """Trusts the bundle, or without one what this machine trusts. Raises CallFailed."""
    try:
        pem = base64.b64decode(ca_bundle).decode("ascii") if ca_bundle else None
        tls = ssl.create_default_context(cadata=pem)
    except (ssl.SSLError, binascii.Error, ValueError):
        raise CallFailed(
            "could not get REST client: unable to load root certificates: unable to parse bytes"
            " as PEM block"
        ) from None
    tls.minimum_version = ssl.TLSVersion.TLSv1_2
    tls.hostname_checks_common_name = False
    return tls


async def _post(client: HttpClient, target: str, body: bytes) -> tuple[int, bytes]:
    headers = [("Content-Type", "application/json"), ("Accept", "application/json")]
    try:
        response = await client.request("POST", target, headers=headers, body=body)
    except ConnectionClosed:
        # A connection that had gone stale: reviews carry an id and may come twice.
        response = await client.request("POST", target, headers=headers, body=body)
    async with response:
        return response.status, await response.read(ANSWER_LIMIT)


def _reason(error: BaseException, place: Place) -> str:
    if isinstance(error, TimeoutError):
        return "context deadline exceeded"
    if isinstance(error, ConnectionRefusedError):
        return f"dial tcp {place.host}:{place.port}: connect: connection refused"
    if isinstance(error, socket.gaierror):
        return f"dial tcp: lookup {place.host}: no such host"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"tls: failed to verify certificate: x509: {error.verify_message}"
    if isinstance(error, BodyTooLarge):
        return f"the answer is longer than {ANSWER_LIMIT} bytes"
    if isinstance(error, ConnectionClosed):
        return "EOF"
    return str(error)


# What Go's client says to answers that have no Status in them.
_REFUSALS = {
    400: "the server rejected our request for an unknown reason",
    401: "the server has asked for the client to provide credentials",
    403: "the server does not allow access to the requested resource",
    404: "the server could not find the requested resource",
    405: "the server does not allow this method on the requested resource",
    409: "the server reported a conflict",
    429: "the server has received too many requests and has asked us to try again later",
}


def _refusal(status: int, answer: bytes) -> str:
    if status in _REFUSALS:
        return _REFUSALS[status]
    if status >= 500:
        text = "unknown"
        with suppress(UnicodeDecodeError):
            text = answer[:_SHOWN].decode().strip() or text
        return f'an error on the server ("{text}") has prevented the request from succeeding'
    return f"the server responded with the status code {status} but did not return more information"
