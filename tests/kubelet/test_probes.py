"""Probes: the tally by tables, the rest on a node with simulated containers."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from pybernetes.api.types.core_v1 import (
    ContainerPort,
    ExecAction,
    GRPCAction,
    HTTPGetAction,
    Probe,
    TCPSocketAction,
)
from pybernetes.kubelet.checks import Result
from pybernetes.kubelet.probes import Tally, tallied
from pybernetes.kubelet.runtime.script import (
    ExecResult,
    execs,
    http,
    listens,
    ready,
    serves_grpc,
    stops,
)
from pybernetes.testing.builders import container

if TYPE_CHECKING:
    from pybernetes.kubelet import Kubelet
    from tests.kubelet.conftest import Node

HTTP = Probe(http_get=HTTPGetAction(port=8080, path="/ready"), period_seconds=5)
YES, NO, UNKNOWN = Result.SUCCESS, Result.FAILURE, Result.UNKNOWN


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


@pytest.mark.parametrize(
    ("results", "verdict"),
    [
        pytest.param([YES], True, id="one success is enough"),
        pytest.param([NO, NO], None, id="two failures are not"),
        pytest.param([NO, NO, NO], False, id="three failures are"),
        pytest.param([YES, NO, NO], True, id="still what it was"),
        pytest.param([YES, NO, NO, YES, NO, NO], True, id="a success starts the count anew"),
        pytest.param([NO, NO, UNKNOWN, NO], False, id="what is unknown does not count"),
        pytest.param([NO, NO, NO, YES], True, id="recovered"),
    ],
)
def test_verdicts(results: list[Result], verdict: bool | None) -> None:
    tally = Tally()
    for result in results:
        tally = tallied(tally, result, successes=1, failures=3)
    assert tally.verdict is verdict


async def test_a_pod_is_ready_when_its_probe_says_so(node: Node, kubelet: Kubelet) -> None:
    node.runtime.script("web", ready(after=seconds(12), until=seconds(60)))
    await node.create(containers=[container(readiness_probe=HTTP)])
    pod = await node.get()
    assert pod.status.phase == "Running"
    assert not pod.status.container_statuses[0].ready
    await asyncio.sleep(16)
    assert (await node.get()).status.container_statuses[0].ready
    assert "Unhealthy: Readiness probe failed: HTTP probe failed with statuscode: 503" in (
        await node.events()
    )
    await asyncio.sleep(60)
    pod = await node.get()
    assert not pod.status.container_statuses[0].ready
    assert pod.status.container_statuses[0].restart_count == 0


async def test_a_container_that_does_not_live_is_restarted(node: Node, kubelet: Kubelet) -> None:
    node.runtime.script("web", ready(until=seconds(30)), stops(seconds(2)))
    probe = Probe(tcp_socket=TCPSocketAction(port="http"), period_seconds=10, failure_threshold=2)
    main = container(
        ports=[ContainerPort(name="http", container_port=80)],
        liveness_probe=Probe(http_get=HTTP.http_get, period_seconds=10, failure_threshold=2),
        readiness_probe=probe,
    )
    await node.create(containers=[main])
    await asyncio.sleep(39)
    assert (await node.get()).status.container_statuses[0].restart_count == 0
    await asyncio.sleep(6)
    pod = await node.get()
    assert pod.status.container_statuses[0].restart_count == 1
    said = await node.events()
    assert "Killing: Container main failed liveness probe, will be restarted" in said


async def test_other_probes_wait_for_the_startup_probe(node: Node, kubelet: Kubelet) -> None:
    asked: list[str] = []

    def answer(port: int, path: str) -> tuple[int, bytes]:
        asked.append(path)
        return (200, b"") if path != "/started" or len(asked) > 4 else (500, b"")

    node.runtime.script("web", http(answer))
    started = Probe(http_get=HTTPGetAction(port=1, path="/started"), period_seconds=3)
    started = Probe(
        http_get=started.http_get, period_seconds=3, failure_threshold=30, success_threshold=1
    )
    await node.create(containers=[container(startup_probe=started, readiness_probe=HTTP)])
    await asyncio.sleep(4)
    (main,) = (await node.get()).status.container_statuses
    assert (main.started, main.ready) == (False, False)
    assert set(asked) == {"/started"}
    await asyncio.sleep(20)
    (main,) = (await node.get()).status.container_statuses
    assert (main.started, main.ready) == (True, True)


async def test_a_container_that_never_starts_up_is_killed(node: Node, kubelet: Kubelet) -> None:
    node.runtime.script("web", listens(1))
    probe = Probe(
        tcp_socket=TCPSocketAction(port=80),
        period_seconds=2,
        failure_threshold=3,
        termination_grace_period_seconds=1,
    )
    await node.create(containers=[container(startup_probe=probe)])
    await asyncio.sleep(6)
    assert (await node.get()).status.container_statuses[0].restart_count == 1
    said = await node.events()
    assert "Killing: Container main failed startup probe, will be restarted" in said
    assert any("connect: connection refused" in text for text in said)


@pytest.mark.parametrize(
    ("probe", "text"),
    [
        pytest.param(
            Probe(exec=ExecAction(command=("check",)), period_seconds=5, timeout_seconds=1),
            "Readiness probe failed: not yet",
            id="exec",
        ),
        pytest.param(
            Probe(exec=ExecAction(command=("slow",)), period_seconds=5, timeout_seconds=1),
            'Readiness probe failed: command timed out: "slow" timed out after 1s',
            id="exec that takes too long",
        ),
        pytest.param(
            Probe(grpc=GRPCAction(port=90), period_seconds=5),
            'Readiness probe failed: service unhealthy (responded with "NOT_SERVING")',
            id="grpc",
        ),
    ],
)
async def test_what_probes_say(probe: Probe, text: str, node: Node, kubelet: Kubelet) -> None:
    commands = {
        "check": ExecResult(code=1, stdout=b"not yet"),
        "slow": ExecResult(after=seconds(9)),
    }
    node.runtime.script("web", execs(commands), serves_grpc(False))
    await node.create(containers=[container(readiness_probe=probe)])
    await asyncio.sleep(2)
    assert f"Unhealthy: {text}" in await node.events()
