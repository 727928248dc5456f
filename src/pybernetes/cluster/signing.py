"""Signs certificate requests with the cluster's CA, for the controllers that may ask for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pybernetes.cluster.pki import CLIENT, SERVER, CertificateRequest, load_key, sign

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from pybernetes.aio.clock import Clock
    from pybernetes.cluster.pki import Pki

# Usages of a CertificateSigningRequest that become extended key usages.
_PURPOSES = {"client auth": CLIENT, "server auth": SERVER}


class CaSigner:
    """`controllers.CertificateSigner` over the CA's key file, which is read for each signature."""

    def __init__(self, keys: Pki, clock: Clock) -> None:
        self._keys, self._clock = keys, clock

    def sign(self, request_pem: bytes, *, usages: Sequence[str], expires_at: datetime) -> bytes:
        """A PEM certificate for the request's key, subject and names. Raises ValueError."""
        from cryptography import x509
        from cryptography.hazmat.primitives import serialization
        from cryptography.x509.oid import NameOID

        request = x509.load_pem_x509_csr(request_pem)
        if not request.is_signature_valid:
            raise ValueError("the certificate request is not signed by its own key")
        names: list[str] = []
        try:
            alternative = request.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        except x509.ExtensionNotFound:
            pass
        else:
            names += alternative.value.get_values_for_type(x509.DNSName)
            names += map(str, alternative.value.get_values_for_type(x509.IPAddress))
        common_names = request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        organizations = request.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
        now = self._clock.now()
        certificate, _ = sign(
            CertificateRequest(
                common_name=str(common_names[0].value) if common_names else "",
                organizations=tuple(str(o.value) for o in organizations),
                names=tuple(names),
                usages=tuple(_PURPOSES[u] for u in usages if u in _PURPOSES) or (CLIENT,),
            ),
            public_key_der=request.public_key().public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
            ),
            ca_certificate=self._keys.ca.certificate.read_bytes(),
            ca_key=load_key(self._keys.ca.key),
            now=now,
            lifetime=expires_at - now,
        )
        return certificate
