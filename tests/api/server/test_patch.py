"""PATCH: three formats, judged like updates, tried again after lost races."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.api.server.conftest import CONFIG_MAPS, DEPLOYMENTS, JSON_PATCH, MERGE, STRATEGIC

if TYPE_CHECKING:
    from pybernetes.storage import MemoryStore
    from tests.api.server.conftest import Api


async def test_merge_patch(api: Api) -> None:
    await api.config_map("a")
    answer = await api.patch(f"{CONFIG_MAPS}/a", {"data": {"k": None, "new": "x"}})
    assert answer.json["data"] == {"new": "x"}


async def test_json_patch(api: Api) -> None:
    await api.config_map("a")
    operations = [
        {"op": "test", "path": "/data/k", "value": "v"},
        {"op": "add", "path": "/data/new", "value": "x"},
    ]
    answer = await api.patch(f"{CONFIG_MAPS}/a", operations, JSON_PATCH)
    assert answer.json["data"] == {"k": "v", "new": "x"}
    failed = await api.patch(
        f"{CONFIG_MAPS}/a", [{"op": "test", "path": "/data/k", "value": "w"}], JSON_PATCH
    )
    assert (failed.status, failed.reason) == (422, "Invalid")
    assert failed.message == "the server rejected our request due to an error in our request"
    many = [{"op": "test", "path": "/data/k", "value": "v"}] * 10_001
    assert (await api.patch(f"{CONFIG_MAPS}/a", many, JSON_PATCH)).status == 413


async def test_strategic_merge_patch(api: Api) -> None:
    await api.deployment("web")
    containers = [{"name": "main", "image": "new"}, {"name": "side", "image": "s"}]
    patch = {"spec": {"template": {"spec": {"containers": containers}}}}
    answer = await api.patch(f"{DEPLOYMENTS}/web", patch, STRATEGIC)
    result = answer.json["spec"]["template"]["spec"]["containers"]
    assert sorted((c["name"], c["image"]) for c in result) == [("main", "new"), ("side", "s")]


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        ({"data": {}}, "application/apply-patch+yaml", 415),
        ({"data": {}}, "application/json", 415),
        (b"{nonsense", MERGE, 400),
        ([], MERGE, 400),
        ({}, JSON_PATCH, 400),
        ([{"op": "remove", "path": "/data/none"}], JSON_PATCH, 422),
        ({"data": {"k": 1}}, MERGE, 400),
        ({"metadata": {"name": "b"}}, MERGE, 422),
    ],
)
async def test_patches_that_do_not_fit(
    api: Api, body: object, content_type: str, status: int
) -> None:
    await api.config_map("a")
    answer = await api.patch(f"{CONFIG_MAPS}/a", body, content_type)
    assert answer.status == status, answer.body


async def test_only_existing_objects_are_patched(api: Api) -> None:
    assert (await api.patch(f"{CONFIG_MAPS}/a", {})).status == 404


async def test_unknown_fields_in_patches(api: Api) -> None:
    await api.config_map("a")
    warned = await api.patch(f"{CONFIG_MAPS}/a", {"bogus": 1})
    assert warned.warnings == ['299 - "unknown field \\"bogus\\""']
    strict = await api.patch(f"{CONFIG_MAPS}/a?fieldValidation=Strict", {"bogus": 1})
    assert strict.status == 400
    assert 'strict decoding error: unknown field "bogus"' in strict.message


async def test_a_patch_that_changes_nothing_is_no_write(api: Api, store: MemoryStore) -> None:
    await api.config_map("a")
    before = store.revision
    assert (await api.patch(f"{CONFIG_MAPS}/a", {"data": {"k": "v"}})).status == 200
    assert store.revision == before


async def test_a_patch_with_a_revision_is_conditional(api: Api) -> None:
    created = await api.config_map("a")
    version = created["metadata"]["resourceVersion"]
    await api.patch(f"{CONFIG_MAPS}/a", {"data": {"k": "2"}})
    patch = {"metadata": {"resourceVersion": version}, "data": {"k": "3"}}
    assert (await api.patch(f"{CONFIG_MAPS}/a", patch)).status == 409


async def test_patches_at_the_same_time_all_count(api: Api) -> None:
    await api.config_map("a")

    async def patch(number: int) -> int:
        return (await api.patch(f"{CONFIG_MAPS}/a", {"data": {f"k{number}": "x"}})).status

    statuses = await asyncio.gather(*(patch(number) for number in range(50)))
    assert set(statuses) == {200}
    assert len((await api.get(f"{CONFIG_MAPS}/a")).json["data"]) == 51
