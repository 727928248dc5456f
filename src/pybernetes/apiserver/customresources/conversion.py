"""Conversion between versions of a custom resource by a webhook: ConversionReview v1.

The webhook is asked over HTTPS, at its URL or at the cluster address of its Service; redirects are
not followed. What comes back must be the same objects, in order: a webhook may change labels and
annotations of their metadata and nothing else.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import ssl
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from pybernetes.api.types.core_v1 import Service
from pybernetes.apimachinery.errors import InternalError
from pybernetes.apiserver.typed import HARDLY_ANY, Typed
from pybernetes.wire.client import HttpClient
from pybernetes.wire.http import BodyTooLarge, WireError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pybernetes.api.types.apiextensions_v1 import WebhookConversion
    from pybernetes.apiserver.backend import Backend
    from pybernetes.wire.http import HttpTransport

Json = Any

TIMEOUT = timedelta(seconds=30)
REVIEW = "apiextensions.k8s.io/v1"
# Objects converted by one request.
BATCH = 500
_ANSWER_LIMIT = 64 * 1024 * 1024
_CHANGEABLE = ("labels", "annotations")


class ConversionFailed(Exception):
    """The webhook could not be asked, or what it said will not do."""


class Webhook:
    """Converts objects of one definition."""

    def __init__(self, said: WebhookConversion, backend: Backend, kind: str) -> None:
        self._said, self._kind = said, kind
        self._backend = backend
        self._services = Typed(backend.catalog, Service, keep=HARDLY_ANY)
        # The client and the address it was made for.
        self._client: tuple[str, HttpTransport] | None = None

    async def close(self) -> None:
        if self._client is not None:
            _, client = self._client
            self._client = None
            await client.close()

    async def convert(self, objects: Sequence[dict[str, Json]], version: str) -> list[Json]:
        """The objects in another version ("example.com/v2"). Raises InternalError."""
        converted: list[Json] = []
        for start in range(0, len(objects), BATCH):
            part = objects[start : start + BATCH]
            try:
                converted += await self._ask(part, version)
            except (ConversionFailed, WireError, OSError, TimeoutError) as error:
                raise InternalError(
                    f"conversion webhook for {self._kind} failed: {_text_of(error)}"
                ) from None
        return converted

    async def _ask(self, objects: Sequence[dict[str, Json]], version: str) -> list[Json]:
        if REVIEW.rpartition("/")[2] not in self._said.conversion_review_versions:
            raise ConversionFailed("no review version that both sides understand: v1")
        uid = f"{self._backend.random.getrandbits(128):032x}"
        request = {"uid": uid, "desiredAPIVersion": version, "objects": list(objects)}
        review = {"kind": "ConversionReview", "apiVersion": REVIEW, "request": request}
        client, path = await self._reach()
        async with asyncio.timeout(TIMEOUT.total_seconds()):
            response = await client.request(
                "POST",
                path,
                headers=[("Content-Type", "application/json"), ("Accept", "application/json")],
                body=msgspec.json.encode(review),
            )
            data = await response.read(_ANSWER_LIMIT)
        if response.status != 200:
            raise ConversionFailed(f"the server answered {response.status}")
        return _checked(data, uid, objects, version)

    async def _reach(self) -> tuple[HttpTransport, str]:
        config = self._said.client_config
        assert config is not None
        name = None
        if config.service is not None:
            service = config.service
            found = self._services.get(service.name, service.namespace)
            if found is None or found.spec.cluster_ip in ("", "None"):
                raise ConversionFailed(f'service "{service.name}" not found')
            address = f"https://{found.spec.cluster_ip}:{service.port or 443}"
            path = service.path or "/"
            name = f"{service.name}.{service.namespace}.svc"
        else:
            parts = urlsplit(config.url)
            address, path = f"{parts.scheme}://{parts.netloc}", parts.path or "/"
        if self._client is None or self._client[0] != address:
            await self.close()
            tls = _context(config.ca_bundle)
            self._client = (address, HttpClient(address, tls=tls, server_hostname=name))
        return self._client[1], path


def _context(bundle: str) -> ssl.SSLContext:
    try:
        pem = base64.b64decode(bundle).decode() if bundle else None
        return ssl.create_default_context(cadata=pem)
    except (binascii.Error, UnicodeDecodeError, ssl.SSLError) as error:
        raise ConversionFailed(f"unable to load root certificates: {error}") from None


def _text_of(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "context deadline exceeded"
    if isinstance(error, BodyTooLarge):
        return "the answer is too large"
    return str(error) or type(error).__name__


def _checked(data: bytes, uid: str, objects: Sequence[dict[str, Json]], version: str) -> list[Json]:
    """The converted objects of an answer. Raises ConversionFailed."""
    try:
        review: Any = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConversionFailed(f"the answer is not JSON: {error}") from None
    response = review.get("response") if isinstance(review, dict) else None
    if not isinstance(response, dict):
        raise ConversionFailed("the answer has no response")
    if (review.get("kind"), review.get("apiVersion")) != ("ConversionReview", REVIEW):
        raise ConversionFailed(f"the answer is not a ConversionReview of {REVIEW}")
    if response.get("uid") != uid:
        raise ConversionFailed(f'expected response.uid="{uid}", got "{response.get("uid")}"')
    result = response.get("result")
    if not isinstance(result, dict) or result.get("status") != "Success":
        message = result.get("message") if isinstance(result, dict) else ""
        raise ConversionFailed(str(message or "no message provided"))
    converted = response.get("convertedObjects")
    if not isinstance(converted, list) or len(converted) != len(objects):
        count = len(converted) if isinstance(converted, list) else 0
        raise ConversionFailed(f"returned {count} objects, expected {len(objects)}")
    return [
        _same_object(new, old, index, version)
        for index, (new, old) in enumerate(zip(converted, objects, strict=True))
    ]


def _same_object(new: Json, old: dict[str, Json], index: int, version: str) -> dict[str, Json]:
    where = f"invalid converted object at index {index}"
    if not isinstance(new, dict):
        raise ConversionFailed(f"{where}: not an object")
    if new.get("apiVersion") != version:
        raise ConversionFailed(f"{where}: invalid groupVersion (expected {version})")
    if new.get("kind") != old.get("kind"):
        raise ConversionFailed(f"{where}: invalid kind (expected {old.get('kind')})")
    metadata = new.get("metadata")
    if not isinstance(metadata, dict):
        raise ConversionFailed(f"{where}: missing metadata")
    before = old["metadata"]
    for name in ("name", "namespace", "uid"):
        if metadata.get(name, "") != before.get(name, ""):
            raise ConversionFailed(f"{where}: metadata.{name} must not change")
    kept = {name: value for name, value in before.items() if name not in _CHANGEABLE}
    changed = {name: metadata[name] for name in _CHANGEABLE if metadata.get(name)}
    return {**new, "metadata": {**kept, **changed}}
