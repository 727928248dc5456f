"""What others need to verify our tokens themselves: OpenID discovery and the public keys.

Service accounts may read both (`system:service-account-issuer-discovery`, KEP-1393).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from pybernetes.apiserver.authn.tokenclaims import ISSUER
from pybernetes.apiserver.hooks import Route
from pybernetes.wire.http import Response

if TYPE_CHECKING:
    from pybernetes.apiserver.authn.signingkey import SigningKey
    from pybernetes.apiserver.call import Call

CONFIGURATION_PATH = "/.well-known/openid-configuration"
KEYS_PATH = "/openid/v1/jwks"
_CACHED = ("Cache-Control", "public, max-age=3600")


def issuer_routes(key: SigningKey, *, server: str, issuer: str = ISSUER) -> tuple[Route, ...]:
    """`server` is the URL at which the API server is reached."""

    async def configuration(call: Call) -> Response:
        document = {
            "issuer": issuer,
            "jwks_uri": f"{server}{KEYS_PATH}",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [key.algorithm],
        }
        return _answer(document, "application/json")

    async def keys(call: Call) -> Response:
        return _answer(key.jwks(), "application/jwk-set+json")

    return (Route(CONFIGURATION_PATH, configuration), Route(KEYS_PATH, keys))


def _answer(document: object, content_type: str) -> Response:
    return Response(200, [("Content-Type", content_type), _CACHED], msgspec.json.encode(document))
