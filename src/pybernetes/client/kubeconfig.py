"""Kubeconfig files: which clusters there are, and who we are to them.

Read and merged as kubectl does: of several files the first that names a cluster,
user, context or the current context wins; a relative path is relative to the file
it stands in. Written so that nobody else can read it, and never half.

Rule: what we do not support (credential plugins, proxies) is refused by name when a
client is made from it, not when the file is read: another context may be fine.
"""

from __future__ import annotations

import base64
import binascii
import os
import ssl
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pybernetes.client.client import Client
from pybernetes.client.transport import HeaderSource, Transport
from pybernetes.wire.client import HttpClient

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Upstream keeps credentials of all kinds in files of this mode.
_PRIVATE = 0o600


class KubeconfigError(Exception):
    """The file cannot be used; the message says which, and what to do."""


@dataclass(frozen=True, slots=True)
class Cluster:
    server: str = ""
    certificate_authority: str = ""
    certificate_authority_data: bytes = b""
    insecure_skip_tls_verify: bool = False
    tls_server_name: str = ""
    proxy_url: str = ""


@dataclass(frozen=True, slots=True)
class User:
    client_certificate: str = ""
    client_certificate_data: bytes = b""
    client_key: str = ""
    client_key_data: bytes = field(default=b"", repr=False)
    token: str = field(default="", repr=False)
    token_file: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    impersonate: str = ""
    impersonate_uid: str = ""
    impersonate_groups: tuple[str, ...] = ()
    # Names of the plugins it needs: "exec", "auth-provider".
    plugins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Context:
    cluster: str = ""
    user: str = ""
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class Kubeconfig:
    """Clusters, users and contexts by name."""

    clusters: Mapping[str, Cluster] = field(default_factory=dict)
    users: Mapping[str, User] = field(default_factory=dict)
    contexts: Mapping[str, Context] = field(default_factory=dict)
    current_context: str = ""

    def merged_with(self, later: Kubeconfig) -> Kubeconfig:
        """Both; where they disagree, this one."""
        return Kubeconfig(
            {**later.clusters, **self.clusters},
            {**later.users, **self.users},
            {**later.contexts, **self.contexts},
            self.current_context or later.current_context,
        )

    def resolve(self, context: str = "") -> tuple[Cluster, User, Context]:
        """What a context means; the current one by default. Raises KubeconfigError."""
        name = context or self.current_context
        if not name:
            raise KubeconfigError("no context is chosen: name one, or set current-context")
        found = self.contexts.get(name)
        if found is None:
            raise KubeconfigError(f"context {name!r} does not exist")
        cluster = self.clusters.get(found.cluster)
        if cluster is None:
            raise KubeconfigError(f"cluster {found.cluster!r} of context {name!r} does not exist")
        user = self.users.get(found.user) if found.user else User()
        if user is None:
            raise KubeconfigError(f"user {found.user!r} of context {name!r} does not exist")
        return cluster, user, found


def default_paths(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Where kubectl would look: $KUBECONFIG (several, separated), or ~/.kube/config."""
    listed = [part for part in environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    if listed:
        return tuple(Path(part) for part in dict.fromkeys(listed))
    home = environ.get("HOME", "")
    return (Path(home) / ".kube" / "config",) if home else ()


def load_kubeconfig(paths: Sequence[Path]) -> Kubeconfig:
    """Read and merge; files that do not exist are passed over. Raises KubeconfigError."""
    merged = Kubeconfig()
    for path in paths:
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise KubeconfigError(f"cannot read {path}: {error.strerror}") from error
        merged = merged.merged_with(parse_kubeconfig(text, path))
    return merged


def parse_kubeconfig(text: bytes, path: Path) -> Kubeconfig:
    """One file. `path` is what relative paths are relative to, and what errors name."""
    import yaml

    try:
        value = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, ValueError) as error:
        raise KubeconfigError(f"{path} is not YAML: {error}") from error
    if value is None:
        return Kubeconfig()
    reader = _Reader(path)
    top = reader.mapping(value, "the file")
    return Kubeconfig(
        {name: reader.cluster(entry) for name, entry in reader.named(top, "clusters", "cluster")},
        {name: reader.user(entry) for name, entry in reader.named(top, "users", "user")},
        {name: reader.context(entry) for name, entry in reader.named(top, "contexts", "context")},
        reader.text(top, "current-context"),
    )


class _Reader:
    """Picks typed values out of one file and complains with its name."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def cluster(self, entry: Mapping[str, Any]) -> Cluster:
        return Cluster(
            server=self.text(entry, "server"),
            certificate_authority=self.file(entry, "certificate-authority"),
            certificate_authority_data=self.data(entry, "certificate-authority-data"),
            insecure_skip_tls_verify=entry.get("insecure-skip-tls-verify") is True,
            tls_server_name=self.text(entry, "tls-server-name"),
            proxy_url=self.text(entry, "proxy-url"),
        )

    def user(self, entry: Mapping[str, Any]) -> User:
        groups = entry.get("as-groups") or ()
        return User(
            client_certificate=self.file(entry, "client-certificate"),
            client_certificate_data=self.data(entry, "client-certificate-data"),
            client_key=self.file(entry, "client-key"),
            client_key_data=self.data(entry, "client-key-data"),
            token=self.text(entry, "token"),
            token_file=self.file(entry, "tokenFile"),
            username=self.text(entry, "username"),
            password=self.text(entry, "password"),
            impersonate=self.text(entry, "as"),
            impersonate_uid=self.text(entry, "as-uid"),
            impersonate_groups=tuple(map(str, groups)) if isinstance(groups, list) else (),
            plugins=tuple(name for name in ("exec", "auth-provider") if entry.get(name)),
        )

    def context(self, entry: Mapping[str, Any]) -> Context:
        return Context(
            cluster=self.text(entry, "cluster"),
            user=self.text(entry, "user"),
            namespace=self.text(entry, "namespace"),
        )

    def named(
        self, top: Mapping[str, Any], plural: str, singular: str
    ) -> list[tuple[str, Mapping[str, Any]]]:
        """The entries of a list of {name: …, singular: {…}}; the first of a name counts."""
        entries: dict[str, Mapping[str, Any]] = {}
        listed = top.get(plural) or []
        if not isinstance(listed, list):
            raise KubeconfigError(f"{self._path}: {plural} must be a list")
        for item in listed:
            entry = self.mapping(item, f"an entry of {plural}")
            value = self.mapping(entry.get(singular) or {}, f"{singular} in {plural}")
            entries.setdefault(self.text(entry, "name"), value)
        return list(entries.items())

    def mapping(self, value: object, what: str) -> Mapping[str, Any]:
        if not isinstance(value, dict):
            raise KubeconfigError(f"{self._path}: {what} must be a mapping")
        return value

    def text(self, entry: Mapping[str, Any], name: str) -> str:
        value = entry.get(name)
        if value is None:
            return ""
        if isinstance(value, (dict, list)):
            raise KubeconfigError(f"{self._path}: {name} must be a string")
        return str(value)

    def file(self, entry: Mapping[str, Any], name: str) -> str:
        value = self.text(entry, name)
        return str(self._path.absolute().parent / value) if value else ""

    def data(self, entry: Mapping[str, Any], name: str) -> bytes:
        try:
            return base64.b64decode(self.text(entry, name), validate=False)
        except (binascii.Error, ValueError) as error:
            raise KubeconfigError(f"{self._path}: {name} is not base64: {error}") from error


def format_kubeconfig(config: Kubeconfig) -> str:
    """The YAML of a kubeconfig file. Credential plugins cannot be written."""
    import yaml

    value = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": name,
                "cluster": _without_empty(
                    {
                        "certificate-authority": cluster.certificate_authority,
                        "certificate-authority-data": _base64(cluster.certificate_authority_data),
                        "insecure-skip-tls-verify": cluster.insecure_skip_tls_verify,
                        "proxy-url": cluster.proxy_url,
                        "server": cluster.server,
                        "tls-server-name": cluster.tls_server_name,
                    }
                ),
            }
            for name, cluster in config.clusters.items()
        ],
        "users": [
            {
                "name": name,
                "user": _without_empty(
                    {
                        "as": user.impersonate,
                        "as-groups": list(user.impersonate_groups),
                        "as-uid": user.impersonate_uid,
                        "client-certificate": user.client_certificate,
                        "client-certificate-data": _base64(user.client_certificate_data),
                        "client-key": user.client_key,
                        "client-key-data": _base64(user.client_key_data),
                        "password": user.password,
                        "token": user.token,
                        "tokenFile": user.token_file,
                        "username": user.username,
                    }
                ),
            }
            for name, user in config.users.items()
        ],
        "contexts": [
            {
                "name": name,
                "context": _without_empty(
                    {
                        "cluster": context.cluster,
                        "namespace": context.namespace,
                        "user": context.user,
                    }
                ),
            }
            for name, context in config.contexts.items()
        ],
        "current-context": config.current_context,
    }
    text: str = yaml.safe_dump(value, sort_keys=False)
    return text


def write_kubeconfig(path: Path, config: Kubeconfig) -> None:
    """Replace the file as a whole; readable by its owner only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), _PRIVATE)
            file.write(format_kubeconfig(config))
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def add_to_kubeconfig(path: Path, config: Kubeconfig) -> None:
    """Put everything of `config` into a file that may hold other clusters, and make it current."""
    existing = load_kubeconfig([path])
    plugins = [name for name, user in existing.users.items() if user.plugins]
    if plugins:
        # We would lose what we cannot write.
        raise KubeconfigError(
            f"{path} has users with credential plugins ({', '.join(plugins)}), which would be "
            "lost; write to another file and list both in KUBECONFIG"
        )
    write_kubeconfig(path, config.merged_with(existing))


def client_from(config: Kubeconfig, context: str = "", *, user_agent: str = "pybernetes") -> Client:
    """A client over HTTPS, as the context says. Raises KubeconfigError."""
    cluster, user, _ = config.resolve(context)
    if not cluster.server:
        raise KubeconfigError("the cluster has no server address")
    if cluster.proxy_url:
        raise KubeconfigError("proxy-url is not supported: connect to the server directly")
    if user.plugins:
        raise KubeconfigError(
            f"credential plugins ({', '.join(user.plugins)}) are not supported: "
            "use a client certificate or a token"
        )
    secure = cluster.server.lower().startswith("https:")
    try:
        http = HttpClient(
            cluster.server,
            tls=tls_context(cluster, user) if secure else None,
            server_hostname=cluster.tls_server_name or None,
        )
    except ValueError as error:
        raise KubeconfigError(str(error)) from error
    transport = Transport(http, user_agent=user_agent, headers=_authorization(user))
    if user.impersonate:
        transport = transport.impersonating(
            user.impersonate, user.impersonate_groups, uid=user.impersonate_uid
        )
    return Client(transport)


def tls_context(cluster: Cluster, user: User) -> ssl.SSLContext:
    """Whom to trust and what to show. Data wins over files, as in kubectl."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if cluster.insecure_skip_tls_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif cluster.certificate_authority_data:
            context.load_verify_locations(cadata=cluster.certificate_authority_data.decode("ascii"))
        elif cluster.certificate_authority:
            context.load_verify_locations(cluster.certificate_authority)
        else:
            context.load_default_certs()
        _load_client_certificate(context, user)
    except (OSError, ValueError) as error:
        raise KubeconfigError(f"the certificates cannot be used: {error}") from error
    return context


def _load_client_certificate(context: ssl.SSLContext, user: User) -> None:
    if not (user.client_certificate_data or user.client_certificate):
        return
    # OpenSSL reads keys from files only: they live in a private directory for a moment.
    with tempfile.TemporaryDirectory(prefix="pybernetes-") as directory:
        certificate, key = user.client_certificate, user.client_key
        if user.client_certificate_data:
            certificate = _private_file(directory, "cert.pem", user.client_certificate_data)
        if user.client_key_data:
            key = _private_file(directory, "key.pem", user.client_key_data)
        context.load_cert_chain(certificate, key or None)


def _private_file(directory: str, name: str, data: bytes) -> str:
    path = str(Path(directory) / name)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    return path


def _authorization(user: User) -> HeaderSource:
    if user.token_file:
        path = Path(user.token_file)
        return lambda: [("authorization", f"Bearer {_token_in(path)}")]
    if user.token:
        return lambda: [("authorization", f"Bearer {user.token}")]
    if user.username:
        pair = base64.b64encode(f"{user.username}:{user.password}".encode()).decode()
        return lambda: [("authorization", f"Basic {pair}")]
    return tuple


def _token_in(path: Path) -> str:
    # Read for each request: service account tokens are replaced while we run.
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise KubeconfigError(f"cannot read the token in {path}: {error.strerror}") from error


def embed_files(config: Kubeconfig) -> Kubeconfig:
    """The same with files read in (`kubectl config view --flatten`). Raises KubeconfigError."""

    def content(path: str) -> bytes:
        try:
            return Path(path).read_bytes() if path else b""
        except OSError as error:
            raise KubeconfigError(f"cannot read {path}: {error.strerror}") from error

    return replace(
        config,
        clusters={
            name: replace(
                cluster,
                certificate_authority="",
                certificate_authority_data=cluster.certificate_authority_data
                or content(cluster.certificate_authority),
            )
            for name, cluster in config.clusters.items()
        },
        users={
            name: replace(
                user,
                client_certificate="",
                client_certificate_data=user.client_certificate_data
                or content(user.client_certificate),
                client_key="",
                client_key_data=user.client_key_data or content(user.client_key),
            )
            for name, user in config.users.items()
        },
    )


def in_cluster_config(environ: Mapping[str, str], directory: Path) -> Kubeconfig:
    """What a pod knows of its own cluster: a token and a CA in `directory`."""
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT")
    if not host or not port:
        raise KubeconfigError(
            "not inside a pod: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set"
        )
    address = f"[{host}]" if ":" in host else host
    return Kubeconfig(
        {"cluster": Cluster(f"https://{address}:{port}", str(directory / "ca.crt"))},
        {"user": User(token_file=str(directory / "token"))},
        {"in-cluster": Context("cluster", "user")},
        "in-cluster",
    )


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _without_empty(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value}
