"""Certificates: what they say, when they are kept and when they are made anew. Real files and keys."""

from __future__ import annotations

import ssl
import stat
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pybernetes.cluster import pki
from pybernetes.cluster.signing import CaSigner

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2026, 11, 23, tzinfo=UTC)
NAMES = ["localhost", "127.0.0.1", "kubernetes.default.svc"]


@pytest.fixture
def keys(tmp_path: Path) -> pki.Pki:
    made = pki.Pki(tmp_path / "pki")
    pki.ensure_control_plane(made, server_names=NAMES, now=NOW)
    return made


def certificate_of(pair: pki.KeyPair) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pair.certificate.read_bytes())


def names_of(certificate: x509.Certificate) -> list[str]:
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    addresses = extension.value.get_values_for_type(x509.IPAddress)
    return [*extension.value.get_values_for_type(x509.DNSName), *map(str, addresses)]


def test_python_and_openssl_accept_the_chain(keys: pki.Pki) -> None:
    context = ssl.create_default_context(cafile=str(keys.ca.certificate))
    # What Python 3.13 asks by default: key identifiers, key usage.
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(keys.apiserver.certificate, keys.apiserver.key)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = context.wrap_bio(to_client, to_server, server_hostname="localhost")
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (ours, theirs):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert ours.version() == "TLSv1.3"


def test_the_server_certificate_covers_its_names_and_only_serves(keys: pki.Pki) -> None:
    certificate = certificate_of(keys.apiserver)
    assert sorted(names_of(certificate)) == sorted(NAMES)
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]


def test_the_administrator_is_of_system_masters(keys: pki.Pki) -> None:
    subject = certificate_of(keys.admin).subject
    (group,) = subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    assert group.value == "system:masters"


def test_keys_are_for_their_owner_alone(keys: pki.Pki) -> None:
    for path in keys.directory.glob("*.key"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path.name


def test_nothing_is_made_twice(keys: pki.Pki) -> None:
    before = {path.name: path.read_bytes() for path in keys.directory.iterdir()}
    pki.ensure_control_plane(keys, server_names=NAMES, now=NOW + timedelta(days=100))
    assert {path.name: path.read_bytes() for path in keys.directory.iterdir()} == before


def test_a_new_name_or_a_near_end_makes_a_new_certificate_for_the_same_key(keys: pki.Pki) -> None:
    first, key = keys.apiserver.certificate.read_bytes(), keys.apiserver.key.read_bytes()
    pki.ensure_control_plane(keys, server_names=[*NAMES, "10.0.0.5"], now=NOW)
    second = keys.apiserver.certificate.read_bytes()
    assert second != first
    assert "10.0.0.5" in names_of(certificate_of(keys.apiserver))
    later = NOW + timedelta(days=330)
    pki.ensure_control_plane(keys, server_names=[*NAMES, "10.0.0.5"], now=later)
    assert keys.apiserver.certificate.read_bytes() != second
    assert certificate_of(keys.apiserver).not_valid_after_utc > later + timedelta(days=300)
    assert keys.apiserver.key.read_bytes() == key


def test_a_lost_certificate_is_made_again(keys: pki.Pki) -> None:
    keys.admin.certificate.unlink()
    pki.ensure_control_plane(keys, server_names=NAMES, now=NOW)
    assert keys.admin.certificate.exists()


def test_a_signing_request_is_signed_as_it_asks(keys: pki.Pki, tmp_path: Path) -> None:
    class Clock:
        def now(self) -> datetime:
            return NOW

        def monotonic(self) -> float:
            return 0.0

    wanted = pki.CertificateRequest(
        "system:node:worker", organizations=("system:nodes",), names=("worker", "198.18.0.9")
    )
    request = pki.signing_request(tmp_path / "worker.key", wanted)
    pem = CaSigner(keys, Clock()).sign(
        request, usages=["digital signature", "server auth"], expires_at=NOW + timedelta(days=1)
    )
    signed = x509.load_pem_x509_certificate(pem)
    (name,) = signed.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert name.value == "system:node:worker"
    assert sorted(names_of(signed)) == ["198.18.0.9", "worker"]
    assert signed.not_valid_after_utc == NOW + timedelta(days=1)
    signed.verify_directly_issued_by(certificate_of(keys.ca))


def test_what_is_no_request_is_refused(keys: pki.Pki) -> None:
    class Clock:
        def now(self) -> datetime:
            return NOW

        def monotonic(self) -> float:
            return 0.0

    with pytest.raises(ValueError, match="PEM"):
        CaSigner(keys, Clock()).sign(b"nonsense", usages=[], expires_at=NOW)
