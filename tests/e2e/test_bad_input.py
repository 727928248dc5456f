"""Manifests and bodies that are wrong: each is refused in words, and nothing else suffers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.images import BOX, WEB_1
from tests.e2e.objects import deployment, pod
from tests.e2e.rawhttp import send

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.lab import Lab


@pytest.fixture(autouse=True)
def unharmed(cluster: Lab) -> Iterator[None]:
    """The server is the same process afterwards, and answers."""
    before = cluster.server_pid()
    yield
    assert cluster.server_pid() == before
    assert cluster.kubectl("get", "--raw", "/readyz").out == "ok"


def refused(cluster: Lab, ns: str, manifest: str, *flags: str) -> str:
    ran = cluster.kubectl("create", "-f", "-", *flags, namespace=ns, stdin=manifest, check=False)
    assert ran.code == 1, ran.out
    return ran.err


def changed(manifest: str, **spec: Any) -> str:
    value = json.loads(manifest)
    value["spec"].update(spec)
    return json.dumps(value)


def test_wrong_types(cluster: Lab, ns: str) -> None:
    cluster.needs("1.27")
    said = refused(cluster, ns, changed(deployment("web", WEB_1), replicas="three"))
    assert "replicas" in said
    assert "BadRequest" in said
    said = refused(cluster, ns, changed(pod("box", BOX), containers="none"))
    assert "containers" in said
    said = refused(
        cluster, ns, '{"apiVersion": "v1", "kind": "Nonsense", "metadata": {"name": "x"}}'
    )
    assert 'no matches for kind "Nonsense" in version "v1"' in said


def test_unknown_fields(cluster: Lab, ns: str) -> None:
    cluster.needs("1.27")
    manifest = changed(deployment("web", WEB_1, replicas=0), colour="red")
    assert 'unknown field "spec.colour"' in refused(cluster, ns, manifest)
    warned = cluster.kubectl("create", "-f", "-", "--validate=warn", namespace=ns, stdin=manifest)
    assert 'Warning: unknown field "spec.colour"' in warned.err
    cluster.kubectl("delete", "deployment", "web", namespace=ns)
    silent = cluster.kubectl("create", "-f", "-", "--validate=ignore", namespace=ns, stdin=manifest)
    assert "Warning" not in silent.err


def test_duplicate_fields(cluster: Lab, ns: str) -> None:
    path = f"/api/v1/namespaces/{ns}/configmaps?fieldValidation=Strict"
    body = b'{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"x","name":"y"}}'
    answer = send(cluster, "POST", path, body)
    assert answer.code == 400
    assert 'duplicate field "metadata.name"' in answer.message


def test_invalid_values_are_all_named(cluster: Lab, ns: str) -> None:
    manifest = json.loads(pod("Not_A_Name", BOX))
    manifest["spec"]["containers"].append({"name": "main", "image": ""})
    manifest["spec"]["restartPolicy"] = "Sometimes"
    said = refused(cluster, ns, json.dumps(manifest))
    for words in (
        'metadata.name: Invalid value: "Not_A_Name"',
        'spec.containers[1].name: Duplicate value: "main"',
        "spec.containers[1].image: Required value",
        'spec.restartPolicy: Unsupported value: "Sometimes"',
    ):
        assert words in said
    different = json.loads(deployment("web", WEB_1))
    different["spec"]["selector"]["matchLabels"] = {"app": "other"}
    assert "`selector` does not match template `labels`" in refused(
        cluster, ns, json.dumps(different)
    )


def test_immutable_fields(cluster: Lab, ns: str) -> None:
    cluster.kubectl("create", "-f", "-", namespace=ns, stdin=deployment("web", WEB_1, replicas=0))
    patch = json.dumps({"spec": {"selector": {"matchLabels": {"a": "b"}}}})
    ran = cluster.kubectl("patch", "deployment", "web", "-p", patch, namespace=ns, check=False)
    assert "field is immutable" in ran.err


def test_a_yaml_bomb_is_refused_and_costs_little(cluster: Lab, ns: str) -> None:
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    bomb = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: bomb}\ndata:\n" + "".join(
        f"  {line}\n" for line in lines
    )
    path = f"/api/v1/namespaces/{ns}/configmaps"
    answer = send(cluster, "POST", path, bomb.encode(), content_type="application/yaml")
    assert answer.code == 400, answer.text[:500]


@pytest.mark.parametrize("content_type", ["application/json", "application/yaml"])
def test_deep_nesting_is_refused(cluster: Lab, ns: str, content_type: str) -> None:
    deep = b'{"kind":"ConfigMap","apiVersion":"v1","metadata":' + b'{"a":' * 100_000 + b"1"
    path = f"/api/v1/namespaces/{ns}/configmaps"
    answer = send(cluster, "POST", path, deep + b"}" * 100_001, content_type=content_type)
    assert answer.code == 400, answer.text[:500]


def test_a_body_of_ten_megabytes_is_too_large(cluster: Lab, ns: str) -> None:
    big = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "big"}}
    body = json.dumps({**big, "data": {"k": "x" * (10 << 20)}}).encode()
    answer = send(cluster, "POST", f"/api/v1/namespaces/{ns}/configmaps", body)
    assert answer.code == 413, answer.text[:500]
    assert "limit is 3145728" in answer.message
    # What fits through the door may still be too long for its kind.
    body = json.dumps({**big, "data": {"k": "x" * (2 << 20)}}).encode()
    answer = send(cluster, "POST", f"/api/v1/namespaces/{ns}/configmaps", body)
    assert answer.code == 422
    assert "Too long: may not be more than 1048576 bytes" in answer.message


@pytest.mark.parametrize(
    ("body", "content_type", "code"),
    [
        (b"{", "application/json", 400),
        (b"", "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b"[1, 2]", "application/json", 400),
        (b"k8s\x00\xff\xff\xff", "application/vnd.kubernetes.protobuf", 400),
        (b"{}", "text/html", 415),
        (b"a: [", "application/yaml", 400),
    ],
    ids=["cut", "empty", "no-text", "list", "protobuf", "html", "yaml"],
)
def test_nonsense(cluster: Lab, ns: str, body: bytes, content_type: str, code: int) -> None:
    path = f"/api/v1/namespaces/{ns}/configmaps"
    answer = send(cluster, "POST", path, body, content_type=content_type)
    assert answer.code == code, answer.text[:500]
    assert answer.json["kind"] == "Status"


def test_places_that_do_not_exist(cluster: Lab, ns: str) -> None:
    for path, code in (
        ("/apis/nowhere/v1/things", 404),
        (f"/api/v1/namespaces/{ns}/pods/x/nothing", 404),
        ("/api/v1/pods?limit=many", 400),
        ("/api/v1/pods?labelSelector=,,", 400),
        ("/api/v1/pods?resourceVersion=abc", 400),
        ("/..%2f..%2fetc/passwd", 404),
    ):
        assert send(cluster, "GET", path).code == code, path
    assert send(cluster, "TRACE", "/api/v1/pods").code == 405


def test_an_object_for_another_place(cluster: Lab, ns: str) -> None:
    manifest = json.loads(pod("box", BOX))
    manifest["metadata"]["namespace"] = "other"
    assert "does not match the namespace" in refused(cluster, ns, json.dumps(manifest))
    nowhere = cluster.kubectl("create", "cm", "x", namespace="nowhere", check=False)
    assert 'namespaces "nowhere" not found' in nowhere.err
