"""Certificate signing requests: who asked is recorded, and not everybody may approve or sign.

Three of upstream's plugins (CertificateApproval, CertificateSigning, CertificateSubjectRestriction)
and what its storage does first: a request carries the identity of whoever made it.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

from msgspec.structs import replace

from pybernetes.api.certificates import with_times
from pybernetes.api.user import MASTERS
from pybernetes.apiserver.admission.plugin import Plugin, refused
from pybernetes.apiserver.hooks import Access, Operation

if TYPE_CHECKING:
    from pybernetes.api.types.certificates_v1 import CertificateSigningRequest
    from pybernetes.apiserver.admission.world import World
    from pybernetes.apiserver.hooks import Attributes

GROUP = "certificates.k8s.io"
_RESOURCE = "certificatesigningrequests"
_CLIENT_SIGNER = "kubernetes.io/kube-apiserver-client"


class CertificateRequests(Plugin):
    def __init__(self, world: World) -> None:
        self._authorizer, self._clock = world.authorizer, world.clock

    async def mutate(self, attributes: Attributes) -> None:
        if attributes.operation is Operation.UPDATE:
            if any(attributes.is_for(GROUP, _RESOURCE, part) for part in ("approval", "status")):
                now = self._clock.now().replace(microsecond=0)
                attributes.obj = with_times(attributes.obj, attributes.old, now)
        elif attributes.operation is Operation.CREATE and attributes.is_for(GROUP, _RESOURCE):
            user = attributes.user
            spec = replace(
                attributes.obj.spec,
                username=user.name,
                uid=user.uid,
                groups=user.groups,
                extra={key: tuple(values) for key, values in user.extra.items()},
            )
            attributes.obj = replace(attributes.obj, spec=spec)

    async def validate(self, attributes: Attributes) -> None:
        if attributes.group != GROUP or attributes.resource != _RESOURCE:
            return
        if attributes.operation is Operation.CREATE:
            self._check_subject(attributes)
        elif attributes.operation is Operation.UPDATE:
            self._check_verdict(attributes)

    def _check_subject(self, attributes: Attributes) -> None:
        request: CertificateSigningRequest = attributes.obj
        if request.spec.signer_name != _CLIENT_SIGNER:
            return
        if MASTERS in organizations_of(request.spec.request):
            raise refused(
                attributes,
                f"use of {_CLIENT_SIGNER} signer with {MASTERS} group is not allowed",
            )

    def _check_verdict(self, attributes: Attributes) -> None:
        new: CertificateSigningRequest = attributes.obj
        old: CertificateSigningRequest = attributes.old
        signer = old.spec.signer_name
        if attributes.subresource == "approval":
            verb, what = "approve", "approve"
        elif attributes.subresource == "status":
            if new.status.certificate == old.status.certificate and (
                _failures(new) == _failures(old)
            ):
                return
            verb, what = "sign", "sign"
        else:
            return
        if not self._may(attributes, verb, signer):
            raise refused(
                attributes, f'user not permitted to {what} requests with signerName "{signer}"'
            )

    def _may(self, attributes: Attributes, verb: str, signer: str) -> bool:
        """By the signer's name, or by all names of its domain."""
        for name in (signer, f"{signer.partition('/')[0]}/*"):
            access = Access(
                attributes.user, verb, group=GROUP, version="v1", resource="signers", name=name
            )
            if self._authorizer.decide(access).allowed:
                return True
        return False


def _failures(request: CertificateSigningRequest) -> list[object]:
    return [c for c in request.status.conditions if c.type == "Failed"]


def organizations_of(request: str) -> list[str]:
    """The groups that a request (base64 of PEM) asks for; none if it cannot be read."""
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    try:
        parsed = x509.load_pem_x509_csr(base64.b64decode(request))
    except (ValueError, binascii.Error):
        return []
    return [str(a.value) for a in parsed.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
