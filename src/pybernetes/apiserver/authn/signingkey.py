"""The key that service account tokens are signed with, read or made when first needed.

Ours is ECDSA P-256; a key of another cluster may be RSA or a larger curve, and does as well.
`PyJWT` and `cryptography` are imported here, at the first token: a server that never sees one
does not pay for them.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

# By the size of the curve.
_OF_CURVE = {256: "ES256", 384: "ES384", 521: "ES512"}


class SigningKey:
    """Signs and verifies; without a file, with a key that lives as long as the process."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._key: EllipticCurvePrivateKey | RSAPrivateKey | None = None
        self._algorithm, self._id = "", ""

    @property
    def algorithm(self) -> str:
        self._private()
        return self._algorithm

    def sign(self, claims: dict[str, Any]) -> str:
        import jwt

        key = self._private()
        return jwt.encode(claims, key, algorithm=self._algorithm, headers={"kid": self._id})

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
            return jwt.decode(token, public, algorithms=[self._algorithm], options=only_signature)
        except jwt.PyJWTError:
            return None

    def jwks(self) -> dict[str, Any]:
        """The public key as a JSON Web Key Set."""
        from jwt import get_algorithm_by_name

        public: Any = self._private().public_key()
        algorithm: Any = get_algorithm_by_name(self._algorithm)
        key = algorithm.to_jwk(public, as_dict=True)
        key.pop("key_ops", None)
        return {"keys": [{"use": "sig", "kid": self._id, "alg": self._algorithm, **key}]}

    def _private(self) -> EllipticCurvePrivateKey | RSAPrivateKey:
        if self._key is None:
            from cryptography.hazmat.primitives import serialization
            from cryptography.hazmat.primitives.asymmetric import ec, rsa

            found: Any
            if self._path is None:
                found = ec.generate_private_key(ec.SECP256R1())
            else:
                pem = self._path.read_bytes()
                found = serialization.load_pem_private_key(pem, password=None)
            if isinstance(found, rsa.RSAPrivateKey):
                self._algorithm = "RS256"
            elif isinstance(found, ec.EllipticCurvePrivateKey):
                self._algorithm = _OF_CURVE[found.curve.key_size]
            else:
                raise ValueError(f"{self._path} is neither an RSA nor an elliptic curve key")
            self._key = found
            der = found.public_key().public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            self._id = _base64url(hashlib.sha256(der).digest())
        return self._key


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
