"""The key that service account tokens are signed with: ES256, read or made when first needed.

`PyJWT` and `cryptography` are imported here, at the first token: a server that never sees one
does not pay for them.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

ALGORITHM = "ES256"


class SigningKey:
    """Signs and verifies; without a file, with a key that lives as long as the process."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._key: EllipticCurvePrivateKey | None = None
        self._id = ""

    def sign(self, claims: dict[str, Any]) -> str:
        import jwt

        key = self._private()
        return jwt.encode(claims, key, algorithm=ALGORITHM, headers={"kid": self._id})

    def verify(self, token: str) -> dict[str, Any] | None:
        """The claims if we signed them; time and audience are the caller's business."""
        import jwt

        public = self._private().public_key()
        only_signature: Any = {
            "verify_exp": False,
            "verify_nbf": False,
            "verify_iat": False,
            "verify_aud": False,
        }
        try:
            return jwt.decode(token, public, algorithms=[ALGORITHM], options=only_signature)
        except jwt.PyJWTError:
            return None

    def jwks(self) -> dict[str, Any]:
        """The public key as a JSON Web Key Set."""
        numbers = self._private().public_key().public_numbers()
        key = {
            "use": "sig",
            "kty": "EC",
            "kid": self._id,
            "crv": "P-256",
            "alg": ALGORITHM,
            "x": _base64url(numbers.x.to_bytes(32, "big")),
            "y": _base64url(numbers.y.to_bytes(32, "big")),
        }
        return {"keys": [key]}

    def _private(self) -> EllipticCurvePrivateKey:
        if self._key is None:
            from cryptography.hazmat.primitives import serialization
            from cryptography.hazmat.primitives.asymmetric import ec

            if self._path is None:
                self._key = ec.generate_private_key(ec.SECP256R1())
            else:
                pem = self._path.read_bytes()
                found = serialization.load_pem_private_key(pem, password=None)
                self._key = cast("EllipticCurvePrivateKey", found)
            der = self._key.public_key().public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            self._id = _base64url(hashlib.sha256(der).digest())
        return self._key


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
