"""The typed client. Real: client, in-memory transport. Fake: the server behind it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from pybernetes.api.types.apps_v1 import Deployment
from pybernetes.api.types.autoscaling_v1 import Scale
from pybernetes.api.types.core_v1 import (
    Binding,
    ConfigMap,
    Namespace,
    Node,
    ObjectReference,
    Pod,
    PodList,
    PodStatus,
)
from pybernetes.api.types.meta_v1 import ManagedFieldsEntry, ObjectMeta
from pybernetes.apimachinery.errors import (
    AlreadyExists,
    Conflict,
    Expired,
    Forbidden,
    NotFound,
    ServiceUnavailable,
    StatusError,
    TooManyRequests,
)
from pybernetes.client.client import Client, PatchType
from pybernetes.client.kind import PartialObject, dynamic_kind, kind_of, metadata_kind
from pybernetes.client.transport import Transport, lines_of
from pybernetes.wire.http import ClientResponse, Headers, Request, Response
from pybernetes.wire.memory import MemoryHttpClient
from tests.client.fakeserver import FakeServer, answer_of, ok

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

replace = msgspec.structs.replace


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


def config_map(name: str, **data: str) -> ConfigMap:
    return ConfigMap(metadata=ObjectMeta(name=name, namespace="default"), data=data)


def test_paths_follow_from_the_class() -> None:
    pods, deployments, nodes = kind_of(Pod), kind_of(Deployment), kind_of(Node)
    assert pods.path() == "/api/v1/pods"
    assert pods.path("ns", "a", "status") == "/api/v1/namespaces/ns/pods/a/status"
    assert deployments.path("ns", "a") == "/apis/apps/v1/namespaces/ns/deployments/a"
    assert nodes.path(name="n1") == "/api/v1/nodes/n1"
    assert kind_of(Namespace).path(name="x", subresource="finalize").endswith("/x/finalize")
    assert str(deployments) == "deployments.apps"


def test_names_cannot_leave_their_place_in_the_path() -> None:
    assert kind_of(Node).path(name="../pods?x") == "/api/v1/nodes/..%2Fpods%3Fx"
    assert kind_of(Node).path(name="system:node") == "/api/v1/nodes/system:node"


def test_mistaken_addresses_are_refused_before_they_are_sent() -> None:
    with pytest.raises(ValueError, match="no namespace"):
        kind_of(Node).path("ns", "a")
    with pytest.raises(ValueError, match="missing"):
        kind_of(Pod).path(name="a")
    with pytest.raises(LookupError):
        kind_of(PodStatus)
    with pytest.raises(LookupError):
        kind_of(PodList)


async def test_the_verbs(server: FakeServer) -> None:
    client = server.client()
    made = await client.create(config_map("a", x="1"))
    assert made.metadata.uid
    assert made.metadata.resource_version == "101"
    assert await client.get(ConfigMap, "a", "default") == made
    changed = await client.update(replace(made, data={"x": "2"}))
    assert changed.data == {"x": "2"}
    with pytest.raises(Conflict):
        await client.update(replace(made, data={"x": "3"}))
    patched = await client.patch(ConfigMap, "a", "default", patch={"data": {"y": "4"}})
    assert patched.data == {"x": "2", "y": "4"}
    with pytest.raises(AlreadyExists):
        await client.create(made)
    await client.create(config_map("b"))
    listing = await client.list(ConfigMap, "default")
    assert [item.metadata.name for item in listing.items] == ["a", "b"]
    assert listing.resource_version == "104"
    await client.delete(ConfigMap, "a", "default")
    assert await client.get_or_none(ConfigMap, "a", "default") is None
    with pytest.raises(NotFound) as caught:
        await client.get(ConfigMap, "a", "default")
    assert caught.value.code == 404
    await client.delete_collection(ConfigMap, "default")
    assert (await client.list(ConfigMap)).items == ()


async def test_an_empty_name_never_addresses_the_collection(server: FakeServer) -> None:
    client = server.client()
    with pytest.raises(ValueError, match="no name"):
        await client.delete(ConfigMap, "", "default")
    with pytest.raises(ValueError, match="no name"):
        await client.update(ConfigMap())
    assert server.requests == []


async def test_deleting_an_object_spares_its_successor(server: FakeServer) -> None:
    client = server.client()
    first = await client.create(config_map("a"))
    await client.delete(first)
    await client.create(config_map("a"))
    with pytest.raises(Conflict):
        await client.delete(first)
    await client.delete(ConfigMap, "a", "default")


async def test_status_is_written_apart(server: FakeServer) -> None:
    client = server.client()
    pod = await client.create(Pod(metadata=ObjectMeta(name="a", namespace="default")))
    await client.update_status(replace(pod, status=PodStatus(phase="Running")))
    assert server.requests[-1] == "PUT /api/v1/namespaces/default/pods/a/status"
    assert (await client.get(Pod, "a", "default")).status.phase == "Running"


async def test_subresources_of_other_kinds(server: FakeServer) -> None:
    client = server.client()
    await client.create(Pod(metadata=ObjectMeta(name="a", namespace="default")))
    binding = Binding(target=ObjectReference(kind="Node", name="n1"))
    assert await client.create_subresource(Pod, "a", "default", "binding", binding) == binding
    assert server.requests[-1] == "POST /api/v1/namespaces/default/pods/a/binding"
    server.interfere = lambda _: ok({"kind": "Scale", "spec": {"replicas": 3}})
    scale = await client.get_subresource(Deployment, "a", "default", "scale", Scale)
    assert scale.spec.replicas == 3
    assert await client.update_subresource(Deployment, "a", "default", "scale", scale) == scale


async def test_options_become_parameters(server: FakeServer) -> None:
    client = server.client()
    made = await client.create(config_map("a"), dry_run=True, field_manager="me")
    assert server.requests[-1].endswith("?dryRun=All&fieldManager=me")
    await client.list(ConfigMap, label_selector="a=b,c", limit=5)
    assert server.requests[-1].endswith("?labelSelector=a%3Db%2Cc&limit=5")
    seen: list[Request] = []

    def look(request: Request) -> Response | None:
        seen.append(request)
        return None

    server.interfere = look
    await client.patch(
        ConfigMap, "a", "default", patch=made, type=PatchType.APPLY, field_manager="me", force=True
    )
    assert seen[0].headers.get("content-type") == "application/apply-patch+yaml"
    assert seen[0].query == "fieldManager=me&force=true"
    await client.delete(made, grace_seconds=0, propagation="Foreground", resource_version="9")
    assert msgspec.json.decode(await seen[1].body.read(9999)) == {
        "kind": "DeleteOptions",
        "apiVersion": "v1",
        "gracePeriodSeconds": 0,
        "preconditions": {"uid": made.metadata.uid, "resourceVersion": "9"},
        "propagationPolicy": "Foreground",
    }


async def test_refusals_that_name_a_time_are_tried_again(server: FakeServer) -> None:
    await server.client().create(config_map("a"))
    refusals = 3

    def refuse(_: Request) -> Response | None:
        nonlocal refusals
        refusals -= 1
        if refusals < 0:
            return None
        answer = answer_of(TooManyRequests("too many requests"))
        answer.headers.append(("Retry-After", "2"))
        return answer

    server.interfere = refuse
    await server.client().get(ConfigMap, "a", "default")
    assert asyncio.get_running_loop().time() == 6
    refusals = 10**6
    with pytest.raises(TooManyRequests):
        await server.client().get(ConfigMap, "a", "default")
    assert asyncio.get_running_loop().time() == 6 + 9 * 2


@pytest.mark.parametrize("retry_after", ["", "86400", "soon", "-1"])
async def test_other_refusals_are_raised_at_once(server: FakeServer, retry_after: str) -> None:
    answer = answer_of(ServiceUnavailable("not ready"))
    answer.headers.append(("Retry-After", retry_after))
    server.interfere = lambda _: answer
    with pytest.raises(ServiceUnavailable):
        await server.client().get(ConfigMap, "a", "default")
    assert asyncio.get_running_loop().time() == 0


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"kind": "Pod"}', b"\xff"])
async def test_answers_without_a_status_are_errors_by_their_code(
    server: FakeServer, body: bytes
) -> None:
    server.interfere = lambda _: Response(403, [], body)
    with pytest.raises(Forbidden):
        await server.client().get(ConfigMap, "a", "default")
    server.interfere = lambda _: Response(502, [], body)
    with pytest.raises(StatusError) as caught:
        await server.client().get(ConfigMap, "a", "default")
    assert caught.value.code == 502


async def test_one_unreadable_object_does_not_hide_the_others(
    server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.create("/api/v1/configmaps", {"metadata": {"name": "a", "namespace": "d"}})
    server.create("/api/v1/configmaps", {"metadata": {"name": "b", "namespace": "d"}, "data": 5})
    listing = await server.client().list(ConfigMap)
    assert [item.metadata.name for item in listing.items] == ["a"]
    assert "leaving out one of configmaps" in caplog.text


async def test_a_watch_shows_what_happens_after_its_revision(server: FakeServer) -> None:
    client = server.client()
    first = await client.create(config_map("a"))
    async with client.watch(
        ConfigMap, "default", resource_version=first.metadata.resource_version
    ) as events:
        await client.create(config_map("b"))
        await client.delete(first)
        assert (event := await anext(events)).type == "ADDED"
        assert event.object.metadata.name == "b"
        assert (event := await anext(events)).type == "DELETED"
        assert event.object.metadata.name == "a"
        server.cut_watches()
        with pytest.raises(StopAsyncIteration):
            await anext(events)
    assert server.watches == {}


async def test_a_watch_of_the_forgotten_past_is_expired(server: FakeServer) -> None:
    server.compact()
    async with server.client().watch(ConfigMap, resource_version="5") as events:
        with pytest.raises(Expired):
            await anext(events)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
async def test_lines_are_put_together_however_they_are_cut(size: int) -> None:
    text = b"one\ntwo\n\nthree\nunfinished"

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(text), size):
            yield text[start : start + size]

    async def nothing() -> None: ...

    response = ClientResponse(200, Headers(), chunks(), close=nothing)
    lines = [line async for batch in lines_of(response) for line in batch]
    assert lines == [b"one", b"two", b"", b"three"]


async def test_dictionaries_for_kinds_without_a_class(server: FakeServer) -> None:
    client = server.client()
    widgets = dynamic_kind("example.com", "v1", "widgets", kind="Widget")
    body: dict[str, Any] = {
        "kind": "Widget",
        "apiVersion": "example.com/v1",
        "metadata": {"name": "w", "namespace": "default"},
        "spec": {"anything": [1]},
    }
    made = await client.create(body, kind=widgets)
    assert made["spec"] == {"anything": [1]}
    assert server.requests == ["POST /apis/example.com/v1/namespaces/default/widgets"]
    made = await client.update({**made, "spec": {}}, kind=widgets)
    assert await client.get(widgets, "w", "default") == made
    assert widgets.key_of(made) == ("default", "w")
    partial = metadata_kind("example.com", "v1", "widgets", kind="Widget")
    seen = await client.get(partial, "w", "default")
    assert isinstance(seen, PartialObject)
    assert (seen.kind, seen.metadata.name) == ("Widget", "w")
    await client.delete(widgets, "w", "default")


async def test_discovery_finds_where_a_kind_is_served(server: FakeServer) -> None:
    server.interfere = lambda request: (
        ok(
            {
                "resources": [
                    {"name": "widgets/status", "kind": "Widget", "namespaced": False},
                    {"name": "widgets", "kind": "Widget", "namespaced": False},
                ]
            }
        )
        if request.path == "/apis/example.com/v1"
        else answer_of(NotFound.unknown_path())
    )
    client = server.client()
    kind = await client.discover("example.com", "v1", "Widget")
    assert kind.path(name="w") == "/apis/example.com/v1/widgets/w"
    for group, name in (("example.com", "Gadget"), ("other.com", "Widget")):
        with pytest.raises(LookupError):
            await client.discover(group, "v1", name)


async def test_somebody_else_by_impersonation(server: FakeServer) -> None:
    seen: list[list[tuple[str, str]]] = []

    def look(request: Request) -> Response:
        seen.append(request.headers.items())
        return ok({})

    server.interfere = look
    tokens = iter(["one", "two"])
    http = MemoryHttpClient(server.handle)
    client = Client(Transport(http, headers=lambda: [("authorization", f"Bearer {next(tokens)}")]))
    await client.as_user("jane", ["dev", "ops"], uid="7").get(Node, "n")
    await client.get(Node, "n")
    assert seen[0][2:] == [
        ("authorization", "Bearer one"),
        ("impersonate-user", "jane"),
        ("impersonate-group", "dev"),
        ("impersonate-group", "ops"),
        ("impersonate-uid", "7"),
    ]
    assert seen[1][2:] == [("authorization", "Bearer two")]


async def test_managed_fields_are_not_kept(server: FakeServer) -> None:
    entry = ManagedFieldsEntry(manager="m", fields_v1={"f:data": {}})
    made = await server.client().create(
        ConfigMap(metadata=ObjectMeta(name="a", namespace="d", managed_fields=(entry,)))
    )
    assert made.metadata.managed_fields == ()
