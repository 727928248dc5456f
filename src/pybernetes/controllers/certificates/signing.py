"""CertificateSigning: what was approved is signed, if its signer is one of ours and may sign it.

Watches signing requests; writes their status: the certificate, or why there is none.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import msgspec

from pybernetes.api.conditions import TRUE
from pybernetes.api.types.certificates_v1 import (
    CertificateSigningRequest,
    CertificateSigningRequestCondition,
)
from pybernetes.client import keys_of
from pybernetes.controllers.certificates.rules import (
    FAILED,
    duration_of,
    is_to_be_signed,
    read_request,
    signing_problem,
)

if TYPE_CHECKING:
    from datetime import timedelta

    from pybernetes.apimachinery.meta import Key
    from pybernetes.controllers.context import ControllerContext


class CertificateSigningController:
    name = "certificatesigningrequest-signing-controller"
    account = "certificate-controller"

    def __init__(self, context: ControllerContext) -> None:
        self._client = context.client_for(self.account)
        self._clock = context.clock
        # Without one, requests wait for a signer from outside.
        self._signer = context.options.signer
        self._requests = context.caches.of(CertificateSigningRequest)
        self.sources = (keys_of(self._requests),)

    async def reconcile(self, key: Key) -> timedelta | None:
        request = self._requests.get(key)
        if request is None or self._signer is None or not is_to_be_signed(request):
            return None
        spec = request.spec
        try:
            problem = signing_problem(spec.signer_name, read_request(spec.request), spec.usages)
            if problem:
                await self._refuse(request, problem)
                return None
            certificate = self._signer.sign(
                base64.b64decode(spec.request),
                usages=spec.usages,
                expires_at=self._clock.now() + duration_of(spec.expiration_seconds),
            )
        except ValueError as error:
            await self._refuse(request, f"unable to parse csr: {error}")
            return None
        encoded = base64.b64encode(certificate).decode()
        status = msgspec.structs.replace(request.status, certificate=encoded)
        await self._client.update_status(msgspec.structs.replace(request, status=status))
        return None

    async def _refuse(self, request: CertificateSigningRequest, problem: str) -> None:
        now = self._clock.now().replace(microsecond=0)
        condition = CertificateSigningRequestCondition(
            type=FAILED,
            status=TRUE,
            reason="SignerValidationFailure",
            message=problem,
            last_update_time=now,
            last_transition_time=now,
        )
        status = msgspec.structs.replace(
            request.status, conditions=(*request.status.conditions, condition)
        )
        await self._client.update_status(msgspec.structs.replace(request, status=status))
