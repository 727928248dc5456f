"""CREATE and UPDATE: what the server fills in, keeps apart and refuses. See conftest.py."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from tests.api.server.conftest import CONFIG_MAPS, DEPLOYMENTS, PODS

if TYPE_CHECKING:
    from pybernetes.aio.clock import Clock
    from pybernetes.storage import MemoryStore
    from tests.api.server.conftest import Api

LEASES = "/apis/coordination.k8s.io/v1/namespaces/default/leases"


async def test_the_server_fills_in_what_users_cannot_choose(api: Api, clock: Clock) -> None:
    body = {
        "metadata": {
            "name": "a",
            "uid": "mine",
            "creationTimestamp": "2001-01-01T00:00:00Z",
            "deletionTimestamp": "2001-01-01T00:00:00Z",
            "resourceVersion": "77",
            "generation": 9,
        }
    }
    answer = await api.post(CONFIG_MAPS, body)
    assert answer.status == 201
    metadata = answer.json["metadata"]
    assert UUID(metadata["uid"]).version == 4
    assert metadata["creationTimestamp"] == clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
    assert metadata["namespace"] == "default"
    assert metadata["resourceVersion"] != "77"
    assert not {"deletionTimestamp", "generation"} & set(metadata)
    assert answer.json["apiVersion"] == "v1"
    assert answer.json["kind"] == "ConfigMap"


async def test_names_are_taken_once(api: Api) -> None:
    await api.config_map("a")
    answer = await api.post(CONFIG_MAPS, {"metadata": {"name": "a"}})
    assert (answer.status, answer.reason) == (409, "AlreadyExists")
    assert answer.message == 'configmaps "a" already exists'


async def test_names_are_generated(api: Api) -> None:
    names = set()
    for _ in range(5):
        answer = await api.post(CONFIG_MAPS, {"metadata": {"generateName": "web-"}})
        assert answer.status == 201
        names.add(answer.json["metadata"]["name"])
    assert len(names) == 5
    assert all(name.startswith("web-") and len(name) == 9 for name in names)


async def test_a_generated_name_that_is_taken_is_generated_again(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    await api.config_map("web-1")
    names = iter(["web-1", "web-1", "web-2"])
    monkeypatch.setattr(
        "pybernetes.apiserver.verbs.create.generate_name", lambda base, random: next(names)
    )
    answer = await api.post(CONFIG_MAPS, {"metadata": {"generateName": "web-"}})
    assert answer.json["metadata"]["name"] == "web-2"
    monkeypatch.setattr(
        "pybernetes.apiserver.verbs.create.generate_name", lambda base, random: "web-1"
    )
    taken = await api.post(CONFIG_MAPS, {"metadata": {"generateName": "web-"}})
    assert taken.status == 409
    assert taken.message.endswith(
        "the server was not able to generate a unique name for the object"
    )


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (
            {},
            'ConfigMap "" is invalid: metadata.name: Required value: name or generateName is required',
        ),
        (
            {"name": "A_b"},
            'ConfigMap "A_b" is invalid: metadata.name: Invalid value: "A_b": a lower',
        ),
        (
            {"name": "a", "labels": {"-x": "y"}},
            'ConfigMap "a" is invalid: metadata.labels: Invalid value: "-x": name part must',
        ),
        (
            {"name": "a", "labels": {"x": "y z"}},
            'ConfigMap "a" is invalid: metadata.labels: Invalid value: "y z": a valid label must',
        ),
        (
            {"name": "a", "annotations": {"x": "y" * 300_000}},
            'ConfigMap "a" is invalid: metadata.annotations: Too long: '
            "may not be more than 262144 bytes",
        ),
        (
            {"name": "a", "finalizers": ["mine"]},
            'ConfigMap "a" is invalid: metadata.finalizers[0]: Invalid value: "mine": name is '
            "neither a standard finalizer name nor is it fully qualified",
        ),
        (
            {"name": "a", "finalizers": ["orphan", "foregroundDeletion"]},
            'ConfigMap "a" is invalid: metadata.finalizers: Invalid value: '
            '["orphan","foregroundDeletion"]: finalizer orphan and foregroundDeletion cannot be '
            "both set",
        ),
    ],
)
async def test_metadata_is_checked(api: Api, metadata: object, message: str) -> None:
    answer = await api.post(CONFIG_MAPS, {"metadata": metadata})
    assert (answer.status, answer.reason) == (422, "Invalid")
    assert answer.message.startswith(message)
    assert answer.json["details"]["causes"][0]["field"].startswith("metadata.")


async def test_every_problem_is_told_at_once(api: Api) -> None:
    body = {"metadata": {"name": "A", "labels": {"-": "x"}}, "spec": {"replicas": -1}}
    answer = await api.post(DEPLOYMENTS, body)
    assert answer.status == 422
    assert answer.message.startswith('Deployment.apps "A" is invalid: [')
    fields = [cause["field"] for cause in answer.json["details"]["causes"]]
    assert fields == ["metadata.name", "metadata.labels", "spec.replicas"]
    assert answer.json["details"]["kind"] == "Deployment"


async def test_the_namespace_of_the_path_counts(api: Api) -> None:
    body = {"metadata": {"name": "a", "namespace": "other"}}
    answer = await api.post(CONFIG_MAPS, body)
    assert (answer.status, answer.reason) == (400, "BadRequest")
    assert answer.message == (
        "the namespace of the provided object does not match the namespace sent on the request"
    )
    cluster = await api.post("/api/v1/nodes", {"metadata": {"name": "n", "namespace": "x"}})
    assert cluster.status == 201
    assert "namespace" not in cluster.json["metadata"]


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (
            {"apiVersion": "v2", "kind": "ConfigMap", "metadata": {"name": "a"}},
            400,
            "the API version in the data (v2) does not match the expected API version (v1)",
        ),
        (
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}},
            400,
            'Pod in version "v1" cannot be handled as a ConfigMap: ',
        ),
        (
            {"metadata": {"name": "a"}, "data": {"k": 1}},
            400,
            'ConfigMap in version "v1" cannot be handled as a ConfigMap: '
            "json: cannot unmarshal number into Go struct field ConfigMap.data of type string",
        ),
        (b"{nonsense", 400, "the object provided is unrecognized (must be of type ConfigMap): "),
        ([], 400, "the object provided is unrecognized (must be of type ConfigMap): "),
    ],
)
async def test_bodies_that_are_something_else(
    api: Api, body: object, status: int, message: str
) -> None:
    answer = await api.post(CONFIG_MAPS, body)
    assert answer.status == status
    assert answer.message.startswith(message)


async def test_unknown_fields_are_treated_as_the_client_wishes(api: Api) -> None:
    text = b'{"metadata":{"name":"%s"},"bogus":1,"data":{"k":"1","k":"2"}}'

    async def create(name: bytes, mode: str) -> tuple[int, list[str], str]:
        query = f"?fieldValidation={mode}" if mode else ""
        answer = await api.post(f"{CONFIG_MAPS}{query}", text % name)
        return answer.status, answer.warnings, answer.json.get("message", "")

    warnings = ['299 - "unknown field \\"bogus\\""', '299 - "duplicate field \\"data.k\\""']
    assert await create(b"a", "") == (201, warnings, "")
    assert await create(b"b", "Warn") == (201, warnings, "")
    assert await create(b"c", "Ignore") == (201, [], "")
    assert await create(b"d", "Strict") == (
        400,
        [],
        'ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: '
        'unknown field "bogus", duplicate field "data.k"',
    )
    status, _, message = await create(b"e", "Maybe")
    assert status == 422
    assert message.startswith('CreateOptions.meta.k8s.io "" is invalid: fieldValidation: Unsupp')
    assert (await api.get(f"{CONFIG_MAPS}/a")).json["data"] == {"k": "2"}


async def test_yaml_bodies(api: Api) -> None:
    text = b"kind: ConfigMap\nmetadata:\n  name: a\ndata:\n  on: 'yes'\n"
    answer = await api.send("POST", CONFIG_MAPS, text, content_type="application/yaml")
    assert answer.status == 201
    assert answer.json["data"] == {"true": "yes"} or answer.json["data"] == {"on": "yes"}


def delimited(number: int, content: bytes) -> bytes:
    """A field of a protobuf message that has a length."""
    return bytes([number << 3 | 2, len(content)]) + content


def protobuf(api_version: str, kind: str, message: bytes) -> bytes:
    about = delimited(1, api_version.encode()) + delimited(2, kind.encode())
    return b"k8s\0" + delimited(1, about) + delimited(2, message)


async def test_protobuf_bodies(api: Api) -> None:
    content_type = "application/vnd.kubernetes.protobuf"
    name, entry = delimited(1, b"a"), delimited(1, b"k") + delimited(2, b"v")
    body = protobuf("v1", "ConfigMap", delimited(1, name) + delimited(2, entry))
    created = await api.send("POST", CONFIG_MAPS, body, content_type=content_type)
    assert created.status == 201, created.body
    assert created.json["data"] == {"k": "v"}
    await api.pod("p", node="n")
    options = protobuf("v1", "DeleteOptions", b"\x08\x05")
    deleted = await api.send("DELETE", f"{PODS}/p", options, content_type=content_type)
    assert deleted.json["metadata"]["deletionGracePeriodSeconds"] == 5
    broken = await api.send("POST", CONFIG_MAPS, b"k8s\0\xff", content_type=content_type)
    assert broken.status == 400


async def test_other_bodies_are_415(api: Api) -> None:
    answer = await api.send("POST", CONFIG_MAPS, b"<a/>", content_type="text/xml")
    assert (answer.status, answer.reason) == (415, "UnsupportedMediaType")
    assert answer.message == (
        "the body of the request was in an unknown format - accepted media types include: "
        "application/json, application/yaml, application/vnd.kubernetes.protobuf"
    )


async def test_large_bodies_are_413(api: Api) -> None:
    body = {"metadata": {"name": "a"}, "data": {"k": "v" * (4 * 1024 * 1024)}}
    answer = await api.post(CONFIG_MAPS, body)
    assert (answer.status, answer.reason) == (413, "RequestEntityTooLarge")
    assert answer.message == "Request entity too large: limit is 3145728"


async def test_a_dry_run_changes_nothing(api: Api, store: MemoryStore) -> None:
    await api.config_map("there")
    before = store.revision
    created = await api.post(f"{CONFIG_MAPS}?dryRun=All", {"metadata": {"name": "a"}})
    assert created.status == 201
    assert created.json["metadata"]["uid"]
    assert "resourceVersion" not in created.json["metadata"]
    patched = await api.patch(f"{CONFIG_MAPS}/there?dryRun=All", {"data": {"new": "x"}})
    assert patched.json["data"] == {"k": "v", "new": "x"}
    deleted = await api.delete(f"{CONFIG_MAPS}/there?dryRun=All")
    assert deleted.status == 200
    assert store.revision == before
    assert (await api.get(CONFIG_MAPS)).names == ["there"]
    wrong = await api.post(f"{CONFIG_MAPS}?dryRun=Some", {"metadata": {"name": "a"}})
    assert wrong.status == 422


async def test_an_update_replaces_what_was_read(api: Api) -> None:
    obj = await api.config_map("a")
    obj["data"] = {"new": "1"}
    answer = await api.put(f"{CONFIG_MAPS}/a", obj)
    assert answer.status == 200
    assert answer.json["data"] == {"new": "1"}
    # The same object again is of the past now.
    obj["data"] = {"new": "2"}
    stale = await api.put(f"{CONFIG_MAPS}/a", obj)
    assert (stale.status, stale.reason) == (409, "Conflict")
    assert stale.message == (
        'Operation cannot be fulfilled on configmaps "a": the object has been modified; please '
        "apply your changes to the latest version and try again"
    )
    del obj["metadata"]["resourceVersion"]
    assert (await api.put(f"{CONFIG_MAPS}/a", obj)).json["data"] == {"new": "2"}


async def test_an_update_that_changes_nothing_is_no_write(api: Api, store: MemoryStore) -> None:
    obj = await api.config_map("a")
    before = store.revision
    answer = await api.put(f"{CONFIG_MAPS}/a", obj)
    assert answer.json == obj
    assert store.revision == before


async def test_an_update_of_another_incarnation(api: Api) -> None:
    obj = await api.config_map("a")
    obj["metadata"]["uid"] = "other"
    answer = await api.put(f"{CONFIG_MAPS}/a", obj)
    assert answer.status == 409
    assert "Precondition failed: UID in precondition: other, UID in object meta: " in answer.message


async def test_name_and_namespace_must_be_those_of_the_path(api: Api) -> None:
    obj = await api.config_map("a")
    renamed = {**obj, "metadata": {**obj["metadata"], "name": "b"}}
    answer = await api.put(f"{CONFIG_MAPS}/a", renamed)
    assert answer.message == ("the name of the object (b) does not match the name on the URL (a)")
    moved = {**obj, "metadata": {**obj["metadata"], "namespace": "b"}}
    answer = await api.put(f"{CONFIG_MAPS}/a", moved)
    assert answer.message == (
        "the namespace of the object (b) does not match the namespace on the request (default)"
    )
    answer = await api.put(f"{CONFIG_MAPS}/a", {"metadata": {}})
    assert answer.message == (
        "the name of the object (a based on URL) was undeterminable: name must be provided"
    )
    assert (await api.put(f"{CONFIG_MAPS}/x", {"metadata": {"name": "x"}})).status == 404


async def test_a_put_may_create_where_the_kind_allows_it(api: Api) -> None:
    body = {"metadata": {"name": "l"}, "spec": {"holderIdentity": "me"}}
    created = await api.put(f"{LEASES}/l", body)
    assert created.status == 201
    unconditional = await api.put(f"{LEASES}/l", body)
    assert unconditional.status == 422
    assert unconditional.message == (
        'Lease.coordination.k8s.io "l" is invalid: metadata.resourceVersion: Invalid value: 0: '
        "must be specified for an update"
    )
    assert (await api.put(f"{LEASES}/l", created.json)).status == 200


async def test_generation_follows_the_spec(api: Api) -> None:
    created = await api.deployment("web")
    assert created["metadata"]["generation"] == 1
    labelled = await api.patch(f"{DEPLOYMENTS}/web", {"metadata": {"labels": {"a": "b"}}})
    assert labelled.json["metadata"]["generation"] == 1
    scaled = await api.patch(f"{DEPLOYMENTS}/web", {"spec": {"replicas": 3}})
    assert scaled.json["metadata"]["generation"] == 2
    status = {"status": {"observedGeneration": 2}}
    assert (await api.patch(f"{DEPLOYMENTS}/web/status", status)).json["metadata"][
        "generation"
    ] == 2
    chosen = await api.patch(f"{DEPLOYMENTS}/web", {"metadata": {"generation": 40}})
    assert chosen.json["metadata"]["generation"] == 2


async def test_status_and_spec_are_written_apart(api: Api) -> None:
    created = await api.post(
        PODS,
        {
            "metadata": {"name": "a"},
            "spec": {"containers": [{"name": "c", "image": "i"}]},
            "status": {"phase": "Running"},
        },
    )
    assert "phase" not in created.json["status"]
    through_main = await api.patch(f"{PODS}/a", {"status": {"phase": "Running"}})
    assert "phase" not in through_main.json["status"]
    both = {
        "metadata": {"labels": {"seen": "yes"}},
        "spec": {"nodeName": "n"},
        "status": {"phase": "Running"},
    }
    through_status = await api.patch(f"{PODS}/a/status", both)
    assert through_status.json["status"]["phase"] == "Running"
    assert "nodeName" not in through_status.json["spec"]
    assert through_status.json["metadata"]["labels"] == {"seen": "yes"}
    read = await api.get(f"{PODS}/a/status")
    assert read.json == through_status.json


async def test_what_identifies_an_object_is_immutable(api: Api) -> None:
    await api.config_map("a")
    answer = await api.patch(
        f"{CONFIG_MAPS}/a", {"metadata": {"deletionTimestamp": "2001-01-01T00:00:00Z"}}
    )
    assert answer.status == 422
    assert "metadata.deletionTimestamp" in answer.message
    assert "field is immutable" in answer.message
    created = (await api.get(f"{CONFIG_MAPS}/a")).json
    patch = {"metadata": {"creationTimestamp": "2001-01-01T00:00:00Z"}}
    assert (await api.patch(f"{CONFIG_MAPS}/a", patch)).json == created


async def test_rules_of_the_kind_apply_to_updates(api: Api) -> None:
    await api.deployment("web")
    selector = {"spec": {"selector": {"matchLabels": {"app": "other"}}}}
    answer = await api.patch(f"{DEPLOYMENTS}/web", selector)
    assert answer.status == 422
    assert "spec.selector: Invalid value" in answer.message
    assert (await api.get(f"{DEPLOYMENTS}/web")).json["spec"]["replicas"] == 1


async def test_warnings_of_the_kind_reach_the_client(api: Api) -> None:
    await api.deployment("web")
    answer = await api.patch(f"{DEPLOYMENTS}/web", {"metadata": {"labels": {"risky": "yes"}}})
    assert answer.warnings == ['299 - "do not"']


async def test_a_hundred_writers_lose_no_update(api: Api) -> None:
    await api.config_map("counter")
    await api.patch(f"{CONFIG_MAPS}/counter", {"data": {"n": "0"}})

    async def increment() -> None:
        while True:
            obj = (await api.get(f"{CONFIG_MAPS}/counter")).json
            await asyncio.sleep(0)
            obj["data"]["n"] = str(int(obj["data"]["n"]) + 1)
            if (await api.put(f"{CONFIG_MAPS}/counter", obj)).status == 200:
                return

    async with asyncio.TaskGroup() as tasks:
        for _ in range(100):
            tasks.create_task(increment())
    assert (await api.get(f"{CONFIG_MAPS}/counter")).json["data"]["n"] == "100"


async def test_methods_that_are_not_there(api: Api) -> None:
    for method, path in (
        ("POST", "/api/v1/configmaps"),
        ("PUT", CONFIG_MAPS),
        ("PATCH", CONFIG_MAPS),
        ("POST", f"{CONFIG_MAPS}/a"),
        ("DELETE", f"{PODS}/a/status"),
        ("DELETE", "/version"),
    ):
        answer = await api.send(method, path, {})
        assert (answer.status, answer.reason) == (405, "MethodNotAllowed"), (method, path)
        assert answer.message == "the server does not allow this method on the requested resource"


async def test_names_that_would_leave_their_place_in_the_store(api: Api) -> None:
    for name in ("..", ".", "a%2fb", "%2e%2e"):
        answer = await api.get(f"{CONFIG_MAPS}/{name}")
        assert answer.status in (404, 400), name
    answer = await api.post("/api/v1/namespaces/..%2fpods/configmaps", {"metadata": {"name": "a"}})
    assert answer.status in (404, 405, 422)
    answer = await api.post("/api/v1/namespaces/../configmaps", {"metadata": {"name": "a"}})
    assert answer.status == 422
