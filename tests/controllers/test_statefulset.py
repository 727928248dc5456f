"""Stateful sets: what they decide, by tables and properties, and what becomes of it in a cluster.

The cluster is real but for its containers; claims are never bound, so pods with claims stay pending
where a test needs them only to be there. Time is virtual.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pybernetes.api.types.apps_v1 import (
    ControllerRevision,
    RollingUpdateStatefulSetStrategy,
    StatefulSet,
    StatefulSetOrdinals,
    StatefulSetPersistentVolumeClaimRetentionPolicy,
    StatefulSetSpec,
    StatefulSetUpdateStrategy,
)
from pybernetes.api.types.core_v1 import (
    ExecAction,
    PersistentVolumeClaim,
    PersistentVolumeClaimSpec,
    Pod,
    Probe,
    VolumeResourceRequirements,
)
from pybernetes.api.types.meta_v1 import LabelSelector
from pybernetes.client import PatchType
from pybernetes.controllers.statefulset.identity import ordinal_of, revision_of
from pybernetes.controllers.statefulset.plan import (
    Look,
    look_at,
    max_unavailable,
    plan_pods,
    plan_update,
    revision_for,
    status_of,
)
from pybernetes.kubelet.runtime.script import never_ready
from pybernetes.testing.builders import EPOCH, container, metadata, pod, template

if TYPE_CHECKING:
    from pybernetes.testing import Cluster

pytestmark = pytest.mark.cluster(nodes=3)
param = pytest.param

OLD, NEW = "db-old", "db-new"


def stateful_set(name: str = "db", *, replicas: int = 3, **spec: Any) -> StatefulSet:
    labels = {"app": name}
    return StatefulSet(
        metadata=metadata(name, labels=labels),
        spec=StatefulSetSpec(
            replicas=replicas,
            selector=LabelSelector(match_labels=labels),
            service_name=name,
            template=spec.pop("template", template(labels)),
            **spec,
        ),
    )


def rolling(partition: int = 0, unavailable: int | str | None = None) -> StatefulSetUpdateStrategy:
    return StatefulSetUpdateStrategy(
        type="RollingUpdate",
        rolling_update=RollingUpdateStatefulSetStrategy(
            partition=partition, max_unavailable=unavailable
        ),
    )


def numbered(ordinal: int, state: str = "ready", revision: str = NEW) -> Pod:
    """A pod of the set: ready, unready, pending, failed or going."""
    name = f"db-{ordinal}"
    labels = {
        "app": "db",
        "statefulset.kubernetes.io/pod-name": name,
        "apps.kubernetes.io/pod-index": str(ordinal),
        "controller-revision-hash": revision,
    }
    return pod(
        name,
        labels=labels,
        node="" if state == "pending" else "n",
        phase={"pending": "Pending", "failed": "Failed"}.get(state, "Running"),
        ready=None if state in ("pending", "failed") else state != "unready",
        meta={"deletion_timestamp": EPOCH} if state == "going" else {},
    )


def look(found: StatefulSet, *pods: Pod, current: str = OLD, update: str = NEW) -> Look:
    now = EPOCH + timedelta(hours=1)
    return look_at(found, pods, current=current, update=update, now=now)


def steps(plan: Any) -> tuple[list[int], list[str]]:
    return list(plan.create), [p.metadata.name for p in plan.delete]


# --- tables ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("replicas", "policy", "pods", "create", "delete"),
    [
        param(3, "OrderedReady", [], [0], [], id="one at a time"),
        param(3, "Parallel", [], [0, 1, 2], [], id="all at once"),
        param(3, "OrderedReady", [numbered(0)], [1], [], id="the next one"),
        param(3, "OrderedReady", [numbered(0, "unready")], [], [], id="waits to be ready"),
        param(3, "OrderedReady", [numbered(0, "going")], [], [], id="waits for the end"),
        param(3, "OrderedReady", [numbered(0), numbered(2)], [1], [], id="a hole"),
        param(2, "OrderedReady", [numbered(0, "failed")], [], ["db-0"], id="ended: anew"),
        param(2, "Parallel", [numbered(0, "failed")], [1], ["db-0"], id="ended: anew, at once"),
        param(1, "OrderedReady", [numbered(n) for n in range(3)], [], ["db-2"], id="the last goes"),
        param(
            1, "Parallel", [numbered(n) for n in range(3)], [], ["db-2", "db-1"], id="all surplus"
        ),
        param(
            1,
            "OrderedReady",
            [numbered(0), numbered(1), numbered(2, "going")],
            [],
            [],
            id="one end at a time",
        ),
        param(
            1,
            "OrderedReady",
            [numbered(0, "unready"), numbered(1)],
            [],
            [],
            id="no shrinking while one that stays ails",
        ),
        param(
            1,
            "OrderedReady",
            [numbered(0), numbered(1), numbered(2, "unready")],
            [],
            ["db-2"],
            id="the only one that ails may go",
        ),
        param(0, "OrderedReady", [numbered(0)], [], ["db-0"], id="to nothing"),
    ],
)
def test_plan(
    replicas: int, policy: str, pods: list[Pod], create: list[int], delete: list[str]
) -> None:
    found = stateful_set(replicas=replicas, pod_management_policy=policy, update_strategy=rolling())
    assert steps(plan_pods(look(found, *pods))) == (create, delete)


def old(ordinal: int, state: str = "ready") -> Pod:
    return numbered(ordinal, state, OLD)


@pytest.mark.parametrize(
    ("strategy", "pods", "delete"),
    [
        param(rolling(), [old(0), old(1), old(2)], ["db-2"], id="the last first"),
        param(rolling(), [old(0), old(1), numbered(2)], ["db-1"], id="then the one before"),
        param(rolling(), [old(0), old(1), numbered(2, "unready")], [], id="one down is enough"),
        param(rolling(), [old(0), old(1), old(2, "going")], [], id="it is going already"),
        param(
            rolling(), [old(0), old(1), old(2, "unready")], ["db-2"], id="broken ones cost nothing"
        ),
        param(rolling(), [old(0, "unready"), old(1), old(2)], ["db-0"], id="before working ones"),
        param(rolling(2), [old(0), old(1), old(2)], ["db-2"], id="above the partition"),
        param(rolling(2), [old(0), old(1), numbered(2)], [], id="not below the partition"),
        param(rolling(0, 2), [old(0), old(1), old(2)], ["db-2", "db-1"], id="two at once"),
        param(rolling(0, "100%"), [old(0), old(1), old(2)], ["db-2", "db-1", "db-0"], id="all"),
        param(rolling(0, 2), [old(0), old(1), numbered(2, "unready")], ["db-1"], id="one is down"),
        param(
            StatefulSetUpdateStrategy(type="OnDelete"), [old(0), old(1), old(2)], [], id="by hand"
        ),
    ],
)
def test_update(strategy: StatefulSetUpdateStrategy, pods: list[Pod], delete: list[str]) -> None:
    found = stateful_set(update_strategy=strategy)
    assert [p.metadata.name for p in plan_update(look(found, *pods))] == delete


@pytest.mark.parametrize(
    ("unavailable", "expected"),
    [(None, 1), (2, 2), ("50%", 5), ("1%", 1)],
)
def test_how_many_may_be_down(unavailable: int | str | None, expected: int) -> None:
    found = stateful_set(replicas=10, update_strategy=rolling(0, unavailable))
    assert max_unavailable(found) == expected


def test_missing_pods_come_back_from_the_revision_of_their_side_of_the_partition() -> None:
    found = look(stateful_set(update_strategy=rolling(2)))
    assert [revision_for(found, n) for n in range(3)] == [OLD, OLD, NEW]


def test_numbers_may_begin_anywhere() -> None:
    found = stateful_set(replicas=2, ordinals=StatefulSetOrdinals(start=5))
    parallel = msgspec.structs.replace(found.spec, pod_management_policy="Parallel")
    found = msgspec.structs.replace(found, spec=parallel)
    plan = plan_pods(look(found, numbered(0)))
    assert steps(plan) == ([5, 6], ["db-0"])


@pytest.mark.parametrize(
    ("name", "ordinal"),
    [("db-0", 0), ("db-12", 12), ("db-01", None), ("db-x", None), ("other-1", None), ("db", None)],
)
def test_only_canonical_names_count(name: str, ordinal: int | None) -> None:
    assert ordinal_of(stateful_set(), name) == ordinal


def test_an_update_is_over_when_it_has_reached_every_pod() -> None:
    found = stateful_set(replicas=2, update_strategy=rolling())
    half = status_of(look(found, old(0), numbered(1)), collisions=0)
    assert (half.current_revision, half.current_replicas, half.updated_replicas) == (OLD, 1, 1)
    done = status_of(look(found, numbered(0), numbered(1)), collisions=0)
    assert (done.current_revision, done.current_replicas, done.updated_replicas) == (NEW, 2, 2)


# --- properties -----------------------------------------------------------------------------------

STATES = st.sampled_from(["ready", "unready", "pending", "failed", "going"])


@st.composite
def worlds(draw: st.DrawFn) -> Look:
    found = stateful_set(
        replicas=draw(st.integers(0, 6)),
        pod_management_policy=draw(st.sampled_from(["OrderedReady", "Parallel"])),
        update_strategy=rolling(
            draw(st.integers(0, 6)), draw(st.sampled_from([None, 1, 2, "50%", "100%"]))
        ),
    )
    pods = [
        numbered(n, draw(STATES), draw(st.sampled_from([OLD, NEW])))
        for n in range(8)
        if draw(st.booleans())
    ]
    return look(found, *pods)


@settings(deadline=None)
@given(world=worlds())
def test_an_update_takes_no_more_working_pods_than_it_may(world: Look) -> None:
    found = world.stateful_set
    wanted = range(found.spec.replicas or 0)
    down = sum(1 for n in wanted if n not in world.pods or not world.is_healthy(world.pods[n]))
    chosen = plan_update(world)
    working = [p for p in chosen if world.is_healthy(p)]
    assert down + len(working) <= max(down, max_unavailable(found))
    assert all(revision_of(p) == OLD for p in chosen)
    partition = found.spec.update_strategy.rolling_update
    assert partition is not None
    assert all(
        (ordinal_of(found, p.metadata.name) or 0) >= (partition.partition or 0) for p in chosen
    )


@settings(deadline=None)
@given(world=worlds())
def test_an_ordered_set_does_one_thing_at_a_time(world: Look) -> None:
    if world.stateful_set.spec.pod_management_policy == "Parallel":
        return
    plan = plan_pods(world)
    assert len(plan.create) + len(plan.delete) <= max(1, max_unavailable(world.stateful_set))
    for ordinal in plan.create:
        assert all(world.is_healthy(world.pods[n]) for n in range(ordinal))


@settings(deadline=None)
@given(world=worlds())
def test_repeated_looks_come_to_the_state_that_was_asked_for(world: Look) -> None:
    """The world answers: what is deleted is gone, what is made or going becomes what it should."""
    for _ in range(60):
        plan = plan_pods(world)
        pods = {n: p for n, p in world.pods.items() if p not in plan.delete}
        pods = {
            n: numbered(n, "ready", revision_of(p))
            for n, p in pods.items()
            if (not p.metadata.deletion_timestamp and p.status.phase != "Failed")
            or (
                p.status.phase == "Failed" and n not in range(world.stateful_set.spec.replicas or 0)
            )
        }
        for ordinal in plan.create:
            pods[ordinal] = numbered(ordinal, "ready", revision_for(world, ordinal))
        world = look(world.stateful_set, *pods.values())
    assert not plan_pods(world)
    assert sorted(world.pods) == list(range(world.stateful_set.spec.replicas or 0))


# --- in a cluster ---------------------------------------------------------------------------------


def of_image(image: str) -> Any:
    return template({"app": "db"}, containers=(container(image=image),))


def with_probe() -> Any:
    probe = Probe(exec=ExecAction(command=("ready",)), period_seconds=1)
    return template({"app": "db"}, containers=(container(readiness_probe=probe),))


def claim_template() -> PersistentVolumeClaim:
    return PersistentVolumeClaim(
        metadata=metadata("data", "", uid="", creation_timestamp=None),
        spec=PersistentVolumeClaimSpec(
            access_modes=("ReadWriteOnce",),
            resources=VolumeResourceRequirements(requests={"storage": "1Gi"}),
        ),
    )


async def change(cluster: Cluster, **spec: Any) -> None:
    found = await cluster.get(StatefulSet, "db")
    changed = msgspec.structs.replace(found.spec, **spec)
    await cluster.client.update(msgspec.structs.replace(found, spec=changed))


def names(cluster: Cluster) -> list[str]:
    return sorted(pod.metadata.name for pod in cluster.pods("default"))


def images(cluster: Cluster) -> list[str]:
    """In the order of the pods' numbers."""
    pods = sorted(cluster.pods("default"), key=lambda p: p.metadata.name)
    return [p.spec.containers[0].image.rpartition("/")[2] for p in pods]


async def revisions(cluster: Cluster) -> list[ControllerRevision]:
    return list((await cluster.client.list(ControllerRevision, "default")).items)


async def claims(cluster: Cluster) -> dict[str, list[str]]:
    """The kinds of the owners of each claim."""
    found = (await cluster.client.list(PersistentVolumeClaim, "default")).items
    return {c.metadata.name: [r.kind for r in c.metadata.owner_references] for c in found}


async def test_pods_come_one_after_the_other_with_names_of_their_own(cluster: Cluster) -> None:
    await cluster.apply(stateful_set())
    await cluster.run_for(minutes=1)
    assert names(cluster) == ["db-0", "db-1", "db-2"]
    pods = sorted(cluster.pods("default"), key=lambda p: p.metadata.name)
    created = [p.metadata.creation_timestamp for p in pods]
    assert created == sorted(created, key=str)
    assert pods[1].spec.hostname == "db-1"
    assert pods[1].spec.subdomain == "db"
    assert pods[1].metadata.labels["statefulset.kubernetes.io/pod-name"] == "db-1"
    assert pods[1].metadata.labels["apps.kubernetes.io/pod-index"] == "1"
    status = (await cluster.get(StatefulSet, "db")).status
    assert (status.replicas, status.ready_replicas, status.available_replicas) == (3, 3, 3)
    assert status.current_revision == status.update_revision != ""
    assert (status.current_replicas, status.updated_replicas) == (3, 3)


async def test_a_new_template_reaches_pods_from_the_last_to_the_first(cluster: Cluster) -> None:
    await cluster.apply(stateful_set())
    await cluster.run_for(minutes=1)
    await change(cluster, template=of_image("registry.test/app:2"))
    await cluster.run_for(minutes=3)
    pods = sorted(cluster.pods("default"), key=lambda p: p.metadata.name)
    assert {p.spec.containers[0].image for p in pods} == {"registry.test/app:2"}
    created = [p.metadata.creation_timestamp for p in pods]
    assert created == sorted(created, key=str, reverse=True)
    status = (await cluster.get(StatefulSet, "db")).status
    assert status.current_revision == status.update_revision
    revisions = (await cluster.client.list(ControllerRevision, "default")).items
    assert sorted(r.revision for r in revisions) == [1, 2]


async def test_an_ordered_set_waits_for_each_pod(cluster: Cluster) -> None:
    cluster.script("db-1", never_ready())
    await cluster.apply(stateful_set(template=with_probe()))
    await cluster.run_for(minutes=5)
    assert names(cluster) == ["db-0", "db-1"]
    status = (await cluster.get(StatefulSet, "db")).status
    assert (status.replicas, status.ready_replicas) == (2, 1)


async def test_a_parallel_set_does_not_wait(cluster: Cluster) -> None:
    cluster.script("db-1", never_ready())
    await cluster.apply(stateful_set(template=with_probe(), pod_management_policy="Parallel"))
    await cluster.run_for(minutes=1)
    assert names(cluster) == ["db-0", "db-1", "db-2"]


async def test_scaling_down_takes_the_last_first(cluster: Cluster) -> None:
    await cluster.apply(stateful_set(replicas=4))
    await cluster.run_for(minutes=1)
    gone: list[str] = []
    stop = cluster.plane.caches.of(Pod).subscribe(
        lambda old, new: gone.append(old.metadata.name) if old and not new else None
    )
    await change(cluster, replicas=1)
    await cluster.run_for(minutes=3)
    stop()
    assert gone == ["db-3", "db-2", "db-1"]
    assert names(cluster) == ["db-0"]


async def test_a_pod_that_is_deleted_comes_back_under_its_name(cluster: Cluster) -> None:
    await cluster.apply(stateful_set())
    await cluster.run_for(minutes=1)
    before = await cluster.get(Pod, "db-1")
    await cluster.client.delete(before)
    await cluster.run_for(minutes=2)
    after = await cluster.get(Pod, "db-1")
    assert after.metadata.uid != before.metadata.uid
    assert after.status.phase == "Running"


async def test_below_the_partition_the_old_template_stays(cluster: Cluster) -> None:
    await cluster.apply(
        stateful_set(template=of_image("registry.test/app:1"), update_strategy=rolling(2))
    )
    await cluster.run_for(minutes=1)
    await change(cluster, template=of_image("registry.test/app:2"))
    await cluster.run_for(minutes=2)
    assert images(cluster) == ["app:1", "app:1", "app:2"]
    status = (await cluster.get(StatefulSet, "db")).status
    assert (status.current_replicas, status.updated_replicas) == (2, 1)
    assert status.current_revision != status.update_revision
    # A protected pod that dies comes back as it was.
    await cluster.client.delete(Pod, "db-0", "default")
    await cluster.run_for(minutes=2)
    assert images(cluster) == ["app:1", "app:1", "app:2"]
    await change(cluster, update_strategy=rolling(0))
    await cluster.run_for(minutes=3)
    assert images(cluster) == ["app:2", "app:2", "app:2"]


async def test_on_delete_leaves_the_update_to_the_user(cluster: Cluster) -> None:
    await cluster.apply(
        stateful_set(
            template=of_image("registry.test/app:1"),
            update_strategy=StatefulSetUpdateStrategy(type="OnDelete"),
        )
    )
    await cluster.run_for(minutes=1)
    await change(cluster, template=of_image("registry.test/app:2"))
    await cluster.run_for(minutes=2)
    assert images(cluster) == ["app:1", "app:1", "app:1"]
    await cluster.client.delete(Pod, "db-1", "default")
    await cluster.run_for(minutes=2)
    assert images(cluster) == ["app:1", "app:2", "app:1"]


async def test_an_old_template_that_comes_back_is_the_newest_revision(cluster: Cluster) -> None:
    await cluster.apply(stateful_set(replicas=1, template=of_image("registry.test/app:1")))
    await cluster.run_for(minutes=1)
    await change(cluster, template=of_image("registry.test/app:2"))
    await cluster.run_for(minutes=2)
    first = min(await revisions(cluster), key=lambda r: r.revision)
    # As kubectl rollout undo does: the revision's data is a patch of the set.
    await cluster.client.patch(
        StatefulSet, "db", "default", patch=first.data, type=PatchType.STRATEGIC
    )
    await cluster.run_for(minutes=2)
    assert images(cluster) == ["app:1"]
    assert sorted(r.revision for r in await revisions(cluster)) == [2, 3]
    status = (await cluster.get(StatefulSet, "db")).status
    assert status.current_revision == status.update_revision == first.metadata.name


async def test_history_is_kept_up_to_its_limit(cluster: Cluster) -> None:
    await cluster.apply(stateful_set(replicas=1, revision_history_limit=1))
    await cluster.run_for(minutes=1)
    for number in (2, 3, 4):
        await change(cluster, template=of_image(f"registry.test/app:{number}"))
        await cluster.run_for(minutes=2)
    assert sorted(r.revision for r in await revisions(cluster)) == [3, 4]


async def test_claims_are_made_once_and_outlive_pods(cluster: Cluster) -> None:
    await cluster.apply(
        stateful_set(volume_claim_templates=(claim_template(),), pod_management_policy="Parallel")
    )
    await cluster.run_for(seconds=30)
    assert await claims(cluster) == {"data-db-0": [], "data-db-1": [], "data-db-2": []}
    (volume,) = [v for v in cluster.pods("default")[0].spec.volumes if v.name == "data"]
    assert volume.persistent_volume_claim is not None
    assert volume.persistent_volume_claim.claim_name.startswith("data-db-")
    await change(cluster, replicas=1)
    await cluster.run_for(minutes=2)
    assert names(cluster) == ["db-0"]
    assert len(await claims(cluster)) == 3
    said = {event.message for event in await cluster.events("db")}
    assert "create Claim data-db-0 Pod db-0 in StatefulSet db success" in said
    assert "create Pod db-0 in StatefulSet db successful" in said


async def test_claims_may_go_with_scaling_and_with_the_set(cluster: Cluster) -> None:
    await cluster.apply(
        stateful_set(
            volume_claim_templates=(claim_template(),),
            pod_management_policy="Parallel",
            persistent_volume_claim_retention_policy=StatefulSetPersistentVolumeClaimRetentionPolicy(
                when_deleted="Delete", when_scaled="Delete"
            ),
        )
    )
    await cluster.run_for(seconds=30)
    assert await claims(cluster) == {f"data-db-{n}": ["StatefulSet"] for n in range(3)}
    await change(cluster, replicas=1)
    await cluster.run_for(minutes=2)
    assert await claims(cluster) == {"data-db-0": ["StatefulSet"]}
    await cluster.client.delete(StatefulSet, "db", "default", propagation="Background")
    await cluster.run_for(minutes=2)
    assert await claims(cluster) == {}
    assert names(cluster) == []


async def test_a_failed_pod_is_made_anew(cluster: Cluster) -> None:
    await cluster.apply(stateful_set(replicas=1))
    await cluster.run_for(minutes=1)
    before = await cluster.get(Pod, "db-0")
    patch = {"status": {"phase": "Failed", "reason": "Evicted"}}
    await cluster.client.patch(Pod, "db-0", "default", patch=patch, subresource="status")
    await cluster.run_for(minutes=1)
    assert (await cluster.get(Pod, "db-0")).metadata.uid != before.metadata.uid
    assert "RecreatingFailedPod" in {event.reason for event in await cluster.events("db")}
