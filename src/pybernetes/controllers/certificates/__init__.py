"""Certificate signing requests: approved where that needs no person, signed, and cleared away.

`rules` is which request is what, and what a signer may sign; the other three are controllers, one
promise each. The CA's key is not here: what signs is given to us (`context.CertificateSigner`).
"""

from __future__ import annotations

from pybernetes.controllers.certificates.approval import CertificateApprovalController
from pybernetes.controllers.certificates.cleaning import CertificateCleaningController
from pybernetes.controllers.certificates.signing import CertificateSigningController

__all__ = [
    "CertificateApprovalController",
    "CertificateCleaningController",
    "CertificateSigningController",
]
