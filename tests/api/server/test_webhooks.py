"""Admission webhooks: a real control plane in memory, real webhooks over HTTPS on loopback.

Nothing is fake but the webhooks' judgement, which each test writes down. Services have addresses
that lead nowhere here, so what is dialled for one is looked at instead of dialled.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from copy import deepcopy
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from pybernetes.api.user import UserInfo
from pybernetes.apiserver.admission.webhooks.client import WebhookClients, service_address
from pybernetes.wire.http import Peer, Response
from pybernetes.wire.memory import MemoryHttpClient
from pybernetes.wire.server import serve
from tests.api.server.access import running
from tests.wire.conftest import Certificates

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable
    from pathlib import Path
    from random import Random

    from pybernetes.aio.clock import Clock
    from pybernetes.cluster.controlplane import ControlPlane
    from pybernetes.wire.http import Request

pytestmark = pytest.mark.realtime

Json = Any
Judge = Callable[[Json], "Json | Response | Awaitable[Json]"]

MUTATING = "mutatingwebhookconfigurations"
VALIDATING = "validatingwebhookconfigurations"
CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1"
MAPS = "/api/v1/namespaces/default/configmaps"
PODS_RULE = {
    "operations": ["*"],
    "apiGroups": [""],
    "apiVersions": ["v1"],
    "resources": ["configmaps"],
}


def allow(request: Json) -> Json:
    return {"allowed": True}


def patching(*operations: Json) -> Judge:
    text = base64.b64encode(json.dumps(operations).encode()).decode()
    return lambda request: {"allowed": True, "patchType": "JSONPatch", "patch": text}


def adding(key: str, value: str) -> Judge:
    return patching({"op": "add", "path": f"/data/{key}", "value": value})


class World:
    """The control plane, and a server full of webhooks."""

    def __init__(self, plane: ControlPlane, certificates: Certificates) -> None:
        self.plane = plane
        self.ca = base64.b64encode(certificates.ca.read_bytes()).decode()
        self.url = ""
        # By path.
        self.judges: dict[str, Judge] = {}
        # What each was asked, by path, in order.
        self.asked: dict[str, list[Json]] = {}
        self.targets: list[str] = []

    async def answer(self, request: Request) -> Response:
        review = json.loads(await request.body.read(10_000_000))
        self.targets.append(f"{request.path}?{request.query}")
        self.asked.setdefault(request.path, []).append(review["request"])
        said: Any = self.judges[request.path](review["request"])
        if asyncio.iscoroutine(said):
            said = await said
        if isinstance(said, Response):
            return said
        whole = {"kind": "AdmissionReview", "apiVersion": review["apiVersion"]}
        whole["response"] = {"uid": review["request"]["uid"], **said}
        return Response(200, [("Content-Type", "application/json")], json.dumps(whole).encode())

    async def hook(self, name: str, judge: Judge, kind: str = VALIDATING, **more: Any) -> None:
        """A configuration with one webhook."""
        self.judges[f"/{name}"] = judge
        webhook = {
            "name": f"{name}.example.com",
            "clientConfig": {"url": f"{self.url}/{name}", "caBundle": self.ca},
            "rules": [PODS_RULE],
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            "timeoutSeconds": 5,
            **more,
        }
        body = {"metadata": {"name": name}, "webhooks": [webhook]}
        status, answer, _ = await self.send("POST", f"{CONFIGURATIONS}/{kind}", body)
        assert status == 201, answer

    async def send(
        self, method: str, path: str, body: Json = None, content_type: str = "application/json"
    ) -> tuple[int, Json, list[str]]:
        identity = UserInfo("admin", ("system:masters",))
        client = MemoryHttpClient(self.plane.server.handle, peer=Peer(identity=identity))
        data = b"" if body is None else json.dumps(body).encode()
        headers = [("Content-Type", content_type)]
        response = await client.request(method, path, headers=headers, body=data)
        answer = await response.read()
        return response.status, json.loads(answer), response.headers.get_all("warning")

    async def make(self, name: str = "c", query: str = "", **metadata: Any) -> tuple[int, Json]:
        body = {"metadata": {"name": name, **metadata}, "data": {"k": "v"}}
        status, answer, _ = await self.send("POST", MAPS + query, body)
        return status, answer


@pytest.fixture
async def world(clock: Clock, random: Random, tmp_path: Path) -> AsyncIterator[World]:
    certificates = Certificates(tmp_path)
    async with running(clock, random) as plane:
        world = World(plane, certificates)
        async with serve(world.answer, tls=certificates.server_context()) as server:
            world.url = f"https://127.0.0.1:{server.addresses[0][1]}"
            yield world


# --- judging --------------------------------------------------------------------------------------


async def test_a_webhook_is_shown_the_write(world: World) -> None:
    await world.hook("w", allow)
    status, _ = await world.make("c", "?fieldManager=me")
    assert status == 201
    [request] = world.asked["/w"]
    assert request["operation"] == "CREATE"
    assert request["kind"] == {"group": "", "version": "v1", "kind": "ConfigMap"}
    assert request["resource"] == {"group": "", "version": "v1", "resource": "configmaps"}
    assert request["requestKind"] == request["kind"]
    assert (request["namespace"], request["name"]) == ("default", "c")
    assert request["userInfo"]["username"] == "admin"
    assert "system:masters" in request["userInfo"]["groups"]
    assert request["object"]["data"] == {"k": "v"}
    assert request["oldObject"] is None
    assert request["dryRun"] is False
    assert request["options"]["kind"] == "CreateOptions"
    assert request["options"]["fieldManager"] == "me"
    assert world.targets == ["/w?timeout=5s"]


async def test_updates_patches_and_deletions_are_told_apart(world: World) -> None:
    await world.make()
    await world.hook("w", allow)
    merge = "application/merge-patch+json"
    status, _, _ = await world.send("PATCH", f"{MAPS}/c", {"data": {"k": "2"}}, merge)
    assert status == 200
    await world.send("DELETE", f"{MAPS}/c")
    update, deletion = world.asked["/w"]
    assert (update["operation"], update["options"]["kind"]) == ("UPDATE", "PatchOptions")
    assert (update["oldObject"]["data"], update["object"]["data"]) == ({"k": "v"}, {"k": "2"})
    assert (deletion["operation"], deletion["options"]["kind"]) == ("DELETE", "DeleteOptions")
    assert deletion["object"] is None
    assert deletion["oldObject"]["data"] == {"k": "2"}


@pytest.mark.parametrize(
    ("status", "code", "text"),
    [
        ({"message": "no", "code": 403, "reason": "Forbidden"}, 403, ": no"),
        ({"reason": "Busy"}, 400, ": Busy"),
        ({"message": "no", "code": 200}, 400, ": no"),
        (None, 400, " without explanation"),
    ],
)
async def test_a_refusal_is_passed_on(world: World, status: Json, code: int, text: str) -> None:
    await world.hook("w", lambda request: {"allowed": False, "status": status})
    got, answer = await world.make()
    assert got == answer["code"] == code
    assert answer["message"] == f'admission webhook "w.example.com" denied the request{text}'
    assert answer["status"] == "Failure"


async def test_warnings_reach_the_client(world: World) -> None:
    await world.hook("w", lambda request: {"allowed": True, "warnings": ["mind the step"]})
    _, _, warnings = await world.send("POST", MAPS, {"metadata": {"name": "c"}})
    assert warnings == ['299 - "mind the step"']


async def test_the_first_refusal_in_order_counts(world: World) -> None:
    async def slow(request: Json) -> Json:
        await asyncio.sleep(0.1)
        return {"allowed": False, "status": {"message": "slow"}}

    await world.hook("a", slow)
    await world.hook("b", lambda request: {"allowed": False, "status": {"message": "fast"}})
    _, answer = await world.make()
    assert answer["message"].endswith(": slow")


# --- matching -------------------------------------------------------------------------------------


async def test_selectors_of_object_and_namespace(world: World) -> None:
    no = {"allowed": False}
    labelled = {"matchLabels": {"watched": "yes"}}
    await world.hook("object", lambda request: no, objectSelector=labelled)
    await world.hook("place", lambda request: no, namespaceSelector=labelled)
    assert (await world.make("plain"))[0] == 201
    assert (await world.make("odd", labels={"watched": "yes"}))[0] == 400
    body = {"metadata": {"name": "ns", "labels": {"watched": "yes"}}}
    assert (await world.send("POST", "/api/v1/namespaces", body))[0] == 201
    path = "/api/v1/namespaces/ns/configmaps"
    assert (await world.send("POST", path, {"metadata": {"name": "c"}}))[0] == 400
    assert len(world.asked["/object"]) == len(world.asked["/place"]) == 1


@pytest.mark.parametrize(
    ("rule", "meant"),
    [
        ({"operations": ["UPDATE"]}, False),
        ({"operations": ["CREATE", "UPDATE"]}, True),
        ({"resources": ["*"]}, True),
        ({"resources": ["*/*"]}, True),
        ({"resources": ["configmaps/status"]}, False),
        ({"apiGroups": ["apps"]}, False),
        ({"apiVersions": ["*"]}, True),
        ({"scope": "Namespaced"}, True),
        ({"scope": "Cluster"}, False),
    ],
)
async def test_rules(world: World, rule: Json, meant: bool) -> None:
    await world.hook("w", allow, rules=[{**PODS_RULE, **rule}])
    assert (await world.make())[0] == 201
    assert ("/w" in world.asked) is meant


async def test_a_subresource_has_its_own_rule_and_kind(world: World) -> None:
    deployment = {
        "metadata": {"name": "d"},
        "spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {
                "metadata": {"labels": {"a": "b"}},
                "spec": {"containers": [{"name": "c", "image": "i"}]},
            },
        },
    }
    deployments = "/apis/apps/v1/namespaces/default/deployments"
    assert (await world.send("POST", deployments, deployment))[0] == 201
    rule = {**PODS_RULE, "apiGroups": ["apps"], "resources": ["deployments/scale"]}
    add = patching({"op": "replace", "path": "/spec/replicas", "value": 3})
    await world.hook("w", add, MUTATING, rules=[rule])
    merge = "application/merge-patch+json"
    body = {"spec": {"replicas": 2}}
    status, answer, _ = await world.send("PATCH", f"{deployments}/d/scale", body, merge)
    assert (status, answer["spec"]["replicas"]) == (200, 3)
    [request] = world.asked["/w"]
    assert request["subResource"] == request["requestSubResource"] == "scale"
    assert request["kind"] == {"group": "autoscaling", "version": "v1", "kind": "Scale"}


async def test_other_versions_are_shown_in_the_one_a_webhook_knows(world: World) -> None:
    rule = {**PODS_RULE, "apiGroups": ["autoscaling"], "resources": ["horizontalpodautoscalers"]}
    label = patching({"op": "add", "path": "/spec/minReplicas", "value": 2})
    await world.hook("w", label, MUTATING, rules=[rule])
    await world.hook("x", allow, rules=[rule], matchPolicy="Exact")
    path = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers"
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}
    body = {"metadata": {"name": "h"}, "spec": {"scaleTargetRef": target, "maxReplicas": 5}}
    status, answer, _ = await world.send("POST", path, body)
    assert status == 201, answer
    assert answer["apiVersion"] == "autoscaling/v2"
    assert answer["spec"]["minReplicas"] == 2
    [request] = world.asked["/w"]
    assert request["kind"]["version"] == request["resource"]["version"] == "v1"
    assert request["requestKind"]["version"] == request["requestResource"]["version"] == "v2"
    assert request["object"]["apiVersion"] == "autoscaling/v1"
    assert "/x" not in world.asked


async def test_configurations_themselves_are_never_shown(world: World) -> None:
    everything = {
        "operations": ["*"],
        "apiGroups": ["*"],
        "apiVersions": ["*"],
        "resources": ["*/*"],
    }
    await world.hook("w", lambda request: {"allowed": False}, rules=[everything])
    assert (await world.make())[0] == 400
    status, _, _ = await world.send("DELETE", f"{CONFIGURATIONS}/{VALIDATING}/w")
    assert status == 200
    assert (await world.make())[0] == 201


async def test_a_connection_is_asked_about(world: World) -> None:
    rule = {**PODS_RULE, "operations": ["CONNECT"], "resources": ["pods/exec"]}
    await world.hook("w", lambda request: {"allowed": False}, rules=[rule])
    path = "/api/v1/namespaces/default/pods/p/exec?command=ls&command=-l&stdin=true&container=m"
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "m", "image": "i"}]}}
    assert (await world.send("POST", "/api/v1/namespaces/default/pods", pod))[0] == 201
    status, answer, _ = await world.send("POST", path)
    assert status == 400, answer
    [request] = world.asked["/w"]
    assert request["kind"]["kind"] == "PodExecOptions"
    assert request["object"]["command"] == ["ls", "-l"]
    assert request["object"]["stdin"] is True
    assert request["object"]["container"] == "m"


# --- changing -------------------------------------------------------------------------------------


async def test_changes_are_made_in_the_order_of_names(world: World) -> None:
    await world.hook("b", adding("k", "b"), MUTATING)
    await world.hook("a", adding("k", "a"), MUTATING)
    await world.hook("last", allow)
    status, answer = await world.make()
    assert (status, answer["data"]) == (201, {"k": "b"})
    assert world.asked["/b"][0]["object"]["data"] == {"k": "a"}
    assert world.asked["/last"][0]["object"]["data"] == {"k": "b"}
    # The second round asked nobody, for nobody wished it.
    assert len(world.asked["/a"]) == len(world.asked["/b"]) == 1


async def test_who_wishes_is_asked_again_after_others_changed_something(world: World) -> None:
    await world.hook("a", allow, MUTATING, reinvocationPolicy="IfNeeded")
    await world.hook("b", adding("seen", "b"), MUTATING, reinvocationPolicy="IfNeeded")
    assert (await world.make())[0] == 201
    assert [r["object"]["data"].get("seen") for r in world.asked["/a"]] == [None, "b"]
    # Its own change alone is no reason.
    assert len(world.asked["/b"]) == 1


async def test_policy_looks_at_what_webhooks_added(world: World) -> None:
    rule = {**PODS_RULE, "resources": ["pods"]}
    sidecar = {"name": "sidecar", "image": "proxy"}
    await world.hook(
        "w",
        patching({"op": "add", "path": "/spec/containers/-", "value": sidecar}),
        MUTATING,
        rules=[rule],
    )
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "m", "image": "i"}]}}
    status, answer, _ = await world.send("POST", "/api/v1/namespaces/default/pods", pod)
    assert status == 201, answer
    main, added = answer["spec"]["containers"]
    assert main["volumeMounts"] == added["volumeMounts"]
    assert added["imagePullPolicy"] == "Always"


async def test_a_service_is_given_one_address_though_policy_runs_twice(world: World) -> None:
    rule = {**PODS_RULE, "resources": ["services"]}
    label = patching({"op": "add", "path": "/metadata/labels", "value": {"a": "b"}})
    await world.hook("w", label, MUTATING, rules=[rule])
    body = {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}}
    status, answer, _ = await world.send("POST", "/api/v1/namespaces/default/services", body)
    assert status == 201, answer
    assert answer["metadata"]["labels"] == {"a": "b"}
    assert answer["spec"]["clusterIP"]


async def test_the_kind_judges_what_webhooks_made(world: World) -> None:
    bad = patching({"op": "add", "path": "/metadata/labels", "value": {"a b": "c"}})
    await world.hook("w", bad, MUTATING)
    status, answer = await world.make()
    assert (status, answer["reason"]) == (422, "Invalid")


async def test_a_webhook_moves_nothing(world: World) -> None:
    away = patching({"op": "replace", "path": "/metadata/namespace", "value": "kube-system"})
    await world.hook("w", away, MUTATING)
    status, answer = await world.make()
    assert status == 400
    assert "namespace" in answer["message"]


async def test_a_write_to_the_status_stays_one(world: World) -> None:
    status, _, _ = await world.send("POST", "/api/v1/nodes", {"metadata": {"name": "n"}})
    assert status == 201
    rule = {**PODS_RULE, "resources": ["nodes/status"]}
    change = patching({"op": "add", "path": "/spec/unschedulable", "value": True})
    await world.hook("w", change, MUTATING, rules=[rule])
    body = {"status": {"phase": "Running"}}
    merge = "application/merge-patch+json"
    status, answer, _ = await world.send("PATCH", "/api/v1/nodes/n/status", body, merge)
    assert status == 200
    assert "unschedulable" not in answer["spec"]


async def test_a_deletion_cannot_be_changed(world: World) -> None:
    await world.make()
    await world.hook("w", adding("k", "a"), MUTATING)
    status, answer, _ = await world.send("DELETE", f"{MAPS}/c")
    assert status == 500
    assert answer["message"] == (
        'Internal error occurred: admission webhook "w.example.com" attempted to modify the object,'
        " which is not supported for this operation"
    )


async def test_custom_resources_are_written_like_others(world: World) -> None:
    spec = {"type": "object", "properties": {"size": {"type": "integer"}}}
    schema = {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}
    old = {"name": "v1alpha1", "served": True, "storage": False, "schema": schema}
    definition = {
        "metadata": {"name": "boxes.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "boxes", "kind": "Box"},
            "versions": [{**deepcopy(old), "name": "v1", "storage": True}, old],
        },
    }
    definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    assert (await world.send("POST", definitions, definition))[0] == 201
    rule = {**PODS_RULE, "apiGroups": ["example.com"], "resources": ["boxes"]}
    change = patching(
        {"op": "add", "path": "/spec/size", "value": 3},
        {"op": "add", "path": "/spec/unknown", "value": 1},
    )
    await world.hook("w", change, MUTATING, rules=[rule])
    box = {
        "apiVersion": "example.com/v1alpha1",
        "kind": "Box",
        "metadata": {"name": "b"},
        "spec": {"size": 1},
    }
    path = "/apis/example.com/v1alpha1/namespaces/default/boxes"
    for _ in range(100):
        status, answer, _ = await world.send("POST", path, box)
        if status != 404:
            break
        await asyncio.sleep(0.02)
    assert status == 201, answer
    assert answer["apiVersion"] == "example.com/v1alpha1"
    assert answer["spec"] == {"size": 3}
    request = world.asked["/w"][-1]
    assert request["object"]["apiVersion"] == "example.com/v1"
    assert request["object"]["spec"] == {"size": 1}
    assert request["requestKind"] == {"group": "example.com", "version": "v1alpha1", "kind": "Box"}


async def test_versions_that_a_webhook_converts_are_no_way_around(world: World) -> None:
    def convert(request: Json) -> Response:
        moved = [
            {
                **{key: value for key, value in one.items() if key not in ("big", "small")},
                "apiVersion": request["desiredAPIVersion"],
                "big" if request["desiredAPIVersion"].endswith("/v1") else "small": one.get(
                    "big", one.get("small")
                ),
            }
            for one in request["objects"]
        ]
        response = {
            "uid": request["uid"],
            "result": {"status": "Success"},
            "convertedObjects": moved,
        }
        whole = {"kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1"}
        return Response(200, [], json.dumps({**whole, "response": response}).encode())

    world.judges["/convert"] = convert

    def version(name: str, field: str, *, storage: bool) -> Json:
        schema = {"type": "object", "properties": {field: {"type": "integer"}}}
        return {
            "name": name,
            "served": True,
            "storage": storage,
            "schema": {"openAPIV3Schema": schema},
        }

    client = {"url": f"{world.url}/convert", "caBundle": world.ca}
    definition = {
        "metadata": {"name": "boxes.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "boxes", "kind": "Box"},
            "versions": [
                version("v1", "big", storage=True),
                version("v1beta1", "small", storage=False),
            ],
            "conversion": {
                "strategy": "Webhook",
                "webhook": {"clientConfig": client, "conversionReviewVersions": ["v1"]},
            },
        },
    }
    definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    status, answer, _ = await world.send("POST", definitions, definition)
    assert status == 201, answer
    rule = {**PODS_RULE, "apiGroups": ["example.com"], "resources": ["boxes"]}
    more = patching({"op": "replace", "path": "/big", "value": 7})
    await world.hook("w", more, MUTATING, rules=[rule])
    rule = {**rule, "apiVersions": ["v1beta1"]}
    await world.hook("x", allow, rules=[rule])
    for name, field in (("v1beta1", "small"), ("v1", "big")):
        path = f"/apis/example.com/{name}/namespaces/default/boxes"
        box = {"apiVersion": f"example.com/{name}", "kind": "Box", field: 1}
        box["metadata"] = {"name": f"box-{name}"}
        for _ in range(100):
            status, answer, _ = await world.send("POST", path, box)
            if status != 404:
                break
            await asyncio.sleep(0.02)
        assert status == 201, answer
        assert answer["apiVersion"] == f"example.com/{name}"
        assert answer[field] == 7
        assert world.asked["/w"][-1]["object"]["big"] == 1
        assert world.asked["/x"][-1]["object"]["small"] == 7


# --- failing --------------------------------------------------------------------------------------


def answering(status: int, body: bytes = b"", **headers: str) -> Judge:
    return lambda request: Response(status, list(headers.items()), body)


def whole(value: Json) -> Judge:
    return lambda request: Response(200, [], json.dumps(value).encode())


V1 = {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1"}


@pytest.mark.parametrize(
    ("judge", "text"),
    [
        (answering(500, b"boom"), 'failed to call webhook: an error on the server ("boom") has'),
        (answering(404), "failed to call webhook: the server could not find the requested"),
        (
            answering(302, Location="/other"),
            "failed to call webhook: the server responded with the status code 302",
        ),
        (answering(200, b"hello"), "received invalid webhook response: "),
        (whole(V1), "received invalid webhook response: webhook response was absent"),
        (
            whole({**V1, "response": {"uid": "x", "allowed": True}}),
            "received invalid webhook response: expected response.uid=",
        ),
        (
            whole({**V1, "apiVersion": "admission.k8s.io/v1beta1", "response": {"uid": "x"}}),
            "received invalid webhook response: expected webhook response of"
            " admission.k8s.io/v1, Kind=AdmissionReview, got admission.k8s.io/v1beta1",
        ),
        (
            lambda request: {"allowed": True, "patchType": "JSONPatch", "patch": "W10="},
            "received invalid webhook response: validating webhook may not return response.patch",
        ),
    ],
)
async def test_what_is_no_answer_is_a_failure(world: World, judge: Judge, text: str) -> None:
    await world.hook("w", judge)
    status, answer = await world.make()
    assert status == 500
    assert text in answer["message"]
    head = 'Internal error occurred: failed calling webhook "w.example.com": '
    assert answer["message"].startswith(head)


@pytest.mark.parametrize("kind", [MUTATING, VALIDATING])
async def test_failures_may_be_ignored(world: World, kind: str) -> None:
    await world.hook("w", answering(500), kind, failurePolicy="Ignore")
    assert (await world.make())[0] == 201
    assert len(world.asked["/w"]) == 1


async def test_a_refusal_is_never_ignored(world: World) -> None:
    await world.hook("w", lambda request: {"allowed": False}, failurePolicy="Ignore")
    assert (await world.make())[0] == 400


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ({"patch": "W10="}, "webhook returned response.patch but not response.patchType"),
        ({"patchType": "JSONPatch"}, "webhook returned response.patchType but not response.patch"),
        ({"patchType": "Merge", "patch": "e30="}, 'unsupported patch type "Merge"'),
    ],
)
async def test_patch_and_type_come_together(world: World, answer: Json, text: str) -> None:
    await world.hook("w", lambda request: {"allowed": True, **answer}, MUTATING)
    status, refused = await world.make()
    assert (status, text in refused["message"]) == (500, True)


async def test_nobody_waits_longer_than_the_webhook_may_take(world: World) -> None:
    async def never(request: Json) -> Json:
        await asyncio.sleep(5)
        return {"allowed": True}

    await world.hook("w", never, timeoutSeconds=1)
    status, answer = await world.make()
    assert status == 500
    assert answer["message"] == (
        'Internal error occurred: failed calling webhook "w.example.com": failed to call webhook:'
        f' Post "{world.url}/w?timeout=1s": context deadline exceeded'
    )


async def test_a_strange_certificate_is_not_trusted(world: World, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = base64.b64encode(Certificates(tmp_path / "other").ca.read_bytes()).decode()
    config = {"url": f"{world.url}/w", "caBundle": other}
    await world.hook("w", allow, clientConfig=config)
    status, answer = await world.make()
    assert status == 500
    assert "tls: failed to verify certificate" in answer["message"]
    assert "/w" not in world.asked


async def test_nobody_listens(world: World) -> None:
    config = {"url": "https://127.0.0.1:1/w", "caBundle": world.ca}
    await world.hook("w", allow, clientConfig=config)
    _, answer = await world.make()
    assert answer["message"].endswith("dial tcp 127.0.0.1:1: connect: connection refused")


async def test_a_service_that_is_not_there(world: World) -> None:
    config = {"service": {"namespace": "default", "name": "hook", "path": "/w"}}
    await world.hook("w", allow, clientConfig={**config, "caBundle": world.ca})
    _, answer = await world.make()
    url = "https://hook.default.svc:443/w?timeout=5s"
    assert answer["message"].endswith(f'Post "{url}": service "hook" not found')


async def test_a_dry_run_is_told(world: World) -> None:
    await world.hook("w", allow, sideEffects="NoneOnDryRun")
    assert (await world.make("c", "?dryRun=All"))[0] == 201
    [request] = world.asked["/w"]
    assert request["dryRun"] is True
    assert request["options"]["dryRun"] == ["All"]


@pytest.mark.parametrize(("policy", "status"), [("Fail", 500), ("Ignore", 201)])
async def test_conditions_count_as_no_answer(world: World, policy: str, status: int) -> None:
    conditions = [{"name": "odd", "expression": "object.metadata.name == 'x'"}]
    await world.hook("w", allow, matchConditions=conditions, failurePolicy=policy)
    got, answer = await world.make()
    assert got == status
    assert "/w" not in world.asked
    if status == 500:
        assert "matchConditions are not supported" in answer["message"]


async def test_conditions_are_warned_of(world: World) -> None:
    webhook = {
        "name": "w.example.com",
        "clientConfig": {"url": f"{world.url}/w"},
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "matchConditions": [{"name": "odd", "expression": "true"}],
    }
    body = {"metadata": {"name": "w"}, "webhooks": [webhook]}
    _, _, warnings = await world.send("POST", f"{CONFIGURATIONS}/{VALIDATING}", body)
    assert any("matchConditions" in text and "(Fail)" in text for text in warnings)


# --- services -------------------------------------------------------------------------------------


def service(**spec: Any) -> Any:
    ports = (SimpleNamespace(port=443),)
    return SimpleNamespace(
        spec=SimpleNamespace(**{"type": "ClusterIP", "cluster_ip": "", "ports": ports, **spec})
    )


def test_a_service_is_dialled_at_its_cluster_ip() -> None:
    assert service_address(service(cluster_ip="10.0.0.7"), "s", 443) == ("10.0.0.7", 443)
    outside = service(type="ExternalName", external_name="hooks.example.com")
    assert service_address(outside, "s", 443) == ("hooks.example.com", 443)
    with pytest.raises(OSError, match='no service port 8443 found for service "s"'):
        service_address(service(cluster_ip="10.0.0.7"), "s", 8443)
    with pytest.raises(OSError, match='cannot route to service with ClusterIP "None"'):
        service_address(service(cluster_ip="None"), "s", 443)


async def test_the_name_of_a_service_is_that_of_its_certificate(world: World) -> None:
    from pybernetes.api.types.admissionregistration_v1 import (
        ServiceReference,
        WebhookClientConfig,
    )

    body = {"metadata": {"name": "hook"}, "spec": {"ports": [{"port": 443}]}}
    _, made, _ = await world.send("POST", "/api/v1/namespaces/default/services", body)
    dialled: list[tuple[str, int, str]] = []

    async def dial(host: str, port: int, tls: Any, name: str) -> Any:
        dialled.append((host, port, name))
        raise ConnectionRefusedError

    clients = WebhookClients(world.plane.server.catalog, dial=dial)
    reference = ServiceReference(namespace="default", name="hook", path="/w")
    config = WebhookClientConfig(service=reference, ca_bundle=world.ca)
    with pytest.raises(Exception, match=r"hook\.default\.svc:443/w"):
        await clients.call(config, b"{}", 1)
    assert dialled == [(made["spec"]["clusterIP"], 443, "hook.default.svc")]
    await clients.close()
