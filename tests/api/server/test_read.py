"""GET and LIST: revisions, pages, selectors. What is real and fake says conftest.py."""

from __future__ import annotations

import base64
import gzip
import json
from typing import TYPE_CHECKING

import pytest

from tests.api.server.conftest import CONFIG_MAPS, METADATA, METADATA_LIST, PODS, TABLE

if TYPE_CHECKING:
    from pybernetes.storage import MemoryStore
    from tests.api.server.conftest import Api


async def test_what_was_written_is_read(api: Api) -> None:
    created = await api.config_map("a", color="red")
    answer = await api.get(f"{CONFIG_MAPS}/a")
    assert answer.status == 200
    assert answer.json == created
    assert answer.json["metadata"]["resourceVersion"].isdigit()
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["audit-id"]


async def test_missing_objects_and_resources(api: Api) -> None:
    missing = await api.get(f"{CONFIG_MAPS}/x")
    assert (missing.status, missing.reason, missing.message) == (
        404,
        "NotFound",
        'configmaps "x" not found',
    )
    assert missing.json["details"] == {"name": "x", "kind": "configmaps"}
    grouped = await api.get("/apis/apps/v1/namespaces/default/deployments/x")
    assert grouped.message == 'deployments.apps "x" not found'
    for path in ("/api/v1/things", "/apis/none/v1/pods", "/api/v1/pods/x", "/nothing"):
        unknown = await api.get(path)
        assert unknown.status == 404
        assert unknown.message == "the server could not find the requested resource"


async def test_a_list_is_in_order_and_of_its_namespace(api: Api) -> None:
    for namespace, name in (("b", "x"), ("a", "z"), ("a-b", "q"), ("a", "y")):
        await api.config_map(name, namespace)
    everywhere = await api.get("/api/v1/configmaps")
    assert [
        f"{item['metadata']['namespace']}/{item['metadata']['name']}"
        for item in everywhere.json["items"]
    ] == ["a-b/q", "a/y", "a/z", "b/x"]
    inside = await api.get("/api/v1/namespaces/a/configmaps")
    assert inside.names == ["y", "z"]
    assert inside.json["kind"] == "ConfigMapList"
    assert inside.json["apiVersion"] == "v1"
    # As upstream: the items of a typed list carry no kind.
    assert "kind" not in inside.json["items"][0]
    assert (await api.get("/api/v1/namespaces/none/configmaps")).json["items"] == []


async def test_label_selectors(api: Api) -> None:
    await api.config_map("red", color="red")
    await api.config_map("blue", color="blue")
    await api.config_map("plain")
    for selector, names in (
        ("color=red", ["red"]),
        ("color", ["blue", "red"]),
        ("!color", ["plain"]),
        ("color in (red,blue),color!=red", ["blue"]),
    ):
        assert (await api.get(f"{CONFIG_MAPS}?labelSelector={selector}")).names == names
    bad = await api.get(f"{CONFIG_MAPS}?labelSelector=a%3D%3D%3Db")
    assert (bad.status, bad.reason) == (400, "BadRequest")
    assert bad.message == "unable to parse requirement: found '=', expected: identifier"


async def test_field_selectors(api: Api) -> None:
    await api.pod("a", node="n1")
    await api.pod("b", node="n2", phase="Running")
    await api.pod("c", node="n1", phase="Running")
    for selector, names in (
        ("metadata.name=b", ["b"]),
        ("spec.nodeName=n1", ["a", "c"]),
        ("spec.nodeName=n1,status.phase=Running", ["c"]),
        ("spec.nodeName!=n1", ["b"]),
        ("spec.nodeName=none", []),
    ):
        assert (await api.get(f"{PODS}?fieldSelector={selector}")).names == names
        assert (await api.get(f"/api/v1/pods?fieldSelector={selector}")).names == names
    unknown = await api.get(f"{PODS}?fieldSelector=spec.nothing=1")
    assert unknown.status == 400
    assert unknown.message == "field label not supported: spec.nothing"
    plain = await api.get(f"{CONFIG_MAPS}?fieldSelector=data.k=v")
    assert plain.message == (
        '"data.k" is not a known field selector: only "metadata.name", "metadata.namespace"'
    )


async def test_the_node_index_follows_changes(api: Api) -> None:
    selector = f"{PODS}?fieldSelector=spec.nodeName=n1"
    await api.pod("a", node="n1")
    assert (await api.get(selector)).names == ["a"]
    await api.pod("b")
    await api.post(f"{PODS}/b/binding", {"target": {"name": "n1"}})
    assert (await api.get(selector)).names == ["a", "b"]
    await api.delete(f"{PODS}/a?gracePeriodSeconds=0")
    assert (await api.get(selector)).names == ["b"]


async def test_pages_show_one_moment(api: Api) -> None:
    for number in range(5):
        await api.config_map(f"c{number}")
    first = await api.get(f"{CONFIG_MAPS}?limit=2")
    assert first.names == ["c0", "c1"]
    assert first.json["metadata"]["remainingItemCount"] == 3
    await api.delete(f"{CONFIG_MAPS}/c3")
    await api.config_map("c1a")
    token = first.json["metadata"]["continue"]
    second = await api.get(f"{CONFIG_MAPS}?limit=2&continue={token}")
    assert second.names == ["c2", "c3"]
    assert second.json["metadata"]["resourceVersion"] == first.json["metadata"]["resourceVersion"]
    assert second.json["metadata"]["remainingItemCount"] == 1
    token = second.json["metadata"]["continue"]
    last = await api.get(f"{CONFIG_MAPS}?limit=2&continue={token}")
    assert last.names == ["c4"]
    assert "continue" not in last.json["metadata"]


async def test_pages_with_a_selector_do_not_count_the_rest(api: Api) -> None:
    for number in range(6):
        await api.config_map(f"c{number}", even=str(number % 2 == 0).lower())
    first = await api.get(f"{CONFIG_MAPS}?limit=1&labelSelector=even=true")
    assert first.names == ["c0"]
    assert "remainingItemCount" not in first.json["metadata"]
    await api.config_map("c1a", even="true")
    names = []
    token = first.json["metadata"]["continue"]
    while token:
        page = await api.get(f"{CONFIG_MAPS}?limit=1&labelSelector=even=true&continue={token}")
        names += page.names
        token = page.json["metadata"].get("continue")
    assert names == ["c2", "c4"]


async def test_a_token_over_a_compaction_is_expired_and_offers_the_rest(
    api: Api, store: MemoryStore
) -> None:
    for number in range(4):
        await api.config_map(f"c{number}")
    first = await api.get(f"{CONFIG_MAPS}?limit=2")
    await api.config_map("c9")
    await store.compact(store.revision)
    token = first.json["metadata"]["continue"]
    gone = await api.get(f"{CONFIG_MAPS}?limit=2&continue={token}")
    assert (gone.status, gone.reason) == (410, "Expired")
    assert gone.message.startswith("The provided continue parameter is too old to display")
    other = gone.json["metadata"]["continue"]
    rest = await api.get(f"{CONFIG_MAPS}?continue={other}")
    assert rest.names == ["c2", "c3", "c9"]


@pytest.mark.parametrize(
    ("token", "problem"),
    [
        ("!!", "invalid continue token: continue key is not valid"),
        (b'{"v":"x","rv":1,"start":"a"}', 'does not recognize this encoded version "x"'),
        (b'{"v":"meta.k8s.io/v1","rv":0,"start":"a"}', "incorrect encoded start resourceVersion"),
        (b'{"v":"meta.k8s.io/v1","rv":1,"start":""}', "encoded start key empty"),
    ],
)
async def test_tokens_nobody_gave_out(api: Api, token: str | bytes, problem: str) -> None:
    text = token if isinstance(token, str) else base64.urlsafe_b64encode(token).decode()
    answer = await api.get(f"{CONFIG_MAPS}?continue={text}")
    assert (answer.status, answer.reason) == (400, "BadRequest")
    assert problem in answer.message


async def test_exact_revisions_show_the_past(api: Api) -> None:
    before = (await api.config_map("a"))["metadata"]["resourceVersion"]
    await api.config_map("b")
    query = f"resourceVersion={before}&resourceVersionMatch=Exact"
    assert (await api.get(f"{CONFIG_MAPS}?{query}")).names == ["a"]
    not_older = f"resourceVersion={before}&resourceVersionMatch=NotOlderThan"
    assert (await api.get(f"{CONFIG_MAPS}?{not_older}")).names == ["a", "b"]


async def test_a_revision_too_old_to_list(api: Api, store: MemoryStore) -> None:
    old = (await api.config_map("a"))["metadata"]["resourceVersion"]
    await api.config_map("b")
    await store.compact(store.revision)
    answer = await api.get(f"{CONFIG_MAPS}?resourceVersion={old}&resourceVersionMatch=Exact")
    assert (answer.status, answer.reason) == (410, "Expired")
    assert answer.message == "The resourceVersion for the provided list is too old."


async def test_a_revision_of_the_future_is_waited_for_and_then_refused(api: Api) -> None:
    await api.config_map("a")
    for path in (f"{CONFIG_MAPS}/a", CONFIG_MAPS):
        answer = await api.get(f"{path}?resourceVersion=1000000")
        assert (answer.status, answer.reason) == (504, "Timeout")
        assert answer.message.startswith("Timeout: Too large resource version: 1000000, current: ")
        details = answer.json["details"]
        assert details["causes"][0]["reason"] == "ResourceVersionTooLarge"
        assert details["retryAfterSeconds"] == 1
        assert answer.headers["retry-after"] == "1"


@pytest.mark.parametrize(
    ("query", "status", "message"),
    [
        (
            "resourceVersionMatch=Exact",
            422,
            'ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: '
            "resourceVersionMatch is forbidden unless resourceVersion is provided",
        ),
        (
            "resourceVersionMatch=Nearly&resourceVersion=1",
            422,
            'ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Unsupported value: '
            '"Nearly": supported values: "Exact", "NotOlderThan", ""',
        ),
        (
            "resourceVersionMatch=Exact&resourceVersion=0",
            422,
            'ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: '
            'resourceVersionMatch "exact" is forbidden for resourceVersion "0"',
        ),
        (
            "sendInitialEvents=true",
            422,
            'ListOptions.meta.k8s.io "" is invalid: sendInitialEvents: Forbidden: '
            "sendInitialEvents is forbidden for list",
        ),
        ("limit=many", 400, 'strconv.ParseInt: parsing "many": invalid syntax'),
        (
            "resourceVersion=old",
            400,
            'invalid resource version: resourceVersion: Invalid value: "old": '
            'strconv.ParseUint: parsing "old": invalid syntax',
        ),
    ],
)
async def test_options_that_make_no_sense(api: Api, query: str, status: int, message: str) -> None:
    answer = await api.get(f"{CONFIG_MAPS}?{query}")
    assert (answer.status, answer.message) == (status, message)


async def test_tables(api: Api, clock: object) -> None:
    await api.pod("web", phase="Running")
    table = (await api.get(PODS, accept=TABLE)).json
    assert (table["kind"], table["apiVersion"]) == ("Table", "meta.k8s.io/v1")
    assert [column["name"] for column in table["columnDefinitions"]] == ["Name", "Status", "Age"]
    assert table["rows"][0]["cells"] == ["web", "Running", "0s"]
    shown = table["rows"][0]["object"]
    assert (shown["kind"], shown["metadata"]["name"]) == ("PartialObjectMetadata", "web")
    assert "spec" not in shown
    whole = (await api.get(f"{PODS}/web?includeObject=Object", accept=TABLE)).json
    assert whole["rows"][0]["object"]["spec"]["containers"][0]["name"] == "main"
    none = (await api.get(f"{PODS}?includeObject=None", accept=TABLE)).json
    assert none["rows"][0]["object"] is None
    assert (await api.get(f"{PODS}?includeObject=Some", accept=TABLE)).status == 400


async def test_kinds_without_columns_show_name_and_creation(api: Api) -> None:
    created = await api.config_map("a")
    table = (await api.get(CONFIG_MAPS, accept=TABLE)).json
    assert [column["name"] for column in table["columnDefinitions"]] == ["Name", "Created At"]
    assert table["rows"][0]["cells"] == ["a", created["metadata"]["creationTimestamp"]]


async def test_metadata_alone(api: Api) -> None:
    created = await api.config_map("a", color="red")
    one = (await api.get(f"{CONFIG_MAPS}/a", accept=METADATA)).json
    assert one == {
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": created["metadata"],
    }
    many = (await api.get(CONFIG_MAPS, accept=METADATA_LIST)).json
    assert many["kind"] == "PartialObjectMetadataList"
    assert many["items"] == [one]


async def test_yaml_if_asked_for(api: Api) -> None:
    await api.config_map("a")
    answer = await api.get(f"{CONFIG_MAPS}/a", accept="application/yaml")
    assert answer.headers["content-type"] == "application/yaml"
    assert b"kind: ConfigMap\n" in answer.body


async def test_protobuf_is_passed_over_for_what_comes_next(api: Api) -> None:
    await api.config_map("a")
    accept = "application/vnd.kubernetes.protobuf,application/json"
    assert (await api.get(f"{CONFIG_MAPS}/a", accept=accept)).json["kind"] == "ConfigMap"
    only = await api.get(f"{CONFIG_MAPS}/a", accept="application/vnd.kubernetes.protobuf")
    assert (only.status, only.reason) == (406, "NotAcceptable")
    assert only.message == (
        "only the following media types are accepted: application/json, application/yaml, "
        "application/vnd.kubernetes.protobuf"
    )


async def test_large_lists_come_compressed_and_whole(api: Api) -> None:
    for number in range(60):
        body = {"metadata": {"name": f"c{number:02}"}, "data": {"k": "v" * 4096}}
        await api.post(CONFIG_MAPS, body)
    plain = await api.get(CONFIG_MAPS)
    assert len(plain.json["items"]) == 60
    packed = await api.send("GET", CONFIG_MAPS, headers=(("Accept-Encoding", "gzip"),))
    assert packed.headers["content-encoding"] == "gzip"
    assert json.loads(gzip.decompress(packed.body)) == plain.json
    small = await api.send("GET", f"{CONFIG_MAPS}/c00", headers=(("Accept-Encoding", "gzip"),))
    assert "content-encoding" not in small.headers


async def test_a_damaged_object_does_not_hide_the_others(api: Api, store: MemoryStore) -> None:
    await api.config_map("a")
    await api.config_map("b")
    stream = await api.watch(f"{CONFIG_MAPS}?resourceVersion={store.revision}")
    torn = b'{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"b","namespace":"default'
    for name, value in (("broken", b"{nonsense"), ("b", torn)):
        await store.put(f"/registry/configmaps/default/{name}", value)
    # Written by somebody else, in another order of fields: fine.
    foreign = b'{"apiVersion":"v1","data":{"k":"v"},"kind":"ConfigMap","metadata":{"name":"f"}}'
    await store.put("/registry/configmaps/default/f", foreign)
    assert (await api.get(CONFIG_MAPS)).names == ["a", "f"]
    assert await stream.types_and_names(2) == [("DELETED", "b"), ("ADDED", "f")]
    assert set(api.server.catalog.caches["configmaps"].damaged) == {"default/broken", "default/b"}
    metrics = (await api.get("/metrics")).body.decode()
    assert 'apiserver_storage_damaged_objects{resource="configmaps"} 2\n' in metrics
    refused = await api.delete(f"{CONFIG_MAPS}/b")
    assert refused.status == 500
    assert "cannot be read" in refused.message
    options = {"ignoreStoreReadErrorWithClusterBreakingPotential": True}
    assert (await api.delete(f"{CONFIG_MAPS}/b", options)).status == 200
    await api.config_map("b")
    assert (await api.get(CONFIG_MAPS)).names == ["a", "b", "f"]


async def test_an_object_of_other_rules_is_still_shown(api: Api, store: MemoryStore) -> None:
    await api.pod("a", node="n")
    odd = (
        b'{"kind":"Pod","apiVersion":"v1","metadata":{"name":"odd","namespace":"default"},'
        b'"spec":"nothing we know"}'
    )
    await store.put("/registry/pods/default/odd", odd)
    assert (await api.get(PODS)).names == ["a", "odd"]
    rows = (await api.get(PODS, accept=TABLE)).json["rows"]
    assert [row["cells"][0] for row in rows] == ["a", "odd"]
    assert rows[1]["cells"][1:] == ["<unreadable>", "<unreadable>"]
    assert (await api.get(f"{PODS}?fieldSelector=spec.nodeName=n")).names == ["a"]
    options = {"ignoreStoreReadErrorWithClusterBreakingPotential": True}
    assert (await api.delete(f"{PODS}/odd", options)).status == 200
