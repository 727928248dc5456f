"""Certificates: requests, their verdicts, bundles of trust. All PEM here is real and fresh."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from msgspec.structs import replace

from pybernetes.api.certificates import (
    CERTIFICATE_SIGNING_REQUESTS,
    validate_approval,
    with_times,
)
from pybernetes.api.pem import certificates_problem, request_problem, trust_bundle_problems
from pybernetes.api.registry import resource_at
from pybernetes.api.types.certificates_v1 import (
    CertificateSigningRequest,
    CertificateSigningRequestCondition,
    CertificateSigningRequestSpec,
    CertificateSigningRequestStatus,
)
from pybernetes.api.types.meta_v1 import ObjectMeta
from tests.api.coreobjects import changed, create, errors_of

KEY = ec.generate_private_key(ec.SECP256R1())
NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "somebody")])


def _request_pem() -> str:
    builder = x509.CertificateSigningRequestBuilder().subject_name(NAME)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def _certificate_pem(*, ca: bool) -> str:
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(NAME)
        .issuer_name(NAME)
        .public_key(KEY.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .sign(KEY, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


REQUEST = encoded(_request_pem())
AUTHORITY, LEAF = _certificate_pem(ca=True), _certificate_pem(ca=False)


def request(**spec: Any) -> CertificateSigningRequest:
    fields: dict[str, Any] = {
        "request": REQUEST,
        "usages": ("client auth",),
        "signer_name": "example.com/people",
        **spec,
    }
    return CertificateSigningRequest(
        metadata=ObjectMeta(name="somebody"), spec=CertificateSigningRequestSpec(**fields)
    )


def with_status(
    csr: CertificateSigningRequest, *verdicts: str, certificate: str = ""
) -> CertificateSigningRequest:
    conditions = tuple(
        CertificateSigningRequestCondition(type=verdict, status="True") for verdict in verdicts
    )
    return replace(
        csr,
        status=CertificateSigningRequestStatus(conditions=conditions, certificate=certificate),
    )


@pytest.mark.parametrize(
    ("spec", "errors"),
    [
        pytest.param({}, [], id="good"),
        pytest.param(
            {"request": "Zm9v"},
            ['spec.request: Invalid value: "Zm9v": PEM block type must be CERTIFICATE REQUEST'],
            id="no PEM",
        ),
        pytest.param(
            {"usages": ()},
            ["spec.usages: Required value: usages must be provided"],
            id="no usages",
        ),
        pytest.param(
            {"usages": ("signing", "signing")},
            ['spec.usages[1]: Duplicate value: "signing"'],
            id="a usage twice",
        ),
        pytest.param(
            {"signer_name": ""},
            ["spec.signerName: Required value: signerName must be provided"],
            id="no signer",
        ),
        pytest.param(
            {"signer_name": "people"},
            [
                'spec.signerName: Invalid value: "people": must be a fully qualified domain '
                "and path of the form 'example.com/signer-name'"
            ],
            id="no domain",
        ),
        pytest.param(
            {"signer_name": "example/people"},
            [
                'spec.signerName: Invalid value: "example": '
                "should be a domain with at least two segments separated by dots"
            ],
            id="a short domain",
        ),
        pytest.param(
            {"expiration_seconds": 599},
            [
                "spec.expirationSeconds: Invalid value: 599: "
                "may not specify a duration less than 600 seconds (10 minutes)"
            ],
            id="too short",
        ),
    ],
)
def test_requests(spec: dict[str, Any], errors: list[str]) -> None:
    assert errors_of(CERTIFICATE_SIGNING_REQUESTS, request(**spec)) == errors


def test_unknown_usages_are_answered_with_the_known() -> None:
    (error,) = errors_of(CERTIFICATE_SIGNING_REQUESTS, request(usages=("flying",)))
    assert error.startswith(
        'spec.usages[0]: Unsupported value: "flying": supported values: "any", "cert sign", '
    )


def test_a_request_never_changes() -> None:
    old = request()
    new = CERTIFICATE_SIGNING_REQUESTS.strategy.prepare_update(request(usages=("any",)), old)
    assert new.spec == old.spec


@pytest.mark.parametrize(
    ("old", "new", "errors"),
    [
        pytest.param([], ["Approved"], [], id="approved"),
        pytest.param(
            ["Approved"],
            ["Approved", "Denied"],
            [
                'status.conditions[1].type: Invalid value: "Denied": '
                "Approved and Denied conditions are mutually exclusive"
            ],
            id="both",
        ),
        pytest.param(
            ["Approved"],
            [],
            ['status.conditions: Forbidden: updates may not remove a condition of type "Approved"'],
            id="taken back",
        ),
        pytest.param(
            [],
            ["Approved", "Approved"],
            ['status.conditions[1].type: Duplicate value: "Approved"'],
            id="twice",
        ),
    ],
)
def test_approvals(old: list[str], new: list[str], errors: list[str]) -> None:
    found = validate_approval(with_status(request(), *new), with_status(request(), *old))
    assert [str(error) for error in found] == errors


@pytest.mark.parametrize(
    ("old", "new", "errors"),
    [
        pytest.param({}, {"certificate": encoded(LEAF)}, [], id="issued"),
        pytest.param(
            {"certificate": encoded(LEAF)},
            {"certificate": encoded(AUTHORITY)},
            ["status.certificate: Forbidden: updates may not modify existing certificate content"],
            id="issued again",
        ),
        pytest.param(
            {},
            {"certificate": REQUEST},
            [
                'status.certificate: Invalid value: "<certificate data>": only CERTIFICATE PEM '
                'blocks are allowed, found "CERTIFICATE REQUEST"'
            ],
            id="no certificate",
        ),
    ],
)
def test_signing(old: dict[str, str], new: dict[str, str], errors: list[str]) -> None:
    status = CERTIFICATE_SIGNING_REQUESTS.subresource("status")
    found = status.validate(  # type: ignore[union-attr]  # it is a Part
        with_status(request(), "Approved", **new), with_status(request(), "Approved", **old)
    )
    assert [str(error) for error in found] == errors


def test_verdicts_have_times() -> None:
    first, later = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
    old = with_times(with_status(request(), "Approved"), request(), first)
    new = with_times(with_status(request(), "Approved", "Failed"), old, later)
    times = [(c.last_update_time, c.last_transition_time) for c in new.status.conditions]
    assert times == [(later, first), (later, later)]


def test_signers_do_not_approve() -> None:
    status = CERTIFICATE_SIGNING_REQUESTS.subresource("status")
    found = status.validate(  # type: ignore[union-attr]  # it is a Part
        with_status(request(), "Approved"), request()
    )
    assert [str(error) for error in found] == [
        'status.conditions: Forbidden: updates may not add a condition of type "Approved"'
    ]


@pytest.mark.parametrize(
    ("verdicts", "certificate", "text"),
    [
        ((), "", "Pending"),
        (("Approved",), "", "Approved"),
        (("Approved",), "x", "Approved,Issued"),
        (("Denied",), "", "Denied"),
        (("Approved", "Failed"), "", "Approved,Failed"),
    ],
)
def test_the_condition_column(verdicts: tuple[str, ...], certificate: str, text: str) -> None:
    column = CERTIFICATE_SIGNING_REQUESTS.columns[-1]
    shown = with_status(request(), *verdicts, certificate=certificate)
    assert column.value(shown, datetime.now(UTC)) == text


def test_pem() -> None:
    assert request_problem(REQUEST) == ""
    forged = bytearray(base64.b64decode("".join(_request_pem().split("\n")[1:-2])))
    forged[-1] ^= 1
    body = base64.b64encode(forged).decode()
    bad = f"-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n"
    assert request_problem(encoded(bad)).startswith("x509: ")
    assert certificates_problem("") == ""
    assert certificates_problem(encoded(LEAF + AUTHORITY)) == ""
    assert certificates_problem(encoded("hello")) == (
        "must contain one or more CERTIFICATE PEM blocks"
    )
    headed = LEAF.replace("CERTIFICATE-----\n", "CERTIFICATE-----\nWho: me\n\n", 1)
    assert certificates_problem(encoded(headed)) == "no PEM block headers are permitted"


def test_trust_bundles() -> None:
    assert list(trust_bundle_problems(AUTHORITY)) == []
    assert list(trust_bundle_problems("")) == ["at least one trust anchor must be provided"]
    assert list(trust_bundle_problems(AUTHORITY + LEAF)) == ["entry 1 does not have the CA bit set"]
    assert list(trust_bundle_problems(AUTHORITY + AUTHORITY)) == [
        "duplicate trust anchor (indices [0 1])"
    ]


BUNDLES = {
    version: resource_at("certificates.k8s.io", version, "clustertrustbundles")
    for version in ("v1", "v1beta1")
}


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
@pytest.mark.parametrize(
    ("name", "signer", "error"),
    [
        ("mine", "", ""),
        ("example.com:people:mine", "example.com/people", ""),
        (
            "a:b",
            "",
            'metadata.name: Invalid value: "a:b": '
            'ClusterTrustBundle without signer name must not have ":" in its name',
        ),
        (
            "mine",
            "example.com/people",
            'metadata.name: Invalid value: "mine": ClusterTrustBundle for signerName '
            "example.com/people must be named with prefix example.com:people:",
        ),
    ],
)
def test_bundles_are_named_by_their_signer(
    version: str, name: str, signer: str, error: str
) -> None:
    bundles = BUNDLES[version]
    assert bundles is not None
    spec = {"trustBundle": AUTHORITY, "signerName": signer}
    new = create(bundles, {"metadata": {"name": name}, "spec": spec})
    assert errors_of(bundles, new) == ([error] if error else [])
    if bundles.conversion is not None:
        assert bundles.conversion.from_stored(bundles.conversion.to_stored(new)) == new


def test_certificates_for_pods() -> None:
    requests = resource_at("certificates.k8s.io", "v1", "podcertificaterequests")
    assert requests is not None
    manifest: dict[str, Any] = {
        "metadata": {"name": "a", "namespace": "default"},
        "spec": {
            "signerName": "kubernetes.io/kube-apiserver-client-pod",
            "podName": "p",
            "podUID": "1",
            "serviceAccountName": "s",
            "serviceAccountUID": "2",
            "nodeName": "n",
            "nodeUID": "3",
            "stubPKCS10Request": "eA==",
        },
    }
    new = create(requests, manifest)
    assert new.spec.max_expiration_seconds == 86400
    assert errors_of(requests, new) == []
    long = create(requests, changed(manifest, "spec.maxExpirationSeconds", 86401))
    assert errors_of(requests, long) == [
        "spec.maxExpirationSeconds: Invalid value: 86401: must be in the range [3600, 86400]"
    ]
