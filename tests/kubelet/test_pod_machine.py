"""The pod machine by tables, and its promises by random walks. No loop, no runtime, no API."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pybernetes.api.types.core_v1 import (
    ContainerRestartRule,
    ContainerRestartRuleOnExitCodes,
    PodStatus,
)
from pybernetes.kubelet import pod_events
from pybernetes.kubelet.pod_events import (
    Changed,
    Condemned,
    Exited,
    Forgotten,
    HookDone,
    HookFailed,
    ImageFailed,
    ImageReady,
    Removed,
    SandboxFailed,
    SandboxLost,
    SandboxReady,
    SandboxStopped,
    Started,
    StartFailed,
    Tick,
    Verdict,
    VolumesFailed,
    VolumesReady,
)
from pybernetes.kubelet.pod_machine import CONTAINER_TABLE, POD_TABLE, pod_step
from pybernetes.kubelet.pod_state import (
    Incarnation,
    PodStage,
    PodState,
    ProbeKind,
    Stage,
    check_state,
    new_state,
)
from pybernetes.kubelet.pod_status import NodeFacts, pod_status
from pybernetes.kubelet.restart import backoff_over, delay_text, next_delay, wants_restart
from pybernetes.testing.builders import container, pod

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pybernetes.api.types.core_v1 import Pod
    from pybernetes.kubelet.pod_events import Action, Event

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FACTS = NodeFacts(addresses=("192.0.2.7",))


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


def run(state: PodState, *events: Event | None) -> tuple[PodState, list[Action]]:
    actions: list[Action] = []
    for event in events:
        step = pod_step(state, event, NOW)
        state, actions = step.state, list(step.actions)
    return state, actions


def running_state(spec: Pod | None = None) -> PodState:
    state, _ = run(
        new_state(spec or pod(), NOW),
        None,
        VolumesReady(),
        SandboxReady("sb0", ("10.0.0.1",)),
        ImageReady("main"),
        Started("main", Incarnation("c0", 0, NOW)),
    )
    return state


def deleted(spec: Pod, grace: int = 30) -> Pod:
    return replace_meta(spec, deletion_timestamp=NOW, deletion_grace_period_seconds=grace)


def replace_meta(spec: Pod, **fields: Any) -> Pod:
    return msgspec.structs.replace(spec, metadata=msgspec.structs.replace(spec.metadata, **fields))


# --- tables ---------------------------------------------------------------------------------------


def test_the_way_to_running() -> None:
    state = new_state(pod(), NOW)
    state, actions = run(state, None)
    assert actions == [pod_events.PrepareVolumes()]
    state, actions = run(state, VolumesReady())
    assert actions == [pod_events.RunSandbox(0)]
    state, actions = run(state, SandboxReady("sb0", ("10.0.0.1",)))
    assert actions == [pod_events.PullImage("main")]
    state, actions = run(state, ImageReady("main"))
    assert actions == [pod_events.StartContainer("main", 0)]
    state, actions = run(state, Started("main", Incarnation("c0", 0, NOW)))
    assert actions == []
    assert state.containers["main"].stage is Stage.RUNNING
    assert pod_step(state, Tick(), NOW).wake_at is None


@pytest.mark.parametrize(
    ("policy", "code", "stage"),
    [
        pytest.param("Always", 0, Stage.PULLING, id="always"),
        pytest.param("OnFailure", 0, Stage.DONE, id="on failure, success"),
        pytest.param("OnFailure", 1, Stage.PULLING, id="on failure, failure"),
        pytest.param("Never", 1, Stage.DONE, id="never"),
    ],
)
def test_the_first_end(policy: str, code: int, stage: Stage) -> None:
    state = running_state(pod(restart_policy=policy))
    ended = Incarnation("c0", 0, NOW, NOW, code, ended=True)
    state, _ = run(state, Exited("main", ended))
    assert state.containers["main"].stage is stage


@pytest.mark.parametrize(
    ("rule", "code", "again"),
    [
        pytest.param(("In", (42,)), 42, True, id="in"),
        pytest.param(("In", (42,)), 1, False, id="not in"),
        pytest.param(("NotIn", (42,)), 1, True, id="other than"),
    ],
)
def test_restart_rules(rule: tuple[str, tuple[int, ...]], code: int, again: bool) -> None:
    codes = ContainerRestartRuleOnExitCodes(operator=rule[0], values=rule[1])
    spec = container(
        restart_policy="Never",
        restart_policy_rules=(ContainerRestartRule(action="Restart", exit_codes=codes),),
    )
    assert wants_restart(pod(containers=[spec]), spec, "main", code) is again


def test_back_off_doubles_and_is_forgotten() -> None:
    delay, since = None, None
    seen = []
    moment = NOW
    for _ in range(8):
        at = backoff_over(delay, since, moment)
        seen.append(0 if at is None else (at - moment).total_seconds())
        moment = at or moment
        delay, since = next_delay(delay, since, moment), moment
    assert seen == [0, 10, 20, 40, 80, 160, 300, 300]
    assert backoff_over(delay, since, moment + timedelta(minutes=11)) is None
    assert next_delay(delay, since, moment + timedelta(minutes=11)) == seconds(10)


@pytest.mark.parametrize(
    ("delay", "text"), [(10, "10s"), (60, "1m0s"), (80, "1m20s"), (300, "5m0s")]
)
def test_delays_are_said_as_go_says_them(delay: int, text: str) -> None:
    assert delay_text(seconds(delay)) == text


def test_a_pod_deleted_while_its_sandbox_is_made_waits_for_it() -> None:
    spec = pod()
    state, _ = run(new_state(spec, NOW), None, VolumesReady())
    state, actions = run(state, Changed(deleted(spec)))
    assert state.stage is PodStage.STOPPING
    assert pod_events.Abandon() in actions
    state, actions = run(state, SandboxReady("sb0", ()))
    assert actions == [pod_events.StopSandbox("sb0")]
    state, actions = run(state, SandboxStopped())
    assert actions == [pod_events.Remove(delete_object=True)]
    state, _ = run(state, Removed())
    assert state.stage is PodStage.GONE


def test_an_end_that_overtook_the_start_counts() -> None:
    state, _ = run(
        new_state(pod(restart_policy="Never"), NOW),
        None,
        VolumesReady(),
        SandboxReady("sb0", ()),
        ImageReady("main"),
        Exited("main", Incarnation("c0", 0, NOW, NOW, 7, ended=True)),
        Started("main", Incarnation("c0", 0, NOW)),
    )
    latest = state.containers["main"].latest
    assert latest is not None
    assert latest.exit_code == 7
    assert state.stage is PodStage.CLOSING


def test_verdicts_about_former_containers_are_ignored() -> None:
    state = running_state()
    after, actions = run(state, Verdict("main", ProbeKind.LIVENESS, "another", False))
    assert (after, actions) == (state, [])


def test_main_containers_stop_before_sidecars() -> None:
    spec = pod(
        init_containers=(
            container("a", restart_policy="Always"),
            container("b", restart_policy="Always"),
        )
    )
    events: list[Event | None] = [None, VolumesReady(), SandboxReady("sb0", ())]
    for name in ("a", "b", "main"):
        events += [ImageReady(name), Started(name, Incarnation(name, 0, NOW))]
    state, _ = run(new_state(spec, NOW), *events)
    order = []
    state, actions = run(state, Changed(deleted(spec)))
    for _ in range(3):
        (stop,) = [a for a in actions if isinstance(a, pod_events.StopContainer)]
        order.append(stop.container)
        ended = Incarnation(stop.container, 0, NOW, NOW, 0, ended=True)
        state, actions = run(state, Exited(stop.container, ended))
    assert order == ["main", "b", "a"]


def test_tables_name_only_what_can_happen() -> None:
    for (stage, _), after in POD_TABLE.items():
        assert not (stage.is_over and not after.is_over), "a pod that is over came back"
    for (before, event), _ in CONTAINER_TABLE.items():
        assert before is not Stage.DONE, f"{event.__name__} wakes a container that is done"


# --- random walks ---------------------------------------------------------------------------------

NAMES = ("init", "side", "main", "second")
STAGES = list(PodStage)
POLICIES = st.sampled_from(["Always", "OnFailure", "Never"])


@st.composite
def walks(draw: st.DrawFn) -> tuple[Pod, list[tuple[int, int]]]:
    spec = pod(
        init_containers=(container("init"), container("side", restart_policy="Always")),
        containers=[container("main"), container("second")],
        restart_policy=draw(POLICIES),
        active_deadline_seconds=draw(st.sampled_from([None, 50, 5000])),
    )
    steps = draw(
        st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 600)), min_size=1, max_size=60)
    )
    return spec, steps


def incarnation(name: str, state: PodState, *, code: int | None, now: datetime) -> Incarnation:
    record = state.containers[name]
    if record.stage is Stage.STARTING or record.latest is None:
        number = record.attempt
    else:
        number = record.latest.attempt
    ended = code is not None
    return Incarnation(
        f"{name}-{number}",
        number,
        NOW,
        now if ended else None,
        code or 0,
        ended=ended,
    )


def any_event(choice: int, spec: Pod, state: PodState, now: datetime) -> Event:
    """Any event at all, possible or not: what is late or absurd must do no harm."""
    name = NAMES[choice % len(NAMES)]
    code = (0, 1, 137)[choice // 7 % 3]
    kinds = list(ProbeKind)
    latest = state.containers[name].latest
    id_ = latest.id if latest is not None else ""
    events: Sequence[Event] = (
        VolumesReady(),
        VolumesFailed("no"),
        SandboxReady(f"sb{state.sandbox_attempt}", ("10.0.0.9",)),
        SandboxFailed("no"),
        SandboxLost(state.sandbox_id),
        SandboxStopped(),
        ImageReady(name),
        ImageFailed(name, "ErrImagePull", "no"),
        Started(name, incarnation(name, state, code=None, now=now)),
        Started(name, incarnation(name, state, code=None, now=now)),
        Started(name, incarnation(name, state, code=code, now=now)),
        StartFailed(name, "CreateContainerConfigError", "no"),
        Exited(name, incarnation(name, state, code=code, now=now)),
        Exited(name, incarnation(name, state, code=code, now=now)),
        HookDone(name),
        HookFailed(name, "no"),
        Verdict(name, kinds[choice % 3], id_, choice % 2 == 0),
        Tick(),
        Tick(),
        Tick(),
        Changed(deleted(spec, choice % 40)) if choice % 5 == 0 else Tick(),
        Forgotten() if choice % 11 == 0 else Tick(),
        Condemned("Evicted", "no room") if choice % 13 == 0 else Tick(),
        Removed(),
    )
    return events[choice // 3 % len(events)]


RANK = {
    PodStage.STOPPING: 1,
    PodStage.CLOSING: 2,
    PodStage.FINISHED: 3,
    PodStage.REMOVING: 4,
    PodStage.GONE: 5,
}


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(walks())
def test_whatever_happens_the_promises_hold(walk: tuple[Pod, list[tuple[int, int]]]) -> None:
    spec, choices = walk
    now = NOW
    first = pod_step(new_state(spec, NOW), None, now)
    state, waiting = first.state, list(first.actions)
    phases: list[str] = []
    for choice, wait in choices:
        now += seconds(wait / 10)
        before = state
        event: Event | None = None
        if choice % 3 and waiting:
            # Mostly the world answers what it was asked …
            event = outcome_of(waiting.pop(choice % len(waiting)), state, now)
        # … and else anything at all.
        step = pod_step(state, event or any_event(choice, spec, state, now), now)
        state = step.state
        waiting += step.actions
        check_step(before, state, step.actions)
        status = pod_status(state, PodStatus(), FACTS, now)
        phases.append(status.phase)
        assert step.wake_at is None or step.wake_at > now, "a timer in the past never rests"
    for earlier, later in pairwise(phases):
        if earlier in ("Succeeded", "Failed"):
            assert later == earlier, "a final phase was left"


def check_step(before: PodState, after: PodState, actions: Sequence[Action]) -> None:
    check_state(after)
    assert RANK.get(after.stage, 0) >= RANK.get(before.stage, 0), "a pod came back from its end"
    starts = [a for a in actions if isinstance(a, pod_events.StartContainer | pod_events.PullImage)]
    if before.stage in RANK:
        assert not starts, "a container started in a pod that is stopping"
    assert len({a.container for a in starts}) == len(starts)
    for start in starts:
        if start.container in ("main", "second"):
            init = after.containers["init"]
            assert init.stage is Stage.DONE, "a main container did not wait for its init container"
    if any(isinstance(a, pod_events.StopSandbox) for a in actions):
        assert not any(r.is_alive for r in after.containers.values())
    for name, record in after.containers.items():
        old = before.containers[name]
        if old.latest is not None and record.latest is not None:
            assert record.latest.attempt >= old.latest.attempt, "a restart count went back"
        if old.stage is Stage.DONE and after.stage is not PodStage.RESETTING:
            assert record.stage is Stage.DONE or before.stage is PodStage.RESETTING
    if after.stage in (PodStage.FINISHED, PodStage.REMOVING, PodStage.GONE):
        assert not any(r.is_alive for r in after.containers.values())


@settings(max_examples=100, deadline=None)
@given(walks())
def test_a_pod_that_is_left_alone_comes_to_rest(
    walk: tuple[Pod, list[tuple[int, int]]],
) -> None:
    """Whatever happened before, a deletion whose actions all succeed ends in GONE."""
    spec, choices = walk
    now = NOW
    waiting: list[Action] = list(pod_step(new_state(spec, NOW), None, now).actions)
    state = pod_step(new_state(spec, NOW), None, now).state
    for choice, wait in choices:
        now += seconds(wait / 10)
        if choice % 3 and waiting:
            action = waiting.pop(choice % len(waiting))
            event = outcome_of(action, state, now)
        else:
            event = Tick()
        if event is not None:
            step = pod_step(state, event, now)
            state = step.state
            waiting += step.actions
    step = pod_step(state, Changed(deleted(spec)), now)
    state = step.state
    waiting += step.actions
    for _ in range(200):
        if not waiting:
            break
        event = outcome_of(waiting.pop(0), state, now)
        if event is not None:
            step = pod_step(state, event, now)
            state = step.state
            waiting += step.actions
    assert state.stage is PodStage.GONE, (
        state.stage,
        {n: r.stage for n, r in state.containers.items()},
    )


def outcome_of(action: Action, state: PodState, now: datetime) -> Event | None:
    """What a world in which everything works answers."""
    match action:
        case pod_events.PrepareVolumes():
            return VolumesReady()
        case pod_events.RunSandbox(number):
            return SandboxReady(f"sb{number}", ("10.0.0.1",))
        case pod_events.StopSandbox():
            return SandboxStopped()
        case pod_events.PullImage(name):
            return ImageReady(name)
        case pod_events.StartContainer(name, number):
            return Started(name, Incarnation(f"{name}-{number}", number, now))
        case pod_events.RunPostStart(name):
            return HookDone(name)
        case pod_events.StopContainer(name, id_):
            latest = state.containers[name].latest
            if latest is None or latest.id != id_:
                return None
            return Exited(name, replace(latest, ended=True, exit_code=143, finished_at=now))
        case pod_events.Remove():
            return Removed()
    return None
