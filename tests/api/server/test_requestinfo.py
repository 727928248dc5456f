"""What a request asks for, by method, path and query. Pure tables."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pybernetes.apiserver.requestinfo import (
    BadPath,
    all_of,
    is_path_segment,
    is_true,
    parse_query,
    parse_request,
)


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        pytest.param(
            "GET", "/api/v1/pods", {"verb": "list", "resource": "pods"}, id="list everywhere"
        ),
        pytest.param(
            "GET",
            "/api/v1/namespaces/ns/pods/p",
            {"verb": "get", "namespace": "ns", "resource": "pods", "name": "p"},
            id="get",
        ),
        pytest.param(
            "HEAD",
            "/api/v1/namespaces/ns/pods/p",
            {"verb": "get", "namespace": "ns", "resource": "pods", "name": "p"},
            id="head is get",
        ),
        pytest.param(
            "GET", "/api/v1/pods?watch=1", {"verb": "watch", "resource": "pods"}, id="watch"
        ),
        pytest.param(
            "GET", "/api/v1/pods?watch", {"verb": "watch", "resource": "pods"}, id="bare watch"
        ),
        pytest.param(
            "GET", "/api/v1/pods?watch=false", {"verb": "list", "resource": "pods"}, id="no"
        ),
        pytest.param(
            "GET",
            "/apis/apps/v1/watch/namespaces/ns/deployments/d",
            {
                "verb": "watch",
                "group": "apps",
                "namespace": "ns",
                "resource": "deployments",
                "name": "d",
            },
            id="legacy watch prefix",
        ),
        pytest.param(
            "GET",
            "/api/v1/namespaces/ns",
            {"verb": "get", "resource": "namespaces", "namespace": "ns", "name": "ns"},
            id="a namespace is in itself",
        ),
        pytest.param(
            "PUT",
            "/api/v1/namespaces/ns/finalize",
            {
                "verb": "update",
                "resource": "namespaces",
                "namespace": "ns",
                "name": "ns",
                "subresource": "finalize",
            },
            id="subresource of a namespace",
        ),
        pytest.param(
            "POST",
            "/api/v1/namespaces/ns/pods/p/proxy/a/b",
            {
                "verb": "create",
                "namespace": "ns",
                "resource": "pods",
                "name": "p",
                "subresource": "proxy",
                "remainder": "a/b",
            },
            id="proxy with a path",
        ),
        pytest.param(
            "DELETE", "/api/v1/nodes", {"verb": "deletecollection", "resource": "nodes"}, id="dc"
        ),
        pytest.param(
            "DELETE",
            "/api/v1/nodes/n",
            {"verb": "delete", "resource": "nodes", "name": "n"},
            id="d",
        ),
        pytest.param(
            "GET",
            "/api/v1/pods?fieldSelector=metadata.name%3Dp",
            {"verb": "list", "resource": "pods", "name": "p"},
            id="a list by name is of that name",
        ),
        pytest.param(
            "GET",
            "/api/v1/pods?fieldSelector=metadata.name!%3Dp",
            {"verb": "list", "resource": "pods"},
            id="but not of all others",
        ),
    ],
)
def test_resource_requests(method: str, target: str, expected: dict[str, Any]) -> None:
    path, _, query = target.partition("?")
    info = parse_request(method, path, parse_query(query))
    wanted = {"group": "", "version": "v1", "namespace": "", "name": "", "subresource": ""}
    assert info.is_resource
    assert SimpleNamespace(**{**wanted, **expected}) == SimpleNamespace(
        **{name: getattr(info, name) for name in {**wanted, **expected}}
    )


@pytest.mark.parametrize(
    "path", ["/", "/api", "/api/v1", "/apis", "/apis/apps", "/apis/apps/v1", "/healthz", "/x/y/z/a"]
)
def test_other_paths_are_no_resources(path: str) -> None:
    info = parse_request("GET", path, {})
    assert (info.is_resource, info.verb, info.path) == (False, "get", path)


def test_a_special_verb_alone_says_nothing() -> None:
    with pytest.raises(BadPath, match="unable to determine kind and namespace from url"):
        parse_request("GET", "/api/v1/watch", {})


@pytest.mark.parametrize(
    ("method", "path", "long"),
    [
        ("GET", "/api/v1/namespaces/n/pods/p/log", True),
        ("POST", "/api/v1/namespaces/n/pods/p/exec", True),
        ("GET", "/api/v1/namespaces/n/pods/p/status", False),
        ("GET", "/api/v1/watch/pods", True),
        ("GET", "/api/v1/pods", False),
    ],
)
def test_what_may_last(method: str, path: str, long: bool) -> None:
    assert parse_request(method, path, {}).is_long_running is long


def test_of_a_repeated_parameter_the_first_counts() -> None:
    assert parse_query("a=1&a=2&b=") == {"a": "1", "b": ""}
    assert all_of("exclude=a&exclude=b", "exclude") == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "truth"), [("1", True), ("", True), ("0", False), ("false", False)]
)
def test_booleans(text: str, truth: bool) -> None:
    assert is_true(text) is truth


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a%2fb"])
def test_what_cannot_be_part_of_a_key(name: str) -> None:
    assert not is_path_segment(name)
