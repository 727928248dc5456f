"""The cluster's keys and certificates: one CA, and what it signs.

Every file is made once and kept; a certificate is made anew when it is about to expire, when its
CA changed, or when the names it must cover changed. Keys are ECDSA P-256 (made in microseconds,
where RSA takes 30 ms). `cryptography` is imported only when something must be made, so that an
ordinary start does not pay for it: validity and names are kept in a small JSON file beside.

Layout, below `<data dir>/pki`::

    ca.crt ca.key                     signs everything below
    apiserver.crt apiserver.key       the API server's serving certificate
    apiserver-kubelet.crt .key        how the API server shows itself to kubelets
    admin.crt admin.key               group system:masters, for the kubeconfig
    front-proxy-ca.crt .key           signs front-proxy.crt, for aggregated API servers
    sa.pub sa.key                     signs service account tokens
    node-<name>.crt .key              client and serving certificate of a local node agent

Private keys are readable by their owner alone. Files are replaced atomically: a crash leaves the
old pair or the new one, never half of each, because the key of a pair is kept when it is renewed.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

CA_LIFETIME = timedelta(days=3650)
CERTIFICATE_LIFETIME = timedelta(days=365)
# Renewed at a start when less than this is left.
RENEW_BEFORE = timedelta(days=60)
# Clocks of nodes may be behind ours.
BACKDATE = timedelta(minutes=5)

SERVER = "server"
CLIENT = "client"


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """What a certificate must say: subject, the names it serves, and what it may be used for."""

    common_name: str
    organizations: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    usages: tuple[str, ...] = (CLIENT,)

    def fingerprint(self, ca_certificate: bytes) -> str:
        """Changes whenever a certificate made for this request would have to be made anew."""
        said = [self.common_name, *self.organizations, "/", *sorted(self.names), "/", *self.usages]
        return hashlib.sha256(ca_certificate + "\n".join(said).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class KeyPair:
    """Paths of a PEM certificate and its private key."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Pki:
    """Where everything lies; see the module's layout."""

    directory: Path

    @property
    def ca(self) -> KeyPair:
        return self._pair("ca")

    @property
    def front_proxy_ca(self) -> KeyPair:
        return self._pair("front-proxy-ca")

    @property
    def front_proxy(self) -> KeyPair:
        return self._pair("front-proxy")

    @property
    def apiserver(self) -> KeyPair:
        return self._pair("apiserver")

    @property
    def apiserver_kubelet(self) -> KeyPair:
        return self._pair("apiserver-kubelet")

    @property
    def admin(self) -> KeyPair:
        return self._pair("admin")

    @property
    def service_account_key(self) -> Path:
        return self.directory / "sa.key"

    @property
    def service_account_public_key(self) -> Path:
        return self.directory / "sa.pub"

    @property
    def node_client(self) -> KeyPair:
        """What a machine that joined shows the API server."""
        return self._pair("node-client")

    def node(self, name: str) -> KeyPair:
        return self._pair(f"node-{name}")

    def _pair(self, name: str) -> KeyPair:
        return KeyPair(self.directory / f"{name}.crt", self.directory / f"{name}.key")


def ensure_control_plane(pki: Pki, *, server_names: Sequence[str], now: datetime) -> None:
    """Make what is missing, expiring or no longer covers `server_names`."""
    pki.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    for ca, common_name in ((pki.ca, "pybernetes-ca"), (pki.front_proxy_ca, "front-proxy-ca")):
        _ensure_ca(ca, common_name, now)
    _ensure_service_account_keys(pki)
    names = tuple(server_names)
    serving = CertificateRequest("kube-apiserver", names=names, usages=(SERVER,))
    ensure_certificate(pki.apiserver, serving, ca=pki.ca, now=now)
    # Upstream's kubelet lets this user through because system:masters may do everything.
    towards_kubelets = CertificateRequest(
        "kube-apiserver-kubelet-client", organizations=("system:masters",)
    )
    ensure_certificate(pki.apiserver_kubelet, towards_kubelets, ca=pki.ca, now=now)
    admin = CertificateRequest("kubernetes-admin", organizations=("system:masters",))
    ensure_certificate(pki.admin, admin, ca=pki.ca, now=now)
    ensure_certificate(
        pki.front_proxy, CertificateRequest("front-proxy-client"), ca=pki.front_proxy_ca, now=now
    )


def ensure_node(pki: Pki, name: str, addresses: Sequence[str], now: datetime) -> KeyPair:
    """The certificate of a node agent on this machine: its user at the API, its HTTPS server."""
    request = CertificateRequest(
        f"system:node:{name}",
        organizations=("system:nodes",),
        names=(name, *addresses),
        usages=(CLIENT, SERVER),
    )
    ensure_certificate(pki.node(name), request, ca=pki.ca, now=now)
    return pki.node(name)


def ensure_certificate(
    pair: KeyPair, request: CertificateRequest, *, ca: KeyPair, now: datetime
) -> None:
    """Keep the certificate if it still says what `request` says and lives long enough."""
    ca_certificate = ca.certificate.read_bytes()
    wanted = request.fingerprint(ca_certificate)
    if _is_current(pair, wanted, now):
        return
    from cryptography.hazmat.primitives import serialization

    ca_key = load_key(ca.key)
    key = load_key(pair.key) if pair.key.exists() else _new_key(pair.key)
    public = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    certificate, expires = sign(
        request, public_key_der=public, ca_certificate=ca_certificate, ca_key=ca_key, now=now
    )
    write_file(pair.certificate, certificate, mode=0o644)
    _write_facts(pair, wanted, expires)


def sign(
    request: CertificateRequest,
    *,
    public_key_der: bytes,
    ca_certificate: bytes,
    ca_key: EllipticCurvePrivateKey,
    now: datetime,
    lifetime: timedelta = CERTIFICATE_LIFETIME,
) -> tuple[bytes, datetime]:
    """A PEM certificate for the key, and when it expires (never after its CA)."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.x509.oid import ExtendedKeyUsageOID

    issuer = x509.load_pem_x509_certificate(ca_certificate)
    public_key = cast("EllipticCurvePrivateKey", serialization.load_der_public_key(public_key_der))
    expires = min(now + lifetime, issuer.not_valid_after_utc)
    purposes = {
        SERVER: ExtendedKeyUsageOID.SERVER_AUTH,
        CLIENT: ExtendedKeyUsageOID.CLIENT_AUTH,
    }
    builder = (
        x509.CertificateBuilder()
        .subject_name(_subject(request))
        .issuer_name(issuer.subject)
        .public_key(public_key)  # type: ignore[arg-type]  # any kind a CSR may bring
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(expires)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purposes[u] for u in request.usages]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()),  # type: ignore[arg-type]  # ours is EC
            critical=False,
        )
    )
    if request.names:
        builder = builder.add_extension(_alternative_names(request.names), critical=False)
    certificate = builder.sign(ca_key, hashes.SHA256())
    return certificate.public_bytes(serialization.Encoding.PEM), expires


def signing_request(key_file: Path, request: CertificateRequest) -> bytes:
    """A PEM certificate signing request for a key, which is made if there is none."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    key = load_key(key_file) if key_file.exists() else _new_key(key_file)
    builder = x509.CertificateSigningRequestBuilder().subject_name(_subject(request))
    if request.names:
        builder = builder.add_extension(_alternative_names(request.names), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def copy_pair(source: KeyPair, target: KeyPair) -> None:
    """Give a node's directory its own copy of its key pair."""
    write_file(target.key, source.key.read_bytes(), mode=0o600)
    write_file(target.certificate, source.certificate.read_bytes(), mode=0o644)


def ca_hash(certificate_pem: bytes) -> str:
    """`sha256:<hex>` of the CA's public key, as kubeadm prints it for joining nodes."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    public = x509.load_pem_x509_certificate(certificate_pem).public_key()
    der = public.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return f"sha256:{hashlib.sha256(der).hexdigest()}"


def _is_current(pair: KeyPair, wanted: str, now: datetime) -> bool:
    try:
        facts = json.loads(_facts_file(pair).read_bytes())
        expires = datetime.fromisoformat(facts["expires"])
        known = facts["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    here = pair.certificate.exists() and pair.key.exists()
    return bool(here and known == wanted and expires - now > RENEW_BEFORE)


def _ensure_ca(pair: KeyPair, common_name: str, now: datetime) -> None:
    if pair.certificate.exists() and pair.key.exists():
        return
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    key = load_key(pair.key) if pair.key.exists() else _new_key(pair.key)
    name = _subject(CertificateRequest(common_name))
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + CA_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_key_usage(signs=True), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    write_file(pair.certificate, certificate.public_bytes(serialization.Encoding.PEM), mode=0o644)


def _ensure_service_account_keys(pki: Pki) -> None:
    if pki.service_account_key.exists() and pki.service_account_public_key.exists():
        return
    from cryptography.hazmat.primitives import serialization

    path = pki.service_account_key
    key = load_key(path) if path.exists() else _new_key(path)
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    write_file(pki.service_account_public_key, public, mode=0o644)


def _subject(request: CertificateRequest) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    organizations = [
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, name) for name in request.organizations
    ]
    return x509.Name([*organizations, x509.NameAttribute(NameOID.COMMON_NAME, request.common_name)])


def _alternative_names(names: Sequence[str]) -> x509.SubjectAlternativeName:
    from cryptography import x509

    def alternative(name: str) -> x509.GeneralName:
        try:
            return x509.IPAddress(ip_address(name))
        except ValueError:
            return x509.DNSName(name)

    return x509.SubjectAlternativeName([alternative(name) for name in dict.fromkeys(names)])


def _key_usage(*, signs: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=True,
        key_encipherment=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _new_key(path: Path) -> EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    # PKCS#8 would do for us; Go's tools all read the older SEC 1 form too, and kubeadm writes it.
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    write_file(path, pem, mode=0o600)
    return key


def load_key(path: Path) -> EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    return cast("EllipticCurvePrivateKey", key)


def _facts_file(pair: KeyPair) -> Path:
    return pair.certificate.with_suffix(".json")


def _write_facts(pair: KeyPair, fingerprint: str, expires: datetime) -> None:
    facts = {"fingerprint": fingerprint, "expires": expires.isoformat()}
    write_file(_facts_file(pair), json.dumps(facts).encode(), mode=0o644)


def write_file(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace the file at once, with its mode right from the first moment."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
