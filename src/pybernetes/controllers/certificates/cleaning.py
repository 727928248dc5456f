"""CertificateCleaning: requests are kept for a while after they were decided, then deleted.

An hour after the verdict, a day if there never was one; at once when the certificate has expired.
"""

from __future__ import annotations

import base64
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from pybernetes.api.types.certificates_v1 import CertificateSigningRequest
from pybernetes.apimachinery.errors import NotFound
from pybernetes.client import keys_of
from pybernetes.controllers.certificates.rules import APPROVED, DENIED, FAILED

if TYPE_CHECKING:
    from pybernetes.apimachinery.meta import Key
    from pybernetes.controllers.context import ControllerContext

AFTER_VERDICT = timedelta(hours=1)
WITHOUT_VERDICT = timedelta(hours=24)


def end_of(request: CertificateSigningRequest) -> datetime | None:
    """When the request has been kept for long enough."""
    conditions = request.status.conditions
    created = request.metadata.creation_timestamp
    if created is None:
        return None
    decided = [
        condition.last_update_time or created
        for condition in conditions
        if condition.type in (DENIED, FAILED)
        or (condition.type == APPROVED and request.status.certificate)
    ]
    ends = [moment + AFTER_VERDICT for moment in decided]
    if expires := expiry_of(request.status.certificate):
        ends.append(expires)
    # Approved by somebody and never signed: as if nobody had decided.
    return min(ends, default=created + WITHOUT_VERDICT)


def expiry_of(encoded: str) -> datetime | None:
    if not encoded:
        return None
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(base64.b64decode(encoded)).not_valid_after_utc
    except ValueError:
        return None


class CertificateCleaningController:
    name = "certificatesigningrequest-cleaner-controller"
    account = "certificate-controller"

    def __init__(self, context: ControllerContext) -> None:
        self._client = context.client_for(self.account)
        self._clock = context.clock
        self._requests = context.caches.of(CertificateSigningRequest)
        self.sources = (keys_of(self._requests),)

    async def reconcile(self, key: Key) -> timedelta | None:
        request = self._requests.get(key)
        end = None if request is None else end_of(request)
        if request is None or end is None:
            return None
        left = end - self._clock.now()
        if left > timedelta(0):
            return left
        with suppress(NotFound):
            await self._client.delete(request)
        return None
