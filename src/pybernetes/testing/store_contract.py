"""What every storage backend must do. Subclass and say how to open a store.

    class TestMyStore(StoreContract):
        async def open_store(self, directory: Path) -> Store: ...

A backend whose contents survive `close` subclasses `DurableStoreContract`; one that
talks to the outside is marked `@pytest.mark.realtime` and sets `run_async` to
`asyncio.run`. Every test ends with the store's own `check_invariants`.

The properties at the end drive random writers, watchers and compactions against
a model (a dict and a list) that is too simple to be wrong.
"""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pybernetes.aio.virtualtime import run_virtual
from pybernetes.storage import (
    Change,
    Compacted,
    Durability,
    FutureRevision,
    KeyNotFound,
    KeyValue,
    RevisionMismatch,
    Store,
    StoreClosed,
)
from pybernetes.testing.store_model import (
    COMPACT,
    READ,
    WATCH,
    WRITES,
    Compact,
    Model,
    Round,
    Watch,
    Writes,
    compare,
    finish_watch,
    line_of,
    play,
    replay,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Sequence

DURABLE, RELAXED = Durability.DURABLE, Durability.RELAXED
both_durabilities = pytest.mark.parametrize("durability", [DURABLE, RELAXED])


async def read_changes(watch: AsyncIterator[Sequence[Change]], count: int) -> list[Change]:
    """The next `count` changes, which must not come with more."""
    changes: list[Change] = []
    async with asyncio.timeout(10):
        while len(changes) < count:
            changes += await anext(watch)
    assert len(changes) == count
    return changes


async def keys_of(store: Store, prefix: str = "/", **options: Any) -> list[str]:
    return [item.key for item in (await store.range(prefix, **options)).items]


class StoreContract:
    """What every storage backend must do."""

    # How many examples the property tests try.
    examples: ClassVar[int] = 60

    async def open_store(self, directory: Path) -> Store:
        """A store in `directory`: a new one, or what was there before."""
        raise TypeError(f"{type(self).__name__} must say how to open a store")

    def run_async(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """How the property tests run a coroutine; outside of virtual time: `asyncio.run`."""
        run_virtual(coroutine)

    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Store]:
        store = await self.open_store(tmp_path)
        yield store
        store.check_invariants()
        await store.close()

    # ---- reading and writing

    async def test_an_empty_store_is_at_revision_one(self, store: Store) -> None:
        assert store.revision == 1
        assert await store.get("/a") is None
        page = await store.range("/")
        assert (list(page.items), page.revision, page.remaining) == ([], 1, 0)

    @both_durabilities
    async def test_what_is_put_can_be_got(self, store: Store, durability: Durability) -> None:
        put = await store.put("/a", b"1", durability=durability)
        assert put == KeyValue("/a", b"1", 2, 2)
        assert await store.get("/a") == put
        assert store.revision == 2

    @both_durabilities
    async def test_an_overwrite_keeps_created(self, store: Store, durability: Durability) -> None:
        first = await store.put("/a", b"1", durability=durability)
        second = await store.put("/a", b"2", durability=durability)
        assert second == KeyValue("/a", b"2", first.revision + 1, first.created)

    @both_durabilities
    async def test_a_new_life_has_a_new_created(self, store: Store, durability: Durability) -> None:
        await store.put("/a", b"1", durability=durability)
        await store.delete("/a", durability=durability)
        again = await store.put("/a", b"2", durability=durability)
        assert again.created == again.revision

    @both_durabilities
    async def test_delete_returns_the_last_value(
        self, store: Store, durability: Durability
    ) -> None:
        put = await store.put("/a", b"1", durability=durability)
        gone = await store.delete("/a", durability=durability)
        assert gone == KeyValue("/a", b"1", put.revision + 1, put.created)
        assert await store.get("/a") is None
        assert store.revision == gone.revision

    async def test_any_bytes_are_a_value(self, store: Store) -> None:
        values = [b"", b"\0", bytes(range(256)) * 40, "ü".encode()]
        for number, value in enumerate(values):
            await store.put(f"/{number}", value)
        assert [item.value for item in (await store.range("/")).items] == values

    async def test_deleting_nothing_is_an_error(self, store: Store) -> None:
        with pytest.raises(KeyNotFound):
            await store.delete("/a")
        with pytest.raises(KeyNotFound):
            await store.delete("/a", if_revision=5)
        assert store.revision == 1

    # ---- conditions

    @both_durabilities
    async def test_create_only_what_is_not_there(
        self, store: Store, durability: Durability
    ) -> None:
        first = await store.put("/a", b"1", if_revision=0, durability=durability)
        with pytest.raises(RevisionMismatch) as caught:
            await store.put("/a", b"2", if_revision=0, durability=durability)
        assert caught.value.current == first
        assert await store.get("/a") == first
        assert store.revision == first.revision

    async def test_update_only_the_revision_that_was_read(self, store: Store) -> None:
        first = await store.put("/a", b"1")
        second = await store.put("/a", b"2", if_revision=first.revision)
        with pytest.raises(RevisionMismatch) as caught:
            await store.put("/a", b"3", if_revision=first.revision)
        assert caught.value.current == second

    async def test_update_of_nothing_is_a_mismatch(self, store: Store) -> None:
        with pytest.raises(RevisionMismatch) as caught:
            await store.put("/a", b"1", if_revision=7)
        assert caught.value.current is None

    async def test_delete_only_the_revision_that_was_read(self, store: Store) -> None:
        first = await store.put("/a", b"1")
        second = await store.put("/a", b"2")
        with pytest.raises(RevisionMismatch) as caught:
            await store.delete("/a", if_revision=first.revision)
        assert caught.value.current == second
        await store.delete("/a", if_revision=second.revision)

    async def test_one_of_many_at_once_wins(self, store: Store) -> None:
        base = await store.put("/a", b"0")
        results = await asyncio.gather(
            *(
                store.put("/a", b"%d" % number, if_revision=base.revision, durability=durability)
                for number in range(20)
                for durability in Durability
            ),
            return_exceptions=True,
        )
        winners = [result for result in results if isinstance(result, KeyValue)]
        losers = [result for result in results if isinstance(result, RevisionMismatch)]
        assert len(winners) == 1
        assert len(losers) == 39
        assert await store.get("/a") == winners[0]
        assert all(loser.current == winners[0] for loser in losers)

    async def test_writes_are_decided_in_the_order_of_the_calls(self, store: Store) -> None:
        results = await asyncio.gather(
            store.put("/a", b"1", if_revision=0),
            store.put("/a", b"2", durability=RELAXED),
            store.put("/a", b"3"),
            store.delete("/a"),
            store.put("/a", b"4", if_revision=0, durability=RELAXED),
            store.put("/b", b"5"),
        )
        assert [result.revision for result in results] == [2, 3, 4, 5, 6, 7]
        assert results[3].value == b"3"
        assert await store.get("/a") == KeyValue("/a", b"4", 6, 6)

    async def test_a_cancelled_writer_leaves_the_store_sound(self, store: Store) -> None:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(store.put(f"/{n}", b"")) for n in range(10)]
            await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
        written = await store.put("/last", b"")
        assert await store.get("/last") == written
        kept = {f"/{number}" for number in range(1, 10, 2)}
        assert kept <= set(await keys_of(store))

    # ---- ranges

    async def test_a_range_is_in_key_order(self, store: Store) -> None:
        names = ["/p/b", "/p/a", "/p/c/1", "/p/c", "/q/a", "/o", "/p/ü", "/p/B", "/p", "/p/c-1"]
        for name in names:
            await store.put(name, name.encode())
        assert await keys_of(store, "/p/") == sorted(n for n in names if n.startswith("/p/"))
        assert await keys_of(store) == sorted(names)
        assert await keys_of(store, "") == sorted(names)

    async def test_pages_add_up_to_the_whole(self, store: Store) -> None:
        for number in range(25):
            await store.put(f"/a/{number:02}", b"")
        await store.put("/b/1", b"")
        seen: list[str] = []
        remaining = []
        while True:
            page = await store.range("/a/", after=seen[-1] if seen else "", limit=10)
            seen += [item.key for item in page.items]
            remaining.append(page.remaining)
            if not page.remaining:
                break
        assert seen == [f"/a/{number:02}" for number in range(25)]
        assert remaining == [15, 5, 0]

    async def test_later_pages_show_the_moment_of_the_first(self, store: Store) -> None:
        for number in range(10):
            await store.put(f"/a/{number}", b"old")
        page = await store.range("/a/", limit=4)
        await store.put("/a/5", b"new")
        await store.delete("/a/6")
        await store.put("/a/45", b"new")
        await store.delete("/a/1")
        rest = await store.range("/a/", after="/a/3", revision=page.revision)
        assert [item.key for item in rest.items] == [f"/a/{number}" for number in range(4, 10)]
        assert {item.value for item in rest.items} == {b"old"}
        assert (rest.revision, rest.remaining) == (page.revision, 0)
        limited = await store.range("/a/", after="/a/3", limit=2, revision=page.revision)
        assert ([item.key for item in limited.items], limited.remaining) == (["/a/4", "/a/5"], 4)

    async def test_after_may_lie_outside_the_prefix(self, store: Store) -> None:
        await store.put("/b/1", b"")
        assert await keys_of(store, "/b/", after="/a") == ["/b/1"]
        assert await keys_of(store, "/b/", after="/c") == []

    # ---- the past

    async def test_the_past_can_be_read(self, store: Store) -> None:
        first = await store.put("/a", b"1")
        second = await store.put("/a", b"2")
        other = await store.put("/b", b"")
        gone = await store.delete("/a")
        assert await store.get("/a", revision=first.revision) == first
        assert await store.get("/a", revision=second.revision) == second
        assert await store.get("/a", revision=other.revision) == second
        assert await store.get("/a", revision=gone.revision) is None
        assert await store.get("/a", revision=1) is None

    async def test_the_future_cannot(self, store: Store) -> None:
        with pytest.raises(FutureRevision):
            await store.get("/a", revision=2)
        with pytest.raises(FutureRevision):
            await store.range("/", revision=2)
        with pytest.raises(FutureRevision):
            await store.compact(2)

    async def test_compaction_forgets_what_was_before(self, store: Store) -> None:
        first = await store.put("/a", b"1")
        second = await store.put("/a", b"2")
        third = await store.put("/a", b"3")
        await store.compact(second.revision)
        assert await store.get("/a", revision=second.revision) == second
        assert await store.get("/a", revision=third.revision) == third
        with pytest.raises(Compacted) as caught:
            await store.get("/a", revision=first.revision)
        assert caught.value.oldest == second.revision
        with pytest.raises(Compacted):
            await store.range("/", revision=first.revision)
        assert await store.get("/a") == third
        # Compacting again, or further back, changes nothing.
        await store.compact(first.revision)
        await store.compact(second.revision)
        assert await store.get("/a", revision=second.revision) == second

    async def test_compaction_up_to_now_keeps_the_present(self, store: Store) -> None:
        kept = [await store.put(f"/{number}", b"1") for number in range(5)]
        await store.delete("/2")
        await store.compact(store.revision)
        assert await keys_of(store) == ["/0", "/1", "/3", "/4"]
        assert await store.get("/0", revision=store.revision) == kept[0]

    # ---- watches

    async def test_a_watch_shows_every_change(self, store: Store) -> None:
        since = store.revision
        async with store.watch("/a/", since=since) as watch:
            await store.put("/a/1", b"1")
            await store.put("/b/1", b"x")
            await store.put("/a/1", b"2", durability=RELAXED)
            await store.delete("/a/1")
            assert await read_changes(watch, 3) == [
                Change("/a/1", b"1", None, since + 1, True),
                Change("/a/1", b"2", b"1", since + 3, False),
                Change("/a/1", None, b"2", since + 4, False),
            ]

    async def test_a_watch_starts_in_the_past(self, store: Store) -> None:
        revisions = [(await store.put("/a", b"%d" % number)).revision for number in range(6)]
        async with store.watch("/", since=revisions[2]) as watch:
            changes = await read_changes(watch, 3)
            assert [change.revision for change in changes] == revisions[3:]
            later = await store.put("/a", b"later")
            assert (await read_changes(watch, 1))[0].revision == later.revision

    async def test_a_watch_waits_for_what_comes(self, store: Store) -> None:
        async def write_later() -> None:
            await asyncio.sleep(0.01)
            await store.put("/b/1", b"not for us")
            await asyncio.sleep(0.01)
            await store.put("/a/1", b"for us")

        async with asyncio.TaskGroup() as group, store.watch("/a/", since=1) as watch:
            group.create_task(write_later())
            assert [change.value for change in await anext(watch)] == [b"for us"]

    async def test_a_watch_may_start_in_the_future(self, store: Store) -> None:
        async with store.watch("/", since=store.revision + 2) as watch:
            for number in range(3):
                await store.put("/a", b"%d" % number)
            assert [change.value for change in await anext(watch)] == [b"2"]

    async def test_watches_are_independent(self, store: Store) -> None:
        async with (
            store.watch("/", since=1) as everything,
            store.watch("/a/", since=1) as some,
            store.watch("/c/", since=1) as nothing,
        ):
            waiting = asyncio.ensure_future(anext(nothing))
            await store.put("/a/1", b"")
            await store.put("/b/1", b"")
            assert [c.key for c in await read_changes(everything, 2)] == ["/a/1", "/b/1"]
            assert [c.key for c in await read_changes(some, 1)] == ["/a/1"]
            assert not waiting.done()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting

    async def test_a_cancelled_wait_loses_nothing(self, store: Store) -> None:
        async with store.watch("/", since=1) as watch:
            waiting = asyncio.ensure_future(anext(watch))
            await asyncio.sleep(0)
            waiting.cancel()
            await store.put("/a", b"")
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert [change.key for change in await anext(watch)] == ["/a"]

    async def test_the_forgotten_past_cannot_be_watched(self, store: Store) -> None:
        first = await store.put("/a", b"1")
        second = await store.put("/a", b"2")
        await store.compact(second.revision)
        with pytest.raises(Compacted):
            async with store.watch("/", since=first.revision):
                pass
        async with store.watch("/", since=second.revision) as watch:
            await store.put("/a", b"3")
            assert [change.value for change in await anext(watch)] == [b"3"]

    async def test_a_slow_watcher_is_told_when_it_is_overtaken(self, store: Store) -> None:
        async with store.watch("/", since=1) as watch:
            await store.put("/a", b"1")
            await store.put("/a", b"2")
            await store.compact(store.revision)
            with pytest.raises(Compacted):
                await anext(watch)

    async def test_a_quiet_watch_survives_compaction(self, store: Store) -> None:
        async with store.watch("/quiet/", since=1) as watch:
            waiting = asyncio.ensure_future(anext(watch))
            await asyncio.sleep(0)
            for number in range(5):
                await store.put("/busy/1", b"%d" % number)
            await store.compact(store.revision)
            await store.put("/quiet/1", b"at last")
            assert [change.value for change in await waiting] == [b"at last"]

    async def test_closing_ends_the_watches(self, tmp_path: Path) -> None:
        store = await self.open_store(tmp_path)
        async with store.watch("/", since=1) as watch:
            waiting = asyncio.ensure_future(anext(watch))
            await asyncio.sleep(0)
            await store.close()
            with pytest.raises(StoreClosed):
                await waiting

    # ---- following

    @both_durabilities
    async def test_followers_know_before_the_writer(
        self, store: Store, durability: Durability
    ) -> None:
        seen: list[Change] = []
        store.follow("/a/", seen.extend, since=store.revision)
        for number in range(3):
            put = await store.put("/a/1", b"%d" % number, durability=durability)
            assert seen[-1].revision == put.revision == store.revision
        gone = await store.delete("/a/1", durability=durability)
        assert seen[-1] == Change("/a/1", None, b"2", gone.revision, False)
        await store.put("/b/1", b"", durability=durability)
        assert len(seen) == 4

    async def test_a_follower_is_told_what_it_missed(self, store: Store) -> None:
        first = await store.put("/a", b"1")
        second = await store.put("/a", b"2")
        seen: list[Change] = []
        store.follow("/", seen.extend, since=first.revision)
        assert [change.revision for change in seen] == [second.revision]

    async def test_a_cancelled_follower_hears_no_more(self, store: Store) -> None:
        seen: list[Change] = []
        subscription = store.follow("/", seen.extend, since=store.revision)
        await store.put("/a", b"1")
        subscription.cancel()
        subscription.cancel()
        await store.put("/a", b"2")
        assert len(seen) == 1

    async def test_a_follower_may_cancel_itself(self, store: Store) -> None:
        seen: list[Change] = []

        def once(changes: Sequence[Change]) -> None:
            seen.extend(changes)
            subscription.cancel()

        others: list[Change] = []
        subscription = store.follow("/", once, since=store.revision)
        store.follow("/", others.extend, since=store.revision)
        await store.put("/a", b"1")
        await store.put("/a", b"2")
        assert (len(seen), len(others)) == (1, 2)

    async def test_a_broken_follower_hurts_nobody(
        self, store: Store, caplog: pytest.LogCaptureFixture
    ) -> None:
        def broken(changes: Sequence[Change]) -> None:
            raise ValueError("broken")

        seen: list[Change] = []
        store.follow("/", broken, since=store.revision)
        store.follow("/", seen.extend, since=store.revision)
        await store.put("/a", b"1")
        assert len(seen) == 1
        assert "a follower of / failed" in caplog.text

    async def test_the_forgotten_past_cannot_be_followed(self, store: Store) -> None:
        await store.put("/a", b"1")
        await store.compact(store.revision)
        with pytest.raises(Compacted):
            store.follow("/", lambda changes: None, since=1)

    async def test_nobody_sees_a_revision_before_its_change(self, store: Store) -> None:
        """A list and the watch from its revision have no gap between them."""
        known: dict[str, int] = {}

        def check(changes: Sequence[Change]) -> None:
            known.update((change.key, change.revision) for change in changes)
            assert store.revision >= changes[-1].revision

        store.follow("/", check, since=store.revision)
        writes = [
            store.put(f"/{number % 5}", b"", durability=list(Durability)[number % 2])
            for number in range(40)
        ]
        for next_done in asyncio.as_completed(writes):
            await next_done
            page = await store.range("/")
            assert {item.key: item.revision for item in page.items} == known

    # ---- closing

    async def test_a_closed_store_refuses(self, tmp_path: Path) -> None:
        store = await self.open_store(tmp_path)
        await store.close()
        await store.close()
        for call in (store.get("/a"), store.range("/"), store.put("/a", b""), store.delete("/a")):
            with pytest.raises(StoreClosed):
                await call
        with pytest.raises(StoreClosed):
            store.follow("/", lambda changes: None, since=1)
        with pytest.raises(StoreClosed):
            async with store.watch("/", since=1):
                pass

    async def test_statistics_count(self, store: Store) -> None:
        await store.put("/a", b"123")
        await store.put("/b", b"4567")
        await store.put("/b", b"89")
        statistics = store.statistics()
        assert (statistics.keys, statistics.live_bytes, statistics.revision) == (2, 5, 4)
        assert store.problems() == ()

    # ---- properties

    @pytest.mark.slow
    def test_any_history_is_ordered_unique_and_complete(self) -> None:
        @settings(
            max_examples=self.examples,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        )
        @given(rounds=st.lists(st.one_of(WRITES, WATCH, READ, COMPACT), max_size=20))
        def property(rounds: list[Round]) -> None:
            with tempfile.TemporaryDirectory() as directory:
                self.run_async(self._play(rounds, Path(directory)))

        property()

    async def _play(self, rounds: list[Round], directory: Path) -> None:
        store = await self.open_store(directory)
        model = Model()
        followed: list[Change] = []
        store.follow("/", followed.extend, since=store.revision)
        async with AsyncExitStack() as stack:
            watches: list[tuple[AsyncIterator[Sequence[Change]], str, int]] = []
            for step in rounds:
                if isinstance(step, Watch):
                    since = max(model.floor, store.revision - step.back)
                    watch = store.watch(step.prefix, since=since)
                    watches.append((await stack.enter_async_context(watch), step.prefix, since))
                else:
                    await play(store, model, step)
            assert [line_of(change) for change in followed] == model.history
            for watch_, prefix, since in watches:
                await finish_watch(store, model, watch_, prefix, since)
        await compare(store, model)
        store.check_invariants()
        await store.close()


class DurableStoreContract(StoreContract):
    """What a backend must do whose contents survive `close`."""

    async def reopen(self, store: Store, directory: Path) -> Store:
        store.check_invariants()
        await store.close()
        return await self.open_store(directory)

    async def test_everything_survives_an_orderly_close(self, tmp_path: Path) -> None:
        store = await self.open_store(tmp_path)
        kept = await store.put("/a", b"1")
        lease = await store.put("/lease", b"1", durability=RELAXED)
        lease = await store.put("/lease", b"2", durability=RELAXED)
        await store.put("/b", b"1")
        await store.delete("/b")
        revision = store.revision
        store = await self.reopen(store, tmp_path)
        assert store.revision == revision
        assert list((await store.range("/")).items) == [kept, lease]
        assert (await store.put("/c", b"")).revision == revision + 1
        await store.close()

    async def test_the_past_survives(self, tmp_path: Path) -> None:
        store = await self.open_store(tmp_path)
        first = await store.put("/a", b"1")
        second = await store.put("/a", b"2")
        other = await store.put("/b", b"x")
        gone = await store.delete("/a")
        store = await self.reopen(store, tmp_path)
        await store.put("/a", b"3")
        assert await store.get("/a", revision=first.revision) == first
        assert await store.get("/a", revision=other.revision) == second
        assert await store.get("/a", revision=gone.revision) is None
        page = await store.range("/", revision=other.revision)
        assert list(page.items) == [second, other]
        async with store.watch("/", since=first.revision) as watch:
            changes = await read_changes(watch, 4)
            assert changes == [
                Change("/a", b"2", b"1", second.revision, False),
                Change("/b", b"x", None, other.revision, True),
                Change("/a", None, b"2", gone.revision, False),
                Change("/a", b"3", None, gone.revision + 1, True),
            ]
        await store.close()

    async def test_compaction_survives(self, tmp_path: Path) -> None:
        store = await self.open_store(tmp_path)
        first = await store.put("/a", b"1")
        second = await store.put("/a", b"2")
        await store.compact(second.revision)
        store = await self.reopen(store, tmp_path)
        with pytest.raises(Compacted):
            await store.get("/a", revision=first.revision)
        assert await store.get("/a") == second
        await store.close()

    async def test_relaxed_lives_and_deaths_are_not_coalesced(self, tmp_path: Path) -> None:
        store = await self.open_store(tmp_path)
        born = await store.put("/a", b"1", durability=RELAXED)
        await store.put("/a", b"2", durability=RELAXED)
        gone = await store.delete("/a", durability=RELAXED)
        again = await store.put("/a", b"3", durability=RELAXED)
        store = await self.reopen(store, tmp_path)
        async with store.watch("/", since=born.revision - 1) as watch:
            changes = await anext(watch)
        told = [(change.revision, change.value, change.created) for change in changes]
        assert told[-2:] == [(gone.revision, None, False), (again.revision, b"3", True)]
        assert changes[0].created
        assert await store.get("/a") == again
        await store.close()

    @pytest.mark.slow
    def test_any_history_survives_reopening(self) -> None:
        @settings(
            max_examples=self.examples,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        )
        @given(
            before=st.lists(WRITES, max_size=5),
            compact=st.none() | st.integers(0, 10),
            after=st.lists(st.one_of(WRITES, COMPACT), max_size=5),
        )
        def property(before: list[Round], compact: int | None, after: list[Round]) -> None:
            with tempfile.TemporaryDirectory() as directory:
                self.run_async(self._play_twice(before, compact, after, Path(directory)))

        property()

    async def _play_twice(
        self, before: list[Round], compact: int | None, after: list[Round], directory: Path
    ) -> None:
        store = await self.open_store(directory)
        model = Model()
        for step in before:
            assert isinstance(step, Writes)
            await play(store, model, step)
        if compact is not None:
            await play(store, model, Compact(compact))
        store = await self.reopen(store, directory)
        await compare(store, model)
        for step in after:
            assert not isinstance(step, Watch)
            await play(store, model, step)
        # Whoever resumes, from any revision, ends at the present, in order.
        for since in range(model.floor, model.revision):
            state = dict(model.states[since])
            last = since
            async with store.watch("", since=since) as watch:
                while last < model.revision:
                    for change in await anext(watch):
                        assert change.revision > last
                        last = change.revision
                        replay(state, change)
            assert {key: item.value for key, item in state.items()} == {
                key: item.value for key, item in model.state.items()
            }
        store = await self.reopen(store, directory)
        await compare(store, model)
        await store.close()
