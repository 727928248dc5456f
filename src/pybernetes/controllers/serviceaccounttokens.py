"""ServiceAccountTokens: secrets that ask for the token of a service account get one that stays.

This is how tokens were handed out before the TokenRequest API, and how a token without an end is
still asked for: a secret of type `kubernetes.io/service-account-token` that names its account in
an annotation. Watches such secrets and service accounts; fills the secrets in, and deletes those
whose account is gone. The key that signs is not here: what signs is given
to us (`ControllerOptions.sign_token`).
"""

from __future__ import annotations

import base64
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from pybernetes.api.types.core_v1 import Secret, ServiceAccount
from pybernetes.apimachinery.errors import Conflict, NotFound
from pybernetes.apimachinery.meta import Key, key_of
from pybernetes.client import changes_of, keys_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import timedelta

    from pybernetes.controllers.context import ControllerContext

TOKEN_TYPE = "kubernetes.io/service-account-token"
ACCOUNT_NAME = "kubernetes.io/service-account.name"
ACCOUNT_UID = "kubernetes.io/service-account.uid"


def legacy_claims(secret: Secret, account: ServiceAccount) -> dict[str, Any]:
    """What such a token says. It holds as long as its secret and its account are there."""
    namespace, name = account.metadata.namespace, account.metadata.name
    prefix = "kubernetes.io/serviceaccount/"
    return {
        "iss": "kubernetes/serviceaccount",
        f"{prefix}namespace": namespace,
        f"{prefix}secret.name": secret.metadata.name,
        f"{prefix}service-account.name": name,
        f"{prefix}service-account.uid": account.metadata.uid,
        "sub": f"system:serviceaccount:{namespace}:{name}",
    }


def is_for(secret: Secret, account: ServiceAccount) -> bool:
    """By name, and by uid if the secret says one: an account made anew is another."""
    annotations = secret.metadata.annotations
    uid = annotations.get(ACCOUNT_UID)
    return annotations.get(ACCOUNT_NAME) == account.metadata.name and (
        not uid or uid == account.metadata.uid
    )


class ServiceAccountTokensController:
    name = "service-account-token-controller"

    def __init__(self, context: ControllerContext) -> None:
        self._client = context.client_for(self.name)
        self._sign = context.options.sign_token
        self._root_ca = context.options.root_ca
        self._secrets = context.caches.of(Secret, field_selector=f"type={TOKEN_TYPE}")
        self._accounts = context.caches.of(ServiceAccount)
        self.sources = (
            keys_of(self._secrets),
            changes_of(self._accounts, self._account_changed),
        )

    async def reconcile(self, key: Key) -> timedelta | None:
        secret = self._secrets.get(key)
        if secret is None or secret.metadata.deletion_timestamp is not None:
            return None
        name = secret.metadata.annotations.get(ACCOUNT_NAME, "")
        if not name:
            return None
        account = self._accounts.get(Key(key.namespace, name))
        if account is None or not is_for(secret, account):
            # The cache may be behind: asked again before anything is lost.
            account = await self._client.get_or_none(ServiceAccount, name, key.namespace)
        if account is None or not is_for(secret, account):
            with suppress(NotFound, Conflict):
                await self._client.delete(secret)
            return None
        wanted = self._filled(secret, account)
        if wanted != secret:
            await self._client.update(wanted)
        return None

    def _filled(self, secret: Secret, account: ServiceAccount) -> Secret:
        """The secret with everything that belongs into it; a token that is there stays."""
        data = {**secret.data, "namespace": _encoded(account.metadata.namespace)}
        if self._root_ca:
            data["ca.crt"] = _encoded(self._root_ca)
        if self._sign is not None and not data.get("token"):
            data["token"] = _encoded(self._sign(legacy_claims(secret, account)))
        annotations = {**secret.metadata.annotations, ACCOUNT_UID: account.metadata.uid}
        metadata = msgspec.structs.replace(secret.metadata, annotations=annotations)
        return msgspec.structs.replace(secret, metadata=metadata, data=data)

    def _account_changed(
        self, old: ServiceAccount | None, new: ServiceAccount | None
    ) -> Iterable[Key]:
        """The secrets of an account that has come or gone."""
        account = new or old
        if account is None or (old is not None and new is not None):
            return ()
        return [
            key_of(secret)
            for secret in self._secrets.list(account.metadata.namespace)
            if secret.metadata.annotations.get(ACCOUNT_NAME) == account.metadata.name
        ]


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
