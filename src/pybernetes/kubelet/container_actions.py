"""What is done with single containers of a pod: pull, start, hooks, stop, and what came of it.

Rule: every action ends in an event for the pod machine, whatever goes wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from pybernetes.api.types.core_v1 import Secret
from pybernetes.kubelet import pod_events
from pybernetes.kubelet.adoption import incarnation_of
from pybernetes.kubelet.checks import Result, Target, attempt
from pybernetes.kubelet.credentials import auths_for
from pybernetes.kubelet.env import ConfigProblem
from pybernetes.kubelet.images import ImageProblem
from pybernetes.kubelet.lastwords import last_words
from pybernetes.kubelet.pod_events import Exited, StopContainer
from pybernetes.kubelet.pod_state import (
    CONFIG_ERROR,
    ERR_IMAGE_PULL,
    RUN_ERROR,
    STATUS_UNKNOWN,
    spec_of,
)
from pybernetes.kubelet.references import pull_secrets_of
from pybernetes.kubelet.runtime.interface import (
    CONTAINER_NAME_LABEL,
    POD_UID_LABEL,
    ContainerNotFound,
    ContainerRuntimeError,
    ContainerState,
)
from pybernetes.kubelet.runtime_spec import (
    container_spec,
    sandbox_spec,
    target_of,
    termination_file,
)

if TYPE_CHECKING:
    from pybernetes.kubelet.context import NodeContext
    from pybernetes.kubelet.pod_events import Event
    from pybernetes.kubelet.pod_state import Incarnation
    from pybernetes.kubelet.runtime.interface import (
        ContainerStatus,
        ImageStatus,
    )
    from pybernetes.kubelet.worker import PodWorker

log = logging.getLogger(__name__)

# A runtime that is away is asked again so often.
RETRY = timedelta(seconds=2)
# What a stop is given at least when the preStop hook has used up the grace.
LEAST_STOP = timedelta(seconds=2)
# Nobody waits longer for a hook that says nothing of its own.
HOOK_TIMEOUT = timedelta(minutes=10)

LOST_MESSAGE = "The container could not be located when the pod was deleted"


class ContainerActions:
    """For one pod; its worker decides when."""

    def __init__(self, context: NodeContext, worker: PodWorker) -> None:
        self._context = context
        self._worker = worker
        # The image each container is to be created from.
        self._images: dict[str, ImageStatus] = {}

    async def pull(self, name: str) -> None:
        context, pod = self._context, self._worker.state.pod
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
            self._worker.post(pod_events.ImageFailed(name, problem.reason, problem.message))
        except Exception as error:
            log.exception("image of %s", name)
            self._worker.post(pod_events.ImageFailed(name, ERR_IMAGE_PULL, str(error)))
        else:
            self._worker.post(pod_events.ImageReady(name))

    async def start(self, name: str, number: int) -> None:
        context, pod = self._context, self._worker.state.pod
        created = ""
        try:
            created = await self._create(name, number)
            context.say(pod, "Normal", "Created", f"Created container: {name}", name)
            await context.runtime.start_container(created)
        except ConfigProblem as problem:
            self._worker.post(pod_events.StartFailed(name, CONFIG_ERROR, str(problem)))
        except ContainerRuntimeError as error:
            self._worker.post(await self._what_started(name, number, created, error.message))
        except Exception as error:
            log.exception("starting %s", name)
            self._worker.post(pod_events.StartFailed(name, "CreateContainerError", str(error)))
        else:
            self._worker.post(await self._what_started(name, number, created, ""))
        if number > 1:
            await self._remove_dead(name, number)

    async def _create(self, name: str, number: int) -> str:
        context, pod = self._context, self._worker.state.pod
        spec = spec_of(pod, name)
        assert spec is not None
        wanted = await container_spec(
            context,
            pod,
            spec,
            attempt=number,
            ips=self._worker.state.ips,
            image=self._images[name],
            volumes=self._worker.volumes,
            target_id=self._target_of(name),
        )
        sandbox = sandbox_spec(context, pod, max(self._worker.state.sandbox_attempt - 1, 0))
        return await context.runtime.create_container(
            self._worker.state.sandbox_id, wanted, sandbox
        )

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
            incarnation = await self.incarnation(status)
            if problem and incarnation.ended:
                dead = replace(incarnation, message=problem)
                return pod_events.StartFailed(name, RUN_ERROR, problem, dead)
            text = f"Started container {name}"
            self._context.say(self._worker.state.pod, "Normal", "Started", text, name)
            return pod_events.Started(name, incarnation)

    def _target_of(self, name: str) -> str:
        """The id of the container whose processes an ephemeral one is to see."""
        record = self._worker.state.containers.get(target_of(self._worker.state.pod, name))
        return record.latest.id if record is not None and record.latest is not None else ""

    async def _remove_halves(self, name: str, number: int) -> None:
        """What a creation left that was not answered in time: its name could not be used again."""
        labels = self._labels_of(name)
        for summary in await self._context.runtime.list_containers(labels=labels):
            if summary.attempt == number:
                await self._context.runtime.remove_container(summary.id)

    def _labels_of(self, name: str) -> dict[str, str]:
        return {POD_UID_LABEL: self._worker.state.pod.metadata.uid, CONTAINER_NAME_LABEL: name}

    async def _remove_dead(self, name: str, number: int) -> None:
        """One dead container is kept, for `logs --previous`; older ones go, with their logs."""
        context, pod = self._context, self._worker.state.pod
        try:
            found = await context.runtime.list_containers(labels=self._labels_of(name))
            for summary in found:
                if summary.attempt < number - 1 and summary.state is not ContainerState.RUNNING:
                    await context.runtime.remove_container(summary.id)
        except ContainerRuntimeError as error:
            log.warning("dead containers of %s: %s", pod.metadata.name, error)
        if context.config.is_simulated:
            return
        files = [*(Path(context.config.pod_log_dir(pod)) / name).glob("*.log*")]
        words = termination_file(context, pod, name, number)
        if words is not None:
            files += words.parent.glob("*")
        for path in files:
            old = path.name.partition(".")[0]
            if old.isdecimal() and int(old) < number - 1:
                path.unlink(missing_ok=True)

    async def post_start(self, name: str, id_: str) -> None:
        problem = await self._hook(name, id_, "post_start", HOOK_TIMEOUT)
        if problem is None:
            self._worker.post(pod_events.HookDone(name))
        else:
            self._worker.post(pod_events.HookFailed(name, problem))

    async def _hook(self, name: str, id_: str, which: str, timeout: timedelta) -> str | None:
        """Run a lifecycle hook; what went wrong, in words."""
        spec = spec_of(self._worker.state.pod, name)
        if spec is None or spec.lifecycle is None:
            return None
        action = spec.lifecycle.post_start if which == "post_start" else spec.lifecycle.pre_stop
        if action is None:
            return None
        target = Target(self._context.runtime, spec, id_, self._worker.address)
        outcome = await attempt(action, target, timeout)
        return None if outcome.result is Result.SUCCESS else outcome.message

    async def stop(self, action: StopContainer) -> None:
        context, name = self._context, action.container
        if action.message:
            context.say(self._worker.state.pod, "Normal", "Killing", action.message, name)
        grace = action.grace
        spec = spec_of(self._worker.state.pod, name)
        if action.pre_stop and spec and spec.lifecycle and spec.lifecycle.pre_stop and grace:
            began = context.clock.monotonic()
            problem: str | None = f"timed out after {grace.total_seconds():g}s"
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace.total_seconds()):
                    problem = await self._hook(name, action.id, "pre_stop", grace)
            if problem is not None:
                text = "PreStopHook failed"
                context.say(self._worker.state.pod, "Warning", "FailedPreStopHook", text, name)
            spent = timedelta(seconds=context.clock.monotonic() - began)
            grace = max(grace - spent, LEAST_STOP)
        end_at = context.clock.monotonic() + grace.total_seconds()
        while True:
            left = max(end_at - context.clock.monotonic(), 0.0)
            try:
                await context.runtime.stop_container(action.id, timedelta(seconds=left))
                status = await context.runtime.container_status(action.id)
            except ContainerNotFound:
                self.lost(action.id)
                return
            except ContainerRuntimeError as error:
                log.warning("stopping %s: %s, trying again", name, error)
                await asyncio.sleep(RETRY.total_seconds())
            else:
                if status.state is not ContainerState.RUNNING:
                    self._worker.post(Exited(name, await self.incarnation(status)))
                    return

    def lost(self, container_id: str) -> None:
        for record in self._worker.state.containers.values():
            latest = record.latest
            if latest is not None and latest.id == container_id:
                self._worker.post(Exited(record.name, self._vanished(latest)))

    def _vanished(self, latest: Incarnation) -> Incarnation:
        return replace(
            latest,
            ended=True,
            exit_code=137,
            reason=STATUS_UNKNOWN,
            message=LOST_MESSAGE,
            finished_at=self._context.clock.now(),
        )

    async def incarnation(self, status: ContainerStatus) -> Incarnation:
        """With the message that the container left."""
        found = incarnation_of(status)
        spec = spec_of(self._worker.state.pod, status.name)
        if not found.ended or spec is None:
            return found
        path = termination_file(self._context, self._worker.state.pod, status.name, status.attempt)
        words = await asyncio.to_thread(last_words, spec, status, path) if path else ""
        return replace(found, message=words or found.message)
