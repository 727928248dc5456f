"""Jobs: counting, ends and policies, by tables and properties, and what becomes of it in a cluster.

The cluster is real but for its containers. Time is virtual.
"""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pybernetes.api.types.batch_v1 import (
    Job,
    JobSpec,
    JobStatus,
    PodFailurePolicy,
    PodFailurePolicyOnExitCodesRequirement,
    PodFailurePolicyOnPodConditionsPattern,
    PodFailurePolicyRule,
    SuccessPolicy,
    SuccessPolicyRule,
)
from pybernetes.api.types.core_v1 import (
    ContainerState,
    ContainerStateTerminated,
    ContainerStatus,
    Pod,
    PodCondition,
)
from pybernetes.controllers.job.account import FAILURES, FINALIZER, account_of, flushed
from pybernetes.controllers.job.controller import new_pod
from pybernetes.controllers.job.indexes import COMPLETION_INDEX, format_indexes, parse_indexes
from pybernetes.controllers.job.plan import End, NewPod, back_off, end_of, plan_pods, status_of
from pybernetes.controllers.job.policy import enough_succeeded, judge
from pybernetes.kubelet.runtime.script import exits, ignores_stop
from pybernetes.testing.builders import EPOCH, metadata, pod, template

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pybernetes.testing import Cluster

pytestmark = pytest.mark.cluster(nodes=2)
param = pytest.param


def job(name: str = "work", *, status: JobStatus | None = None, **spec: Any) -> Job:
    restart = spec.pop("restart_policy", "Never")
    return Job(
        metadata=metadata(name, uid=""),
        spec=JobSpec(template=template({"app": name}, restart_policy=restart), **spec),
        status=status or JobStatus(start_time=EPOCH),
    )


def indexed(completions: int, **spec: Any) -> Job:
    return job(completions=completions, completion_mode="Indexed", **{"parallelism": 9, **spec})


def worker(
    name: str,
    phase: str = "Running",
    *,
    index: int | None = None,
    failures: int | None = None,
    code: int = 1,
    ended: float = 0,
    tracked: bool = True,
    going: bool = False,
    conditions: Sequence[PodCondition] = (),
) -> Pod:
    """A pod of the job; `ended` in seconds after the beginning."""
    moment = EPOCH + timedelta(seconds=ended)
    terminated = ContainerStateTerminated(
        exit_code=0 if phase == "Succeeded" else code, finished_at=moment
    )
    over = phase in ("Succeeded", "Failed")
    annotations = {} if index is None else {COMPLETION_INDEX: str(index)}
    if failures is not None:
        annotations[FAILURES] = str(failures)
    return pod(
        name,
        node="n",
        phase=phase,
        meta={
            "uid": f"uid of {name}",
            "finalizers": (FINALIZER,) if tracked else (),
            "deletion_timestamp": EPOCH if going else None,
            "annotations": annotations,
        },
        status={
            "conditions": tuple(conditions),
            "container_statuses": (
                ContainerStatus(
                    name="main", state=ContainerState(terminated=terminated if over else None)
                ),
            ),
        },
    )


def conditions(job: Job) -> list[tuple[str, str]]:
    return [(c.type, c.reason) for c in job.status.conditions if c.status == "True"]


NOW = EPOCH + timedelta(hours=1)


def planned(found: Job, pods: Sequence[Pod], end: End | None = None) -> Any:
    account = account_of(found, pods, released=frozenset())
    return plan_pods(found, account, pods, end, NOW)


def ending(found: Job, pods: Sequence[Pod]) -> str:
    account = account_of(found, pods, released=frozenset())
    end = end_of(found, account, pods, NOW)
    return end.reason if end else ""


# --- tables ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "indexes"),
    [("", []), ("1", [1]), ("0,1", [0, 1]), ("0-2", [0, 1, 2]), ("0,2-4,6,7", [0, 2, 3, 4, 6, 7])],
)
def test_indexes_as_text(text: str, indexes: list[int]) -> None:
    assert format_indexes(indexes) == text
    assert parse_indexes(text, below=10) == frozenset(indexes)


@given(indexes=st.frozensets(st.integers(0, 40)))
@settings(deadline=None)
def test_indexes_survive_their_text(indexes: frozenset[int]) -> None:
    assert parse_indexes(format_indexes(indexes), below=41) == indexes


def test_indexes_that_cannot_be_read_are_none() -> None:
    assert parse_indexes("x,1-,-2,3-99999999999,5", below=6) == frozenset({1, 3, 4, 5})


RUNNING = [worker("a"), worker("b")]
DONE = worker("done", "Succeeded")


@pytest.mark.parametrize(
    ("found", "pods", "create", "withdraw"),
    [
        param(job(completions=5, parallelism=2), [], 2, [], id="as many as may run"),
        param(job(completions=5, parallelism=2), RUNNING, 0, [], id="enough"),
        param(job(completions=2, parallelism=9), [DONE], 1, [], id="no more than are missing"),
        param(job(completions=5, parallelism=1), RUNNING, 0, ["a"], id="fewer at a time"),
        param(job(completions=5, parallelism=0), RUNNING, 0, ["a", "b"], id="none at a time"),
        param(job(parallelism=2), [], 2, [], id="a work queue"),
        param(job(parallelism=3), [DONE, worker("a")], 0, [], id="which runs dry"),
        param(
            job(completions=5, parallelism=2, suspend=True), RUNNING, 0, ["a", "b"], id="suspended"
        ),
        param(
            job(completions=5, parallelism=2, pod_replacement_policy="Failed"),
            [worker("a"), worker("b", going=True)],
            0,
            [],
            id="waits for the end of the one before",
        ),
        param(
            indexed(3),
            [worker("a", index=0), worker("b", index=0), worker("c", index=7)],
            0,
            ["b", "c"],
            id="second of an index, and an index there is not",
        ),
    ],
)
def test_plan(found: Job, pods: list[Pod], create: int, withdraw: list[str]) -> None:
    plan = planned(found, pods)
    assert (len(plan.create), [p.metadata.name for p in plan.withdraw]) == (create, withdraw)
    assert plan.stop == ()


def test_free_indexes_are_given_out_lowest_first() -> None:
    status = JobStatus(start_time=EPOCH, completed_indexes="1")
    found = indexed(5, parallelism=3, status=status)
    assert planned(found, [worker("a", index=2)]).create == (NewPod(0), NewPod(3))


def test_each_index_backs_off_by_itself() -> None:
    found = indexed(3, backoff_limit_per_index=5)
    seconds_ago = 3600 - 15
    pods = [
        worker("a", "Failed", index=0, failures=0, ended=seconds_ago),
        worker("b", "Failed", index=1, failures=1, ended=seconds_ago),
    ]
    plan = planned(found, pods)
    assert plan.create == (NewPod(0, 1), NewPod(2, 0))
    assert plan.again == timedelta(seconds=5)


def test_an_end_stops_what_runs() -> None:
    plan = planned(job(completions=5, parallelism=2), RUNNING, End(False, "X", "x"))
    assert [p.metadata.name for p in plan.stop] == ["a", "b"]


@pytest.mark.parametrize(
    ("ended", "wait"),
    [
        param([], 0, id="nothing failed"),
        param([("Failed", 3595)], 5, id="ten seconds"),
        param([("Failed", 3500), ("Failed", 3595)], 15, id="twenty"),
        param([("Failed", 3500), ("Succeeded", 3550), ("Failed", 3595)], 5, id="begins anew"),
        param([("Failed", 3500), ("Succeeded", 3595)], 0, id="ends with a success"),
        param([("Failed", 3600)] * 9, 360, id="six minutes at most"),
    ],
)
def test_back_off(ended: list[tuple[str, float]], wait: float) -> None:
    pods = [worker(f"p{n}", phase, ended=at) for n, (phase, at) in enumerate(ended)]
    assert back_off(pods, NOW) == timedelta(seconds=wait)


OK = [worker(f"s{n}", "Succeeded", index=n) for n in range(3)]
BAD = [worker(f"f{n}", "Failed", index=n, ended=n) for n in range(3)]


@pytest.mark.parametrize(
    ("found", "pods", "reason"),
    [
        param(job(completions=3), OK, "CompletionsReached", id="all done"),
        param(job(completions=4), OK, "", id="one is missing"),
        param(job(completions=0), [], "CompletionsReached", id="nothing to do"),
        param(job(parallelism=2), [DONE], "CompletionsReached", id="work queue is done"),
        param(job(parallelism=2), [DONE, worker("a")], "", id="work queue: others may finish"),
        param(job(completions=1, backoff_limit=2), BAD, "BackoffLimitExceeded", id="too often"),
        param(job(completions=1, backoff_limit=3), BAD, "", id="not yet too often"),
        param(
            job(completions=1, active_deadline_seconds=3600), [], "DeadlineExceeded", id="too long"
        ),
        param(job(completions=1, active_deadline_seconds=3601), [], "", id="not yet too long"),
        param(
            job(completions=1, active_deadline_seconds=1, suspend=True), [], "", id="time stands"
        ),
        param(
            indexed(4, backoff_limit_per_index=0, max_failed_indexes=1, backoff_limit=99),
            BAD,
            "MaxFailedIndexesExceeded",
            id="too many indexes",
        ),
        param(
            indexed(4, backoff_limit_per_index=0, backoff_limit=99),
            [*BAD, worker("s3", "Succeeded", index=3)],
            "FailedIndexes",
            id="all indexes are over, some failed",
        ),
        param(indexed(4, backoff_limit_per_index=1, backoff_limit=99), BAD, "", id="may try again"),
    ],
)
def test_how_it_ends(found: Job, pods: list[Pod], reason: str) -> None:
    assert ending(found, pods) == reason


def test_what_was_decided_stays() -> None:
    found = job(completions=3, backoff_limit=0)
    account = account_of(found, BAD, released=frozenset())
    end = end_of(found, account, BAD, NOW)
    assert end is not None
    found = msgspec.structs.replace(found, status=status_of(found, account, BAD, end, NOW))
    assert [c.type for c in found.status.conditions] == ["FailureTarget"]
    assert end_of(found, account_of(found, OK, released=frozenset()), OK, NOW) == end


def on_codes(action: str, operator: str, *values: int, container: str = "") -> PodFailurePolicyRule:
    codes = PodFailurePolicyOnExitCodesRequirement(
        container_name=container, operator=operator, values=values
    )
    return PodFailurePolicyRule(action=action, on_exit_codes=codes)


DISRUPTED = PodFailurePolicyRule(
    action="Ignore",
    on_pod_conditions=(PodFailurePolicyOnPodConditionsPattern(type="DisruptionTarget"),),
)


@pytest.mark.parametrize(
    ("rules", "failed", "action", "message"),
    [
        param([], worker("p", "Failed"), "Count", "", id="no rule"),
        param(
            [on_codes("FailJob", "In", 42)],
            worker("p", "Failed", code=42),
            "FailJob",
            "Container main for pod default/p failed with exit code 42"
            " matching FailJob rule at index 0",
            id="the code that ends it",
        ),
        param([on_codes("FailJob", "In", 42)], worker("p", "Failed"), "Count", "", id="another"),
        param(
            [DISRUPTED, on_codes("FailJob", "NotIn", 3)],
            worker("p", "Failed", code=9),
            "FailJob",
            "Container main for pod default/p failed with exit code 9"
            " matching FailJob rule at index 1",
            id="any but",
        ),
        param(
            [on_codes("FailJob", "In", 42, container="other")],
            worker("p", "Failed", code=42),
            "Count",
            "",
            id="another container",
        ),
        param(
            [DISRUPTED, on_codes("FailJob", "In", 137)],
            worker(
                "p",
                "Failed",
                code=137,
                conditions=[PodCondition(type="DisruptionTarget", status="True")],
            ),
            "Ignore",
            "Pod default/p has condition DisruptionTarget matching Ignore rule at index 0",
            id="the first rule decides",
        ),
    ],
)
def test_failure_policy(
    rules: list[PodFailurePolicyRule], failed: Pod, action: str, message: str
) -> None:
    verdict = judge(job(pod_failure_policy=PodFailurePolicy(rules=tuple(rules))), failed)
    assert (verdict.action, verdict.message) == (action, message)


@pytest.mark.parametrize(
    ("rule", "completed", "enough"),
    [
        (SuccessPolicyRule(succeeded_indexes="0,2-3"), {0, 2}, False),
        (SuccessPolicyRule(succeeded_indexes="0,2-3"), {0, 2, 3}, True),
        (SuccessPolicyRule(succeeded_indexes="0,2-3", succeeded_count=2), {0, 3}, True),
        (SuccessPolicyRule(succeeded_indexes="0,2-3", succeeded_count=2), {0, 1}, False),
        (SuccessPolicyRule(succeeded_count=2), {4, 1}, True),
    ],
)
def test_success_policy(rule: SuccessPolicyRule, completed: set[int], enough: bool) -> None:
    found = indexed(5, success_policy=SuccessPolicy(rules=(rule,)))
    said = "Matched rules at index 0" if enough else ""
    assert enough_succeeded(found, completed) == said


def test_a_pod_says_its_index_in_every_form() -> None:
    made = new_pod(indexed(3, backoff_limit_per_index=2), NewPod(2, 1))
    assert made.metadata.generate_name == "work-2-"
    assert made.metadata.annotations == {COMPLETION_INDEX: "2", FAILURES: "1"}
    assert made.metadata.labels[COMPLETION_INDEX] == "2"
    assert made.metadata.finalizers == (FINALIZER,)
    assert made.spec.hostname == "work-2"
    (variable,) = made.spec.containers[0].env
    assert variable.name == "JOB_COMPLETION_INDEX"


# --- properties -----------------------------------------------------------------------------------


class Simulation:
    """A job and its pods; every write of the controller may be its last before it starts anew."""

    def __init__(self, *, is_indexed: bool) -> None:
        self.job = indexed(50, backoff_limit=999) if is_indexed else job(backoff_limit=999)
        self.pods: dict[str, Pod] = {}
        self.succeeded: set[int] = set()
        self.failed = 0

    def end(self, number: int, *, well: bool) -> None:
        """A new pod comes to its end."""
        index = number % 50
        name = f"p{number}"
        self.pods[name] = worker(name, "Succeeded" if well else "Failed", index=index)
        if well:
            self.succeeded.add(index if self.is_indexed else number)
        else:
            self.failed += 1

    @property
    def is_indexed(self) -> bool:
        return self.job.spec.completion_mode == "Indexed"

    def look(self, *, writes: int) -> None:
        pods = list(self.pods.values())
        account = account_of(self.job, pods, released=frozenset())
        if writes < 1:
            return
        self.write(status_of(self.job, account, pods, None, NOW))
        for number, found in enumerate(account.release):
            if writes < 2 + number:
                return
            name = found.metadata.name
            meta = msgspec.structs.replace(found.metadata, finalizers=())
            self.pods[name] = msgspec.structs.replace(found, metadata=meta)
        if writes < 2 + len(account.release):
            return
        counted = flushed(self.job, account)
        self.write(status_of(self.job, counted, pods, None, NOW))

    def collect(self) -> None:
        """Pods without the finalizer may go at any time."""
        self.pods = {n: p for n, p in self.pods.items() if p.metadata.finalizers}

    def write(self, status: JobStatus) -> None:
        self.job = msgspec.structs.replace(self.job, status=status)


@given(is_indexed=st.booleans(), data=st.data())
@settings(deadline=None)
def test_every_pod_is_counted_once_wherever_the_controller_dies(
    is_indexed: bool, data: st.DataObject
) -> None:
    world = Simulation(is_indexed=is_indexed)
    number = 0
    for _ in range(data.draw(st.integers(1, 8))):
        for _ in range(data.draw(st.integers(0, 3))):
            world.end(number, well=data.draw(st.booleans()))
            number += 1
        world.look(writes=data.draw(st.integers(0, 6)))
        if data.draw(st.booleans()):
            world.collect()
    world.look(writes=999)
    status = world.job.status
    assert (status.succeeded, status.failed) == (len(world.succeeded), world.failed)
    assert status.uncounted_terminated_pods is not None
    assert not status.uncounted_terminated_pods.succeeded
    assert not status.uncounted_terminated_pods.failed
    assert not any(p.metadata.finalizers for p in world.pods.values())


@given(
    completions=st.one_of(st.none(), st.integers(0, 6)),
    parallelism=st.integers(0, 6),
    phases=st.lists(st.sampled_from(["Pending", "Running", "Succeeded", "Failed"]), max_size=8),
)
@settings(deadline=None)
def test_never_more_pods_than_may_run_nor_than_are_needed(
    completions: int | None, parallelism: int, phases: list[str]
) -> None:
    found = job(completions=completions, parallelism=parallelism, backoff_limit=99)
    pods = [worker(f"p{n}", phase) for n, phase in enumerate(phases)]
    active = sum(phase in ("Pending", "Running") for phase in phases)
    plan = planned(found, pods)
    after = active + len(plan.create) - len(plan.withdraw)
    assert not (plan.create and plan.withdraw)
    if completions is not None:
        assert after <= parallelism
        assert after <= max(completions - phases.count("Succeeded"), 0)
    else:
        assert after <= max(active, parallelism)


# --- in a cluster ---------------------------------------------------------------------------------


async def test_a_job_counts_its_successes_and_completes(cluster: Cluster) -> None:
    cluster.script("work-*", exits(after=timedelta(seconds=5)))
    await cluster.apply(job(completions=5, parallelism=2))
    await cluster.run_for(seconds=3)
    status = (await cluster.get(Job, "work")).status
    assert (status.active, status.ready) == (2, 2)
    await cluster.run_for(minutes=2)
    done = await cluster.get(Job, "work")
    assert (done.status.succeeded, done.status.failed, done.status.active) == (5, 0, 0)
    assert conditions(done) == [
        ("SuccessCriteriaMet", "CompletionsReached"),
        ("Complete", "CompletionsReached"),
    ]
    assert done.status.completion_time is not None
    pods = cluster.pods("default")
    assert len(pods) == 5
    assert not any(pod.metadata.finalizers for pod in pods)
    assert "Completed" in {event.reason for event in await cluster.events("work")}


async def test_failures_back_off_and_end_the_job(cluster: Cluster) -> None:
    cluster.script("work-*", exits(1))
    await cluster.apply(job(backoff_limit=3))
    await cluster.run_for(minutes=10)
    failed = await cluster.get(Job, "work")
    assert failed.status.failed == 4
    assert conditions(failed) == [
        ("FailureTarget", "BackoffLimitExceeded"),
        ("Failed", "BackoffLimitExceeded"),
    ]
    created = sorted(p.metadata.creation_timestamp or EPOCH for p in cluster.pods("default"))
    gaps = [(b - a).total_seconds() for a, b in pairwise(created)]
    assert gaps == [pytest.approx(s, abs=2) for s in (10, 20, 40)]


async def test_indexes_are_given_out_and_kept(cluster: Cluster) -> None:
    cluster.script("work-*", exits(after=timedelta(seconds=1)))
    await cluster.apply(job(completions=4, parallelism=4, completion_mode="Indexed"))
    await cluster.run_for(minutes=1)
    done = await cluster.get(Job, "work")
    assert done.status.completed_indexes == "0-3"
    assert done.status.succeeded == 4
    hosts = sorted(pod.spec.hostname for pod in cluster.pods("default"))
    assert hosts == ["work-0", "work-1", "work-2", "work-3"]


async def test_a_suspended_job_gives_up_its_pods_and_comes_back(cluster: Cluster) -> None:
    await cluster.apply(job(completions=2, parallelism=2))
    await cluster.run_for(seconds=10)
    assert len(cluster.pods("default", phase="Running")) == 2
    await cluster.client.patch(Job, "work", "default", patch={"spec": {"suspend": True}})
    await cluster.run_for(minutes=2)
    assert cluster.pods("default") == []
    suspended = await cluster.get(Job, "work")
    assert (suspended.status.active, suspended.status.failed) == (0, 0)
    assert conditions(suspended) == [("Suspended", "JobSuspended")]
    await cluster.client.patch(Job, "work", "default", patch={"spec": {"suspend": False}})
    await cluster.run_for(seconds=10)
    assert len(cluster.pods("default", phase="Running")) == 2


async def test_pods_of_a_deleted_job_go_with_it(cluster: Cluster) -> None:
    await cluster.apply(job(parallelism=2, completions=2))
    await cluster.run_for(seconds=10)
    await cluster.client.delete(Job, "work", "default", propagation="Background")
    await cluster.run_for(minutes=2)
    assert cluster.pods("default") == []


async def test_a_policy_ends_the_job_at_once(cluster: Cluster) -> None:
    cluster.script("work-*", exits(42, after=timedelta(seconds=3)))
    rules = (on_codes("FailJob", "In", 42),)
    await cluster.apply(
        job(completions=4, parallelism=2, pod_failure_policy=PodFailurePolicy(rules=rules))
    )
    await cluster.run_for(minutes=2)
    failed = await cluster.get(Job, "work")
    assert conditions(failed) == [
        ("FailureTarget", "PodFailurePolicy"),
        ("Failed", "PodFailurePolicy"),
    ]
    assert "failed with exit code 42 matching FailJob rule" in failed.status.conditions[0].message
    assert not any(pod.metadata.finalizers for pod in cluster.pods("default"))


async def test_success_of_the_leader_is_enough(cluster: Cluster) -> None:
    cluster.script("work-0-*", exits(after=timedelta(seconds=5)))
    policy = SuccessPolicy(rules=(SuccessPolicyRule(succeeded_indexes="0"),))
    await cluster.apply(indexed(3, success_policy=policy))
    await cluster.run_for(minutes=3)
    done = await cluster.get(Job, "work")
    assert conditions(done) == [
        ("SuccessCriteriaMet", "SuccessPolicy"),
        ("Complete", "SuccessPolicy"),
    ]
    assert (done.status.completed_indexes, done.status.active) == ("0", 0)


async def test_indexes_fail_by_themselves(cluster: Cluster) -> None:
    cluster.script("work-*", exits(after=timedelta(seconds=1)))
    cluster.script("work-1-*", exits(1))
    await cluster.apply(indexed(3, backoff_limit_per_index=1))
    await cluster.run_for(minutes=3)
    failed = await cluster.get(Job, "work")
    assert (failed.status.completed_indexes, failed.status.failed_indexes) == ("0,2", "1")
    assert (failed.status.succeeded, failed.status.failed) == (2, 2)
    assert conditions(failed)[-1] == ("Failed", "FailedIndexes")


async def test_a_deadline_ends_what_runs(cluster: Cluster) -> None:
    await cluster.apply(job(completions=2, parallelism=2, active_deadline_seconds=20))
    await cluster.run_for(minutes=2)
    failed = await cluster.get(Job, "work")
    assert conditions(failed)[-1] == ("Failed", "DeadlineExceeded")
    assert failed.status.active == 0
    assert failed.status.failed == 2
    assert cluster.pods("default", phase="Running") == []
    assert "DeadlineExceeded" in {event.reason for event in await cluster.events("work")}


async def test_the_end_is_said_when_the_last_pod_has_stopped(cluster: Cluster) -> None:
    cluster.script("work-*", ignores_stop())
    await cluster.apply(job(completions=2, parallelism=2, active_deadline_seconds=20))
    await cluster.run_for(seconds=40)
    ending = await cluster.get(Job, "work")
    assert conditions(ending) == [("FailureTarget", "DeadlineExceeded")]
    assert (ending.status.active, ending.status.terminating) == (0, 2)
    await cluster.run_for(seconds=40)
    assert conditions(await cluster.get(Job, "work"))[-1] == ("Failed", "DeadlineExceeded")


async def test_restarts_in_place_count_too(cluster: Cluster) -> None:
    cluster.script("work-*", exits(1))
    await cluster.apply(job(restart_policy="OnFailure", backoff_limit=2))
    await cluster.run_for(minutes=5)
    failed = await cluster.get(Job, "work")
    assert conditions(failed)[-1] == ("Failed", "BackoffLimitExceeded")


async def test_pods_of_an_orphaning_deletion_stay_and_are_free(cluster: Cluster) -> None:
    await cluster.apply(job(parallelism=2, completions=2))
    await cluster.run_for(seconds=10)
    await cluster.client.delete(Job, "work", "default", propagation="Orphan")
    await cluster.run_for(minutes=1)
    pods = cluster.pods("default")
    assert len(pods) == 2
    assert not any(pod.metadata.finalizers for pod in pods)
    assert not any(pod.metadata.owner_references for pod in pods)


async def test_fewer_at_a_time_is_no_failure(cluster: Cluster) -> None:
    await cluster.apply(job(completions=6, parallelism=4))
    await cluster.run_for(seconds=10)
    await cluster.client.patch(Job, "work", "default", patch={"spec": {"parallelism": 1}})
    await cluster.run_for(minutes=2)
    status = (await cluster.get(Job, "work")).status
    assert (status.active, status.failed, len(cluster.pods("default"))) == (1, 0, 1)


async def test_a_job_somebody_else_manages_is_left_alone(cluster: Cluster) -> None:
    await cluster.apply(job(managed_by="example.com/theirs"))
    await cluster.run_for(minutes=1)
    assert cluster.pods("default") == []
