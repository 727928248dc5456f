"""DELETE: at once, after a grace, after finalizers; one object or a collection."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from pybernetes.api.types.meta_v1 import DeleteOptions
from pybernetes.apiserver.verbs.delete import finalizers_after
from tests.api.server.conftest import CONFIG_MAPS, DEPLOYMENTS, PODS

if TYPE_CHECKING:
    from pybernetes.aio.clock import Clock
    from pybernetes.storage import MemoryStore
    from tests.api.server.conftest import Api


async def test_most_kinds_answer_with_a_status(api: Api) -> None:
    created = await api.config_map("a")
    answer = await api.delete(f"{CONFIG_MAPS}/a")
    assert answer.status == 200
    assert answer.json == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {"name": "a", "kind": "configmaps", "uid": created["metadata"]["uid"]},
    }
    again = await api.delete(f"{CONFIG_MAPS}/a")
    assert again.status == 404


async def test_a_pod_lives_on_for_its_grace(api: Api, clock: Clock) -> None:
    await api.pod("a", node="n")
    answer = await api.delete(f"{PODS}/a")
    metadata = answer.json["metadata"]
    assert metadata["deletionGracePeriodSeconds"] == 30
    until = clock.now() + timedelta(seconds=30)
    assert metadata["deletionTimestamp"] == until.strftime("%Y-%m-%dT%H:%M:%SZ")
    assert metadata["generation"] == 2
    # Longer is not possible any more, shorter is.
    longer = await api.delete(f"{PODS}/a?gracePeriodSeconds=60")
    assert longer.json["metadata"]["deletionGracePeriodSeconds"] == 30
    shorter = await api.delete(f"{PODS}/a", {"gracePeriodSeconds": 5})
    assert shorter.json["metadata"]["deletionGracePeriodSeconds"] == 5
    sooner = clock.now() + timedelta(seconds=5)
    assert shorter.json["metadata"]["deletionTimestamp"] == sooner.strftime("%Y-%m-%dT%H:%M:%SZ")
    last = await api.delete(f"{PODS}/a?gracePeriodSeconds=0")
    assert last.json["kind"] == "Pod"
    assert (await api.get(f"{PODS}/a")).status == 404


async def test_a_pod_without_a_node_goes_at_once(api: Api) -> None:
    await api.pod("a")
    assert (await api.delete(f"{PODS}/a")).json["kind"] == "Pod"
    assert (await api.get(f"{PODS}/a")).status == 404


async def test_a_name_of_something_going_is_not_free(api: Api) -> None:
    await api.pod("a", node="n")
    await api.delete(f"{PODS}/a")
    body = {"metadata": {"name": "a"}, "spec": {"containers": []}}
    answer = await api.post(PODS, body)
    assert answer.status == 409
    assert answer.message == 'object is being deleted: pods "a" already exists'


async def test_finalizers_hold_an_object(api: Api) -> None:
    await api.post(CONFIG_MAPS, {"metadata": {"name": "a", "finalizers": ["x.io/wait"]}})
    answer = await api.delete(f"{CONFIG_MAPS}/a")
    metadata = answer.json["metadata"]
    assert metadata["deletionTimestamp"]
    assert metadata["deletionGracePeriodSeconds"] == 0
    added = await api.patch(
        f"{CONFIG_MAPS}/a", {"metadata": {"finalizers": ["x.io/wait", "x.io/more"]}}
    )
    assert added.status == 422
    assert added.message.endswith(
        "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being "
        'deleted, found new finalizers ["x.io/more"]'
    )
    stream = await api.watch(f"{CONFIG_MAPS}?resourceVersion={metadata['resourceVersion']}")
    last = await api.patch(f"{CONFIG_MAPS}/a", {"metadata": {"finalizers": None}})
    assert last.status == 200
    assert (await api.get(f"{CONFIG_MAPS}/a")).status == 404
    assert await stream.types_and_names(1) == [("DELETED", "a")]


async def test_a_graceful_object_with_finalizers_waits_for_both(api: Api) -> None:
    await api.pod("a", node="n", finalizers=["x.io/wait"])
    await api.delete(f"{PODS}/a")
    without = await api.patch(f"{PODS}/a", {"metadata": {"finalizers": None}})
    assert without.json["metadata"]["deletionGracePeriodSeconds"] == 30
    assert (await api.get(f"{PODS}/a")).status == 200
    await api.delete(f"{PODS}/a?gracePeriodSeconds=0")
    assert (await api.get(f"{PODS}/a")).status == 404


@pytest.mark.parametrize(
    ("present", "options", "default", "after"),
    [
        pytest.param((), {}, "Background", (), id="nobody says anything"),
        pytest.param((), {}, "Orphan", ("orphan",), id="the kind orphans"),
        pytest.param(
            (), {"propagation_policy": "Foreground"}, "Background", ("foregroundDeletion",), id="fg"
        ),
        pytest.param((), {"propagation_policy": "Orphan"}, "Background", ("orphan",), id="orphan"),
        pytest.param((), {"orphan_dependents": True}, "Background", ("orphan",), id="old orphan"),
        pytest.param(("orphan",), {"orphan_dependents": False}, "Orphan", (), id="old not orphan"),
        pytest.param(
            ("a/b", "orphan"),
            {"propagation_policy": "Foreground"},
            "Background",
            ("a/b", "foregroundDeletion"),
            id="changes its mind",
        ),
        pytest.param(("orphan",), {}, "Background", ("orphan",), id="what was said stays"),
    ],
)
def test_finalizers_follow_the_propagation_policy(
    present: tuple[str, ...], options: dict[str, Any], default: str, after: tuple[str, ...]
) -> None:
    assert finalizers_after(present, DeleteOptions(**options), default) == after


async def test_foreground_deletion_waits_for_the_dependents(api: Api) -> None:
    await api.deployment("web")
    answer = await api.delete(f"{DEPLOYMENTS}/web", {"propagationPolicy": "Foreground"})
    assert answer.status == 200
    assert answer.json["metadata"]["finalizers"] == ["foregroundDeletion"]
    assert (await api.get(f"{DEPLOYMENTS}/web")).status == 200


async def test_preconditions(api: Api) -> None:
    created = await api.config_map("a")
    wrong = await api.delete(f"{CONFIG_MAPS}/a", {"preconditions": {"uid": "other"}})
    assert (wrong.status, wrong.reason) == (409, "Conflict")
    assert wrong.message == (
        'Operation cannot be fulfilled on configmaps "a": the UID in the precondition (other) does '
        f"not match the UID in record ({created['metadata']['uid']}). The object might have been "
        "deleted and then recreated"
    )
    stale = await api.delete(f"{CONFIG_MAPS}/a", {"preconditions": {"resourceVersion": "1"}})
    assert stale.status == 409
    assert "The object might have been modified" in stale.message
    right = {"preconditions": {"uid": created["metadata"]["uid"]}}
    assert (await api.delete(f"{CONFIG_MAPS}/a", right)).status == 200


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"propagationPolicy": "Sideways"},
            'DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Unsupported value: '
            '"Sideways": supported values: "Foreground", "Background", "Orphan", "nil"',
        ),
        (
            {"propagationPolicy": "Orphan", "orphanDependents": True},
            'DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Invalid value: "Orphan": '
            "orphanDependents and deletionPropagation cannot be both set",
        ),
    ],
)
async def test_options_that_make_no_sense(api: Api, options: object, message: str) -> None:
    await api.config_map("a")
    answer = await api.delete(f"{CONFIG_MAPS}/a", options)
    assert (answer.status, answer.message) == (422, message)


async def test_a_namespace_is_emptied_first(api: Api) -> None:
    created = await api.post("/api/v1/namespaces", {"metadata": {"name": "ns"}})
    assert created.json["spec"]["finalizers"] == ["kubernetes"]
    answer = await api.delete("/api/v1/namespaces/ns")
    assert answer.status == 200
    assert answer.json["status"]["phase"] == "Terminating"
    assert answer.json["metadata"]["deletionTimestamp"]
    obj = answer.json
    obj["spec"] = {"finalizers": []}
    finalized = await api.put("/api/v1/namespaces/ns/finalize", obj)
    assert finalized.status == 200, finalized.body
    assert (await api.get("/api/v1/namespaces/ns")).status == 404


async def test_a_collection(api: Api) -> None:
    for name, color in (("a", "red"), ("b", "blue"), ("c", "red")):
        await api.config_map(name, color=color)
    await api.config_map("d", "other", color="red")
    answer = await api.delete(f"{CONFIG_MAPS}?labelSelector=color=red")
    assert answer.json["kind"] == "ConfigMapList"
    assert answer.names == ["a", "c"]
    assert [i["metadata"]["name"] for i in (await api.get("/api/v1/configmaps")).json["items"]] == [
        "b",
        "d",
    ]


async def test_a_collection_of_pods_goes_gracefully(api: Api) -> None:
    await api.pod("a", node="n")
    await api.pod("b")
    await api.delete(PODS, {"gracePeriodSeconds": 7})
    left = (await api.get(PODS)).json["items"]
    assert [item["metadata"]["deletionGracePeriodSeconds"] for item in left] == [7]


async def test_a_dry_run_of_a_collection_keeps_it(api: Api, store: MemoryStore) -> None:
    await api.config_map("a")
    before = store.revision
    assert (await api.delete(f"{CONFIG_MAPS}?dryRun=All")).status == 200
    assert store.revision == before
