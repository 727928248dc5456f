"""Server-side apply over HTTP: owners, conflicts, force, removal; managedFields of all writers."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from pybernetes.apiserver import ApiServer
from pybernetes.apiserver.fieldmanager import FieldManagement
from pybernetes.apiserver.hooks import Access, Decision, Verdict
from pybernetes.apiserver.server import Plugins
from tests.api.server.conftest import CONFIG_MAPS, DEPLOYMENTS, MERGE, RESOURCES, Api

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from random import Random

    from pybernetes.aio.clock import Clock
    from pybernetes.storage import MemoryStore
    from tests.api.server.conftest import Answer

APPLY = "application/apply-patch+yaml"


@pytest.fixture
async def server(store: MemoryStore, clock: Clock, random: Random) -> AsyncIterator[ApiServer]:
    def plugins(server: ApiServer) -> Plugins:
        return Plugins(field_manager=FieldManagement(server.clock))

    async with ApiServer(store, clock, random, resources=RESOURCES, make_plugins=plugins) as server:
        yield server


def config_map(**data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data}


def deployment(**spec: Any) -> dict[str, Any]:
    template = {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "main", "image": "one"}]},
    }
    spec = {"selector": {"matchLabels": {"app": "web"}}, "template": template, **spec}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": spec,
    }


async def apply(
    api: Api, target: str, config: object, manager: str = "one", *, more: str = ""
) -> Answer:
    return await api.patch(f"{target}?fieldManager={manager}{more}", config, APPLY)


def owners(obj: Any) -> dict[tuple[str, str, str], Any]:
    return {
        (entry["manager"], entry["operation"], entry.get("subresource", "")): entry["fieldsV1"]
        for entry in obj["metadata"].get("managedFields", ())
    }


async def test_apply_makes_what_is_missing(api: Api) -> None:
    answer = await apply(api, f"{CONFIG_MAPS}/a", config_map(k="v"))
    assert answer.status == 201
    assert answer.json["data"] == {"k": "v"}
    (entry,) = answer.json["metadata"]["managedFields"]
    assert entry.pop("time")
    assert entry == {
        "manager": "one",
        "operation": "Apply",
        "apiVersion": "v1",
        "fieldsType": "FieldsV1",
        "fieldsV1": {"f:data": {"f:k": {}}},
    }


async def test_apply_again_changes_nothing(api: Api, store: MemoryStore) -> None:
    await apply(api, f"{CONFIG_MAPS}/a", config_map(k="v"))
    revision = store.revision
    answer = await apply(api, f"{CONFIG_MAPS}/a", config_map(k="v"))
    assert (answer.status, store.revision) == (200, revision)


async def test_what_is_not_said_any_more_goes(api: Api) -> None:
    await apply(api, f"{CONFIG_MAPS}/a", config_map(k="v", l="w"))
    answer = await apply(api, f"{CONFIG_MAPS}/a", config_map(k="v"))
    assert answer.json["data"] == {"k": "v"}


async def test_what_somebody_else_owns_too_stays(api: Api) -> None:
    await apply(api, f"{CONFIG_MAPS}/a", config_map(k="v", l="w"))
    assert (await apply(api, f"{CONFIG_MAPS}/a", config_map(l="w"), "two")).status == 200
    answer = await apply(api, f"{CONFIG_MAPS}/a", config_map(k="v"))
    assert answer.json["data"] == {"k": "v", "l": "w"}
    assert owners(answer.json) == {
        ("one", "Apply", ""): {"f:data": {"f:k": {}}},
        ("two", "Apply", ""): {"f:data": {"f:l": {}}},
    }


async def test_conflicts_and_force(api: Api) -> None:
    await apply(api, f"{DEPLOYMENTS}/web", deployment(replicas=1))
    refused = await apply(api, f"{DEPLOYMENTS}/web", deployment(replicas=2), "two")
    assert (refused.status, refused.reason) == (409, "Conflict")
    assert refused.message == ('Apply failed with 1 conflict: conflict with "one": .spec.replicas')
    assert refused.json["details"]["causes"] == [
        {
            "reason": "FieldManagerConflict",
            "message": 'conflict with "one"',
            "field": ".spec.replicas",
        }
    ]
    forced = await apply(
        api, f"{DEPLOYMENTS}/web", deployment(replicas=2), "two", more="&force=true"
    )
    assert (forced.status, forced.json["spec"]["replicas"]) == (200, 2)
    mine, theirs = (owners(forced.json)[(name, "Apply", "")]["f:spec"] for name in ("one", "two"))
    assert "f:replicas" not in mine
    assert "f:replicas" in theirs


async def test_conflict_with_an_updater_names_its_version(api: Api) -> None:
    await apply(api, f"{DEPLOYMENTS}/web", deployment(replicas=1))
    patched = await api.patch(
        f"{DEPLOYMENTS}/web?fieldManager=scaler", {"spec": {"replicas": 5}}, MERGE
    )
    assert owners(patched.json)[("scaler", "Update", "")] == {"f:spec": {"f:replicas": {}}}
    refused = await apply(api, f"{DEPLOYMENTS}/web", deployment(replicas=1))
    assert refused.message == (
        'Apply failed with 1 conflict: conflict with "scaler" using apps/v1: .spec.replicas'
    )
    # Who lets go of the field leaves it to the other.
    answer = await apply(api, f"{DEPLOYMENTS}/web", deployment())
    assert answer.json["spec"]["replicas"] == 5


async def test_several_conflicts_are_listed_by_manager(api: Api) -> None:
    await apply(api, f"{CONFIG_MAPS}/a", config_map(k="1", l="1"))
    refused = await apply(api, f"{CONFIG_MAPS}/a", config_map(k="2", l="2"), "two")
    assert refused.message == (
        'Apply failed with 2 conflicts: conflicts with "one":\n- .data.k\n- .data.l'
    )


async def test_lists_are_merged_by_key(api: Api) -> None:
    await apply(api, f"{DEPLOYMENTS}/web", deployment())
    side = deployment()
    side["spec"] = {
        "template": {"spec": {"containers": [{"name": "side", "image": "two"}]}},
    }
    answer = await apply(api, f"{DEPLOYMENTS}/web", side, "two")
    containers = answer.json["spec"]["template"]["spec"]["containers"]
    assert [(c["name"], c["image"]) for c in containers] == [("main", "one"), ("side", "two")]
    # Without its container the applier has nothing; the element goes, the other's stays.
    del side["spec"]
    answer = await apply(api, f"{DEPLOYMENTS}/web", side, "two")
    containers = answer.json["spec"]["template"]["spec"]["containers"]
    assert [c["name"] for c in containers] == ["main"]


async def test_creates_are_owned_by_the_program(api: Api) -> None:
    answer = await api.send(
        "POST", DEPLOYMENTS, deployment(), headers=(("User-Agent", "kubectl/v1.37 (linux)"),)
    )
    (entry,) = answer.json["metadata"]["managedFields"]
    assert (entry["manager"], entry["operation"]) == ("kubectl", "Update")
    assert entry["fieldsV1"]["f:spec"]["f:selector"] == {}
    container = entry["fieldsV1"]["f:spec"]["f:template"]["f:spec"]["f:containers"]
    assert container['k:{"name":"main"}']["."] == {}


async def test_status_has_owners_of_its_own(api: Api) -> None:
    await apply(api, f"{DEPLOYMENTS}/web", deployment())
    answer = await api.patch(
        f"{DEPLOYMENTS}/web/status?fieldManager=c",
        {"spec": {"replicas": 9}, "status": {"replicas": 3}},
    )
    assert owners(answer.json)[("c", "Update", "status")] == {"f:status": {"f:replicas": {}}}
    config = {**deployment(), "status": {"replicas": 4}}
    answer = await apply(api, f"{DEPLOYMENTS}/web/status", config, "d", more="&force=true")
    assert answer.json["status"]["replicas"] == 4
    assert owners(answer.json)[("d", "Apply", "status")] == {"f:status": {"f:replicas": {}}}
    # The main resource ignores a status in the configuration.
    answer = await apply(api, f"{DEPLOYMENTS}/web", {**deployment(), "status": {"replicas": 7}})
    assert answer.json["status"]["replicas"] == 4


async def test_scaling_is_owned_by_who_scales(api: Api) -> None:
    await apply(api, f"{DEPLOYMENTS}/web", deployment(replicas=1))
    scaled = await api.patch(f"{DEPLOYMENTS}/web/scale?fieldManager=hpa", {"spec": {"replicas": 6}})
    assert scaled.status == 200
    refused = await apply(api, f"{DEPLOYMENTS}/web", deployment(replicas=1))
    assert refused.message == (
        'Apply failed with 1 conflict: conflict with "hpa" with subresource "scale" '
        "using apps/v1: .spec.replicas"
    )


async def test_the_books_can_be_closed(api: Api) -> None:
    await apply(api, f"{CONFIG_MAPS}/a", config_map(k="v"))
    patch: dict[str, Any] = {"metadata": {"managedFields": [{}]}}
    answer = await api.patch(f"{CONFIG_MAPS}/a", patch)
    assert "managedFields" not in answer.json["metadata"]
    answer = await api.patch(f"{CONFIG_MAPS}/a", {"data": {"l": "w"}})
    assert "managedFields" not in answer.json["metadata"]
    # With the next apply everything that is there has an owner again.
    answer = await apply(api, f"{CONFIG_MAPS}/a", config_map(k="v"))
    assert set(owners(answer.json)) == {
        ("before-first-apply", "Update", ""),
        ("one", "Apply", ""),
    }


async def test_an_empty_list_closes_the_books_too(api: Api) -> None:
    await apply(api, f"{CONFIG_MAPS}/a", config_map(k="v"))
    answer = await api.patch(f"{CONFIG_MAPS}/a", {"metadata": {"managedFields": []}})
    assert "managedFields" not in answer.json["metadata"]


async def test_from_client_side_to_server_side(api: Api) -> None:
    config = config_map(k="v", l="w")
    text = json.dumps(config)
    annotation = "kubectl.kubernetes.io/last-applied-configuration"
    config["metadata"]["annotations"] = {annotation: text}
    target = f"{CONFIG_MAPS}?fieldManager=kubectl-client-side-apply"
    assert (await api.post(target, config)).status == 201
    refused = await apply(api, f"{CONFIG_MAPS}/a", config_map(k="2"), "other")
    assert refused.status == 409
    answer = await apply(api, f"{CONFIG_MAPS}/a", config_map(k="2"), "kubectl")
    assert (answer.status, answer.json["data"]["k"]) == (200, "2")
    renewed = json.loads(answer.json["metadata"]["annotations"][annotation])
    assert renewed["data"] == {"k": "2"}


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"apiVersion": "v2"}, 400, "incorrect version specified in apply patch"),
        ({"metadata": {"name": "b"}}, 400, "does not match the name on the URL"),
        (
            {"metadata": {"name": "a", "managedFields": [{"manager": "x"}]}},
            400,
            "metadata.managedFields must be nil",
        ),
        ({"bogus": 1}, 500, ".bogus: field not declared in schema"),
        (
            {"metadata": {"name": "a", "namespace": "other"}},
            400,
            "does not match the namespace",
        ),
        (
            {"metadata": {"name": "a", "uid": "u"}},
            409,
            "uid mismatch: the provided object specified uid u",
        ),
    ],
)
async def test_what_is_refused(api: Api, change: dict[str, Any], status: int, message: str) -> None:
    answer = await apply(api, f"{CONFIG_MAPS}/a", {**config_map(k="v"), **change})
    assert answer.status == status, answer.body
    assert message in answer.message


async def test_options_of_apply(api: Api) -> None:
    nameless = await api.patch(f"{CONFIG_MAPS}/a", config_map(), APPLY)
    assert nameless.status == 422
    assert "fieldManager: Required value: is required for apply patch" in nameless.message
    await api.config_map("a")
    forced = await api.patch(f"{CONFIG_MAPS}/a?force=true", {})
    assert "force: Forbidden: may not be specified for non-apply patch" in forced.message
    cbor = await api.patch(f"{CONFIG_MAPS}/a", config_map(), "application/apply-patch+cbor")
    assert cbor.status == 415
    broken = await apply(api, f"{CONFIG_MAPS}/a", b"{: not yaml")
    assert broken.status == 400


async def test_a_dry_run_leaves_nothing(api: Api, store: MemoryStore) -> None:
    answer = await apply(api, f"{CONFIG_MAPS}/a", config_map(k="v"), more="&dryRun=All")
    assert answer.status == 201
    assert (await api.get(f"{CONFIG_MAPS}/a")).status == 404


async def test_many_updaters_become_ancient(api: Api) -> None:
    await api.config_map("a")
    for number in range(14):
        await asyncio.sleep(1)
        patch = {"data": {f"k{number}": "x"}}
        answer = await api.patch(f"{CONFIG_MAPS}/a?fieldManager=m{number}", patch)
    found = owners(answer.json)
    assert len(found) == 10
    assert ("ancient-changes", "Update", "") in found
    assert ("m13", "Update", "") in found


async def test_who_may_not_create_cannot_by_applying(
    store: MemoryStore, clock: Clock, random: Random
) -> None:
    class OnlyPatch:
        async def authorize(self, access: Access) -> Decision:
            return Decision(Verdict.DENY if access.verb == "create" else Verdict.ALLOW)

    def plugins(server: ApiServer) -> Plugins:
        return Plugins(field_manager=FieldManagement(server.clock), authorizer=OnlyPatch())

    async with ApiServer(store, clock, random, resources=RESOURCES, make_plugins=plugins) as server:
        api = Api(server)
        refused = await apply(api, f"{CONFIG_MAPS}/a", config_map(k="v"))
        assert (refused.status, refused.reason) == (403, "Forbidden")
        assert 'cannot create resource "configmaps"' in refused.message
        await api.close()
