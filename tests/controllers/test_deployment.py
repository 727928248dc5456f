"""Deployments: sizes by tables and properties, rollouts in a cluster.

The model of the properties: a replica set follows its size at once, and shrinking takes pods that
are not available first, as the replica set controller does. The cluster is real but for its
containers. Time is virtual.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pybernetes.api.conditions import condition_of
from pybernetes.api.core.podstate import is_active, is_ready
from pybernetes.api.types.apps_v1 import (
    Deployment,
    DeploymentStatus,
    DeploymentStrategy,
    ReplicaSet,
    ReplicaSetSpec,
    ReplicaSetStatus,
    RollingUpdateDeployment,
)
from pybernetes.api.types.core_v1 import Pod
from pybernetes.client import PatchType
from pybernetes.controllers.deployment.plan import (
    Bounds,
    Resize,
    bounds_of,
    is_scaled,
    plan_recreate,
    plan_rolling,
    plan_scale,
    total_size,
)
from pybernetes.controllers.deployment.progress import progressed_status
from pybernetes.controllers.deployment.revisions import (
    DESIRED,
    HISTORY_LENGTH,
    MAXIMUM,
    REVISION,
    REVISION_HISTORY,
    Sets,
    annotations_for,
    new_replica_set,
    superfluous,
    tell_apart,
)
from pybernetes.kubelet.runtime.script import missing
from pybernetes.testing.builders import (
    EPOCH,
    container,
    deployment,
    metadata,
    replica_set,
    template,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from pybernetes.testing import Cluster

param = pytest.param


def rolling(
    surge: int | str | None = None, unavailable: int | str | None = None
) -> DeploymentStrategy:
    return DeploymentStrategy(
        type="RollingUpdate",
        rolling_update=RollingUpdateDeployment(max_surge=surge, max_unavailable=unavailable),
    )


RECREATE = DeploymentStrategy(type="Recreate")


def rs(size: int, available: int | None = None, *, age: int = 0, **annotations: str) -> ReplicaSet:
    """A replica set of that size; `desired` and `most` are its annotations."""
    names = {"desired": DESIRED, "most": MAXIMUM, "revision": REVISION}
    created = EPOCH - timedelta(minutes=age)
    return ReplicaSet(
        metadata=metadata(
            f"rs-{age}",
            creation_timestamp=created,
            annotations={names[name]: value for name, value in annotations.items()},
        ),
        spec=ReplicaSetSpec(replicas=size),
        status=ReplicaSetStatus(
            replicas=size, available_replicas=size if available is None else available
        ),
    )


def sizes(steps: list[Resize]) -> list[int]:
    return [step.replicas for step in steps]


# --- tables ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("replicas", "strategy", "bounds"),
    [
        param(10, rolling(), Bounds(3, 2), id="a quarter: surge up, unavailable down"),
        param(1, rolling(), Bounds(1, 0), id="one pod is never missing"),
        param(10, rolling("0%", "0%"), Bounds(0, 1), id="never both nothing"),
        param(3, rolling(0, "10%"), Bounds(0, 1), id="rounded down to nothing"),
        param(4, rolling("50%", 7), Bounds(2, 4), id="not more missing than there are"),
        param(4, RECREATE, Bounds(0, 0), id="recreate has none"),
    ],
)
def test_bounds(replicas: int, strategy: DeploymentStrategy, bounds: Bounds) -> None:
    assert bounds_of(deployment(replicas=replicas, strategy=strategy)) == bounds


@pytest.mark.parametrize(
    ("strategy", "new", "old", "expected"),
    [
        param(rolling(1, 0), rs(0), [rs(3)], [1], id="grow by the surge"),
        param(rolling(1, 0), rs(1, 0), [rs(3)], [], id="wait for the new pod"),
        param(rolling(1, 0), rs(1), [rs(3)], [2], id="shrink when it is there"),
        param(rolling(0, 1), rs(0), [rs(3)], [2], id="shrink first without surge"),
        param(rolling(0, 2), rs(0), [rs(3)], [1], id="shrink by what may be missing"),
        param(rolling(1, 1), rs(5), [], [3], id="a new one that is too large shrinks"),
        param(rolling(1, 0), rs(1, 0), [rs(3, 1)], [], id="broken pods stay while new ones come"),
        param(rolling(1, 1), rs(1, 0), [rs(3, 1)], [2], id="broken pods go first"),
        param(
            rolling(1, 0), rs(3), [rs(2, age=2), rs(1, age=1)], [0, 0], id="several old ones end"
        ),
        param(
            rolling(1, 1), rs(2, 1), [rs(2, 3)], [1], id="what is going does not count as available"
        ),
        param(rolling(1, 0), rs(3), [], [], id="done"),
    ],
)
def test_rolling(
    strategy: DeploymentStrategy, new: ReplicaSet, old: list[ReplicaSet], expected: list[int]
) -> None:
    wanted = deployment(replicas=3, strategy=strategy)
    assert sizes(plan_rolling(wanted, Sets(new, tuple(old)))) == expected


@pytest.mark.parametrize(
    ("new", "old", "left", "expected"),
    [
        param(None, [rs(3)], True, [0], id="old ones go first"),
        param(rs(0), [rs(0)], True, [], id="wait for their pods"),
        param(rs(0), [rs(0)], False, [3], id="then the new one grows at once"),
        param(None, [], False, [], id="nothing there yet"),
        param(rs(3), [], False, [], id="done"),
    ],
)
def test_recreate(
    new: ReplicaSet | None, old: list[ReplicaSet], left: bool, expected: list[int]
) -> None:
    wanted = deployment(replicas=3, strategy=RECREATE)
    steps = plan_recreate(wanted, Sets(new, tuple(old)), old_pods_left=left)
    assert sizes(steps) == expected


@pytest.mark.parametrize(
    ("replicas", "new", "old", "expected"),
    [
        # The example of upstream's documentation: 10 pods, surge 3, unavailable 2, scaled to 15.
        param(
            15,
            rs(5, 0, desired="10", most="13"),
            [rs(8, age=1, desired="10", most="13")],
            {0: 7, 1: 11},
            id="growing, in proportion",
        ),
        param(
            5,
            rs(5, desired="10", most="13"),
            [rs(8, age=1, desired="10", most="13")],
            {0: 3, 1: 5},
            id="shrinking, in proportion",
        ),
        param(
            0,
            rs(5, desired="10", most="13"),
            [rs(8, age=1, desired="10", most="13")],
            {0: 0, 1: 0},
            id="to nothing",
        ),
        param(20, rs(10, desired="10", most="13"), [], {0: 20}, id="only one has pods"),
        param(
            20,
            rs(0, desired="10", most="13"),
            [rs(10, age=1, desired="10", most="13")],
            {1: 20},
            id="the only one with pods is old",
        ),
    ],
)
def test_scaling_in_the_middle_of_a_rollout(
    replicas: int, new: ReplicaSet, old: list[ReplicaSet], expected: dict[int, int]
) -> None:
    wanted = deployment(replicas=replicas, strategy=rolling(3, 2))
    sets = Sets(new, tuple(old))
    assert is_scaled(wanted, sets)
    found = {int(s.replica_set.metadata.name[3:]): s.replicas for s in plan_scale(wanted, sets)}
    assert found == expected


def test_a_replica_set_that_was_scaled_by_hand_is_not_scaling_for_ever() -> None:
    wanted = deployment(replicas=5, strategy=rolling(1, 0))
    by_hand = rs(5, desired="3", most="4")
    assert [s.replicas for s in plan_scale(wanted, Sets(by_hand, ()))] == [5]


def test_an_old_template_that_comes_back_gets_the_next_number_and_keeps_its_past() -> None:
    found = annotations_for(deployment(), {REVISION: "1", REVISION_HISTORY: ""}, 3)
    assert (found[REVISION], found[REVISION_HISTORY]) == ("3", "1")
    again = annotations_for(deployment(), found, 5)
    assert (again[REVISION], again[REVISION_HISTORY]) == ("5", "1,3")
    long = annotations_for(deployment(), {REVISION: "9", REVISION_HISTORY: "8," * 1200}, 10)
    assert len(long[REVISION_HISTORY]) <= HISTORY_LENGTH
    assert long[REVISION_HISTORY].endswith(",9")


def test_annotations_of_the_deployment_are_copied_but_for_bookkeeping() -> None:
    annotated = deployment(
        meta={
            "annotations": {
                "kubernetes.io/change-cause": "why",
                "kubectl.kubernetes.io/last-applied-configuration": "{}",
            }
        }
    )
    assert annotations_for(annotated, {}, 1) == {
        "kubernetes.io/change-cause": "why",
        REVISION: "1",
    }


def test_the_oldest_of_several_equal_replica_sets_is_the_new_one() -> None:
    wanted = deployment()
    one = new_replica_set(wanted, 1, 1)
    older = msgspec.structs.replace(
        one, metadata=metadata("older", creation_timestamp=EPOCH - timedelta(days=1))
    )
    younger = msgspec.structs.replace(one, metadata=metadata("younger"))
    sets = tell_apart(wanted, [younger, older])
    assert sets.new is older
    assert sets.old == (younger,)


def test_only_empty_replica_sets_beyond_the_limit_are_cleaned_up() -> None:
    old = [rs(0, age=3, revision="1"), rs(1, age=2, revision="2"), rs(0, age=1, revision="3")]
    assert superfluous(old, 3) == []
    assert superfluous(old, 1) == [old[0]]
    assert superfluous(old, 0) == [old[0], old[2]]


# --- properties -----------------------------------------------------------------------------------


def with_size(found: ReplicaSet, size: int, available: int) -> ReplicaSet:
    return msgspec.structs.replace(
        found,
        spec=msgspec.structs.replace(found.spec, replicas=size),
        status=ReplicaSetStatus(replicas=size, available_replicas=available),
    )


def carried_out(sets: Sets, steps: list[Resize]) -> Sets:
    """The replica sets after the steps; shrinking takes what is not available first."""
    wanted = {step.replica_set.metadata.uid: step.replicas for step in steps}

    def after(found: ReplicaSet) -> ReplicaSet:
        size = wanted.get(found.metadata.uid, found.spec.replicas or 0)
        return with_size(found, size, min(size, found.status.available_replicas))

    return Sets(after(sets.new) if sets.new else None, tuple(map(after, sets.old)))


rollouts = st.fixed_dictionaries(
    {
        "replicas": st.integers(0, 12),
        "surge": st.sampled_from([0, 1, 3, "25%", "100%"]),
        "unavailable": st.sampled_from([0, 1, 2, "25%", "100%"]),
        "old": st.lists(st.integers(0, 8), min_size=1, max_size=3),
    }
)


@settings(deadline=None)
@given(rollout=rollouts, data=st.data())
def test_a_rollout_never_takes_more_than_it_may_and_comes_to_its_end(
    rollout: dict[str, Any], data: st.DataObject
) -> None:
    wanted = deployment(
        replicas=rollout["replicas"],
        strategy=rolling(rollout["surge"], rollout["unavailable"]),
    )
    bounds = bounds_of(wanted)
    at_most = rollout["replicas"] + bounds.surge
    at_least = rollout["replicas"] - bounds.unavailable
    old = tuple(rs(size, age=9 - n) for n, size in enumerate(rollout["old"]))
    sets = Sets(rs(0), old)
    most = max(at_most, total_size(sets.all))
    for _ in range(40):
        before = sum(found.status.available_replicas for found in sets.all)
        sets = carried_out(sets, plan_rolling(wanted, sets))
        after = sum(found.status.available_replicas for found in sets.all)
        assert total_size(sets.all) <= most
        # What a step takes leaves the minimum, if there was so much.
        assert after >= min(before, at_least)
        most = max(at_most, total_size(sets.all))
        # New pods become available; of the old ones some fail, some recover.
        assert sets.new is not None
        size = sets.new.spec.replicas or 0
        sets = Sets(
            with_size(sets.new, size, size),
            tuple(
                with_size(found, left, data.draw(st.integers(0, left)))
                for found in sets.old
                for left in [found.spec.replicas or 0]
            ),
        )
    assert sets.new is not None
    assert sets.new.spec.replicas == rollout["replicas"]
    assert total_size(sets.old) == 0


@settings(deadline=None)
@given(
    replicas=st.integers(0, 60),
    before=st.integers(1, 60),
    parts=st.lists(st.integers(1, 20), min_size=2, max_size=4),
    surge=st.integers(1, 10),
)
def test_scaling_in_proportion_hits_the_number_exactly(
    replicas: int, before: int, parts: list[int], surge: int
) -> None:
    wanted = msgspec.structs.replace(
        deployment(replicas=replicas, strategy=rolling(surge, 0)),
        status=DeploymentStatus(replicas=sum(parts)),
    )
    most = str(before + surge)
    found = [rs(size, 0, age=n, desired=str(before), most=most) for n, size in enumerate(parts)]
    sets = Sets(found[0], tuple(reversed(found[1:])))
    steps = plan_scale(wanted, sets)
    assert all(step.replicas >= 0 for step in steps)
    total = sum(step.replicas for step in steps)
    if replicas == 0:
        assert total == 0
    elif replicas + surge >= sum(parts):
        assert total == replicas + surge


def test_progress_ends_at_the_deadline() -> None:
    wanted = deployment(replicas=1, strategy=rolling(1, 0), progress_deadline_seconds=60)
    sets = Sets(rs(1, 0), ())
    first = progressed_status(wanted, sets, EPOCH, created=True)
    assert _progressing(first) == ("True", "NewReplicaSetCreated")
    wanted = msgspec.structs.replace(wanted, status=first)
    moving = progressed_status(wanted, sets, EPOCH + timedelta(seconds=59))
    assert _progressing(moving)[0] == "True"
    late = progressed_status(wanted, sets, EPOCH + timedelta(seconds=60))
    assert _progressing(late) == ("False", "ProgressDeadlineExceeded")
    without = msgspec.structs.replace(
        wanted, spec=msgspec.structs.replace(wanted.spec, progress_deadline_seconds=None)
    )
    assert condition_of(progressed_status(without, sets, EPOCH).conditions, "Progressing") is None


def _progressing(status: DeploymentStatus) -> tuple[str, str]:
    found = condition_of(status.conditions, "Progressing")
    assert found is not None
    return (found.status, found.reason)


# --- in a cluster ---------------------------------------------------------------------------------


def of_image(image: str) -> Any:
    return template({"app": "web"}, containers=(container(image=image),))


async def set_image(cluster: Cluster, image: str) -> None:
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": image}]}}}}
    await cluster.client.patch(Deployment, "web", "default", patch=patch, type=PatchType.STRATEGIC)


async def change(cluster: Cluster, **spec: Any) -> None:
    await cluster.client.patch(Deployment, "web", "default", patch={"spec": spec})


def images(cluster: Cluster) -> list[str]:
    return sorted(p.spec.containers[0].image for p in cluster.pods("default"))


async def revisions(cluster: Cluster) -> dict[str, int]:
    """Size by revision."""
    found = (await cluster.client.list(ReplicaSet, "default")).items
    return {r.metadata.annotations[REVISION]: r.spec.replicas or 0 for r in found}


class Watched:
    """The most and the fewest pods there were while it watched."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.most, self.fewest_ready = 0, 1000
        self._stop: Callable[[], None] = cluster.plane.caches.of(Pod).subscribe(self._look)

    def _look(self, old: Pod | None, new: Pod | None) -> None:
        pods = [p for p in self._cluster.pods("default") if is_active(p)]
        self.most = max(self.most, len(pods))
        self.fewest_ready = min(self.fewest_ready, sum(map(is_ready, pods)))

    def stop(self) -> None:
        self._stop()


async def test_a_rollout_keeps_its_promises_and_ends(cluster: Cluster) -> None:
    await cluster.apply(deployment("web", replicas=4, strategy=rolling(1, 1)))
    await cluster.run_for(seconds=20)
    watched = Watched(cluster)
    await set_image(cluster, "registry.test/app:2")
    await cluster.run_for(minutes=3)
    watched.stop()
    assert watched.most <= 5
    assert watched.fewest_ready >= 3
    assert images(cluster) == ["registry.test/app:2"] * 4
    done = await cluster.get(Deployment, "web")
    status = done.status
    assert (status.replicas, status.updated_replicas, status.available_replicas) == (4, 4, 4)
    assert status.unavailable_replicas == 0
    assert status.observed_generation == done.metadata.generation
    assert {(c.type, c.status, c.reason) for c in status.conditions} == {
        ("Available", "True", "MinimumReplicasAvailable"),
        ("Progressing", "True", "NewReplicaSetAvailable"),
    }
    assert await revisions(cluster) == {"1": 0, "2": 4}
    assert done.metadata.annotations[REVISION] == "2"
    said = [e.message for e in await cluster.events("web") if e.reason == "ScalingReplicaSet"]
    assert any(m.startswith("Scaled up replica set web-") and "from 0 to 4" in m for m in said)
    assert any(m.startswith("Scaled down replica set web-") for m in said)


async def test_an_old_template_comes_back_as_a_new_revision(cluster: Cluster) -> None:
    await cluster.apply(deployment("web", replicas=2, template=of_image("registry.test/app:1")))
    await cluster.run_for(seconds=20)
    await set_image(cluster, "registry.test/app:2")
    await cluster.run_for(minutes=2)
    # As kubectl rollout undo does.
    await set_image(cluster, "registry.test/app:1")
    await cluster.run_for(minutes=2)
    assert images(cluster) == ["registry.test/app:1"] * 2
    assert await revisions(cluster) == {"2": 0, "3": 2}
    found = (await cluster.client.list(ReplicaSet, "default")).items
    (present,) = (r for r in found if r.metadata.annotations[REVISION] == "3")
    assert present.metadata.annotations[REVISION_HISTORY] == "1"


async def test_a_paused_deployment_collects_changes_and_still_scales(cluster: Cluster) -> None:
    await cluster.apply(deployment("web", replicas=2))
    await cluster.run_for(seconds=20)
    await change(cluster, paused=True)
    await set_image(cluster, "registry.test/app:2")
    await change(cluster, replicas=3)
    await cluster.run_for(minutes=1)
    assert images(cluster) == ["registry.test/app:1"] * 3
    paused = await cluster.get(Deployment, "web")
    assert _progressing(paused.status) == ("Unknown", "DeploymentPaused")
    await change(cluster, paused=False)
    await cluster.run_for(minutes=2)
    assert images(cluster) == ["registry.test/app:2"] * 3
    assert await revisions(cluster) == {"1": 0, "2": 3}


async def test_recreate_never_has_pods_of_both_templates(cluster: Cluster) -> None:
    await cluster.apply(deployment("web", replicas=3, strategy=RECREATE))
    await cluster.run_for(seconds=20)
    seen: set[tuple[str, ...]] = set()
    stop = cluster.plane.caches.of(Pod).subscribe(
        lambda old, new: seen.add(tuple(sorted(set(images(cluster)))))
    )
    await set_image(cluster, "registry.test/app:2")
    await cluster.run_for(minutes=3)
    stop()
    assert images(cluster) == ["registry.test/app:2"] * 3
    assert seen == {("registry.test/app:1",), (), ("registry.test/app:2",)}


async def test_a_rollout_that_cannot_end_says_so_and_keeps_the_old_pods(cluster: Cluster) -> None:
    await cluster.apply(
        deployment("web", replicas=2, strategy=rolling(1, 0), progress_deadline_seconds=60)
    )
    await cluster.run_for(seconds=20)
    cluster.runtime.script_image("registry.test/broken:1", missing())
    await set_image(cluster, "registry.test/broken:1")
    await cluster.run_for(minutes=5)
    stuck = await cluster.get(Deployment, "web")
    assert _progressing(stuck.status) == ("False", "ProgressDeadlineExceeded")
    assert stuck.status.available_replicas == 2
    found = condition_of(stuck.status.conditions, "Progressing")
    assert found is not None
    assert found.message.startswith('ReplicaSet "web-')
    assert found.message.endswith("has timed out progressing.")


async def test_history_is_kept_up_to_its_limit(cluster: Cluster) -> None:
    await cluster.apply(deployment("web", replicas=1, revision_history_limit=1))
    await cluster.run_for(seconds=20)
    for number in (2, 3, 4):
        await set_image(cluster, f"registry.test/app:{number}")
        await cluster.run_for(minutes=1)
    assert await revisions(cluster) == {"3": 0, "4": 1}


async def test_a_name_that_is_taken_makes_another_hash(cluster: Cluster) -> None:
    wanted = deployment("web", replicas=1)
    await cluster.apply(wanted)
    await cluster.run_for(seconds=20)
    (first,) = (await cluster.client.list(ReplicaSet, "default")).items
    await cluster.client.delete(Deployment, "web", "default", propagation="Background")
    await cluster.run_for(minutes=1)
    await cluster.apply(replica_set(first.metadata.name, replicas=0, labels={"of": "another"}))
    await cluster.apply(deployment("web", replicas=1))
    await cluster.run_for(seconds=20)
    found = await cluster.get(Deployment, "web")
    assert (found.status.collision_count, found.status.available_replicas) == (1, 1)


async def test_deleting_a_deployment_takes_everything_with_it(cluster: Cluster) -> None:
    await cluster.apply(deployment("web", replicas=3))
    await cluster.run_for(seconds=20)
    await cluster.client.delete(Deployment, "web", "default", propagation="Background")
    await cluster.run_for(minutes=2)
    assert cluster.pods("default") == []
    assert (await cluster.client.list(ReplicaSet, "default")).items == ()
