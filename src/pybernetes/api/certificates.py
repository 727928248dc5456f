"""certificates.k8s.io: requests to have a certificate signed, and certificates to trust.

A signing request never changes but by its approval and by its signer, and what was once
decided stays decided: verdicts are only added. Who asked is recorded, and who may approve
or sign is judged, by admission.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from pybernetes.api.pem import certificates_problem, request_problem
from pybernetes.api.resource import AGE, Approval, Column, Resource, Scope, Status, Strategy
from pybernetes.api.types.certificates_v1 import CertificateSigningRequest
from pybernetes.api.validation import validate_signer_name
from pybernetes.apimachinery.fielderror import FieldError, Path

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pybernetes.api.types.certificates_v1 import CertificateSigningRequestCondition

GROUP = "certificates.k8s.io"

APPROVED, DENIED, FAILED = "Approved", "Denied", "Failed"
_VERDICTS = (APPROVED, DENIED, FAILED)
# Signers that exist for requests of before they had names; nobody may ask them any more.
LEGACY_SIGNER = "kubernetes.io/legacy-unknown"
SHORTEST_SECONDS = 600

KEY_USAGES = frozenset(
    {
        "any",
        "cert sign",
        "client auth",
        "code signing",
        "content commitment",
        "crl sign",
        "data encipherment",
        "decipher only",
        "digital signature",
        "email protection",
        "encipher only",
        "ipsec end system",
        "ipsec tunnel",
        "ipsec user",
        "key agreement",
        "key encipherment",
        "microsoft sgc",
        "netscape sgc",
        "ocsp signing",
        "s/mime",
        "server auth",
        "signing",
        "timestamping",
    }
)


def any_name(name: str) -> Sequence[str]:
    return ()


# --- signing requests -----------------------------------------------------------------------------


def keep_spec(
    new: CertificateSigningRequest, old: CertificateSigningRequest
) -> CertificateSigningRequest:
    return replace(new, spec=old.spec)


def validate_signing_request(
    new: CertificateSigningRequest, old: CertificateSigningRequest | None
) -> Iterator[FieldError]:
    """The object itself. The request is looked at once, when it is made: it cannot change."""
    path = Path("spec")
    if old is None:
        yield from _validate_spec(new)
    elif new.spec != old.spec:
        yield path.immutable(new.spec)
    if old is not None:
        yield from _validate_decisions(new, old, approving=False)
    yield from _validate_conditions(new, old)


def _validate_spec(new: CertificateSigningRequest) -> Iterator[FieldError]:
    spec, path = new.spec, Path("spec")
    if problem := request_problem(spec.request):
        yield path.request.invalid(spec.request, problem)
    if not spec.usages:
        yield path.usages.required("usages must be provided")
    seen: set[str] = set()
    for index, usage in enumerate(spec.usages):
        if usage not in KEY_USAGES:
            yield path.usages[index].not_supported(usage, KEY_USAGES)
        if usage in seen:
            yield path.usages[index].duplicate(usage)
        seen.add(usage)
    if spec.signer_name == LEGACY_SIGNER:
        yield path.signerName.invalid(
            spec.signer_name, "the legacy signerName is not allowed via this API version"
        )
    elif not spec.signer_name:
        yield path.signerName.required("signerName must be provided")
    else:
        yield from validate_signer_name(spec.signer_name, path.signerName)
    seconds = spec.expiration_seconds
    if seconds is not None and seconds < SHORTEST_SECONDS:
        yield path.expirationSeconds.invalid(
            seconds, "may not specify a duration less than 600 seconds (10 minutes)"
        )


def _validate_conditions(
    new: CertificateSigningRequest, old: CertificateSigningRequest | None
) -> Iterator[FieldError]:
    """What an older server let pass may stay, so only what changed is judged."""
    conditions, path = new.status.conditions, Path("status").conditions
    if old is not None and conditions == old.status.conditions:
        return
    seen: set[str] = set()
    for index, condition in enumerate(conditions):
        here = path[index]
        if not condition.type:
            yield here.type.required()
        if not condition.status:
            yield here.status.required()
        elif condition.type in _VERDICTS and condition.status != "True":
            yield here.status.not_supported(condition.status, ["True"])
        elif condition.status not in ("True", "False", "Unknown"):
            yield here.status.not_supported(condition.status, ["False", "True", "Unknown"])
        if condition.type in (APPROVED, DENIED) and {APPROVED, DENIED} <= seen | {condition.type}:
            yield here.type.invalid(
                condition.type, "Approved and Denied conditions are mutually exclusive"
            )
        if condition.type in seen:
            yield here.type.duplicate(condition.type)
        seen.add(condition.type)


def _validate_decisions(
    new: CertificateSigningRequest, old: CertificateSigningRequest, *, approving: bool
) -> Iterator[FieldError]:
    """Verdicts stay, and only the approval makes or changes those on the request."""
    path = Path("status").conditions
    for type_ in _VERDICTS:
        before, after = _conditions_of(old, type_), _conditions_of(new, type_)
        if len(after) < len(before):
            yield path.forbidden(f'updates may not remove a condition of type "{type_}"')
        elif approving or type_ == FAILED:
            continue
        elif len(after) > len(before):
            yield path.forbidden(f'updates may not add a condition of type "{type_}"')
        elif after != before:
            yield path.forbidden(f'updates may not modify a condition of type "{type_}"')


def _conditions_of(
    request: CertificateSigningRequest, type_: str
) -> list[CertificateSigningRequestCondition]:
    return [condition for condition in request.status.conditions if condition.type == type_]


def validate_approval(
    new: CertificateSigningRequest, old: CertificateSigningRequest | None
) -> Iterator[FieldError]:
    if old is not None:
        yield from _validate_decisions(new, old, approving=True)
    yield from _validate_conditions(new, old)


def validate_signing(
    new: CertificateSigningRequest, old: CertificateSigningRequest | None
) -> Iterator[FieldError]:
    """The status: what the signer writes. A certificate is issued once."""
    path = Path("status").certificate
    if old is not None:
        yield from _validate_decisions(new, old, approving=False)
        if old.status.certificate and new.status.certificate != old.status.certificate:
            yield path.forbidden("updates may not modify existing certificate content")
    yield from _validate_conditions(new, old)
    is_new = old is None or new.status.certificate != old.status.certificate
    if is_new and (problem := certificates_problem(new.status.certificate)):
        yield path.invalid("<certificate data>", problem)


def _verdict(request: CertificateSigningRequest) -> str:
    types = {condition.type for condition in request.status.conditions}
    text = DENIED if DENIED in types else APPROVED if APPROVED in types else "Pending"
    if FAILED in types:
        text += ",Failed"
    return text + ",Issued" if request.status.certificate else text


def _wished_duration(request: CertificateSigningRequest) -> timedelta | None:
    seconds = request.spec.expiration_seconds
    return None if seconds is None else timedelta(seconds=seconds)


CERTIFICATE_SIGNING_REQUESTS = Resource(
    group=GROUP,
    version="v1",
    kind=CertificateSigningRequest,
    plural="certificatesigningrequests",
    scope=Scope.CLUSTER,
    strategy=Strategy(
        prepare_update=keep_spec,
        validate=validate_signing_request,
        name_errors=any_name,
        generation_follows=(),
    ),
    subresources=(Approval(validate=validate_approval), Status(validate=validate_signing)),
    columns=(
        AGE,
        Column("SignerName", lambda r: r.spec.signer_name),
        Column("Requestor", lambda r: r.spec.username),
        Column("RequestedDuration", _wished_duration),
        Column("Condition", _verdict),
    ),
    selectable_fields={"spec.signerName": lambda r: r.spec.signer_name},
)

CERTIFICATES_RESOURCES: tuple[Resource[Any], ...] = (CERTIFICATE_SIGNING_REQUESTS,)
