"""Pods from their binding to their end. Real: kubelet and API server; fake: the containers."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

from pybernetes.aio.virtualtime import settled
from pybernetes.api.conditions import condition_of
from pybernetes.api.types.core_v1 import (
    ExecAction,
    Lifecycle,
    LifecycleHandler,
    Pod,
    PodReadinessGate,
)
from pybernetes.client import PatchType
from pybernetes.kubelet.runtime.script import (
    ExecResult,
    execs,
    exits,
    fails_to_start,
    ignores_stop,
    missing,
    pulls,
    stops,
)
from pybernetes.testing.builders import container

if TYPE_CHECKING:
    from pybernetes.api.types.core_v1 import PodCondition
    from pybernetes.kubelet import Kubelet
    from tests.kubelet.conftest import Node


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


def condition(pod: Pod, kind: str) -> PodCondition:
    found = condition_of(pod.status.conditions, kind)
    assert found is not None
    return found


def conditions(pod: Pod) -> dict[str, str]:
    return {c.type: c.status for c in pod.status.conditions}


async def test_a_bound_pod_runs(node: Node, kubelet: Kubelet) -> None:
    await node.create()
    pod = await node.get()
    status = pod.status
    assert status.phase == "Running"
    assert status.pod_ip == "10.244.0.2"
    assert status.host_ip == "192.0.2.7"
    assert status.qos_class == "BestEffort"
    assert status.start_time is not None
    assert status.observed_generation == pod.metadata.generation
    assert list(conditions(pod).items()) == [
        ("PodReadyToStartContainers", "True"),
        ("Initialized", "True"),
        ("Ready", "True"),
        ("ContainersReady", "True"),
        ("PodScheduled", "True"),
    ]
    (main,) = status.container_statuses
    assert (main.ready, main.started, main.restart_count) == (True, True, 0)
    assert main.state.running is not None
    assert main.container_id.startswith("simulated://")
    assert await node.events() == [
        'Pulling: Pulling image "registry.test/app:1"',
        'Pulled: Successfully pulled image "registry.test/app:1" in 0s (0s including waiting). '
        "Image size: 4000000 bytes.",
        "Created: Created container: main",
        "Started: Started container main",
    ]


async def test_a_pod_whose_image_is_slow_waits(node: Node, kubelet: Kubelet) -> None:
    node.runtime.script_image("*", pulls(after=seconds(20)))
    await node.create()
    pod = await node.get()
    assert pod.status.phase == "Pending"
    (main,) = pod.status.container_statuses
    assert main.state.waiting is not None
    assert main.state.waiting.reason == "ContainerCreating"
    unready = condition(pod, "ContainersReady")
    assert unready.reason == "ContainersNotReady"
    assert unready.message == "containers with unready status: [main]"
    await asyncio.sleep(21)
    assert (await node.get()).status.phase == "Running"


async def test_a_deleted_pod_goes_when_its_containers_have_ended(
    node: Node, kubelet: Kubelet
) -> None:
    node.runtime.script("web", stops(seconds(7)))
    pod = await node.create()
    await node.get()
    await node.client.delete(pod)
    await asyncio.sleep(6)
    assert (await node.get()).status.phase == "Running"
    await asyncio.sleep(2)
    assert await node.is_gone()
    assert not await node.runtime.list_sandboxes()
    assert "Killing: Stopping container main" in await node.events()


async def test_who_ignores_the_signal_is_killed_after_the_grace(
    node: Node, kubelet: Kubelet
) -> None:
    node.runtime.script("web", ignores_stop())
    pod = await node.create(termination_grace_period_seconds=40)
    await node.get()
    await node.client.delete(pod)
    await asyncio.sleep(39)
    assert not await node.is_gone()
    await asyncio.sleep(2)
    assert await node.is_gone()


async def test_a_shorter_grace_overtakes_a_longer_one(node: Node, kubelet: Kubelet) -> None:
    node.runtime.script("web", ignores_stop())
    pod = await node.create(termination_grace_period_seconds=300)
    await node.get()
    await node.client.delete(pod)
    await asyncio.sleep(10)
    await node.client.delete(pod, grace_seconds=5)
    await asyncio.sleep(6)
    assert await node.is_gone()


async def test_a_force_deleted_pod_is_stopped_all_the_same(node: Node, kubelet: Kubelet) -> None:
    pod = await node.create()
    await node.get()
    await node.client.delete(pod, grace_seconds=0)
    assert await node.is_gone()
    await asyncio.sleep(2)
    assert not await node.runtime.list_containers()
    assert not kubelet.workers


async def test_a_namesake_may_come_at_once(node: Node, kubelet: Kubelet) -> None:
    node.runtime.script("web", stops(seconds(20)))
    first = await node.create()
    await node.get()
    await node.client.delete(first, grace_seconds=0)
    second = await node.create()
    pod = await node.get()
    assert pod.metadata.uid == second.metadata.uid
    assert pod.status.phase == "Running"
    await asyncio.sleep(60)
    (only,) = kubelet.workers
    assert only.state.pod.metadata.uid == second.metadata.uid
    assert (await node.get()).status.phase == "Running"


async def test_a_crashing_container_backs_off(node: Node, kubelet: Kubelet) -> None:
    """The first restart is at once, then after 10 s, 20 s, 40 s … up to five minutes."""
    node.runtime.script("web", exits(code=3, after=seconds(1)))
    pod = await node.create()
    await asyncio.sleep(5)
    seen = await node.get()
    (main,) = seen.status.container_statuses
    assert main.state.waiting is not None
    assert main.state.waiting.reason == "CrashLoopBackOff"
    whole = f"web_default({pod.metadata.uid})"
    assert main.state.waiting.message == (
        f"back-off 10s restarting failed container=main pod={whole}"
    )
    assert main.last_state.terminated is not None
    assert main.last_state.terminated.exit_code == 3
    assert main.last_state.terminated.reason == "Error"
    assert main.restart_count == 1
    assert seen.status.phase == "Running"
    assert (
        f"BackOff: Back-off restarting failed container main in pod {whole}" in await node.events()
    )
    await asyncio.sleep(1800)
    gaps = [round(gap.total_seconds()) for gap in node.runtime.start_gaps("web")]
    assert gaps[:8] == [1, 11, 21, 41, 81, 161, 301, 301]


async def test_a_container_that_ran_long_begins_anew(node: Node, kubelet: Kubelet) -> None:
    node.runtime.script("web", exits(code=1, after=seconds(1)), attempts=4)
    node.runtime.script("web", exits(code=1, after=seconds(700)))
    node.runtime.script("web", exits(code=1, after=seconds(1)), attempts=4)
    await node.create()
    await asyncio.sleep(1600)
    gaps = [round(gap.total_seconds()) for gap in node.runtime.start_gaps("web")]
    assert gaps[:5] == [1, 11, 21, 41, 700]


async def test_a_missing_image_backs_off_and_may_come(node: Node, kubelet: Kubelet) -> None:
    node.runtime.script_image("*", missing(failures=3))
    await node.create(containers=[container(image="nosuch:1")])
    (main,) = (await node.get()).status.container_statuses
    assert main.state.waiting is not None
    assert main.state.waiting.reason == "ErrImagePull"
    assert "not found" in main.state.waiting.message
    await asyncio.sleep(3)
    (main,) = (await node.get()).status.container_statuses
    assert main.state.waiting is not None
    assert main.state.waiting.reason == "ImagePullBackOff"
    assert main.state.waiting.message.startswith(
        'Back-off pulling image "nosuch:1": ErrImagePull: '
    )
    said = await node.events()
    assert 'BackOff: Back-off pulling image "nosuch:1"' in said
    assert "Failed: Error: ErrImagePull" in said
    assert "Failed: Error: ImagePullBackOff" in said
    await asyncio.sleep(10 + 20 + 40)
    pod = await node.get()
    assert pod.status.phase == "Running"
    assert pod.status.container_statuses[0].restart_count == 0


async def test_an_image_that_may_not_be_pulled(node: Node, kubelet: Kubelet) -> None:
    await node.create(containers=[container(image="app:1", image_pull_policy="Never")])
    (main,) = (await node.get()).status.container_statuses
    assert main.state.waiting is not None
    assert main.state.waiting.reason == "ErrImageNeverPull"
    text = 'Container image "app:1" is not present with pull policy of Never'
    assert main.state.waiting.message == text


async def test_a_command_that_is_not_there(node: Node, kubelet: Kubelet) -> None:
    node.runtime.script("web", fails_to_start('exec: "nosuch": executable file not found in $PATH'))
    await node.create()
    await asyncio.sleep(1)
    (main,) = (await node.get()).status.container_statuses
    assert main.state.waiting is not None
    assert main.state.waiting.reason == "RunContainerError"
    await asyncio.sleep(5)
    (main,) = (await node.get()).status.container_statuses
    assert main.state.waiting is not None
    assert main.state.waiting.reason == "CrashLoopBackOff"
    assert main.last_state.terminated is not None
    assert main.last_state.terminated.reason == "StartError"
    assert main.last_state.terminated.exit_code == 128


async def test_a_pod_that_is_done(node: Node, kubelet: Kubelet) -> None:
    node.runtime.script("web", exits(code=0, after=seconds(3)))
    await node.create(restart_policy="OnFailure")
    await asyncio.sleep(4)
    pod = await node.get()
    assert pod.status.phase == "Succeeded"
    assert condition(pod, "Ready").reason == "PodCompleted"
    assert condition(pod, "Initialized").status == "True"
    (main,) = pod.status.container_statuses
    assert main.state.terminated is not None
    assert (main.state.terminated.exit_code, main.state.terminated.reason) == (0, "Completed")
    assert pod.status.pod_ip
    # The address is free again, the container is kept for its log.
    assert len(await node.runtime.list_containers()) == 1
    await node.client.delete(pod)
    assert await node.is_gone()
    await settled()
    assert not await node.runtime.list_containers()


async def test_a_pod_that_failed(node: Node, kubelet: Kubelet) -> None:
    node.runtime.script("web", exits(code=2, after=seconds(3), message="out of luck"))
    await node.create(restart_policy="Never")
    await asyncio.sleep(4)
    pod = await node.get()
    assert pod.status.phase == "Failed"
    assert condition(pod, "Ready").reason == "PodFailed"
    (main,) = pod.status.container_statuses
    assert main.state.terminated is not None
    assert main.state.terminated.message == "out of luck"


async def test_on_failure_restarts_failures_only(node: Node, kubelet: Kubelet) -> None:
    node.runtime.script("web", exits(code=0, after=seconds(3)))
    node.runtime.script("web", exits(code=1, after=seconds(3)), attempts=2)
    await node.create(restart_policy="OnFailure")
    await asyncio.sleep(60)
    pod = await node.get()
    assert pod.status.phase == "Succeeded"
    assert pod.status.container_statuses[0].restart_count == 2


async def test_init_containers_run_one_by_one(node: Node, kubelet: Kubelet) -> None:
    node.runtime.script("web/first", exits(code=0, after=seconds(5)))
    node.runtime.script("web/second", exits(code=0, after=seconds(5)))
    await node.create(init_containers=(container("first"), container("second")))
    await asyncio.sleep(2)
    pod = await node.get()
    assert pod.status.phase == "Pending"
    first, second = pod.status.init_container_statuses
    assert first.state.running is not None
    assert second.state.waiting is not None
    assert second.state.waiting.reason == "PodInitializing"
    assert condition(pod, "Initialized").reason == "ContainersNotInitialized"
    message = "containers with incomplete status: [first second]"
    assert condition(pod, "Initialized").message == message
    await asyncio.sleep(5)
    pod = await node.get()
    message = "containers with incomplete status: [second]"
    assert condition(pod, "Initialized").message == message
    await asyncio.sleep(5)
    pod = await node.get()
    assert pod.status.phase == "Running"
    assert [s.ready for s in pod.status.init_container_statuses] == [True, True]
    assert condition(pod, "Initialized").status == "True"


async def test_an_init_container_that_fails_for_good(node: Node, kubelet: Kubelet) -> None:
    node.runtime.script("web/first", exits(code=1, after=seconds(1)))
    await node.create(init_containers=(container("first"),), restart_policy="Never")
    await asyncio.sleep(3)
    pod = await node.get()
    assert pod.status.phase == "Failed"
    assert not node.runtime.starts("web/main")
    (main,) = pod.status.container_statuses
    assert main.state.waiting is not None
    assert main.state.waiting.reason == "PodInitializing"


async def test_an_init_container_that_fails_is_tried_again(node: Node, kubelet: Kubelet) -> None:
    node.runtime.script("web/first", exits(code=0, after=seconds(1)))
    node.runtime.script("web/first", exits(code=1, after=seconds(1)), attempts=2)
    await node.create(init_containers=(container("first"),))
    await asyncio.sleep(30)
    pod = await node.get()
    assert pod.status.phase == "Running"
    assert pod.status.init_container_statuses[0].restart_count == 2


async def test_a_sidecar_runs_beside_and_ends_last(node: Node, kubelet: Kubelet) -> None:
    node.runtime.script("web/main", exits(code=0, after=seconds(10)))
    node.runtime.script("web/proxy", stops(seconds(4)))
    await node.create(
        init_containers=(container("proxy", restart_policy="Always"),), restart_policy="Never"
    )
    await asyncio.sleep(2)
    pod = await node.get()
    assert pod.status.phase == "Running"
    (proxy,) = pod.status.init_container_statuses
    assert (proxy.ready, proxy.started) == (True, True)
    await asyncio.sleep(9)
    pod = await node.get()
    assert pod.status.phase == "Running"
    assert pod.status.container_statuses[0].state.terminated is not None
    await asyncio.sleep(5)
    pod = await node.get()
    assert pod.status.phase == "Succeeded"
    assert pod.status.init_container_statuses[0].state.terminated is not None


async def test_a_sidecar_restarts_by_itself(node: Node, kubelet: Kubelet) -> None:
    node.runtime.script("web/proxy", exits(code=1, after=seconds(5)), attempts=1)
    await node.create(
        init_containers=(container("proxy", restart_policy="Always"),), restart_policy="Never"
    )
    await asyncio.sleep(8)
    pod = await node.get()
    assert pod.status.phase == "Running"
    assert pod.status.init_container_statuses[0].restart_count == 1
    assert pod.status.container_statuses[0].restart_count == 0


async def test_a_container_killed_from_outside_restarts(node: Node, kubelet: Kubelet) -> None:
    await node.create()
    await node.get()
    node.runtime.kill("web")
    pod = await node.get()
    (main,) = pod.status.container_statuses
    assert main.restart_count == 1
    assert main.ready
    assert main.last_state.terminated is not None
    assert main.last_state.terminated.exit_code == 137


async def test_one_dead_container_is_kept(node: Node, kubelet: Kubelet) -> None:
    await node.create()
    await node.get()
    for _ in range(4):
        node.runtime.kill("web")
        await asyncio.sleep(1000)
    assert [c.attempt for c in await node.runtime.list_containers()] == [3, 4]


async def test_a_dead_sandbox_is_replaced(node: Node, kubelet: Kubelet) -> None:
    await node.create()
    before = await node.get()
    node.runtime.kill_sandbox("web")
    await asyncio.sleep(1)
    pod = await node.get()
    assert pod.status.phase == "Running"
    assert pod.status.pod_ip != before.status.pod_ip
    assert pod.status.container_statuses[0].restart_count == 1
    text = "SandboxChanged: Pod sandbox changed, it will be killed and re-created."
    assert text in await node.events()
    await settled()
    assert len(await node.runtime.list_sandboxes()) == 1


async def test_a_sandbox_that_fails_is_tried_again(node: Node, kubelet: Kubelet) -> None:
    node.runtime.fail_sandboxes("web", "no network for you", times=3)
    await node.create()
    pod = await node.get()
    assert pod.status.phase == "Pending"
    assert condition(pod, "PodReadyToStartContainers").status == "False"
    await asyncio.sleep(5)
    assert (await node.get()).status.phase == "Running"
    text = "FailedCreatePodSandBox: Failed to create pod sandbox: no network for you"
    assert text in await node.events()


async def test_a_pod_may_not_be_active_for_too_long(node: Node, kubelet: Kubelet) -> None:
    await node.create(active_deadline_seconds=20)
    await asyncio.sleep(19)
    assert (await node.get()).status.phase == "Running"
    await asyncio.sleep(2)
    pod = await node.get()
    assert (pod.status.phase, pod.status.reason) == ("Failed", "DeadlineExceeded")
    message = "Pod was active on the node longer than the specified deadline"
    assert pod.status.message == message
    assert not [c for c in await node.runtime.list_containers() if c.state.value == "running"]


async def test_a_pod_that_never_started_fails_once(node: Node, kubelet: Kubelet) -> None:
    """What is said of containers that never ran must not change with who reads it."""
    node.runtime.fail_sandboxes("web", "no network for you")
    await node.create(active_deadline_seconds=5)
    await asyncio.sleep(10)
    before = await node.get()
    assert before.status.phase == "Failed"
    (main,) = before.status.container_statuses
    assert main.state.terminated is not None
    assert main.state.terminated.reason == "ContainerStatusUnknown"
    await asyncio.sleep(100)
    assert await node.get() == before


async def test_a_pod_that_others_declare_failed_is_stopped(node: Node, kubelet: Kubelet) -> None:
    await node.create()
    await node.get()
    patch = {"status": {"phase": "Failed", "reason": "NodeLost"}}
    await node.client.patch(Pod, "web", "default", patch=patch, subresource="status")
    await asyncio.sleep(1)
    pod = await node.get()
    assert (pod.status.phase, pod.status.reason) == ("Failed", "NodeLost")
    assert pod.status.container_statuses[0].state.terminated is not None
    assert not [c for c in await node.runtime.list_containers() if c.state.value == "running"]


async def test_readiness_gates_are_asked(node: Node, kubelet: Kubelet) -> None:
    gate = PodReadinessGate(condition_type="example.test/loaded")
    await node.create(readiness_gates=(gate,))
    pod = await node.get()
    assert condition(pod, "ContainersReady").status == "True"
    assert condition(pod, "Ready").reason == "ReadinessGatesNotReady"
    assert condition(pod, "Ready").message == (
        'corresponding condition of pod readiness gate "example.test/loaded" does not exist.'
    )
    patch = {"status": {"conditions": [{"type": "example.test/loaded", "status": "True"}]}}
    await node.client.patch(
        Pod, "web", "default", patch=patch, type=PatchType.STRATEGIC, subresource="status"
    )
    pod = await node.get()
    assert condition(pod, "Ready").status == "True"
    assert condition(pod, "example.test/loaded").status == "True"


async def test_hooks_run_after_the_start_and_before_the_stop(node: Node, kubelet: Kubelet) -> None:
    asked: list[str] = []

    def answer(command: object) -> ExecResult:
        asked.append(str(command))
        return ExecResult(after=seconds(3))

    node.runtime.script("web", execs(answer))
    hook = LifecycleHandler(exec=ExecAction(command=("hook",)))
    main = container(lifecycle=Lifecycle(post_start=hook, pre_stop=hook))
    pod = await node.create(containers=[main])
    await asyncio.sleep(1)
    assert (await node.get()).status.phase == "Pending"
    await asyncio.sleep(3)
    assert (await node.get()).status.phase == "Running"
    await node.client.delete(pod)
    await asyncio.sleep(2)
    assert not await node.is_gone()
    await asyncio.sleep(2)
    assert await node.is_gone()
    assert len(asked) == 2


async def test_a_failing_post_start_hook_kills_the_container(node: Node, kubelet: Kubelet) -> None:
    node.runtime.script("web", execs({"hook": ExecResult(code=1, stderr=b"no")}), attempts=1)
    node.runtime.script("web", execs({"hook": ExecResult()}))
    node.runtime.script("web", execs({"hook": ExecResult(code=1, stderr=b"no")}), attempts=1)
    hook = LifecycleHandler(exec=ExecAction(command=("hook",)))
    await node.create(containers=[container(lifecycle=Lifecycle(post_start=hook))])
    await asyncio.sleep(15)
    pod = await node.get()
    assert pod.status.phase == "Running"
    assert pod.status.container_statuses[0].restart_count == 1
    assert "FailedPostStartHook: PostStartHook failed" in await node.events()


async def test_a_long_hook_is_cut_off_by_the_grace(node: Node, kubelet: Kubelet) -> None:
    node.runtime.script("web", execs({"hook": ExecResult(after=seconds(20))}))
    hook = LifecycleHandler(exec=ExecAction(command=("hook",)))
    main = container(lifecycle=Lifecycle(pre_stop=hook))
    pod = await node.create(containers=[main], termination_grace_period_seconds=5)
    await node.get()
    await node.client.delete(pod)
    await asyncio.sleep(4)
    assert not await node.is_gone()
    await asyncio.sleep(4)
    assert await node.is_gone()
    assert "FailedPreStopHook: PreStopHook failed" in await node.events()


async def test_an_ephemeral_container_joins_a_running_pod(node: Node, kubelet: Kubelet) -> None:
    node.runtime.script("web/debug", exits(code=0, after=seconds(5)))
    pod = await node.create()
    await node.get()
    entry = {"name": "debug", "image": "busybox", "targetContainerName": "main"}
    patch = {"spec": {"ephemeralContainers": [entry]}}
    await node.client.patch(
        Pod,
        "web",
        "default",
        patch=patch,
        type=PatchType.STRATEGIC,
        subresource="ephemeralcontainers",
    )
    (debug,) = (await node.get()).status.ephemeral_container_statuses
    assert debug.state.running is not None
    (running,) = [c for c in await node.runtime.list_containers() if c.name == "debug"]
    namespaces = node.runtime._world.containers[running.id].spec.security.namespaces
    main_id = (await node.get()).status.container_statuses[0].container_id.rpartition("/")[2]
    assert namespaces.target_id == main_id
    await asyncio.sleep(30)
    after = await node.get()
    assert after.status.phase == "Running"
    assert after.status.ephemeral_container_statuses[0].state.terminated is not None
    assert len(node.runtime.starts("web/debug")) == 1
    assert pod.metadata.uid == after.metadata.uid
