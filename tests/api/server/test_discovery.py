"""Discovery in both forms.

Real: the API server with every kind of the registry. What it says is compared with what is
published of upstream, as far as it serves the same.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from pybernetes.apiserver import ApiServer, Plugins
from pybernetes.apiserver.discovery import Discovery, version_rank
from pybernetes.apiserver.server import served_by_default
from pybernetes.storage import MemoryStore
from pybernetes.wire.memory import MemoryHttpClient
from tests.api.published import FACTS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from random import Random

    from pybernetes.aio.clock import Clock

# Every kind but those behind a gate.
RESOURCES = served_by_default(None, frozenset())

ADDRESS = "192.168.7.1:6443"
FORM = "application/json;g=apidiscovery.k8s.io;v={};as=APIGroupDiscoveryList"
# What kubectl sends from 1.30 on.
KUBECTL = f"{FORM.format('v2')},{FORM.format('v2beta1')},application/json"

needs_facts = pytest.mark.skipif(
    not FACTS.is_dir(), reason="the published facts are not on this machine"
)


class Asker:
    def __init__(self, server: ApiServer) -> None:
        self.server = server
        self.client = MemoryHttpClient(server.handle)

    async def get(self, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
        fields = [(name.replace("_", "-"), value) for name, value in headers.items()]
        response = await self.client.request("GET", path, headers=fields)
        return response.status, dict(response.headers.items()), await response.read()

    async def json(self, path: str, accept: str = "application/json") -> Any:
        status, _, body = await self.get(path, accept=accept)
        assert status == 200, body
        return json.loads(body)


@pytest.fixture
async def asker(clock: Clock, random: Random) -> AsyncIterator[Asker]:
    def plugins(server: ApiServer) -> Plugins:
        return Plugins(routes=Discovery(server.catalog, address=ADDRESS).routes())

    store = MemoryStore(clock=clock)
    async with ApiServer(store, clock, random, resources=RESOURCES, make_plugins=plugins) as server:
        asker = Asker(server)
        yield asker
        await asker.client.close()


SERVED = {(entry.group, entry.version, entry.plural): entry for entry in RESOURCES}


def published(group: str, version: str) -> dict[str, Any]:
    """What upstream says of the resources of a group version, by plural."""
    document = json.loads((FACTS / "aggregated_v2.json").read_bytes())
    return {
        resource["resource"]: resource
        for item in document["items"]
        if item["metadata"].get("name", "") == group
        for one in item["versions"]
        if one["version"] == version
        for resource in one["resources"]
    }


@needs_facts
async def test_resources_are_as_published(asker: Asker) -> None:
    """The core group is not among what is published; its facts are those of the registry."""
    seen = set()
    for item in (await asker.json("/apis", KUBECTL))["items"]:
        group = item["metadata"]["name"]
        for one in item["versions"]:
            wanted = published(group, one["version"])
            for resource in one["resources"]:
                key = (group, one["version"], resource["resource"])
                seen.add(key)
                have = {sub.name for sub in SERVED[key].subresources}
                expected = dict(wanted[resource["resource"]])
                subresources = expected.pop("subresources", [])
                found = dict(resource)
                assert found.pop("subresources", []) == [
                    sub for sub in subresources if sub["subresource"] in have
                ]
                assert found == expected
    assert seen == {key for key in SERVED if key[0]}


@needs_facts
async def test_groups_come_in_the_published_order(asker: Asker) -> None:
    document = json.loads((FACTS / "aggregated_v2.json").read_bytes())
    order = [item["metadata"].get("name", "") for item in document["items"]]
    found = [item["metadata"]["name"] for item in (await asker.json("/apis", KUBECTL))["items"]]
    assert found == [group for group in order if group in found]
    old = [group["name"] for group in (await asker.json("/apis"))["groups"]]
    assert old == found


async def test_both_forms_say_the_same(asker: Asker) -> None:
    aggregated = {}
    for path in ("/api", "/apis"):
        for item in (await asker.json(path, KUBECTL))["items"]:
            for one in item["versions"]:
                group = item["metadata"].get("name", "")
                for resource in one["resources"]:
                    key = (group, one["version"], resource["resource"])
                    aggregated[key] = resource["verbs"]
                    for sub in resource.get("subresources", ()):
                        name = f"{resource['resource']}/{sub['subresource']}"
                        aggregated[group, one["version"], name] = sub["verbs"]
    old = {}
    for group, version in {(entry.group, entry.version) for entry in RESOURCES}:
        path = f"/apis/{group}/{version}" if group else f"/api/{version}"
        document = await asker.json(path)
        assert document["kind"] == "APIResourceList"
        assert document["groupVersion"] == path.removeprefix("/apis/").removeprefix("/api/")
        for resource in document["resources"]:
            old[group, version, resource["name"]] = resource["verbs"]
    assert old == aggregated


async def test_the_old_form(asker: Asker) -> None:
    versions = await asker.json("/api")
    assert versions["versions"] == ["v1"]
    assert versions["serverAddressByClientCIDRs"][0]["serverAddress"] == ADDRESS
    group = await asker.json("/apis/apps")
    assert group["kind"] == "APIGroup"
    assert group["preferredVersion"] == {"groupVersion": "apps/v1", "version": "v1"}
    resources = {r["name"]: r for r in (await asker.json("/api/v1"))["resources"]}
    assert resources["pods"]["shortNames"] == ["po"]
    assert resources["pods"]["namespaced"] is True
    assert resources["nodes"]["namespaced"] is False
    eviction = resources["pods/eviction"]
    assert (eviction["group"], eviction["version"], eviction["kind"]) == (
        "policy",
        "v1",
        "Eviction",
    )
    assert "group" not in resources["pods/status"]


@pytest.mark.parametrize(
    ("accept", "version"),
    [
        (KUBECTL, "v2"),
        (f"{FORM.format('v2beta1')},application/json", "v2beta1"),
        ("application/json", None),
        ("application/json, */*", None),
        ("", None),
        (f"{FORM.format('v7')},{FORM.format('v2')}", "v2"),
        (f"{FORM.format('v7')},application/json", None),
    ],
)
async def test_the_first_form_we_know_is_taken(
    asker: Asker, accept: str, version: str | None
) -> None:
    status, headers, body = await asker.get("/apis", accept=accept)
    assert status == 200
    document = json.loads(body)
    if version is None:
        assert headers["content-type"] == "application/json"
        assert document["kind"] == "APIGroupList"
    else:
        assert headers["content-type"] == FORM.format(version)
        assert document["apiVersion"] == f"apidiscovery.k8s.io/{version}"
        assert headers["vary"] == "Accept"


async def test_a_tag_saves_the_answer(asker: Asker) -> None:
    _, headers, _ = await asker.get("/apis", accept=KUBECTL)
    status, again, body = await asker.get("/apis", accept=KUBECTL, if_none_match=headers["etag"])
    assert (status, body) == (304, b"")
    assert again["etag"] == headers["etag"]


async def test_what_goes_is_not_found_any_more(asker: Asker) -> None:
    _, before, _ = await asker.get("/apis", accept=KUBECTL)
    for plural in ("jobs", "cronjobs"):
        served = asker.server.catalog.find("batch", "v1", plural)
        assert served is not None
        asker.server.catalog.remove(served)
    _, after, _ = await asker.get("/apis", accept=KUBECTL)
    assert before["etag"] != after["etag"]
    assert "batch" not in [group["name"] for group in (await asker.json("/apis"))["groups"]]
    for path in ("/apis/batch", "/apis/batch/v1"):
        status, _, _ = await asker.get(path)
        assert status == 404


@pytest.mark.parametrize("path", ["/api/v2", "/apis/nobody", "/apis/apps/v9", "/apis/a/b/c/d"])
async def test_what_is_not_there(asker: Asker, path: str) -> None:
    status, _, body = await asker.get(path)
    assert status == 404
    assert json.loads(body)["reason"] == "NotFound"


async def test_only_reading(asker: Asker) -> None:
    response = await asker.client.request("POST", "/apis", headers=[], body=b"{}")
    await response.read()
    assert response.status == 405


def test_versions_go_from_stable_to_alpha_and_from_new_to_old() -> None:
    order = ["v10", "v2", "v1", "v11beta2", "v10beta3", "v3beta1", "v12alpha1", "v11alpha2", "foo1"]
    by_name = sorted(order)
    assert sorted(by_name, key=version_rank) == order
