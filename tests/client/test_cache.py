"""The cache as a data structure; no event loop but where waiting is the point."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pybernetes.api.types.apps_v1 import ReplicaSet
from pybernetes.api.types.core_v1 import Pod, PodSpec
from pybernetes.api.types.meta_v1 import ObjectMeta, OwnerReference
from pybernetes.apimachinery.meta import Key
from pybernetes.apimachinery.selector import parse_label_selector
from pybernetes.client.cache import Cache
from pybernetes.client.kind import kind_of

if TYPE_CHECKING:
    from collections.abc import Iterable

Change = tuple[Pod | None, Pod | None]


def pod(
    name: str,
    version: int = 1,
    *,
    namespace: str = "default",
    uid: str = "",
    owner: str = "",
    controller: bool = True,
    node: str = "",
    **labels: str,
) -> Pod:
    owners = (OwnerReference(kind="ReplicaSet", name=owner, uid=owner, controller=controller),)
    return Pod(
        metadata=ObjectMeta(
            name=name,
            namespace=namespace,
            uid=uid or f"uid-{name}",
            resource_version=str(version),
            labels=labels,
            owner_references=owners if owner else (),
        ),
        spec=PodSpec(node_name=node),
    )


@pytest.fixture
def cache() -> Cache[Pod]:
    return Cache(kind_of(Pod))


def follow(cache: Cache[Pod]) -> list[Change]:
    changes: list[Change] = []
    cache.subscribe(lambda old, new: changes.append((old, new)))
    return changes


def names(pods: Iterable[Pod]) -> list[str]:
    return [pod.metadata.name for pod in pods]


def test_subscribers_hear_each_change_once(cache: Cache[Pod]) -> None:
    changes = follow(cache)
    first, second = pod("a", 1), pod("a", 2)
    cache.put(first)
    cache.put(pod("a", 1))  # told again after a reconnection
    cache.put(second)
    cache.remove(Key("default", "a"))
    cache.remove(Key("default", "a"))
    assert changes == [(None, first), (first, second), (second, None)]
    assert cache.statistics().changes == 3


def test_late_subscribers_hear_of_everything_first(cache: Cache[Pod]) -> None:
    cache.put(pod("a"))
    cache.put(pod("b"))
    assert follow(cache) == [(None, pod("a")), (None, pod("b"))]


def test_replacing_tells_the_difference(cache: Cache[Pod]) -> None:
    for name in ("same", "changed", "gone", "reborn"):
        cache.put(pod(name, 1))
    same = cache.get(Key("default", "same"))
    changes = follow(cache)
    del changes[:]
    seen_during: list[set[str]] = []
    cache.subscribe(lambda *_: seen_during.append(set(names(cache))))
    del seen_during[:]
    after = [pod("same", 1), pod("changed", 2), pod("new", 3), pod("reborn", 4, uid="other")]
    cache.replace(after)
    assert changes == [
        (pod("gone", 1), None),
        (pod("reborn", 1), None),
        (pod("changed", 1), after[1]),
        (None, after[2]),
        (None, after[3]),
    ]
    # The whole new state was there before the first was told.
    assert seen_during == [{"same", "changed", "new", "reborn"}] * 5
    # What others may hold already is not replaced by an equal.
    assert cache.get(Key("default", "same")) is same
    assert cache.synced
    cache.check_invariants()


def test_lookups(cache: Cache[Pod]) -> None:
    cache.index("node", lambda pod: (pod.spec.node_name,) if pod.spec.node_name else ())
    cache.put(pod("a", owner="rs1", app="web", node="n1"))
    cache.put(pod("b", owner="rs1", controller=False, node="n2"))
    cache.put(pod("a", namespace="other", owner="rs2", app="web"))
    rs1 = ReplicaSet(metadata=ObjectMeta(uid="rs1"))
    assert names(cache.owned_by(rs1)) == ["a"]
    assert names(cache.dependents_of("rs1")) == ["a", "b"]
    assert len(cache.list("default")) == 2
    assert cache.list("nowhere") == []
    web = parse_label_selector("app=web")
    assert len(cache.list(None, web)) == 2
    assert names(cache.list("default", web)) == ["a"]
    assert names(cache.by_index("node", "n1")) == ["a"]
    assert cache.index_values("node") == ["n1", "n2"]
    with pytest.raises(KeyError):
        cache.by_index("colour", "red")
    cache.put(pod("a", 2, node="n2"))  # no owner, other node
    assert cache.owned_by(rs1) == []
    assert names(cache.by_index("node", "n2")) == ["b", "a"]
    assert cache.index_values("node") == ["n2"]
    cache.remove(Key("default", "b"))
    assert cache.dependents_of("rs1") == []
    assert Key("default", "a") in cache
    assert len(cache) == 2
    cache.check_invariants()


def test_a_failing_subscriber_does_not_disturb_the_others(
    cache: Cache[Pod], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    cache.subscribe(fail)
    changes = follow(cache)
    cache.put(pod("a"))
    assert changes == [(None, pod("a"))]
    assert "a subscriber of pods failed" in caplog.text


def test_unsubscribing_during_a_change(cache: Cache[Pod]) -> None:
    seen: list[str] = []

    def once(old: Pod | None, new: Pod | None) -> None:
        seen.append("once")
        end()

    end = cache.subscribe(once)
    changes = follow(cache)
    cache.put(pod("a"))
    cache.put(pod("b"))
    assert seen == ["once"]
    assert len(changes) == 2
    end()


async def test_waiting_for_the_first_filling(cache: Cache[Pod]) -> None:
    assert not cache.synced
    cache.replace([])
    await cache.wait_synced()


@st.composite
def pods(draw: st.DrawFn) -> Pod:
    name = draw(st.sampled_from("abcd"))
    return pod(
        name,
        draw(st.integers(1, 3)),
        namespace=draw(st.sampled_from(["x", "y"])),
        uid=draw(st.sampled_from(["1", "2"])),
        owner=draw(st.sampled_from(["", "r", "s"])),
        node=draw(st.sampled_from(["", "n", "m"])),
    )


STEPS = st.lists(
    st.one_of(
        pods().map(lambda obj: ("put", obj)),
        pods().map(lambda obj: ("remove", obj)),
        st.lists(pods(), max_size=5).map(lambda objs: ("replace", objs)),
    ),
    max_size=20,
)


@given(STEPS)
def test_whoever_listens_knows_what_the_cache_knows(steps: list[tuple[str, object]]) -> None:
    cache: Cache[Pod] = Cache(kind_of(Pod))
    cache.index("node", lambda pod: (pod.spec.node_name,))
    cache.list("x")
    cache.dependents_of("r")
    heard: dict[Key, Pod] = {}

    def listen(old: Pod | None, new: Pod | None) -> None:
        some = new or old
        assert some is not None
        key = kind_of(Pod).key_of(some)
        assert heard.get(key) is old
        if new is None:
            del heard[key]
        else:
            heard[key] = new

    cache.subscribe(listen)
    for verb, what in steps:
        if verb == "put":
            assert isinstance(what, Pod)
            cache.put(what)
        elif verb == "remove":
            assert isinstance(what, Pod)
            cache.remove(kind_of(Pod).key_of(what))
        else:
            assert isinstance(what, list)
            cache.replace(what)
        assert heard == {kind_of(Pod).key_of(pod): pod for pod in cache}
        cache.check_invariants()
