"""certificates.k8s.io: requests to have a certificate signed, and certificates to trust.

A signing request never changes but by its approval and by its signer, and what was once
decided stays decided: verdicts are only added. Who asked is recorded, and who may approve
or sign is judged, by admission.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from pybernetes.api.pem import certificates_problem, request_problem, trust_bundle_problems
from pybernetes.api.resource import AGE, Approval, Column, Resource, Scope, Status, Strategy
from pybernetes.api.sameshape import same_shape
from pybernetes.api.types import certificates_v1 as v1
from pybernetes.api.types import certificates_v1beta1 as v1beta1
from pybernetes.api.types.certificates_v1 import CertificateSigningRequest
from pybernetes.api.validation import validate_immutable, validate_signer_name, validate_with
from pybernetes.apimachinery.fielderror import FieldError, Path
from pybernetes.apimachinery.names import dns_subdomain_errors

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

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


def with_times(
    new: CertificateSigningRequest, old: CertificateSigningRequest, now: datetime
) -> CertificateSigningRequest:
    """The conditions with the times their writer left out: now, or when they came to be."""
    since = {(c.type, c.status): c.last_transition_time for c in old.status.conditions}
    conditions = tuple(
        replace(
            c,
            last_update_time=c.last_update_time or now,
            last_transition_time=c.last_transition_time or since.get((c.type, c.status)) or now,
        )
        for c in new.status.conditions
    )
    return replace(new, status=replace(new.status, conditions=conditions))


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

# --- bundles of trust -----------------------------------------------------------------------------


def validate_trust_bundle(new: Any, old: Any) -> Iterator[FieldError]:
    spec, path = new.spec, Path("spec")
    if old is None:
        for message in _bundle_name_errors(new.metadata.name, spec.signer_name):
            yield Path("metadata").name.invalid(new.metadata.name, message)
    if spec.signer_name:
        yield from validate_signer_name(spec.signer_name, path.signerName)
    if old is None or spec.trust_bundle != old.spec.trust_bundle:
        for problem in trust_bundle_problems(spec.trust_bundle):
            yield path.trustBundle.invalid("<value omitted>", problem)
    if old is not None:
        yield from validate_immutable(spec.signer_name, old.spec.signer_name, path.signerName)


def _bundle_name_errors(name: str, signer: str) -> Sequence[str]:
    """The bundles of a signer have its name before theirs."""
    if not signer:
        if ":" in name:
            return ['ClusterTrustBundle without signer name must not have ":" in its name']
        return dns_subdomain_errors(name)
    prefix = f"{signer.replace('/', ':')}:"
    if not name.startswith(prefix):
        text = f"ClusterTrustBundle for signerName {signer} must be named with prefix {prefix}"
        return [text]
    return dns_subdomain_errors(name.removeprefix(prefix))


def _trust_bundles(kind: type[Any], version: str) -> Resource[Any]:
    """Stored as the beta, which has the same fields."""
    stored = v1beta1.ClusterTrustBundle
    return Resource(
        group=GROUP,
        version=version,
        kind=kind,
        plural="clustertrustbundles",
        scope=Scope.CLUSTER,
        strategy=Strategy(
            validate=validate_trust_bundle, name_errors=any_name, generation_follows=()
        ),
        columns=(Column("SignerName", lambda b: b.spec.signer_name),),
        selectable_fields={"spec.signerName": lambda b: b.spec.signer_name},
        conversion=None if kind is stored else same_shape(kind, stored),
    )


# --- certificates for pods ------------------------------------------------------------------------

DEFAULT_POD_CERTIFICATE_SECONDS = 86400
_SHORTEST_POD_SECONDS, _LONGEST_POD_SECONDS = 3600, 91 * 86400
_LONGEST_OWN_SECONDS = 86400


def default_pod_request(new: Any) -> Any:
    if new.spec.max_expiration_seconds is not None:
        return new
    seconds = DEFAULT_POD_CERTIFICATE_SECONDS
    return replace(new, spec=replace(new.spec, max_expiration_seconds=seconds))


def validate_pod_request(new: Any, old: Any) -> Iterator[FieldError]:
    spec, path = new.spec, Path("spec")
    if old is not None:
        yield from validate_immutable(spec, old.spec, path)
        return
    yield from validate_signer_name(spec.signer_name, path.signerName)
    for name, value in (
        ("podName", spec.pod_name),
        ("serviceAccountName", spec.service_account_name),
        ("nodeName", spec.node_name),
    ):
        yield from validate_with(dns_subdomain_errors, value, path.child(name))
    for name, value in (
        ("podUID", spec.pod_uid),
        ("serviceAccountUID", spec.service_account_uid),
        ("nodeUID", spec.node_uid),
    ):
        if not value:
            yield path.child(name).required("must not be empty")
    if not spec.stub_pkcs10_request:
        yield path.stubPKCS10Request.required()
    own = spec.signer_name.startswith("kubernetes.io/")
    low, high = _SHORTEST_POD_SECONDS, _LONGEST_OWN_SECONDS if own else _LONGEST_POD_SECONDS
    if not low <= (spec.max_expiration_seconds or 0) <= high:
        yield path.maxExpirationSeconds.invalid(
            spec.max_expiration_seconds, f"must be in the range [{low}, {high}]"
        )


def validate_pod_request_status(new: Any, old: Any) -> Iterator[FieldError]:
    """One verdict, once."""
    path = Path("status").conditions
    known = ("Denied", "Failed", "Issued")
    for index, condition in enumerate(new.status.conditions):
        if condition.type not in known:
            yield path[index].type.not_supported(condition.type, known)
        if condition.status != "True":
            yield path[index].status.not_supported(condition.status, ["True"])
    if len(new.status.conditions) > 1:
        yield path.invalid(
            [condition.type for condition in new.status.conditions],
            'There may be at most one condition with type "Issued", "Denied", or "Failed"',
        )
    if old is not None and old.status.conditions and new.status != old.status:
        yield Path("status").immutable("<value omitted>")


def _pod_request_state(request: Any) -> str:
    return next((condition.type for condition in request.status.conditions), "Pending")


def _pod_requests(kind: type[Any], version: str) -> Resource[Any]:
    """Stored as the beta, which has the same fields."""
    stored = v1beta1.PodCertificateRequest
    return Resource(
        group=GROUP,
        version=version,
        kind=kind,
        plural="podcertificaterequests",
        scope=Scope.NAMESPACED,
        strategy=Strategy(
            default=default_pod_request, validate=validate_pod_request, generation_follows=()
        ),
        subresources=(Status(validate=validate_pod_request_status),),
        columns=(
            Column("PodName", lambda r: r.spec.pod_name),
            Column("ServiceAccountName", lambda r: r.spec.service_account_name),
            Column("NodeName", lambda r: r.spec.node_name),
            Column("SignerName", lambda r: r.spec.signer_name),
            Column("State", _pod_request_state),
            Column("UnverifiedUserAnnotations", lambda r: r.spec.unverified_user_annotations),
        ),
        selectable_fields={
            "spec.signerName": lambda r: r.spec.signer_name,
            "spec.podName": lambda r: r.spec.pod_name,
            "spec.nodeName": lambda r: r.spec.node_name,
        },
        conversion=None if kind is stored else same_shape(kind, stored),
    )


CERTIFICATES_RESOURCES: tuple[Resource[Any], ...] = (
    CERTIFICATE_SIGNING_REQUESTS,
    _trust_bundles(v1.ClusterTrustBundle, "v1"),
    _pod_requests(v1.PodCertificateRequest, "v1"),
    _trust_bundles(v1beta1.ClusterTrustBundle, "v1beta1"),
    _pod_requests(v1beta1.PodCertificateRequest, "v1beta1"),
)
