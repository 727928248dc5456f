"""Versions of a custom resource that a webhook converts."""

from __future__ import annotations

import asyncio
import base64
import ssl
from copy import deepcopy
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from pybernetes.aio.virtualtime import settled
from pybernetes.api.apiextensions import APIEXTENSIONS_RESOURCES
from pybernetes.apiserver import ApiServer
from pybernetes.apiserver.customresources.conversion import Webhook
from pybernetes.wire.http import Request, Response
from pybernetes.wire.memory import MemoryHttpClient
from tests.api.server.conftest import RESOURCES, TABLE, Api
from tests.api.server.test_customresources import (
    CRONTABS,
    DEFINITIONS,
    NAME,
    crontab,
    define,
    definition,
    version,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from random import Random

    from pybernetes.aio.clock import Clock
    from pybernetes.storage import MemoryStore

Json = dict[str, Any]

NEW = CRONTABS.replace("v1", "v2")
OLD_VERSION, NEW_VERSION = "stable.example.com/v1", "stable.example.com/v2"


class Converter:
    """A webhook: v1 has `schedule`, v2 the same as a list of `fields`."""

    def __init__(self) -> None:
        self.asked = 0
        self.broken = False

    async def handle(self, request: Request) -> Response:
        self.asked += 1
        if self.broken:
            return Response(500, [], b"out of order")
        review = msgspec.json.decode(await request.body.read(1 << 20))
        asked = review["request"]
        objects = [_converted(obj, asked["desiredAPIVersion"]) for obj in asked["objects"]]
        review["response"] = {
            "uid": asked["uid"],
            "result": {"status": "Success"},
            "convertedObjects": objects,
        }
        del review["request"]
        return Response(200, [], msgspec.json.encode(review))


def _converted(obj: Json, wanted: str) -> Json:
    if obj["apiVersion"] == wanted:
        return obj
    obj = deepcopy(obj)
    obj["apiVersion"] = wanted
    spec = obj["spec"]
    if wanted == NEW_VERSION:
        spec["fields"] = spec.pop("schedule").split()
    else:
        spec["schedule"] = " ".join(spec.pop("fields"))
    return obj


def new_version(**rest: Any) -> Json:
    new = version("v2", **rest)
    spec = new["schema"]["openAPIV3Schema"]["properties"]["spec"]
    spec["required"] = ["fields"]
    del spec["properties"]["schedule"]
    spec["properties"]["fields"] = {"type": "array", "items": {"type": "string"}}
    new["additionalPrinterColumns"] = [
        {"name": "First", "type": "string", "jsonPath": ".spec.fields[0]"}
    ]
    return new


def converted_definition(url: str = "https://127.0.0.1:1", bundle: str = "") -> Json:
    client: Json = {"url": url}
    if bundle:
        client["caBundle"] = bundle
    return definition(
        versions=[version("v1", storage=True), new_version()],
        conversion={
            "strategy": "Webhook",
            "webhook": {"clientConfig": client, "conversionReviewVersions": ["v1"]},
        },
    )


@pytest.fixture
def converter(monkeypatch: pytest.MonkeyPatch) -> Converter:
    converter = Converter()
    client = MemoryHttpClient(converter.handle)

    async def reach(self: Webhook) -> tuple[MemoryHttpClient, str]:
        return client, "/convert"

    monkeypatch.setattr(Webhook, "_reach", reach)
    return converter


@pytest.fixture
async def api(store: MemoryStore, clock: Clock, random: Random) -> AsyncIterator[Api]:
    resources = (*RESOURCES, *APIEXTENSIONS_RESOURCES)
    async with ApiServer(store, clock, random, resources=resources) as server:
        api = Api(server)
        yield api
        await api.close()


async def test_both_versions_show_all_objects(api: Api, converter: Converter) -> None:
    await define(api, converted_definition())
    assert (await api.post(CRONTABS, crontab(schedule="1 2 3 4 5"))).status == 201
    assert converter.asked == 0
    read = (await api.get(f"{NEW}/one")).json
    assert read["apiVersion"] == NEW_VERSION
    assert read["spec"] == {"image": "busybox", "fields": ["1", "2", "3", "4", "5"]}
    stream = await api.watch(NEW)
    assert (await stream.next())["object"] == read
    body = {"metadata": {"name": "two"}, "spec": {"fields": ["a", "b", "c", "d", "e"]}}
    answer = await api.post(NEW, body)
    assert answer.status == 201, answer.body
    assert answer.json["spec"]["fields"][0] == "a"
    assert (await stream.next())["object"] == answer.json
    old = (await api.get(f"{CRONTABS}/two")).json
    assert old["spec"]["schedule"] == "a b c d e"
    answer = await api.patch(f"{NEW}/two", {"spec": {"fields": ["z"] * 5}})
    assert answer.status == 200, answer.body
    assert (await stream.next())["type"] == "MODIFIED"
    assert (await api.get(f"{CRONTABS}/two")).json["spec"]["schedule"] == "z z z z z"
    table = (await api.get(NEW, accept=TABLE)).json
    assert [row["cells"] for row in table["rows"]] == [["one", "1"], ["two", "z"]]
    assert (await api.delete(f"{NEW}/two")).status == 200
    assert (await stream.next())["type"] == "DELETED"
    assert (await api.get(CRONTABS)).names == ["one"]
    await api.delete(f"{DEFINITIONS}/{NAME}")
    await settled()
    assert (await api.get(f"{DEFINITIONS}/{NAME}")).status == 404


async def test_a_webhook_that_fails(api: Api, converter: Converter) -> None:
    await define(api, converted_definition())
    await api.post(CRONTABS, crontab())
    converter.broken = True
    answer = await api.get(NEW)
    assert answer.status == 500
    assert "conversion webhook for stable.example.com/v1, Kind=CronTab failed" in answer.message
    assert (await api.get(CRONTABS)).status == 200
    converter.broken = False
    assert (await api.get(NEW)).names == ["one"]
    converter.broken = True
    await api.post(CRONTABS, crontab("two"))
    assert (await api.get(NEW)).status == 500
    converter.broken = False
    assert (await api.get(NEW)).names == ["one", "two"]


async def test_what_is_stored_moves_with_the_storage_version(
    api: Api, converter: Converter
) -> None:
    await define(api, converted_definition())
    await api.post(CRONTABS, crontab(schedule="1 2 3 4 5"))
    versions = [version("v1"), new_version(storage=True)]
    versions[1]["storage"] = True
    answer = await api.patch(f"{DEFINITIONS}/{NAME}", {"spec": {"versions": versions}})
    assert answer.status == 200, answer.body
    await settled()
    assert (await api.get(f"{NEW}/one")).json["spec"]["fields"] == ["1", "2", "3", "4", "5"]
    assert (await api.get(f"{CRONTABS}/one")).json["spec"]["schedule"] == "1 2 3 4 5"
    await api.patch(f"{CRONTABS}/one", {"spec": {"replicas": 2}})
    stored = await api.server.store.get("/registry/stable.example.com/crontabs/default/one")
    assert stored is not None
    assert b'"fields":["1"' in stored.value


@pytest.mark.realtime
async def test_over_https(store: MemoryStore, clock: Clock, random: Random, tmp_path: Any) -> None:
    from pybernetes.cluster import pki
    from pybernetes.wire.server import serve

    keys = pki.Pki(tmp_path)
    pki.ensure_control_plane(keys, server_names=["127.0.0.1"], now=datetime.now(UTC))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(keys.apiserver.certificate, keys.apiserver.key)
    converter = Converter()
    resources = (*RESOURCES, *APIEXTENSIONS_RESOURCES)
    async with (
        serve(converter.handle, host="127.0.0.1", port=0, tls=tls) as https,
        ApiServer(store, clock, random, resources=resources) as server,
    ):
        api = Api(server)
        port = https.addresses[0][1]
        bundle = base64.b64encode(keys.ca.certificate.read_bytes()).decode()
        body = converted_definition(f"https://127.0.0.1:{port}/convert", bundle)
        assert (await api.post(DEFINITIONS, body)).status == 201
        for _ in range(100):
            if (await api.get(CRONTABS)).status == 200:
                break
            await asyncio.sleep(0.01)
        assert (await api.post(CRONTABS, crontab(schedule="1 2 3 4 5"))).status == 201
        answer = await api.get(f"{NEW}/one")
        assert answer.status == 200, answer.body
        assert answer.json["spec"]["fields"] == ["1", "2", "3", "4", "5"]
        await api.close()
