"""The node's HTTPS API over a running kubelet. Containers are simulated, everything else is real."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from pybernetes.api.user import UserInfo
from pybernetes.kubelet.runtime.script import ExecResult, execs, exits, logs, missing
from pybernetes.testing.builders import container
from pybernetes.wire.memory import MemoryHttpClient

if TYPE_CHECKING:
    from pybernetes.kubelet import Kubelet
    from pybernetes.kubelet.server import Access
    from pybernetes.wire.http import Request
    from tests.kubelet.conftest import Node


@pytest.fixture
def http(kubelet: Kubelet) -> MemoryHttpClient:
    async def authenticate(request: Request) -> UserInfo:
        return UserInfo("somebody")

    async def authorize(user: UserInfo, access: Access) -> bool:
        return True

    server = kubelet.server(authenticate=authenticate, authorize=authorize)
    return MemoryHttpClient(server.handle)


async def get(http: MemoryHttpClient, target: str) -> tuple[int, str]:
    async with await http.request("GET", target) as response:
        return response.status, (await response.read()).decode()


LOGS = "/containerLogs/default/web/main"


async def test_logs(node: Node, http: MemoryHttpClient) -> None:
    node.runtime.script("web", logs("one", "two", "three"))
    await node.create()
    await node.get()
    assert await get(http, LOGS) == (200, "one\ntwo\nthree\n")
    assert await get(http, f"{LOGS}?tailLines=1") == (200, "three\n")
    status, text = await get(http, f"{LOGS}?previous=true")
    assert status == 400
    assert text == 'previous terminated container "main" in pod "web" not found'


async def test_a_log_is_followed_until_the_container_ends(
    node: Node, http: MemoryHttpClient
) -> None:
    second = timedelta(seconds=1)
    node.runtime.script("web", logs("tick", every=second), exits(after=3.5 * second))
    await node.create(restart_policy="Never")
    await node.get()
    assert await get(http, f"{LOGS}?follow=true") == (200, "tick\n" * 4)


async def test_the_log_of_the_former_container(node: Node, http: MemoryHttpClient) -> None:
    node.runtime.script("web", logs("first"), attempts=1)
    await node.create()
    await node.get()
    node.runtime.script("web", logs("second"))
    node.runtime.kill("web")
    await asyncio.sleep(1)
    assert await get(http, LOGS) == (200, "second\n")
    assert await get(http, f"{LOGS}?previous=true") == (200, "first\n")


async def test_a_container_that_waits_has_no_log(node: Node, http: MemoryHttpClient) -> None:
    node.runtime.script_image("*", missing())
    await node.create()
    await asyncio.sleep(5)
    status, text = await get(http, LOGS)
    assert status == 400
    expected = 'container "main" in pod "web" is waiting to start: trying and failing to pull image'
    assert text == expected


async def test_commands_are_run(node: Node, http: MemoryHttpClient) -> None:
    node.runtime.script("web", execs({"echo hi": ExecResult(stdout=b"hi\n")}))
    await node.create()
    await node.get()
    assert await get(http, "/run/default/web/main?cmd=echo&cmd=hi") == (200, "hi\n")


async def test_pods_and_what_they_use(node: Node, http: MemoryHttpClient) -> None:
    await node.create("web", containers=[container("a"), container("b")])
    await node.get()
    status, text = await get(http, "/pods")
    assert status == 200
    (pod,) = json.loads(text)["items"]
    assert pod["status"]["phase"] == "Running"
    await asyncio.sleep(10)
    _, text = await get(http, "/stats/summary")
    (usage,) = json.loads(text)["pods"]
    assert usage["podRef"]["name"] == "web"
    assert [c["name"] for c in usage["containers"]] == ["a", "b"]
    assert usage["memory"]["workingSetBytes"] > 0
    _, text = await get(http, "/metrics/resource")
    assert 'container_cpu_usage_seconds_total{container="a",namespace="default",pod="web"}' in text
    assert await get(http, "/healthz") == (200, "ok")
    node.runtime.go_away()
    await asyncio.sleep(11)
    assert await get(http, "/healthz") == (500, "container runtime is down")
