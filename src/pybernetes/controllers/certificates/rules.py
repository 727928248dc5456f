"""What a signing request asks for, which of them nodes make, and what each signer may sign. Pure.

The sentences are upstream's: they end up in the request's status.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from pybernetes.api.conditions import condition_of

if TYPE_CHECKING:
    from pybernetes.api.types.certificates_v1 import CertificateSigningRequest

CLIENT_SIGNER = "kubernetes.io/kube-apiserver-client"
KUBELET_CLIENT_SIGNER = "kubernetes.io/kube-apiserver-client-kubelet"
KUBELET_SERVING_SIGNER = "kubernetes.io/kubelet-serving"
LEGACY_SIGNER = "kubernetes.io/legacy-unknown"
SIGNERS = (CLIENT_SIGNER, KUBELET_CLIENT_SIGNER, KUBELET_SERVING_SIGNER, LEGACY_SIGNER)

APPROVED, DENIED, FAILED = "Approved", "Denied", "Failed"
NODE_PREFIX = "system:node:"
# Upstream's --cluster-signing-duration, and the shortest anybody may ask for.
LONGEST = timedelta(days=365)
SHORTEST = timedelta(minutes=10)

_CLIENT_USAGES = frozenset({"digital signature", "client auth"})
_SERVING_USAGES = frozenset({"digital signature", "server auth"})
_RSA_USAGE = "key encipherment"


@dataclass(frozen=True, slots=True)
class Requested:
    """What is in the PKCS#10 request."""

    common_name: str = ""
    organizations: tuple[str, ...] = ()
    dns_names: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    emails: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()

    @property
    def node_name(self) -> str:
        return self.common_name.removeprefix(NODE_PREFIX)


def read_request(encoded: str) -> Requested:
    """From spec.request (base64 of PEM). Raises ValueError."""
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    request = x509.load_pem_x509_csr(base64.b64decode(encoded))
    names = request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    organizations = request.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    try:
        found = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        found = x509.SubjectAlternativeName([])
    return Requested(
        common_name=str(names[0].value) if names else "",
        organizations=tuple(str(o.value) for o in organizations),
        dns_names=tuple(found.get_values_for_type(x509.DNSName)),
        addresses=tuple(map(str, found.get_values_for_type(x509.IPAddress))),
        emails=tuple(found.get_values_for_type(x509.RFC822Name)),
        uris=tuple(found.get_values_for_type(x509.UniformResourceIdentifier)),
    )


def kubelet_client_problem(requested: Requested, usages: tuple[str, ...]) -> str:
    """Why this is no client certificate of a kubelet; empty if it is one."""
    if requested.organizations != ("system:nodes",):
        return "subject organization is not system:nodes"
    for values, kind in (
        (requested.dns_names, "DNS"),
        (requested.emails, "Email"),
        (requested.addresses, "IP"),
        (requested.uris, "URI"),
    ):
        if values:
            return f"{kind} subjectAltNames are not allowed"
    return _node_problem(requested, usages, _CLIENT_USAGES)


def kubelet_serving_problem(requested: Requested, usages: tuple[str, ...]) -> str:
    """Why this is no serving certificate of a kubelet; empty if it is one."""
    if requested.organizations != ("system:nodes",):
        return "subject organization is not system:nodes"
    if not requested.dns_names and not requested.addresses:
        return "DNS or IP subjectAltName is required"
    if requested.emails:
        return "Email subjectAltNames are not allowed"
    if requested.uris:
        return "URI subjectAltNames are not allowed"
    return _node_problem(requested, usages, _SERVING_USAGES)


def _node_problem(requested: Requested, usages: tuple[str, ...], needed: frozenset[str]) -> str:
    if not requested.common_name.startswith(NODE_PREFIX):
        return "subject common name does not begin with system:node:"
    if set(usages) - {_RSA_USAGE} != needed:
        # Keys that are not RSA do without key encipherment.
        return f"usages did not match [{' '.join(sorted(needed | {_RSA_USAGE}))}]"
    return ""


def client_problem(usages: tuple[str, ...]) -> str:
    allowed = _CLIENT_USAGES | {_RSA_USAGE}
    if "client auth" not in usages or not set(usages) <= allowed:
        shown = " ".join(f'"{usage}"' for usage in usages)
        return f"usages [{shown}] are not allowed for client certificates"
    return ""


def signing_problem(signer: str, requested: Requested, usages: tuple[str, ...]) -> str:
    """Why that signer must not sign this."""
    if signer == KUBELET_CLIENT_SIGNER:
        return kubelet_client_problem(requested, usages)
    if signer == KUBELET_SERVING_SIGNER:
        return kubelet_serving_problem(requested, usages)
    return client_problem(usages) if signer == CLIENT_SIGNER else ""


def duration_of(wished_seconds: int | None) -> timedelta:
    if wished_seconds is None:
        return LONGEST
    return min(max(timedelta(seconds=wished_seconds), SHORTEST), LONGEST)


def is_decided(request: CertificateSigningRequest) -> bool:
    conditions = request.status.conditions
    return any(condition_of(conditions, verdict) for verdict in (APPROVED, DENIED))


def is_to_be_signed(request: CertificateSigningRequest) -> bool:
    conditions = request.status.conditions
    return (
        request.spec.signer_name in SIGNERS
        and not request.status.certificate
        and condition_of(conditions, APPROVED) is not None
        and condition_of(conditions, DENIED) is None
        and condition_of(conditions, FAILED) is None
    )
