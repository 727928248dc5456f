"""Bearer tokens: found in the request, and shown to each kind of token in turn.

A browser cannot set headers on a WebSocket, so there the token may come as one of the
subprotocols. A token that nobody knows is 401; it never falls back to being anonymous.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

from pybernetes.apimachinery.errors import Unauthorized

if TYPE_CHECKING:
    from pybernetes.api.user import UserInfo
    from pybernetes.apiserver.authn.bootstraptoken import BootstrapTokens
    from pybernetes.apiserver.authn.serviceaccounts import ServiceAccountTokens
    from pybernetes.wire.http import Headers, Request

_WEBSOCKET_PREFIX = "base64url.bearer.authorization.k8s.io."


class BearerAuthenticator:
    def __init__(self, accounts: ServiceAccountTokens, bootstrap: BootstrapTokens) -> None:
        self._accounts, self._bootstrap = accounts, bootstrap

    async def authenticate(self, request: Request) -> UserInfo | None:
        token = token_of(request.headers)
        if not token:
            return None
        # Three parts are a JSON Web Token's, two a bootstrap token's.
        if token.count(".") == 1:
            user = self._bootstrap.user_of(token)
        else:
            user = self._accounts.user_of(token)
        if user is None:
            raise Unauthorized
        return user


def token_of(headers: Headers) -> str:
    """The token a request carries; empty if none."""
    scheme, _, token = headers.get("authorization").strip().partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    if headers.get("upgrade").lower() != "websocket":
        return ""
    for protocols in headers.get_all("sec-websocket-protocol"):
        for protocol in protocols.split(","):
            if protocol.strip().startswith(_WEBSOCKET_PREFIX):
                return _decoded(protocol.strip().removeprefix(_WEBSOCKET_PREFIX))
    return ""


def _decoded(text: str) -> str:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""
