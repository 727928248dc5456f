"""Custom resources, from the definition to its end, through the server in memory."""

from __future__ import annotations

import asyncio
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import pytest

from pybernetes.aio.virtualtime import settled
from pybernetes.api.apiextensions import APIEXTENSIONS_RESOURCES
from pybernetes.apiserver import ApiServer
from tests.api.server.conftest import JSON_PATCH, METADATA_LIST, RESOURCES, STRATEGIC, TABLE, Api

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from random import Random

    from pybernetes.aio.clock import Clock
    from pybernetes.storage import MemoryStore

Json = dict[str, Any]

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
NAME = "crontabs.stable.example.com"
CRONTABS = "/apis/stable.example.com/v1/namespaces/default/crontabs"

SCHEMA: Json = {
    "type": "object",
    "required": ["spec"],
    "properties": {
        "spec": {
            "type": "object",
            "required": ["schedule"],
            "properties": {
                "schedule": {"type": "string", "pattern": "^\\S+( \\S+){4}$"},
                "image": {"type": "string", "default": "busybox"},
                "replicas": {"type": "integer", "minimum": 0, "maximum": 10},
                "policy": {"type": "string", "enum": ["Allow", "Forbid"]},
                "port": {"x-kubernetes-int-or-string": True},
                "note": {"type": "string", "nullable": True},
                "tags": {
                    "type": "array",
                    "x-kubernetes-list-type": "set",
                    "items": {"type": "string"},
                },
                "steps": {
                    "type": "array",
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["name"],
                    "items": {
                        "type": "object",
                        "required": ["name"],
                        "properties": {
                            "name": {"type": "string"},
                            "retries": {"type": "integer", "default": 3},
                        },
                    },
                },
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                "template": {
                    "type": "object",
                    "x-kubernetes-embedded-resource": True,
                    "x-kubernetes-preserve-unknown-fields": True,
                },
            },
        },
        "status": {
            "type": "object",
            "properties": {
                "replicas": {"type": "integer"},
                "selector": {"type": "string"},
                "active": {"type": "boolean"},
            },
        },
    },
}


def definition(**spec: Any) -> Json:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": NAME},
        "spec": {
            "group": "stable.example.com",
            "scope": "Namespaced",
            "names": {
                "plural": "crontabs",
                "kind": "CronTab",
                "shortNames": ["ct"],
                "categories": ["all"],
            },
            "versions": [version("v1", storage=True)],
            **spec,
        },
    }


def version(name: str, *, storage: bool = False, **rest: Any) -> Json:
    return {
        "name": name,
        "served": True,
        "storage": storage,
        "schema": {"openAPIV3Schema": deepcopy(SCHEMA)},
        "subresources": {
            "status": {},
            "scale": {
                "specReplicasPath": ".spec.replicas",
                "statusReplicasPath": ".status.replicas",
                "labelSelectorPath": ".status.selector",
            },
        },
        "additionalPrinterColumns": [
            {"name": "Schedule", "type": "string", "jsonPath": ".spec.schedule"},
            {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas", "priority": 1},
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        ],
        "selectableFields": [{"jsonPath": ".spec.image"}],
        **rest,
    }


def crontab(name: str = "one", **spec: Any) -> Json:
    return {
        "apiVersion": "stable.example.com/v1",
        "kind": "CronTab",
        "metadata": {"name": name},
        "spec": {"schedule": "* * * * *", **spec},
    }


@pytest.fixture
async def api(store: MemoryStore, clock: Clock, random: Random) -> AsyncIterator[Api]:
    resources = (*RESOURCES, *APIEXTENSIONS_RESOURCES)
    async with ApiServer(store, clock, random, resources=resources) as server:
        api = Api(server)
        yield api
        await api.close()


async def define(api: Api, body: Json | None = None) -> None:
    answer = await api.post(DEFINITIONS, body or definition())
    assert answer.status == 201, answer.body
    await settled()


def conditions(answer: Any) -> dict[str, tuple[str, str]]:
    return {c["type"]: (c["status"], c["reason"]) for c in answer.json["status"]["conditions"]}


async def test_a_definition_is_established_and_served(api: Api) -> None:
    assert (await api.get(CRONTABS)).status == 404
    await define(api)
    answer = await api.get(f"{DEFINITIONS}/{NAME}")
    assert conditions(answer) == {
        "NamesAccepted": ("True", "NoConflicts"),
        "Established": ("True", "InitialNamesAccepted"),
    }
    assert answer.json["status"]["acceptedNames"]["listKind"] == "CronTabList"
    assert answer.json["status"]["storedVersions"] == ["v1"]
    empty = (await api.get(CRONTABS)).json
    assert (empty["kind"], empty["items"]) == ("CronTabList", [])


async def test_reading_and_writing(api: Api) -> None:
    await define(api)
    created = await api.post(CRONTABS, crontab())
    assert created.status == 201, created.body
    assert created.json["spec"] == {"schedule": "* * * * *", "image": "busybox"}
    assert created.json["metadata"]["generation"] == 1
    stream = await api.watch(CRONTABS)
    assert (await stream.next())["object"] == created.json
    read = (await api.get(f"{CRONTABS}/one")).json
    assert read == created.json
    changed = deepcopy(read)
    changed["spec"]["replicas"] = 3
    updated = await api.put(f"{CRONTABS}/one", changed)
    assert updated.status == 200, updated.body
    assert updated.json["metadata"]["generation"] == 2
    assert (await stream.next())["type"] == "MODIFIED"
    patched = await api.patch(f"{CRONTABS}/one", {"spec": {"replicas": 4}})
    assert patched.json["spec"]["replicas"] == 4
    operations = [{"op": "replace", "path": "/spec/replicas", "value": 5}]
    patched = await api.patch(f"{CRONTABS}/one", operations, JSON_PATCH)
    assert patched.json["spec"]["replicas"] == 5
    listed = (await api.get(CRONTABS)).json
    assert listed["items"] == [patched.json]
    assert listed["items"][0]["kind"] == "CronTab"
    assert (await api.get(CRONTABS, accept=METADATA_LIST)).names == ["one"]
    deleted = await api.delete(f"{CRONTABS}/one")
    assert deleted.status == 200
    assert (await api.get(f"{CRONTABS}/one")).status == 404


async def test_strategic_patches_are_for_built_in_kinds(api: Api) -> None:
    await define(api)
    await api.post(CRONTABS, crontab())
    answer = await api.patch(f"{CRONTABS}/one", {"spec": {"replicas": 4}}, STRATEGIC)
    assert answer.status == 415
    assert STRATEGIC not in answer.message


async def test_updates_say_what_they_replace(api: Api) -> None:
    await define(api)
    await api.post(CRONTABS, crontab())
    answer = await api.put(f"{CRONTABS}/one", crontab(replicas=1))
    assert answer.status == 422
    assert "must be specified for an update" in answer.message


async def test_status_is_written_by_itself(api: Api) -> None:
    await define(api)
    created = await api.post(CRONTABS, {**crontab(), "status": {"replicas": 7}})
    assert "status" not in created.json
    change = {
        "metadata": {"labels": {"a": "b"}},
        "spec": {"replicas": 9},
        "status": {"replicas": 2},
    }
    answer = await api.patch(f"{CRONTABS}/one/status", change)
    assert answer.status == 200, answer.body
    assert answer.json["status"] == {"replicas": 2}
    assert "replicas" not in answer.json["spec"]
    assert "labels" not in answer.json["metadata"]
    assert answer.json["metadata"]["generation"] == 1
    answer = await api.patch(
        f"{CRONTABS}/one", {"spec": {"replicas": 1}, "status": {"replicas": 9}}
    )
    assert answer.json["status"] == {"replicas": 2}
    assert answer.json["metadata"]["generation"] == 2


async def test_scale(api: Api) -> None:
    await define(api)
    await api.post(CRONTABS, crontab(replicas=1))
    await api.patch(f"{CRONTABS}/one/status", {"status": {"replicas": 1, "selector": "a=b"}})
    scale = (await api.get(f"{CRONTABS}/one/scale")).json
    assert (scale["kind"], scale["spec"]) == ("Scale", {"replicas": 1})
    assert scale["status"] == {"replicas": 1, "selector": "a=b"}
    scale["spec"]["replicas"] = 4
    answer = await api.put(f"{CRONTABS}/one/scale", scale)
    assert answer.status == 200, answer.body
    assert (await api.get(f"{CRONTABS}/one")).json["spec"]["replicas"] == 4
    answer = await api.patch(f"{CRONTABS}/one/scale", {"spec": {"replicas": 5}})
    assert answer.json["spec"] == {"replicas": 5}


async def test_unknown_fields_are_dropped_with_a_warning(api: Api) -> None:
    await define(api)
    body = crontab(foo=1, steps=[{"name": "a", "bar": 2}], free={"x": {"y": 1}})
    answer = await api.post(CRONTABS, body)
    assert answer.status == 201
    assert answer.json["spec"] == {
        "schedule": "* * * * *",
        "steps": [{"name": "a", "retries": 3}],
        "free": {"x": {"y": 1}},
        "image": "busybox",
    }
    assert answer.warnings == [
        '299 - "unknown field \\"spec.foo\\""',
        '299 - "unknown field \\"spec.steps[0].bar\\""',
    ]
    answer = await api.post(
        f"{CRONTABS}?fieldValidation=Strict", {**body, "metadata": {"name": "b"}}
    )
    assert answer.status == 400
    assert answer.message.endswith(
        'strict decoding error: unknown field "spec.foo", unknown field "spec.steps[0].bar"'
    )


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            {"replicas": "string"},
            'spec.replicas: Invalid value: "string": spec.replicas in body must be of type'
            ' integer: "string"',
        ),
        (
            {"replicas": 11},
            "spec.replicas: Invalid value: 11: spec.replicas in body should be less than or"
            " equal to 10",
        ),
        (
            {"policy": "Never"},
            'spec.policy: Unsupported value: "Never": supported values: "Allow", "Forbid"',
        ),
        (
            {"schedule": "often"},
            'spec.schedule: Invalid value: "often": spec.schedule in body should match'
            " '^\\S+( \\S+){4}$'",
        ),
        ({"steps": [{}]}, "spec.steps[0].name: Required value"),
        ({"tags": ["a", "a"]}, 'spec.tags[1]: Duplicate value: "a"'),
        (
            {"steps": [{"name": "a"}, {"name": "a"}]},
            'spec.steps[1]: Duplicate value: {"name":"a"}',
        ),
        ({"port": True}, "must be of type integer,string"),
        ({"schedule": None}, 'must be of type string: "null"'),
        ({"labels": {"a": 1}}, "spec.labels.a in body must be of type string"),
        (
            {"template": {"kind": "Pod"}},
            "spec.template.apiVersion: Required value: must not be empty",
        ),
    ],
)
async def test_validation(api: Api, spec: Json, message: str) -> None:
    await define(api)
    answer = await api.post(CRONTABS, crontab(**spec))
    assert (answer.status, answer.reason) == (422, "Invalid")
    assert message in answer.message


async def test_nulls(api: Api) -> None:
    await define(api)
    answer = await api.post(CRONTABS, crontab(note=None, image=None))
    assert answer.status == 201, answer.body
    assert answer.json["spec"] == {"schedule": "* * * * *", "note": None, "image": "busybox"}


async def test_what_was_wrong_before_may_stay(api: Api) -> None:
    """Rules that came after an object do not keep it from being changed elsewhere."""
    await define(api)
    await api.post(CRONTABS, crontab(replicas=9))
    strict = definition()
    limits = strict["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    limits["properties"]["replicas"]["maximum"] = 5
    change = {"spec": {"versions": strict["spec"]["versions"]}}
    assert (await api.patch(f"{DEFINITIONS}/{NAME}", change)).status == 200
    await settled()
    assert (await api.patch(f"{CRONTABS}/one", {"spec": {"image": "other"}})).status == 200
    assert (await api.patch(f"{CRONTABS}/one", {"spec": {"replicas": 8}})).status == 422


async def test_columns(api: Api) -> None:
    await define(api)
    await api.post(CRONTABS, crontab(replicas=2))
    table = (await api.get(CRONTABS, accept=TABLE)).json
    columns = [(c["name"], c["type"], c["priority"]) for c in table["columnDefinitions"]]
    assert columns == [
        ("Name", "string", 0),
        ("Schedule", "string", 0),
        ("Replicas", "integer", 1),
        ("Age", "date", 0),
    ]
    assert table["rows"][0]["cells"] == ["one", "* * * * *", 2, "0s"]


async def test_selectable_fields(api: Api) -> None:
    await define(api)
    await api.post(CRONTABS, crontab("a", image="x"))
    await api.post(CRONTABS, crontab("b"))
    assert (await api.get(f"{CRONTABS}?fieldSelector=spec.image=x")).names == ["a"]
    assert (await api.get(f"{CRONTABS}?fieldSelector=spec.schedule=x")).status == 400


async def test_a_new_default_shows_in_old_objects(api: Api) -> None:
    await define(api)
    await api.post(CRONTABS, crontab())
    stream = await api.watch(CRONTABS)
    await stream.next()
    changed = definition()
    spec = changed["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    spec["properties"]["policy"]["default"] = "Allow"
    await api.patch(f"{DEFINITIONS}/{NAME}", {"spec": changed["spec"]})
    await settled()
    assert (await api.get(f"{CRONTABS}/one")).json["spec"]["policy"] == "Allow"
    assert await stream.next() is None


async def test_versions_without_conversion(api: Api) -> None:
    other = version("v2")
    schema = other["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    del schema["port"]
    schema["extra"] = {"type": "string", "default": "more"}
    await define(api, definition(versions=[version("v1", storage=True), other, version("v1beta1")]))
    await api.post(CRONTABS, crontab(port=80))
    old = CRONTABS.replace("v1", "v1beta1")
    new = CRONTABS.replace("v1", "v2")
    assert (await api.get(f"{old}/one")).json["spec"]["port"] == 80
    assert (await api.get(f"{old}/one")).json["apiVersion"] == "stable.example.com/v1beta1"
    read = (await api.get(f"{new}/one")).json
    assert read["apiVersion"] == "stable.example.com/v2"
    assert read["spec"] == {"schedule": "* * * * *", "image": "busybox", "extra": "more"}
    assert (await api.get(new)).json["items"] == [read]
    answer = await api.post(new, {**crontab("two"), "apiVersion": "stable.example.com/v2"})
    assert answer.status == 201, answer.body
    assert answer.json["apiVersion"] == "stable.example.com/v2"
    body = {**crontab("dry"), "apiVersion": "stable.example.com/v2"}
    tried = await api.post(f"{new}?dryRun=All", body)
    assert (tried.status, tried.json["apiVersion"]) == (201, "stable.example.com/v2")
    stored = await api.server.store.get("/registry/stable.example.com/crontabs/default/two")
    assert stored is not None
    assert stored.value.startswith(b'{"kind":"CronTab","apiVersion":"stable.example.com/v1"')


async def test_another_storage_version(api: Api) -> None:
    await define(api, definition(versions=[version("v1", storage=True), version("v2")]))
    await api.post(CRONTABS, crontab())
    versions = [version("v1"), version("v2", storage=True)]
    answer = await api.patch(f"{DEFINITIONS}/{NAME}", {"spec": {"versions": versions}})
    assert answer.json["status"]["storedVersions"] == ["v1", "v2"]
    await settled()
    new = CRONTABS.replace("v1", "v2")
    assert (await api.get(f"{new}/one")).json["apiVersion"] == "stable.example.com/v2"
    answer = await api.patch(f"{CRONTABS}/one", {"spec": {"replicas": 1}})
    assert answer.json["apiVersion"] == "stable.example.com/v1"
    stored = await api.server.store.get("/registry/stable.example.com/crontabs/default/one")
    assert stored is not None
    assert b"stable.example.com/v2" in stored.value


async def test_names_that_are_taken(api: Api) -> None:
    await define(api)
    other = definition(
        names={"plural": "others", "kind": "CronTab", "shortNames": ["ct"]},
    )
    other["metadata"]["name"] = "others.stable.example.com"
    await define(api, other)
    path = f"{DEFINITIONS}/others.stable.example.com"
    answer = await api.get(path)
    assert conditions(answer) == {
        "NamesAccepted": ("False", "ListKindConflict"),
        "Established": ("False", "NotAccepted"),
    }
    assert answer.json["status"]["conditions"][0]["message"] == '"CronTabList" is already in use'
    others = CRONTABS.replace("crontabs", "others")
    assert (await api.get(others)).status == 404
    await api.delete(f"{DEFINITIONS}/{NAME}")
    await settled()
    assert conditions(await api.get(path))["Established"] == ("True", "InitialNamesAccepted")
    assert (await api.get(others)).status == 200


async def test_the_instances_go_first(api: Api) -> None:
    await define(api)
    held = crontab("held")
    held["metadata"]["finalizers"] = ["example.com/held"]
    await api.post(CRONTABS, crontab())
    await api.post(CRONTABS, held)
    stream = await api.watch(f"{CRONTABS}?fieldSelector=metadata.name=one")
    await stream.next()
    answer = await api.delete(f"{DEFINITIONS}/{NAME}")
    assert answer.json["metadata"]["finalizers"] == ["customresourcecleanup.apiextensions.k8s.io"]
    await settled()
    assert (await stream.next())["type"] == "DELETED"
    answer = await api.get(f"{DEFINITIONS}/{NAME}")
    assert conditions(answer)["Terminating"] == ("True", "InstanceDeletionInProgress")
    assert (await api.post(CRONTABS, crontab("late"))).status == 405
    assert (await api.patch(f"{CRONTABS}/held", {"metadata": {"finalizers": None}})).status == 200
    await asyncio.sleep(2)
    assert (await api.get(f"{DEFINITIONS}/{NAME}")).status == 404
    assert (await api.get(CRONTABS)).status == 404
    await define(api)
    assert (await api.get(CRONTABS)).json["items"] == []


async def test_definitions_are_served_after_a_restart(
    api: Api, store: MemoryStore, clock: Clock, random: Random
) -> None:
    await define(api)
    await api.post(CRONTABS, crontab())
    resources = (*RESOURCES, *APIEXTENSIONS_RESOURCES)
    async with ApiServer(store, clock, random, resources=resources) as server:
        again = Api(server)
        assert (await again.get(f"{CRONTABS}/one")).status == 200
        await again.close()


async def test_cluster_scope(api: Api) -> None:
    await define(api, definition(scope="Cluster"))
    path = "/apis/stable.example.com/v1/crontabs"
    assert (await api.post(path, crontab())).status == 201
    assert (await api.get(f"{path}/one")).status == 200
    assert (await api.get(CRONTABS)).status == 404


async def test_new_columns_end_no_watch(api: Api) -> None:
    await define(api)
    await api.post(CRONTABS, crontab())
    stream = await api.watch(CRONTABS)
    await stream.next()
    columns = [{"name": "Image", "type": "string", "jsonPath": ".spec.image"}]
    versions = [version("v1", storage=True, additionalPrinterColumns=columns)]
    await api.patch(f"{DEFINITIONS}/{NAME}", {"spec": {"versions": versions}})
    await settled()
    table = (await api.get(CRONTABS, accept=TABLE)).json
    assert table["rows"][0]["cells"] == ["one", "busybox"]
    await api.patch(f"{CRONTABS}/one", {"metadata": {"labels": {"a": "b"}}})
    assert (await stream.next())["type"] == "MODIFIED"


async def test_deprecated_versions(api: Api) -> None:
    versions = [version("v1", storage=True), version("v1beta1", deprecated=True)]
    await define(api, definition(versions=versions))
    answer = await api.get(CRONTABS.replace("v1", "v1beta1"))
    assert answer.warnings == ['299 - "stable.example.com/v1beta1 CronTab is deprecated"']
    assert (await api.get(CRONTABS)).warnings == []


async def test_only_one_of_two_gets_a_name(api: Api) -> None:
    """Also when both come at the same moment."""
    other = definition(names={"plural": "others", "kind": "CronTab"})
    other["metadata"]["name"] = "others.stable.example.com"
    await asyncio.gather(api.post(DEFINITIONS, definition()), api.post(DEFINITIONS, other))
    await settled()
    answers = [
        await api.get(f"{DEFINITIONS}/{p}.stable.example.com") for p in ("crontabs", "others")
    ]
    assert sorted(conditions(answer)["Established"][0] for answer in answers) == ["False", "True"]
