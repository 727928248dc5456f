"""One pod's task: carries out what the pod machine says and tells it what came of it.

Everything reaches the machine through one inbox, in order: outcomes of actions, changes of the
object, looks at the runtime, and a timer set for the moment the machine asked for. Between them the
task waits; an idle pod costs nothing.

Rules: an action always ends in an event, whatever goes wrong, unless it was cancelled on purpose.
The object is deleted from the API only when nothing of the pod runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from pybernetes.api.types.core_v1 import Secret
from pybernetes.api.types.node_v1 import RuntimeClass
from pybernetes.apimachinery.errors import Conflict, NotFound, StatusError
from pybernetes.kubelet import pod_events
from pybernetes.kubelet.adoption import NOTHING, Found, adopted, incarnation_of
from pybernetes.kubelet.checks import Result, Target, attempt
from pybernetes.kubelet.credentials import auths_for
from pybernetes.kubelet.env import ConfigProblem
from pybernetes.kubelet.images import ImageProblem
from pybernetes.kubelet.lastwords import last_words
from pybernetes.kubelet.pod_events import Exited, SandboxLost, StopContainer
from pybernetes.kubelet.pod_machine import pod_step
from pybernetes.kubelet.pod_state import (
    CONFIG_ERROR,
    ERR_IMAGE_PULL,
    RUN_ERROR,
    STATUS_UNKNOWN,
    PodStage,
    ProbeKind,
    Stage,
    probe_in,
    spec_of,
)
from pybernetes.kubelet.probes import run_probe
from pybernetes.kubelet.references import pull_secrets_of, references_of
from pybernetes.kubelet.runtime.interface import (
    CONTAINER_NAME_LABEL,
    POD_UID_LABEL,
    ContainerNotFound,
    ContainerRuntimeError,
    ContainerState,
    SandboxNotFound,
    SandboxState,
)
from pybernetes.kubelet.runtime_spec import (
    cgroup_parent,
    container_spec,
    sandbox_spec,
    target_of,
    termination_file,
)
from pybernetes.kubelet.statuswriter import MirrorWriter, StatusWriter
from pybernetes.kubelet.volumes.pod import PodVolumes, VolumeProblem
from pybernetes.wire.http import WireError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from datetime import datetime

    from pybernetes.api.types.core_v1 import Node, Pod
    from pybernetes.kubelet.context import NodeContext
    from pybernetes.kubelet.pod_events import Action, Event
    from pybernetes.kubelet.pod_state import Incarnation, PodState
    from pybernetes.kubelet.runtime.interface import (
        ContainerStatus,
        ContainerSummary,
        ImageStatus,
        SandboxSummary,
    )

log = logging.getLogger(__name__)

# A runtime that is away is asked again so often.
RETRY = timedelta(seconds=2)
# What a stop is given at least when the preStop hook has used up the grace.
LEAST_STOP = timedelta(seconds=2)
# Nobody waits longer for a hook that says nothing of its own.
HOOK_TIMEOUT = timedelta(minutes=10)

# A volume whose content could not be made anew keeps the old one so long.
VOLUME_RETRY = timedelta(seconds=10)

LOST_MESSAGE = "The container could not be located when the pod was deleted"


class PodWorker:
    """Runs one pod, from the moment it is bound to this node until nothing of it is left."""

    def __init__(
        self,
        context: NodeContext,
        pod: Pod,
        found: Found = NOTHING,
        refusal: pod_events.Condemned | None = None,
        static_on: Callable[[], Node | None] | None = None,
    ) -> None:
        """`refusal`: the node does not take the pod, which fails for that reason.

        `static_on`: it is a static pod, and this gives its node.
        """
        self._context = context
        self._state = adopted(pod, found, context.clock.now())
        self._volumes = PodVolumes(context, pod)
        self._volumes.ips = self._state.ips
        self._mirror = None if static_on is None else MirrorWriter(context, self, static_on)
        self._status = self._mirror or StatusWriter(context, self)
        # What happened and was not looked at. Bounded by what can be under way for one pod.
        self._inbox: asyncio.Queue[Event] = asyncio.Queue()
        # Work under way, by what it is: "volumes", "pull web" …
        self._tasks: dict[str, asyncio.Task[None]] = {}
        # Running probes, by container, kind and container id.
        self._probes: dict[tuple[str, ProbeKind, str], asyncio.Task[None]] = {}
        # The image each container is to be created from.
        self._images: dict[str, ImageStatus] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._renewal: asyncio.TimerHandle | None = None
        self._group: asyncio.TaskGroup | None = None
        self._refusal = refusal
        self._superfluous = len(found.sandboxes) > 1
        self._held = references_of(pod)
        self._unsubscribe: list[Callable[[], None]] = []
        # Who waits for which container (by id) to end.
        self._awaited: list[tuple[str, asyncio.Future[None]]] = []
        # Containers that were running when we came: their probes need not all begin at once.
        self._adopted = {
            r.latest.id for r in self._state.containers.values() if r.latest is not None
        }

    @property
    def state(self) -> PodState:
        return self._state

    @property
    def newest(self) -> Pod:
        """The newest version of the object that the API has shown."""
        return self._state.pod if self.is_static else self._status.known

    @property
    def is_static(self) -> bool:
        return self._mirror is not None

    def mirror_changed(self, mirror: Pod | None) -> None:
        if self._mirror is not None:
            self._mirror.mirror_changed(mirror)
            if self._group is not None:
                self._mirror.look()

    @property
    def is_active(self) -> bool:
        """Uses the node's resources, or soon will."""
        return not self._state.stage.is_over

    @property
    def pod(self) -> Pod:
        """The newest version of the object, with the status as we see it."""
        return self._status.pod_now(self._state)

    def ended(self, container_id: str) -> asyncio.Future[None]:
        """Done when that container does not run any more."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._awaited.append((container_id, future))
        self._tell_ended()
        return future

    def _tell_ended(self) -> None:
        running = {
            record.latest.id
            for record in self._state.containers.values()
            if record.latest is not None and not record.latest.ended
        }
        if self._state.stage.is_over:
            running.clear()
        for container_id, future in self._awaited:
            if container_id not in running and not future.done():
                future.set_result(None)
        self._awaited = [entry for entry in self._awaited if not entry[1].done()]

    def post(self, event: Event) -> None:
        self._inbox.put_nowait(event)

    async def run(self) -> None:
        """Until nothing of the pod is left."""
        for kind, key in self._held:
            self._context.objects.hold(kind, key)
        try:
            async with asyncio.TaskGroup() as self._group:
                try:
                    self._follow_contents()
                    if self._superfluous:
                        self._spawn("old sandboxes", self._remove_sandboxes(self._state.sandbox_id))
                    self._step(self._first_event())
                    while self._state.stage is not PodStage.GONE:
                        self._step(await self._inbox.get())
                finally:
                    self._end_tasks()
        finally:
            for unsubscribe in self._unsubscribe:
                unsubscribe()
            for kind, key in self._held:
                await self._context.objects.release(kind, key)

    def _first_event(self) -> Event | None:
        pod = self._state.pod
        if pod.metadata.deletion_timestamp is not None:
            # Deleted before we came: there may never be another change to hear of.
            return pod_events.Changed(pod)
        return self._refusal

    def _end_tasks(self) -> None:
        for timer in (self._timer, self._renewal):
            if timer is not None:
                timer.cancel()
        for task in (*self._tasks.values(), *self._probes.values()):
            task.cancel()
        self._status.stop()
        for _, future in self._awaited:
            if not future.done():
                future.set_result(None)

    # --- stepping ---------------------------------------------------------------------------------

    def _step(self, event: Event | None) -> None:
        if isinstance(event, pod_events.Changed):
            self._changed(event.pod)
        now = self._context.clock.now()
        step = pod_step(self._state, event, now)
        self._state = step.state
        self._volumes.ips = step.state.ips
        for action in step.actions:
            self._begin(action)
        self._set_timer(step.wake_at, now)
        self._sync_probes()
        if self._awaited:
            self._tell_ended()
        if self._state.stage is not PodStage.GONE:
            self._status.look()

    def _changed(self, pod: Pod) -> None:
        old = self._state.pod.metadata
        self._volumes.pod = pod
        new = references_of(pod) - self._held
        for kind, key in new:
            self._context.objects.hold(kind, key)
        self._held |= new
        self._status.heard(pod)
        if (old.labels, old.annotations) != (pod.metadata.labels, pod.metadata.annotations):
            self._refresh_volumes()

    def _set_timer(self, wake_at: datetime | None, now: datetime) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if wake_at is not None:
            # Never earlier than the moment itself, or the machine would see nothing to do.
            delay = max((wake_at - now).total_seconds(), 0.0) + 0.001
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(delay, self.post, pod_events.Tick())

    def _begin(self, action: Action) -> None:
        match action:
            case pod_events.Say(type_, reason, message, container):
                self._context.say(self._state.pod, type_, reason, message, container)
            case pod_events.Abandon():
                for name in list(self._tasks):
                    if name == "volumes" or name.startswith("pull "):
                        self._tasks[name].cancel()
            case pod_events.PrepareVolumes():
                self._spawn("volumes", self._prepare_volumes())
            case pod_events.RunSandbox(number):
                self._spawn("sandbox", self._run_sandbox(number))
            case pod_events.StopSandbox(id_):
                self._spawn("sandbox", self._stop_sandbox(id_))
            case pod_events.PullImage(name):
                self._spawn(f"pull {name}", self._pull(name))
            case pod_events.StartContainer(name, number):
                self._spawn(f"start {name}", self._start(name, number))
            case pod_events.RunPostStart(name, id_):
                self._spawn(f"hook {name}", self._post_start(name, id_))
            case StopContainer(name):
                self._spawn(f"stop {name}", self._stop(action))
            case pod_events.Remove(delete_object):
                self._spawn("remove", self._remove(delete_object))

    def create_task(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        assert self._group is not None
        return self._group.create_task(work, name=name)

    def _spawn(self, name: str, work: Coroutine[None, None, None]) -> None:
        """Begin work under a name; what was under way under that name is cancelled."""
        assert self._group is not None
        before = self._tasks.get(name)
        if before is not None:
            before.cancel()
        task = self._group.create_task(work, name=f"{self._state.pod.metadata.name} {name}")
        self._tasks[name] = task

        def forget(done: asyncio.Task[None]) -> None:
            if self._tasks.get(name) is done:
                del self._tasks[name]

        task.add_done_callback(forget)

    # --- looking at the runtime -------------------------------------------------------------------

    def look_at(self, container_id: str, sandbox_id: str) -> None:
        """The runtime says something happened there."""
        if self._group is None or self._state.stage is PodStage.GONE:
            return
        if container_id:
            for record in self._state.containers.values():
                starting = record.stage is Stage.STARTING
                known = record.latest is not None and record.latest.id == container_id
                if (known and record.is_alive) or starting:
                    self._spawn(f"look {container_id}", self._look(container_id))
                    return
        elif sandbox_id == self._state.sandbox_id:
            self._spawn("look", self._look_at_sandbox(sandbox_id))

    def relisted(
        self, sandboxes: Mapping[str, SandboxSummary], containers: Mapping[str, ContainerSummary]
    ) -> None:
        """All there is, after events may have been lost."""
        for record in self._state.containers.values():
            if record.latest is None or not record.is_alive or record.stage is Stage.STARTING:
                continue
            summary = containers.get(record.latest.id)
            if summary is None or summary.state is not ContainerState.RUNNING:
                self.look_at(record.latest.id, "")
        sandbox = sandboxes.get(self._state.sandbox_id)
        if self._state.sandbox_ready and (
            sandbox is None or sandbox.state is not SandboxState.READY
        ):
            self.look_at("", self._state.sandbox_id)

    async def _look(self, container_id: str) -> None:
        try:
            status = await self._context.runtime.container_status(container_id)
        except ContainerNotFound:
            self._lost(container_id)
        except ContainerRuntimeError:
            # It will be listed when the runtime is back.
            return
        else:
            if status.state is ContainerState.EXITED:
                self.post(Exited(status.name, await self._incarnation(status)))

    def _lost(self, container_id: str) -> None:
        for record in self._state.containers.values():
            latest = record.latest
            if latest is not None and latest.id == container_id:
                self.post(Exited(record.name, self._vanished(latest)))

    def _vanished(self, latest: Incarnation) -> Incarnation:
        return replace(
            latest,
            ended=True,
            exit_code=137,
            reason=STATUS_UNKNOWN,
            message=LOST_MESSAGE,
            finished_at=self._context.clock.now(),
        )

    async def _look_at_sandbox(self, sandbox_id: str) -> None:
        try:
            status = await self._context.runtime.sandbox_status(sandbox_id)
            lost = status.state is not SandboxState.READY
        except SandboxNotFound:
            lost = True
        except ContainerRuntimeError:
            return
        if lost:
            self.post(SandboxLost(sandbox_id))

    async def _incarnation(self, status: ContainerStatus) -> Incarnation:
        """With the message that the container left."""
        found = incarnation_of(status)
        spec = spec_of(self._state.pod, status.name)
        if not found.ended or spec is None:
            return found
        path = termination_file(self._context, self._state.pod, status.name, status.attempt)
        words = await asyncio.to_thread(last_words, spec, status, path) if path else ""
        return replace(found, message=words or found.message)

    # --- actions ----------------------------------------------------------------------------------

    async def _prepare_volumes(self) -> None:
        try:
            await self._volumes.prepare()
        except VolumeProblem as problem:
            self._context.say(self._state.pod, "Warning", "FailedMount", str(problem))
            self.post(pod_events.VolumesFailed(str(problem)))
        except Exception as error:  # a pod must not hang on what we did not think of
            log.exception("volumes of %s", self._state.pod.metadata.name)
            self.post(pod_events.VolumesFailed(str(error)))
        else:
            self._plan_renewal()
            self.post(pod_events.VolumesReady())

    async def _run_sandbox(self, number: int) -> None:
        context, pod = self._context, self._state.pod
        try:
            spec = sandbox_spec(context, pod, number, await self._runtime_handler())
            if not context.config.is_simulated:
                Path(spec.log_directory).mkdir(parents=True, exist_ok=True)
            if context.cgroups is not None and context.cgroup_driver != "systemd":
                await asyncio.to_thread(context.cgroups.prepare, pod, spec.cgroup_parent)
            id_ = await context.runtime.run_sandbox(spec)
            status = await context.runtime.sandbox_status(id_)
        except (ContainerRuntimeError, StatusError) as error:
            text = f"Failed to create pod sandbox: {error.message}"
            self.post(pod_events.SandboxFailed(text))
        except Exception as error:
            log.exception("sandbox of %s", pod.metadata.name)
            self.post(pod_events.SandboxFailed(f"Failed to create pod sandbox: {error}"))
        else:
            self.post(pod_events.SandboxReady(id_, status.ips))
            if number:
                await self._remove_sandboxes(keep=id_)

    async def _remove_sandboxes(self, keep: str = "") -> None:
        """Those of earlier attempts, or all."""
        labels = {POD_UID_LABEL: self._state.pod.metadata.uid}
        try:
            for sandbox in await self._context.runtime.list_sandboxes(labels=labels):
                if sandbox.id != keep:
                    await self._context.runtime.remove_sandbox(sandbox.id)
        except ContainerRuntimeError as error:
            log.warning("old sandboxes of %s: %s", self._state.pod.metadata.name, error)

    async def _stop_sandbox(self, sandbox_id: str) -> None:
        if sandbox_id:
            await self._insist(lambda: self._context.runtime.stop_sandbox(sandbox_id))
        self.post(pod_events.SandboxStopped())

    async def _insist(self, call: Callable[[], Coroutine[None, None, None]]) -> None:
        """Until the runtime has done it."""
        while True:
            try:
                await call()
                return
            except ContainerRuntimeError as error:
                log.warning("%s: %s, trying again", self._state.pod.metadata.name, error)
                await asyncio.sleep(RETRY.total_seconds())

    async def _pull(self, name: str) -> None:
        context, pod = self._context, self._state.pod
        spec = spec_of(pod, name)
        assert spec is not None

        def say(type_: str, reason: str, message: str) -> None:
            context.say(pod, type_, reason, message, name)

        try:
            secrets = [await context.objects.get(kind, key) for kind, key in pull_secrets_of(pod)]
            auths = auths_for(spec.image, [s for s in secrets if isinstance(s, Secret)])
            policy = spec.image_pull_policy or "IfNotPresent"
            self._images[name] = await context.images.ensure(spec.image, policy, auths, say)
        except ImageProblem as problem:
            self.post(pod_events.ImageFailed(name, problem.reason, problem.message))
        except Exception as error:
            log.exception("image of %s", name)
            self.post(pod_events.ImageFailed(name, ERR_IMAGE_PULL, str(error)))
        else:
            self.post(pod_events.ImageReady(name))

    async def _start(self, name: str, number: int) -> None:
        context, pod = self._context, self._state.pod
        created = ""
        try:
            created = await self._create(name, number)
            context.say(pod, "Normal", "Created", f"Created container: {name}", name)
            await context.runtime.start_container(created)
        except ConfigProblem as problem:
            self.post(pod_events.StartFailed(name, CONFIG_ERROR, str(problem)))
        except ContainerRuntimeError as error:
            self.post(await self._what_started(name, number, created, error.message))
        except Exception as error:
            log.exception("starting %s", name)
            self.post(pod_events.StartFailed(name, "CreateContainerError", str(error)))
        else:
            self.post(await self._what_started(name, number, created, ""))
        if number > 1:
            await self._remove_dead(name, number)

    async def _create(self, name: str, number: int) -> str:
        context, pod = self._context, self._state.pod
        spec = spec_of(pod, name)
        assert spec is not None
        wanted = await container_spec(
            context,
            pod,
            spec,
            attempt=number,
            ips=self._state.ips,
            image=self._images[name],
            volumes=self._volumes,
            target_id=self._target_of(name),
        )
        sandbox = sandbox_spec(context, pod, max(self._state.sandbox_attempt - 1, 0))
        return await context.runtime.create_container(self._state.sandbox_id, wanted, sandbox)

    async def _what_started(self, name: str, number: int, created: str, problem: str) -> Event:
        """What a start came to. A runtime that went away in between is waited for: whether the
        container runs is not ours to guess."""
        runtime = self._context.runtime
        while True:
            try:
                if not created:
                    await self._remove_halves(name, number)
                    return pod_events.StartFailed(name, "CreateContainerError", problem)
                status = await runtime.container_status(created)
                if status.state is ContainerState.CREATED:
                    await runtime.remove_container(created)
                    return pod_events.StartFailed(name, RUN_ERROR, problem)
            except ContainerNotFound:
                return pod_events.StartFailed(name, RUN_ERROR, problem or LOST_MESSAGE)
            except ContainerRuntimeError as error:
                log.warning("start of %s: %s, asking again", name, error)
                await asyncio.sleep(RETRY.total_seconds())
                continue
            incarnation = await self._incarnation(status)
            if problem and incarnation.ended:
                dead = replace(incarnation, message=problem)
                return pod_events.StartFailed(name, RUN_ERROR, problem, dead)
            text = f"Started container {name}"
            self._context.say(self._state.pod, "Normal", "Started", text, name)
            return pod_events.Started(name, incarnation)

    def _target_of(self, name: str) -> str:
        """The id of the container whose processes an ephemeral one is to see."""
        record = self._state.containers.get(target_of(self._state.pod, name))
        return record.latest.id if record is not None and record.latest is not None else ""

    async def _runtime_handler(self) -> str:
        """Raises NotFound for a RuntimeClass that there is not."""
        name = self._state.pod.spec.runtime_class_name
        if not name:
            return ""
        return (await self._context.client.get(RuntimeClass, name)).handler

    async def _remove_halves(self, name: str, number: int) -> None:
        """What a creation left that was not answered in time: its name could not be used again."""
        labels = self._labels_of(name)
        for summary in await self._context.runtime.list_containers(labels=labels):
            if summary.attempt == number:
                await self._context.runtime.remove_container(summary.id)

    def _labels_of(self, name: str) -> dict[str, str]:
        return {POD_UID_LABEL: self._state.pod.metadata.uid, CONTAINER_NAME_LABEL: name}

    async def _remove_dead(self, name: str, number: int) -> None:
        """One dead container is kept, for `logs --previous`; older ones go, with their logs."""
        context, pod = self._context, self._state.pod
        try:
            found = await context.runtime.list_containers(labels=self._labels_of(name))
            for summary in found:
                if summary.attempt < number - 1 and summary.state is not ContainerState.RUNNING:
                    await context.runtime.remove_container(summary.id)
        except ContainerRuntimeError as error:
            log.warning("dead containers of %s: %s", pod.metadata.name, error)
        if context.config.is_simulated:
            return
        directory = Path(context.config.pod_log_dir(pod)) / name
        for path in directory.glob("*.log*"):
            old = path.name.partition(".")[0]
            if old.isdecimal() and int(old) < number - 1:
                path.unlink(missing_ok=True)

    async def _post_start(self, name: str, id_: str) -> None:
        problem = await self._hook(name, id_, "post_start", HOOK_TIMEOUT)
        if problem is None:
            self.post(pod_events.HookDone(name))
        else:
            self.post(pod_events.HookFailed(name, problem))

    async def _hook(self, name: str, id_: str, which: str, timeout: timedelta) -> str | None:
        """Run a lifecycle hook; what went wrong, in words."""
        spec = spec_of(self._state.pod, name)
        if spec is None or spec.lifecycle is None:
            return None
        action = spec.lifecycle.post_start if which == "post_start" else spec.lifecycle.pre_stop
        if action is None:
            return None
        target = Target(self._context.runtime, spec, id_, self._address())
        outcome = await attempt(action, target, timeout)
        return None if outcome.result is Result.SUCCESS else outcome.message

    def _address(self) -> str:
        ips = self._state.ips
        if self._state.pod.spec.host_network:
            ips = self._context.facts.addresses
        return ips[0] if ips else ""

    async def _stop(self, action: StopContainer) -> None:
        context, name = self._context, action.container
        if action.message:
            context.say(self._state.pod, "Normal", "Killing", action.message, name)
        grace = action.grace
        spec = spec_of(self._state.pod, name)
        if action.pre_stop and spec and spec.lifecycle and spec.lifecycle.pre_stop and grace:
            began = context.clock.monotonic()
            problem: str | None = f"timed out after {grace.total_seconds():g}s"
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace.total_seconds()):
                    problem = await self._hook(name, action.id, "pre_stop", grace)
            if problem is not None:
                text = "PreStopHook failed"
                context.say(self._state.pod, "Warning", "FailedPreStopHook", text, name)
            spent = timedelta(seconds=context.clock.monotonic() - began)
            grace = max(grace - spent, LEAST_STOP)
        end_at = context.clock.monotonic() + grace.total_seconds()
        while True:
            left = max(end_at - context.clock.monotonic(), 0.0)
            try:
                await context.runtime.stop_container(action.id, timedelta(seconds=left))
                status = await context.runtime.container_status(action.id)
            except ContainerNotFound:
                self._lost(action.id)
                return
            except ContainerRuntimeError as error:
                log.warning("stopping %s: %s, trying again", name, error)
                await asyncio.sleep(RETRY.total_seconds())
            else:
                if status.state is not ContainerState.RUNNING:
                    self.post(Exited(name, await self._incarnation(status)))
                    return

    async def _remove(self, delete_object: bool) -> None:
        await self._status.flush()
        while True:
            try:
                await self._volumes.remove()
                break
            except OSError as error:
                log.warning("volumes of %s: %s", self._state.pod.metadata.name, error)
                await asyncio.sleep(RETRY.total_seconds())
        if self._mirror is not None:
            await self._mirror.remove()
        elif delete_object:
            await self._delete_object()
        await self._remove_sandboxes()
        context, pod = self._context, self._state.pod
        if context.cgroups is not None and context.cgroup_driver != "systemd":
            parent = cgroup_parent(context, pod)
            await asyncio.to_thread(context.cgroups.remove, pod, parent)
        if not context.config.is_simulated:
            directory = context.config.pod_log_dir(pod)
            await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
        self.post(pod_events.Removed())

    async def _delete_object(self) -> None:
        while True:
            try:
                await self._context.client.delete(self._state.pod, grace_seconds=0)
                return
            except (NotFound, Conflict):
                # Somebody was faster, or the name belongs to another pod by now.
                return
            except (StatusError, WireError, OSError) as error:
                log.warning("deleting %s: %s", self._state.pod.metadata.name, error)
                await asyncio.sleep(RETRY.total_seconds())

    # --- probes -----------------------------------------------------------------------------------

    def _sync_probes(self) -> None:
        """A task for each probe that has something to find out now."""
        wanted = self._wanted_probes()
        for key in [key for key in self._probes if key not in wanted]:
            self._probes.pop(key).cancel()
        for key in wanted:
            if key not in self._probes:
                self._start_probe(*key)

    def _wanted_probes(self) -> set[tuple[str, ProbeKind, str]]:
        found: set[tuple[str, ProbeKind, str]] = set()
        for record in self._state.containers.values():
            spec = spec_of(self._state.pod, record.name)
            if record.latest is None or spec is None:
                continue
            kinds: tuple[ProbeKind, ...] = ()
            if record.stage is Stage.RUNNING and not record.started:
                kinds = (ProbeKind.STARTUP,)
            elif record.stage is Stage.RUNNING:
                stopping = self._state.stage is PodStage.STOPPING
                kinds = (ProbeKind.READINESS,) if stopping else _AFTER_START
            elif record.stage is Stage.STOPPING and record.started:
                kinds = (ProbeKind.READINESS,)
            found |= {
                (record.name, kind, record.latest.id)
                for kind in kinds
                if probe_in(spec, kind) is not None
            }
        return found

    def _start_probe(self, name: str, kind: ProbeKind, id_: str) -> None:
        assert self._group is not None
        pod, context = self._state.pod, self._context
        spec = spec_of(pod, name)
        assert spec is not None
        probe = probe_in(spec, kind)
        assert probe is not None
        self._probes[name, kind, id_] = self._group.create_task(
            run_probe(
                kind,
                probe,
                Target(context.runtime, spec, id_, self._address()),
                context.random,
                decided=lambda success: self.post(pod_events.Verdict(name, kind, id_, success)),
                say=lambda type_, reason, text: context.say(pod, type_, reason, text, name),
                spread=id_ in self._adopted,
            ),
            name=f"{pod.metadata.name} {kind.value} probe of {name}",
        )

    # --- volumes that change ----------------------------------------------------------------------

    def _follow_contents(self) -> None:
        """Hear of changes of what the pod refers to."""
        for kind, key in self._held:
            self._unsubscribe.append(self._context.objects.follow(kind, key, self._content_changed))

    def _content_changed(self, old: object, new: object) -> None:
        if new is not None:
            self.post(pod_events.ObjectsChanged())
            self._refresh_volumes()

    def _refresh_volumes(self) -> None:
        working = (PodStage.SANDBOXING, PodStage.RUNNING, PodStage.RESETTING)
        if self._group is not None and self._state.stage in working:
            self._spawn("refresh", self._refresh())

    async def _refresh(self) -> None:
        try:
            await self._volumes.refresh()
        except VolumeProblem as problem:
            self._context.say(self._state.pod, "Warning", "FailedMount", str(problem))
            await asyncio.sleep(VOLUME_RETRY.total_seconds())
            self._refresh_volumes()
            return
        self._plan_renewal()

    def _plan_renewal(self) -> None:
        """Tokens are replaced before they expire."""
        if self._renewal is not None:
            self._renewal.cancel()
            self._renewal = None
        if self._volumes.renew_at is not None:
            delay = (self._volumes.renew_at - self._context.clock.now()).total_seconds()
            loop = asyncio.get_running_loop()
            self._renewal = loop.call_later(max(delay, 1.0), self._refresh_volumes)


_AFTER_START = (ProbeKind.READINESS, ProbeKind.LIVENESS)
