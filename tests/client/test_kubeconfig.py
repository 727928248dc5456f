"""Kubeconfig files, and a client made from one over real TLS on loopback."""

from __future__ import annotations

import base64
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from pybernetes.api.types.core_v1 import Node
from pybernetes.client.kubeconfig import (
    Cluster,
    Context,
    Kubeconfig,
    KubeconfigError,
    User,
    add_to_kubeconfig,
    client_from,
    default_paths,
    embed_files,
    format_kubeconfig,
    in_cluster_config,
    load_kubeconfig,
    parse_kubeconfig,
    write_kubeconfig,
)
from pybernetes.wire.server import serve
from tests.client.fakeserver import ok
from tests.wire.conftest import Certificates

if TYPE_CHECKING:
    from pybernetes.wire.http import Request, Response

CONFIG = Kubeconfig(
    {
        "one": Cluster("https://127.0.0.1:6443", certificate_authority_data=b"CA"),
        "two": Cluster("http://[::1]:8080", insecure_skip_tls_verify=True, tls_server_name="x"),
    },
    {
        "cert": User(client_certificate_data=b"C", client_key_data=b"K"),
        "token": User(token="t", impersonate="jane", impersonate_groups=("a", "b")),
    },
    {"here": Context("one", "cert", "ns"), "there": Context("two", "token")},
    "here",
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "config"
    write_kubeconfig(path, CONFIG)
    assert load_kubeconfig([path]) == CONFIG
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(path.parent) == ["config"]


def test_the_file_is_kubectls() -> None:
    value = yaml.safe_load(format_kubeconfig(CONFIG))
    assert value["clusters"][0] == {
        "name": "one",
        "cluster": {
            "certificate-authority-data": base64.b64encode(b"CA").decode(),
            "server": "https://127.0.0.1:6443",
        },
    }
    assert value["users"][1]["user"] == {"as": "jane", "as-groups": ["a", "b"], "token": "t"}
    assert value["contexts"][0]["context"] == {"cluster": "one", "namespace": "ns", "user": "cert"}
    assert value["current-context"] == "here"


def test_the_first_file_wins_and_absent_ones_do_not_matter(tmp_path: Path) -> None:
    other = Kubeconfig(
        {"one": Cluster("https://other"), "three": Cluster("https://three")},
        {},
        {"x": Context("three")},
        "x",
    )
    write_kubeconfig(tmp_path / "a", CONFIG)
    write_kubeconfig(tmp_path / "b", other)
    merged = load_kubeconfig([tmp_path / "none", tmp_path / "a", tmp_path / "b"])
    assert merged.clusters["one"] == CONFIG.clusters["one"]
    assert merged.clusters["three"].server == "https://three"
    assert merged.current_context == "here"
    assert merged.resolve("x")[0].server == "https://three"


def test_relative_paths_are_relative_to_their_file(tmp_path: Path) -> None:
    text = b"""
clusters: [{name: c, cluster: {server: "https://x", certificate-authority: pki/ca.crt}}]
users: [{name: u, user: {client-certificate: /abs/c.crt, tokenFile: ../t}}]
"""
    config = parse_kubeconfig(text, tmp_path / "config")
    assert config.clusters["c"].certificate_authority == str(tmp_path / "pki/ca.crt")
    assert config.users["u"].client_certificate == "/abs/c.crt"
    assert config.users["u"].token_file == str(tmp_path / "../t")


def test_where_the_files_are() -> None:
    assert default_paths({"HOME": "/h"}) == (Path("/h/.kube/config"),)
    assert default_paths({"HOME": "/h", "KUBECONFIG": "/a::/b:/a"}) == (Path("/a"), Path("/b"))
    assert default_paths({}) == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not YAML"),
        ("[]", "the file must be a mapping"),
        ("clusters: {}", None),
        ("clusters: 5", "clusters must be a list"),
        ("clusters: [5]", "an entry of clusters must be a mapping"),
        ("users: [{name: u, user: {token: [1]}}]", "token must be a string"),
        ("users: [{name: u, user: {client-key-data: A}}]", "client-key-data is not base64"),
        ("", None),
    ],
)
def test_broken_files_are_refused_with_their_name(text: str, message: str | None) -> None:
    path = Path("/x/config")
    if message is None:
        assert parse_kubeconfig(text.encode(), path) == Kubeconfig()
        return
    with pytest.raises(KubeconfigError, match=message) as caught:
        parse_kubeconfig(text.encode(), path)
    assert "/x/config" in str(caught.value)


@pytest.mark.parametrize(
    ("config", "context", "message"),
    [
        (Kubeconfig(), "", "no context is chosen"),
        (CONFIG, "nowhere", "context 'nowhere' does not exist"),
        (replace(CONFIG, clusters={}), "", "cluster 'one' of context 'here' does not exist"),
        (replace(CONFIG, users={}), "", "user 'cert' of context 'here' does not exist"),
        (replace(CONFIG, clusters={"one": Cluster()}), "", "no server address"),
        (replace(CONFIG, clusters={"one": Cluster("ftp://x")}), "", "not an http or https URL"),
        (replace(CONFIG, clusters={"one": Cluster("https://x", proxy_url="y")}), "", "proxy-url"),
        (replace(CONFIG, users={"cert": User(plugins=("exec",))}), "", "plugins .exec. are not"),
        (CONFIG, "", "certificates cannot be used"),
    ],
)
def test_unusable_contexts_say_why(config: Kubeconfig, context: str, message: str) -> None:
    with pytest.raises(KubeconfigError, match=message):
        client_from(config, context)


def test_adding_keeps_what_is_there_and_refuses_to_lose_anything(tmp_path: Path) -> None:
    path = tmp_path / "config"
    write_kubeconfig(path, CONFIG)
    added = Kubeconfig({"p8s": Cluster("https://p")}, {}, {"p8s": Context("p8s")}, "p8s")
    add_to_kubeconfig(path, added)
    both = load_kubeconfig([path])
    assert set(both.contexts) == {"here", "there", "p8s"}
    assert both.current_context == "p8s"
    path.write_text("users: [{name: aws, user: {exec: {command: aws}}}]")
    with pytest.raises(KubeconfigError, match=r"credential plugins \(aws\)"):
        add_to_kubeconfig(path, added)


def test_a_pods_own_cluster() -> None:
    environ = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
    cluster, user, _ = in_cluster_config(environ, Path("/sa")).resolve()
    assert cluster.server == "https://[fd00::1]:443"
    assert user.token_file == "/sa/token"
    with pytest.raises(KubeconfigError, match="not inside a pod"):
        in_cluster_config({}, Path("/sa"))


def test_secrets_are_not_shown_by_accident() -> None:
    shown = repr(CONFIG) + repr(User(password="p", username="u", client_key_data=b"SECRET"))
    assert "token=" not in shown
    assert "SECRET" not in shown


@pytest.mark.realtime
@pytest.mark.slow
@pytest.mark.parametrize("embedded", [False, True], ids=["files", "data"])
async def test_a_client_over_tls(tmp_path: Path, embedded: bool) -> None:
    certificates = Certificates(tmp_path)
    certificate, key = certificates.issue("jane", "dev")
    token = tmp_path / "token"
    token.write_text("first\n")
    seen: list[Request] = []

    async def handle(request: Request) -> Response:
        seen.append(request)
        return ok({"kind": "Node", "metadata": {"name": "n"}})

    async with serve(handle, host="127.0.0.1", port=0, tls=certificates.server_context()) as server:
        host, port = server.addresses[0][:2]
        config = Kubeconfig(
            {"c": Cluster(f"https://{host}:{port}", str(certificates.ca))},
            {"u": User(str(certificate), client_key=str(key), token_file=str(token))},
            {"x": Context("c", "u")},
            "x",
        )
        client = client_from(embed_files(config) if embedded else config)
        assert (await client.get(Node, "n")).metadata.name == "n"
        token.write_text("second")
        await client.get(Node, "n")
        await client.close()
    assert ("commonName", "jane") in seen[0].peer.subject
    assert [request.headers.get("authorization") for request in seen] == [
        "Bearer first",
        "Bearer second",
    ]
