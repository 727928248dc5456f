"""Rules in CEL on custom resources, and what is said of definitions that cannot work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pybernetes.api.apiextensions import APIEXTENSIONS_RESOURCES
from pybernetes.apiserver import ApiServer
from tests.api.server.conftest import RESOURCES, Api
from tests.api.server.test_customresources import CRONTABS, DEFINITIONS, crontab, define, definition

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from random import Random

    from pybernetes.aio.clock import Clock
    from pybernetes.storage import MemoryStore

pytest.importorskip("cel_expr_python")

Json = dict[str, Any]


@pytest.fixture
async def api(store: MemoryStore, clock: Clock, random: Random) -> AsyncIterator[Api]:
    resources = (*RESOURCES, *APIEXTENSIONS_RESOURCES)
    async with ApiServer(store, clock, random, resources=resources) as server:
        api = Api(server)
        yield api
        await api.close()


def with_rules(*rules: Json, **properties: Json) -> Json:
    body = definition()
    spec = body["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    spec["x-kubernetes-validations"] = list(rules)
    spec["properties"] |= properties
    return body


async def test_rules_are_asked(api: Api) -> None:
    await define(
        api,
        with_rules(
            {"rule": "self.replicas <= self.limit", "message": "too many replicas"},
            {"rule": "self.limit < 9", "messageExpression": "'limit is ' + string(self.limit)"},
            {"rule": "self.limit != 3", "fieldPath": ".limit", "reason": "FieldValueForbidden"},
            {"rule": "!has(self.when) || self.when > timestamp('2020-01-01T00:00:00Z')"},
            limit={"type": "integer"},
            when={"type": "string", "format": "date-time"},
        ),
    )
    good = crontab(replicas=1, limit=2, when="2026-01-01T00:00:00Z")
    answer = await api.post(CRONTABS, good)
    assert answer.status == 201, answer.body
    answer = await api.post(CRONTABS, crontab("b", replicas=3, limit=2))
    assert answer.status == 422
    assert 'spec: Invalid value: "object": too many replicas' in answer.message
    answer = await api.post(CRONTABS, crontab("b", replicas=3, limit=9))
    assert "limit is 9" in answer.message
    answer = await api.post(CRONTABS, crontab("b", replicas=3, limit=3))
    assert "spec.limit: Forbidden: failed rule: self.limit != 3" in answer.message
    old = crontab("b", replicas=1, limit=2, when="2019-01-01T00:00:00Z")
    assert (await api.post(CRONTABS, old)).status == 422
    answer = await api.post(CRONTABS, crontab("b", replicas=1))
    assert "evaluating rule: too many replicas" in answer.message


async def test_transitions(api: Api) -> None:
    await define(
        api,
        with_rules(
            {"rule": "self.image == oldSelf.image", "message": "image cannot change"},
            {
                "rule": "oldSelf.hasValue() || self.schedule != 'a b c d e'",
                "optionalOldSelf": True,
                "message": "not at first",
            },
        ),
    )
    answer = await api.post(CRONTABS, crontab(schedule="a b c d e"))
    assert "not at first" in answer.message
    assert (await api.post(CRONTABS, crontab(image="x"))).status == 201
    answer = await api.patch(f"{CRONTABS}/one", {"spec": {"schedule": "a b c d e"}})
    assert answer.status == 200, answer.body
    answer = await api.patch(f"{CRONTABS}/one", {"spec": {"image": "y"}})
    assert "image cannot change" in answer.message


async def test_rules_of_elements_and_of_the_whole(api: Api) -> None:
    body = with_rules()
    root = body["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    root["x-kubernetes-validations"] = [{"rule": "self.metadata.name != 'forbidden'"}]
    steps = root["properties"]["spec"]["properties"]["steps"]
    steps["items"]["x-kubernetes-validations"] = [{"rule": "self.retries >= oldSelf.retries"}]
    await define(api, body)
    assert "failed rule" in (await api.post(CRONTABS, crontab("forbidden"))).message
    two = [{"name": "a", "retries": 1}, {"name": "b", "retries": 2}]
    assert (await api.post(CRONTABS, crontab(steps=two))).status == 201
    swapped = [{"name": "b", "retries": 2}, {"name": "a", "retries": 0}]
    answer = await api.patch(f"{CRONTABS}/one", {"spec": {"steps": swapped}})
    assert "spec.steps[1]: Invalid value" in answer.message


async def test_costs_are_bounded(api: Api) -> None:
    rule = "self.tags.all(a, self.tags.all(b, self.tags.all(c, a + b + c != '')))"
    await define(api, with_rules({"rule": rule}))
    answer = await api.post(CRONTABS, crontab(tags=[str(number) for number in range(500)]))
    assert answer.status == 422
    assert "call cost exceeds limit" in answer.message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"x-kubernetes-validations": [{"rule": "self.a +"}]},
            'properties[spec].x-kubernetes-validations[0].rule: Invalid value: "self.a +":'
            " compilation failed: ERROR: <input>:1:9: Syntax error",
        ),
        (
            {"properties": {"a": {"type": "string", "pattern": "("}}},
            'properties[spec].properties[a].pattern: Invalid value: "(": must be a valid regular'
            " expression, but isn't:",
        ),
        (
            {"properties": {"a": {"type": "integer", "default": "x"}}},
            'properties[a].default: Invalid value: "string":',
        ),
    ],
)
async def test_definitions_that_cannot_work(api: Api, change: Json, message: str) -> None:
    body = definition()
    spec = body["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    spec |= change
    spec.pop("required")
    answer = await api.post(DEFINITIONS, body)
    assert answer.status == 422
    assert message in answer.message


async def test_paths_of_columns_are_tried(api: Api) -> None:
    body = definition()
    body["spec"]["versions"][0]["additionalPrinterColumns"][0]["jsonPath"] = "spec"
    answer = await api.post(DEFINITIONS, body)
    assert "additionalPrinterColumns[0].JSONPath: Invalid value" in answer.message


@pytest.mark.parametrize(
    "rule", ["self.image.find('(') == ''", "[1, 'a'].sum() == 1", "1 / 0 == 1"]
)
async def test_rules_that_fail_refuse(api: Api, rule: str) -> None:
    await define(api, with_rules({"rule": rule}))
    answer = await api.post(CRONTABS, crontab())
    assert answer.status == 422, answer.body
