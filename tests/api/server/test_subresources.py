"""Binding, eviction, scale, and the handlers that are plugged in."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from pybernetes.apiserver import ApiServer, Plugins
from pybernetes.wire.http import Response
from tests.api.server.conftest import DEPLOYMENTS, PODS, RESOURCES, Api

if TYPE_CHECKING:
    from random import Random

    from pybernetes.aio.clock import Clock
    from pybernetes.apiserver.call import Call
    from pybernetes.apiserver.catalog import Served
    from pybernetes.storage import MemoryStore

BUDGETS = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"


async def test_a_binding_puts_a_pod_on_a_node_once(api: Api) -> None:
    await api.pod("a")
    binding = {
        "metadata": {"name": "a", "annotations": {"by": "me"}},
        "target": {"kind": "Node", "name": "n1"},
    }
    answer = await api.post(f"{PODS}/a/binding", binding)
    assert (answer.status, answer.json["status"]) == (201, "Success")
    pod = (await api.get(f"{PODS}/a")).json
    assert pod["spec"]["nodeName"] == "n1"
    assert pod["metadata"]["annotations"] == {"by": "me"}
    conditions = {c["type"]: c["status"] for c in pod["status"]["conditions"]}
    assert conditions == {"PodScheduled": "True"}
    again = await api.post(f"{PODS}/a/binding", {"target": {"name": "n2"}})
    assert (again.status, again.reason) == (409, "Conflict")
    assert again.message == (
        'Operation cannot be fulfilled on pods/binding "a": pod a is already assigned to node "n1"'
    )


async def test_bindings_that_cannot_be(api: Api) -> None:
    await api.pod("a")
    nowhere = await api.post(f"{PODS}/a/binding", {"target": {}})
    assert nowhere.status == 422
    assert "target.name: Required value" in nowhere.message
    other = await api.post(f"{PODS}/a/binding", {"target": {"kind": "Pod", "name": "x"}})
    assert 'Unsupported value: "Pod": supported values: "Node", "<empty>"' in other.message
    assert (await api.post(f"{PODS}/x/binding", {"target": {"name": "n"}})).status == 404


async def test_of_many_bindings_one_wins(api: Api) -> None:
    await api.pod("a")
    answers = await asyncio.gather(
        *(api.post(f"{PODS}/a/binding", {"target": {"name": f"n{i}"}}) for i in range(10))
    )
    assert sorted(answer.status for answer in answers) == [201] + [409] * 9


async def budget(api: Api, name: str, *, allowed: int, app: str = "web") -> None:
    selector = {"matchLabels": {"app": app}}
    body = {"metadata": {"name": name}, "spec": {"minAvailable": 1, "selector": selector}}
    created = (await api.post(BUDGETS, body)).json
    status = {
        "observedGeneration": created["metadata"]["generation"],
        "disruptionsAllowed": allowed,
        "currentHealthy": 1,
        "desiredHealthy": 1,
        "expectedPods": 1,
    }
    assert (await api.patch(f"{BUDGETS}/{name}/status", {"status": status})).status == 200


async def ready_pod(api: Api, name: str) -> None:
    await api.pod(name, node="n", labels={"app": "web"})
    conditions = [{"type": "Ready", "status": "True"}]
    await api.patch(
        f"{PODS}/{name}/status", {"status": {"phase": "Running", "conditions": conditions}}
    )


async def evict(api: Api, name: str, **rest: Any) -> Any:
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}, **rest}
    return await api.post(f"{PODS}/{name}/eviction", body)


async def test_an_eviction_spends_the_budget(api: Api) -> None:
    await budget(api, "b", allowed=1)
    await ready_pod(api, "a")
    await ready_pod(api, "c")
    assert (await evict(api, "a")).status == 201
    gone = (await api.get(f"{PODS}/a")).json
    assert gone["metadata"]["deletionTimestamp"]
    status = (await api.get(f"{BUDGETS}/b")).json["status"]
    assert status.get("disruptionsAllowed", 0) == 0
    assert list(status["disruptedPods"]) == ["a"]
    refused = await evict(api, "c")
    assert (refused.status, refused.reason) == (429, "TooManyRequests")
    assert refused.message == "Cannot evict pod as it would violate the pod's disruption budget."
    assert refused.json["details"]["causes"] == [
        {
            "reason": "DisruptionBudget",
            "message": "The disruption budget b needs 1 healthy pods and has 1 currently",
        }
    ]


async def test_what_does_not_count_is_evicted_anyway(api: Api) -> None:
    await budget(api, "b", allowed=0)
    await api.pod("pending", labels={"app": "web"}, phase="Pending")
    assert (await evict(api, "pending")).status == 201
    await api.pod("unready", node="n", labels={"app": "web"}, phase="Running")
    assert (await evict(api, "unready")).status == 201


async def test_two_budgets_are_too_many(api: Api) -> None:
    await budget(api, "b", allowed=1)
    await budget(api, "c", allowed=1)
    await ready_pod(api, "a")
    answer = await evict(api, "a")
    assert answer.status == 500
    assert "more than one PodDisruptionBudget" in answer.message


async def test_a_budget_that_was_not_looked_at_yet_is_waited_for(api: Api) -> None:
    selector = {"matchLabels": {"app": "web"}}
    await api.post(BUDGETS, {"metadata": {"name": "b"}, "spec": {"selector": selector}})
    await ready_pod(api, "a")
    answer = await evict(api, "a")
    assert answer.status == 429
    assert answer.headers["retry-after"] == "10"


async def test_evictions_of_others_and_dry_runs(api: Api) -> None:
    await ready_pod(api, "a")
    wrong = await api.post(f"{PODS}/a/eviction", {"metadata": {"name": "b"}})
    assert wrong.status == 400
    old = {"apiVersion": "policy/v1beta1", "kind": "Eviction", "metadata": {"name": "a"}}
    assert (await api.post(f"{PODS}/a/eviction?dryRun=All", old)).status == 201
    dry = await evict(api, "a", deleteOptions={"dryRun": ["All"]})
    assert dry.status == 201
    assert "deletionTimestamp" not in (await api.get(f"{PODS}/a")).json["metadata"]
    assert (await evict(api, "none")).status == 404


async def test_scale_is_read_and_written(api: Api) -> None:
    await api.deployment("web", replicas=2)
    scale = (await api.get(f"{DEPLOYMENTS}/web/scale")).json
    assert (scale["kind"], scale["apiVersion"]) == ("Scale", "autoscaling/v1")
    assert scale["spec"] == {"replicas": 2}
    assert scale["status"]["selector"] == "app=web"
    scale["spec"]["replicas"] = 5
    answer = await api.put(f"{DEPLOYMENTS}/web/scale", scale)
    assert answer.json["spec"] == {"replicas": 5}
    deployment = (await api.get(f"{DEPLOYMENTS}/web")).json
    assert deployment["spec"]["replicas"] == 5
    assert deployment["metadata"]["generation"] == 2
    assert answer.json["metadata"]["resourceVersion"] == deployment["metadata"]["resourceVersion"]
    stale = await api.put(f"{DEPLOYMENTS}/web/scale", scale)
    assert stale.status == 409
    patched = await api.patch(f"{DEPLOYMENTS}/web/scale", {"spec": {"replicas": 0}})
    assert patched.status == 200
    assert (await api.get(f"{DEPLOYMENTS}/web")).json["spec"]["replicas"] == 0
    negative = await api.patch(f"{DEPLOYMENTS}/web/scale", {"spec": {"replicas": -1}})
    assert negative.status == 422
    assert negative.message == (
        'Scale.autoscaling "web" is invalid: spec.replicas: Invalid value: -1: '
        "must be greater than or equal to 0"
    )
    assert (await api.get(f"{DEPLOYMENTS}/none/scale")).status == 404


async def test_connections_are_plugged_in(store: MemoryStore, clock: Clock, random: Random) -> None:
    async def log(call: Call, served: Served, namespace: str, name: str) -> Response:
        return Response(200, [("Content-Type", "text/plain")], f"{namespace}/{name}".encode())

    def plugins(server: ApiServer) -> Plugins:
        return Plugins(connects={("", "pods", "log"): log})

    server = ApiServer(store, clock, random, resources=RESOURCES, make_plugins=plugins)
    async with server:
        api = Api(server)
        assert (await api.get(f"{PODS}/a/log")).body == b"default/a"
        assert (await api.get(f"{PODS}/a/exec")).status == 404
        await api.close()
