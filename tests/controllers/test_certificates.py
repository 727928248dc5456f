"""Machines that join: requests, approval, signatures. Real: cluster and CA; nobody runs on nodes."""

from __future__ import annotations

import base64
import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import jwt
import msgspec
import pytest

from pybernetes.api.types.certificates_v1 import (
    CertificateSigningRequest,
    CertificateSigningRequestCondition,
    CertificateSigningRequestSpec,
    CertificateSigningRequestStatus,
)
from pybernetes.api.types.core_v1 import ConfigMap, Node, NodeAddress, Secret
from pybernetes.api.user import UserInfo
from pybernetes.cluster import pki
from pybernetes.cluster.controlplane import ControlPlaneOptions
from pybernetes.cluster.signing import CaSigner
from pybernetes.controllers import ControllerOptions
from pybernetes.controllers.bootstraptokens import detached_signature, expiry_of, signing_token
from pybernetes.controllers.certificates.cleaning import end_of
from pybernetes.controllers.certificates.rules import (
    Requested,
    client_problem,
    duration_of,
    kubelet_client_problem,
    kubelet_serving_problem,
    read_request,
)
from pybernetes.testing import Cluster
from pybernetes.testing.builders import EPOCH, metadata, node

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime
    from pathlib import Path

CLIENT = ("digital signature", "client auth")
SERVER = ("digital signature", "server auth")
TOKEN = UserInfo("system:bootstrap:abcdef", ("system:bootstrappers", "system:authenticated"))
KUBELET_CLIENT = "kubernetes.io/kube-apiserver-client-kubelet"
KUBELET_SERVING = "kubernetes.io/kubelet-serving"


# --- decisions ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "usages", "problem"),
    [
        pytest.param({}, CLIENT, "", id="fine"),
        pytest.param({}, (*CLIENT, "key encipherment"), "", id="fine with RSA"),
        pytest.param(
            {"organizations": ("system:masters",)},
            CLIENT,
            "subject organization is not system:nodes",
            id="another group",
        ),
        pytest.param(
            {"organizations": ("system:nodes", "system:masters")},
            CLIENT,
            "subject organization is not system:nodes",
            id="one group too many",
        ),
        pytest.param(
            {"common_name": "admin"},
            CLIENT,
            "subject common name does not begin with system:node:",
            id="another name",
        ),
        pytest.param(
            {"dns_names": ("x",)}, CLIENT, "DNS subjectAltNames are not allowed", id="with a name"
        ),
        pytest.param(
            {"addresses": ("10.0.0.1",)},
            CLIENT,
            "IP subjectAltNames are not allowed",
            id="with an address",
        ),
        pytest.param(
            {},
            SERVER,
            "usages did not match [client auth digital signature key encipherment]",
            id="for serving",
        ),
        pytest.param(
            {},
            (*CLIENT, "server auth"),
            "usages did not match [client auth digital signature key encipherment]",
            id="for both",
        ),
    ],
)
def test_client_certificates_of_kubelets(
    fields: dict[str, Any], usages: tuple[str, ...], problem: str
) -> None:
    plain = {"common_name": "system:node:n", "organizations": ("system:nodes",)}
    assert kubelet_client_problem(Requested(**{**plain, **fields}), usages) == problem


def test_serving_certificates_of_kubelets() -> None:
    plain: dict[str, Any] = {"common_name": "system:node:n", "organizations": ("system:nodes",)}
    assert (
        kubelet_serving_problem(Requested(**plain), SERVER)
        == "DNS or IP subjectAltName is required"
    )
    named = {**plain, "addresses": ("192.0.2.1",)}
    assert kubelet_serving_problem(Requested(**named), SERVER) == ""
    assert (
        kubelet_serving_problem(Requested(**named, uris=("x:y",)), SERVER)
        == "URI subjectAltNames are not allowed"
    )


def test_other_clients_get_client_certificates_only() -> None:
    assert client_problem(CLIENT) == ""
    assert client_problem(("digital signature",))
    assert client_problem((*CLIENT, "server auth"))


@pytest.mark.parametrize(
    ("wished", "given"),
    [
        (None, timedelta(days=365)),
        (3600, timedelta(hours=1)),
        (1, timedelta(minutes=10)),
        (10**9, timedelta(days=365)),
    ],
)
def test_certificates_last_as_long_as_is_wished_within_bounds(
    wished: int | None, given: timedelta
) -> None:
    assert duration_of(wished) == given


@pytest.mark.parametrize(
    ("verdicts", "hours"),
    [((), 24), (("Denied",), 1), (("Approved",), 24), (("Approved", "Failed"), 1)],
)
def test_requests_are_kept_for_a_while(verdicts: tuple[str, ...], hours: int) -> None:
    conditions = tuple(
        CertificateSigningRequestCondition(type=v, status="True", last_update_time=EPOCH)
        for v in verdicts
    )
    request = CertificateSigningRequest(
        metadata=metadata("r", ""), status=CertificateSigningRequestStatus(conditions=conditions)
    )
    assert end_of(request) == EPOCH + timedelta(hours=hours)


def test_a_signature_is_a_web_signature_without_its_content() -> None:
    secret = "0123456789abcdef-long-enough-for-the-library"
    header, empty, signature = detached_signature("hello", "abcdef", secret).split(".")
    assert empty == ""
    payload = base64.urlsafe_b64encode(b"hello").rstrip(b"=").decode()
    decoded = jwt.PyJWS().decode_complete(
        f"{header}.{payload}.{signature}", f"abcdef.{secret}", algorithms=["HS256"]
    )
    assert decoded["header"] == {"alg": "HS256", "kid": "abcdef"}


@pytest.mark.parametrize(
    ("change", "signs"),
    [
        ({}, True),
        ({"usage-bootstrap-signing": "false"}, False),
        ({"token-secret": ""}, False),
        ({"token-id": "zzzzzz"}, False),
        ({"expiration": "2025-12-31T23:59:59Z"}, False),
        ({"expiration": "2026-01-01T00:00:01Z"}, True),
        ({"expiration": "soon"}, False),
    ],
)
def test_which_tokens_sign(change: dict[str, str], signs: bool) -> None:
    assert (signing_token(token(**change), EPOCH) is not None) == signs


# --- in a cluster ---------------------------------------------------------------------------------


@pytest.fixture
async def joining(tmp_path: Path) -> AsyncIterator[Cluster]:
    """A cluster with a CA; its signer is given the real CA's key."""
    keys = pki.Pki(tmp_path)
    pki.ensure_control_plane(keys, server_names=("localhost",), now=EPOCH)

    class Signer:
        def sign(self, request_pem: bytes, *, usages: Any, expires_at: datetime) -> bytes:
            return CaSigner(keys, cluster.clock).sign(
                request_pem, usages=usages, expires_at=expires_at
            )

    options = ControlPlaneOptions(controller_options=ControllerOptions(signer=Signer()))
    cluster = Cluster(nodes=0, options=options)
    async with cluster:
        yield cluster


def asked(
    directory: Path,
    name: str = "csr-1",
    *,
    subject: pki.CertificateRequest | None = None,
    signer: str = KUBELET_CLIENT,
    usages: tuple[str, ...] = CLIENT,
    seconds: int | None = None,
) -> CertificateSigningRequest:
    wanted = subject or pki.CertificateRequest("system:node:new", ("system:nodes",))
    pem = pki.signing_request(directory / f"{name}.key", wanted)
    return CertificateSigningRequest(
        metadata=metadata(name, ""),
        spec=CertificateSigningRequestSpec(
            request=base64.b64encode(pem).decode(),
            signer_name=signer,
            usages=usages,
            expiration_seconds=seconds,
        ),
    )


async def outcome(cluster: Cluster, name: str = "csr-1") -> tuple[list[str], bool]:
    """Conditions and whether there is a certificate."""
    await cluster.run_for(seconds=1)
    found = await cluster.get(CertificateSigningRequest, name)
    said = [f"{c.type}: {c.reason}: {c.message}" for c in found.status.conditions]
    return said, bool(found.status.certificate)


async def test_a_machine_with_a_token_gets_its_certificate(
    joining: Cluster, tmp_path: Path
) -> None:
    from cryptography import x509

    client = joining.plane.client_as(TOKEN)
    await client.create(asked(tmp_path, seconds=3600))
    assert await outcome(joining) == (
        [
            "Approved: AutoApproved: Auto approving kubelet client certificate after "
            "SubjectAccessReview."
        ],
        True,
    )
    found = await client.get(CertificateSigningRequest, "csr-1")
    certificate = x509.load_pem_x509_certificate(base64.b64decode(found.status.certificate))
    assert certificate.subject.rfc4514_string() == "CN=system:node:new,O=system:nodes"
    ca = x509.load_pem_x509_certificate((tmp_path / "ca.crt").read_bytes())
    certificate.verify_directly_issued_by(ca)
    left = certificate.not_valid_after_utc - joining.clock.now()
    assert timedelta(minutes=59) < left <= timedelta(hours=1)


async def test_a_node_renews_its_own_certificate_and_no_other(
    joining: Cluster, tmp_path: Path
) -> None:
    groups = ("system:nodes", "system:authenticated")
    await joining.plane.client_as(UserInfo("system:node:new", groups)).create(asked(tmp_path))
    said, is_signed = await outcome(joining)
    assert is_signed
    assert "self kubelet client" in said[0]
    other = joining.plane.client_as(UserInfo("system:node:other", groups))
    await other.create(asked(tmp_path, "csr-2"))
    assert await outcome(joining, "csr-2") == ([], False)


async def test_a_machine_serves_before_it_registers(joining: Cluster, tmp_path: Path) -> None:
    taken = node("there", address="10.0.0.1")
    made = await joining.client.create(taken)
    await joining.client.update_status(msgspec.structs.replace(made, status=taken.status))
    groups = ("system:nodes", "system:authenticated")
    itself = joining.plane.client_as(UserInfo("system:node:new", groups))

    def serving(name: str, *names: str) -> CertificateSigningRequest:
        subject = pki.CertificateRequest(
            "system:node:new", ("system:nodes",), names=names, usages=(pki.SERVER,)
        )
        usages = ("digital signature", "server auth")
        return asked(tmp_path, name, subject=subject, signer=KUBELET_SERVING, usages=usages)

    await itself.create(serving("csr-1", "new", "10.0.0.2"))
    assert (await outcome(joining))[1]
    await itself.create(serving("csr-2", "new", "10.0.0.1"))
    assert await outcome(joining, "csr-2") == ([], False)
    await itself.create(serving("csr-3", "there", "10.0.0.2"))
    assert await outcome(joining, "csr-3") == ([], False)


async def test_what_is_not_recognized_waits_for_a_person(joining: Cluster, tmp_path: Path) -> None:
    admin = pki.CertificateRequest("somebody", ("team",))
    request = asked(
        tmp_path, subject=admin, signer="kubernetes.io/kube-apiserver-client", usages=CLIENT
    )
    await joining.client.create(request)
    assert await outcome(joining) == ([], False)
    await approve(joining)
    assert (await outcome(joining))[1]


async def test_a_signer_refuses_what_it_may_not_sign(joining: Cluster, tmp_path: Path) -> None:
    strange = pki.CertificateRequest("somebody", ("team",))
    await joining.client.create(asked(tmp_path, subject=strange))
    await approve(joining)
    said, is_signed = await outcome(joining)
    assert not is_signed
    assert said[1] == ("Failed: SignerValidationFailure: subject organization is not system:nodes")


async def test_requests_of_other_signers_are_left_alone(joining: Cluster, tmp_path: Path) -> None:
    await joining.client.create(asked(tmp_path, signer="example.com/mine"))
    await approve(joining)
    said, is_signed = await outcome(joining)
    assert (len(said), is_signed) == (1, False)


async def test_a_node_may_serve_under_the_addresses_it_is_reached_by(
    joining: Cluster, tmp_path: Path
) -> None:
    await joining.apply(node("new"))
    user = UserInfo("system:node:new", ("system:nodes", "system:authenticated"))
    kubelet = joining.plane.client_as(user)
    wanted = pki.CertificateRequest("system:node:new", ("system:nodes",), ("192.0.2.8",), ())
    await kubelet.create(asked(tmp_path, subject=wanted, signer=KUBELET_SERVING, usages=SERVER))
    for address, is_signed in (("192.0.2.7", False), ("192.0.2.8", True)):
        addresses = (NodeAddress(type="InternalIP", address=address),)
        await joining.client.patch(
            Node, "new", patch={"status": {"addresses": addresses}}, subresource="status"
        )
        assert (await outcome(joining))[1] is is_signed


async def test_nobody_gets_a_serving_certificate_for_another_node(
    joining: Cluster, tmp_path: Path
) -> None:
    await joining.apply(node("new"))
    addresses = (NodeAddress(type="InternalIP", address="192.0.2.8"),)
    await joining.client.patch(
        Node, "new", patch={"status": {"addresses": addresses}}, subresource="status"
    )
    wanted = pki.CertificateRequest("system:node:new", ("system:nodes",), ("192.0.2.8",), ())
    request = asked(tmp_path, subject=wanted, signer=KUBELET_SERVING, usages=SERVER)
    other = UserInfo("system:node:other", ("system:nodes", "system:authenticated"))
    await joining.plane.client_as(other).create(request)
    assert await outcome(joining) == ([], False)


async def test_requests_are_cleared_away(joining: Cluster, tmp_path: Path) -> None:
    await joining.plane.client_as(TOKEN).create(asked(tmp_path))
    await joining.client.create(asked(tmp_path, "pending", signer="example.com/mine"))
    await joining.run_for(minutes=61)
    left = await joining.client.list(CertificateSigningRequest)
    assert [r.metadata.name for r in left.items] == ["pending"]
    await joining.run_for(hours=23)
    assert not (await joining.client.list(CertificateSigningRequest)).items


async def test_cluster_info_is_signed_with_every_token(joining: Cluster) -> None:
    info = ConfigMap(metadata=metadata("cluster-info", "kube-public"), data={"kubeconfig": "x: y"})
    await joining.apply(info, token(expiration="2026-01-01T01:00:00Z"))
    await joining.run_for(seconds=1)
    found = await joining.get(ConfigMap, "cluster-info", "kube-public")
    assert found.data["jws-kubeconfig-abcdef"] == detached_signature(
        "x: y", "abcdef", "0123456789abcdef"
    )
    await joining.client.patch(
        ConfigMap, "cluster-info", "kube-public", patch={"data": {"kubeconfig": "x: z"}}
    )
    await joining.run_for(seconds=1)
    found = await joining.get(ConfigMap, "cluster-info", "kube-public")
    assert found.data["jws-kubeconfig-abcdef"] == detached_signature(
        "x: z", "abcdef", "0123456789abcdef"
    )
    await joining.run_for(hours=1)
    assert await joining.client.get_or_none(Secret, "bootstrap-token-abcdef", "kube-system") is None
    found = await joining.get(ConfigMap, "cluster-info", "kube-public")
    assert set(found.data) == {"kubeconfig"}


def token(**change: str) -> Secret:
    data = {
        "token-id": "abcdef",
        "token-secret": "0123456789abcdef",
        "usage-bootstrap-signing": "true",
        "usage-bootstrap-authentication": "true",
        **change,
    }
    return Secret(
        metadata=metadata("bootstrap-token-abcdef", "kube-system"),
        type="bootstrap.kubernetes.io/token",
        data={key: base64.b64encode(value.encode()).decode() for key, value in data.items()},
    )


def test_a_token_without_an_end_lasts_for_ever() -> None:
    assert expiry_of(token()) is None


def test_what_is_asked_for_is_read(tmp_path: Path) -> None:
    subject = pki.CertificateRequest("system:node:n", ("system:nodes",), ("n.test", "192.0.2.1"))
    found = read_request(asked(tmp_path, subject=subject).spec.request)
    assert found == Requested("system:node:n", ("system:nodes",), ("n.test",), ("192.0.2.1",))
    assert json.dumps(found.node_name) == '"n"'


async def approve(cluster: Cluster, name: str = "csr-1") -> None:
    """As `kubectl certificate approve` does."""
    condition = {"type": "Approved", "status": "True", "reason": "KubectlApprove", "message": "ok"}
    found = await cluster.get(CertificateSigningRequest, name)
    await cluster.client.patch(
        CertificateSigningRequest,
        found.metadata.name,
        patch={"status": {"conditions": [condition]}},
        subresource="approval",
    )
