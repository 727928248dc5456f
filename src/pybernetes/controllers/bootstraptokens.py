"""Bootstrap tokens: who holds one can trust what the cluster says of itself, until it expires.

Two controllers (upstream's bootstrapsigner and tokencleaner). The signer signs the public config
map `kube-public/cluster-info` with every token that may be used for that: a machine that joins
fetches it without being known, and believes the CA in it because only somebody who knows the token
can have signed. The cleaner deletes tokens that have expired.

A signature is a JSON Web Signature (RFC 7515) with a detached payload, under `jws-kubeconfig-<id>`.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from pybernetes.api.types.core_v1 import ConfigMap, Secret
from pybernetes.apimachinery.errors import NotFound
from pybernetes.apimachinery.meta import Key
from pybernetes.apimachinery.timestamp import parse_time
from pybernetes.client import keys_of, mapped

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pybernetes.controllers.context import ControllerContext

KUBE_SYSTEM = "kube-system"
TOKEN_TYPE = "bootstrap.kubernetes.io/token"
NAME_PREFIX = "bootstrap-token-"
CLUSTER_INFO = Key("kube-public", "cluster-info")
KUBECONFIG = "kubeconfig"
SIGNATURE_PREFIX = "jws-kubeconfig-"


def detached_signature(content: str, token_id: str, token_secret: str) -> str:
    """Header and signature of the JWS, with nothing between: whoever checks has the content."""
    header = _base64url(msgspec.json.encode({"alg": "HS256", "kid": token_id}))
    payload = _base64url(content.encode())
    key = f"{token_id}.{token_secret}".encode()
    digest = hmac.digest(key, f"{header}.{payload}".encode(), "sha256")
    return f"{header}..{_base64url(digest)}"


def signed(data: Mapping[str, str], tokens: Mapping[str, str]) -> dict[str, str]:
    """The data of cluster-info with a signature for each token (id to secret) and no other."""
    kept = {key: value for key, value in data.items() if not key.startswith(SIGNATURE_PREFIX)}
    content = kept.get(KUBECONFIG)
    if content is not None:
        for token_id, secret in sorted(tokens.items()):
            kept[SIGNATURE_PREFIX + token_id] = detached_signature(content, token_id, secret)
    return kept


def signing_token(secret: Secret, now: datetime) -> tuple[str, str] | None:
    """Id and secret, if the secret is a token that may be used for signing."""
    data = {key: _text(value) for key, value in secret.data.items()}
    token_id, password = data.get("token-id", ""), data.get("token-secret", "")
    if secret.type != TOKEN_TYPE or secret.metadata.name != NAME_PREFIX + token_id:
        return None
    if not password or data.get("usage-bootstrap-signing") != "true":
        return None
    expires = expiry_of(secret)
    return None if expires is not None and expires <= now else (token_id, password)


def expiry_of(secret: Secret) -> datetime | None:
    """When a token expires; None: never. What cannot be read has expired long ago."""
    written = _text(secret.data.get("expiration", ""))
    if not written:
        return None
    try:
        return parse_time(written)
    except ValueError:
        return datetime.fromtimestamp(0, UTC)


def _text(encoded: str) -> str:
    try:
        return base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class BootstrapSignerController:
    name = "bootstrap-signer"

    def __init__(self, context: ControllerContext) -> None:
        self._client = context.client_for(self.name)
        self._clock = context.clock
        self._infos = context.caches.of(
            ConfigMap,
            namespace=CLUSTER_INFO.namespace,
            field_selector=f"metadata.name={CLUSTER_INFO.name}",
        )
        self._tokens = context.caches.of(
            Secret, namespace=KUBE_SYSTEM, field_selector=f"type={TOKEN_TYPE}"
        )
        self.sources = (keys_of(self._infos), mapped(self._tokens, self._always))

    @staticmethod
    def _always(secret: Secret) -> Iterable[Key]:
        return (CLUSTER_INFO,)

    async def reconcile(self, key: Key) -> timedelta | None:
        info = self._infos.get(key)
        if info is None:
            return None
        now = self._clock.now()
        tokens = dict(
            found for secret in self._tokens if (found := signing_token(secret, now)) is not None
        )
        data = signed(info.data, tokens)
        if data != info.data:
            await self._client.update(msgspec.structs.replace(info, data=data))
        ends = [end for secret in self._tokens if (end := expiry_of(secret)) and end > now]
        return min(ends) - now if ends else None


class TokenCleanerController:
    name = "token-cleaner"

    def __init__(self, context: ControllerContext) -> None:
        self._client = context.client_for(self.name)
        self._clock = context.clock
        self._tokens = context.caches.of(
            Secret, namespace=KUBE_SYSTEM, field_selector=f"type={TOKEN_TYPE}"
        )
        self.sources = (keys_of(self._tokens),)

    async def reconcile(self, key: Key) -> timedelta | None:
        secret = self._tokens.get(key)
        expires = None if secret is None else expiry_of(secret)
        if secret is None or expires is None:
            return None
        left = expires - self._clock.now()
        if left > timedelta(0):
            return left
        with suppress(NotFound):
            await self._client.delete(secret)
        return None
