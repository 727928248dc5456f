"""What the SQLite store does beyond the contract: durability, its costs, a failing disk.

Real: SQLite, files, threads, the clock of the loop. Fake, where a test says so: the
disk (`faultydisk`), which can fail, stall and count.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import apsw
import pytest

from pybernetes.storage import (
    Compacted,
    Durability,
    DurableOptions,
    HistoryLimits,
    KeyValue,
    SqliteStore,
    StoreError,
    StoreFailed,
)
from tests.storage.faultydisk import FaultyDisk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

pytestmark = pytest.mark.realtime

RELAXED = Durability.RELAXED


class FixedClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return self.time.timestamp()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    async with await SqliteStore.open(path) as store:
        yield store
        store.check_invariants()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[FaultyDisk]:
    disk = FaultyDisk(f"faulty-{tmp_path.name}")
    yield disk
    disk.unregister()


def rows_on_disk(path: Path) -> list[tuple[int, str]]:
    """What another process would find after a crash now: a copy is read, log included."""
    copy = path.with_name("copy.db")
    copy.write_bytes(path.read_bytes())
    log = path.with_name(path.name + "-wal")
    copy.with_name("copy.db-wal").write_bytes(log.read_bytes() if log.exists() else b"")
    connection = apsw.Connection(str(copy))
    rows = connection.execute("SELECT revision, key FROM change ORDER BY revision").fetchall()
    connection.close()
    return [(int(str(revision)), str(key)) for revision, key in rows]


# ---- durability


async def test_an_acknowledged_write_is_on_the_disk(store: SqliteStore, path: Path) -> None:
    for number in range(20):
        put = await store.put(f"/{number}", b"x")
        assert rows_on_disk(path)[-1] == (put.revision, put.key)


async def test_writes_of_one_moment_share_a_commit(store: SqliteStore) -> None:
    before = store.statistics().commits
    await asyncio.gather(*(store.put(f"/{number}", b"x") for number in range(300)))
    assert store.statistics().commits - before <= 2


async def test_more_than_fits_one_commit_is_split(store: SqliteStore) -> None:
    await asyncio.gather(*(store.put(f"/{number}", bytes(100_000)) for number in range(300)))
    assert store.statistics().keys == 300
    assert store.statistics().commits >= 3


async def test_the_loop_does_not_wait_for_the_disk(path: Path, disk: FaultyDisk) -> None:
    async with await SqliteStore.open(path, vfs=disk.name) as store:
        disk.may_sync.clear()
        write = asyncio.ensure_future(store.put("/a", b"1"))
        for _ in range(20):
            await asyncio.sleep(0.001)
            # Not acknowledged, and not visible either.
            assert await store.get("/a") is None
            assert store.revision == 1
        assert not write.done()
        disk.may_sync.set()
        assert (await write).revision == store.revision == 2


async def test_a_relaxed_write_does_not_overtake_a_durable_one(
    path: Path, disk: FaultyDisk
) -> None:
    async with await SqliteStore.open(path, vfs=disk.name) as store:
        disk.may_sync.clear()
        durable = asyncio.ensure_future(store.put("/a", b"1"))
        await asyncio.sleep(0.01)
        relaxed = asyncio.ensure_future(store.put("/lease", b"1", durability=RELAXED))
        await asyncio.sleep(0.01)
        assert not relaxed.done()
        disk.may_sync.set()
        assert (await durable).revision < (await relaxed).revision


async def test_a_relaxed_write_does_not_wait_for_a_flush(path: Path, disk: FaultyDisk) -> None:
    async with await SqliteStore.open(path, vfs=disk.name) as store:
        await store.put("/lease", b"1", durability=RELAXED)
        disk.may_sync.clear()
        flush = asyncio.ensure_future(store.flush())
        await asyncio.sleep(0.01)
        async with asyncio.timeout(1):
            lease = await store.put("/lease", b"2", durability=RELAXED)
        disk.may_sync.set()
        await flush
        store.check_invariants()
        await store.flush()
    async with await SqliteStore.open(path) as store:
        assert await store.get("/lease") == lease


async def test_relaxed_writes_are_coalesced(store: SqliteStore, path: Path) -> None:
    await store.put("/lease", b"0")
    for number in range(100):
        await store.put("/lease", b"%d" % number, durability=RELAXED)
        await store.put("/other", b"%d" % number, durability=RELAXED)
    assert len(rows_on_disk(path)) == 1
    durable = await store.put("/a", b"")
    assert rows_on_disk(path) == [(2, "/lease"), (201, "/lease"), (202, "/other"), (203, "/a")]
    assert durable.revision == 203


@pytest.mark.parametrize(("new", "overwrites"), [(0.02, 60), (60, 0.02)])
@pytest.mark.slow
async def test_relaxed_writes_reach_the_disk_in_time(
    path: Path, new: float, overwrites: float
) -> None:
    options = DurableOptions(
        flush_new_after=timedelta(seconds=new), flush_overwrites_after=timedelta(seconds=overwrites)
    )
    async with await SqliteStore.open(path, options=options) as store:
        await store.put("/lease", b"1")
        overwrite = await store.put("/lease", b"2", durability=RELAXED)
        await asyncio.sleep(0.1)
        is_written = (overwrite.revision, "/lease") in rows_on_disk(path)
        assert is_written == (overwrites < 1)
        born = await store.put("/event", b"1", durability=RELAXED)
        await asyncio.sleep(0.1)
        is_written = (born.revision, "/event") in rows_on_disk(path)
        assert is_written == (new < 1)


async def test_a_large_backlog_is_flushed_early(store: SqliteStore) -> None:
    for number in range(50):
        await store.put(f"/{number}", bytes(100_000), durability=RELAXED)
    async with asyncio.timeout(5):
        while store.statistics().backlog_rows == 50:
            await asyncio.sleep(0.01)
    assert store.statistics().commits == 1


# ---- crashes, without a crash: the files are copied while the store is open


def crash(path: Path, name: str) -> Path:
    copy = path.with_name(name)
    copy.write_bytes(path.read_bytes())
    log = path.with_name(path.name + "-wal")
    copy.with_name(copy.name + "-wal").write_bytes(log.read_bytes())
    return copy


async def test_lost_revisions_are_never_used_again(store: SqliteStore, path: Path) -> None:
    durable = await store.put("/a", b"1")
    lost = await store.put("/lease", b"1", durability=RELAXED)
    async with await SqliteStore.open(crash(path, "crashed.db")) as after:
        assert list((await after.range("/")).items) == [durable]
        assert after.revision > lost.revision
        assert (await after.put("/b", b"")).revision > lost.revision


async def test_who_saw_lost_writes_must_list_again(store: SqliteStore, path: Path) -> None:
    durable = await store.put("/a", b"1")
    lost = await store.put("/lease", b"1", durability=RELAXED)
    copy = crash(path, "crashed.db")
    # However often it is opened.
    for number in range(3):
        async with await SqliteStore.open(copy) as after:
            with pytest.raises(Compacted) as caught:
                async with after.watch("/", since=lost.revision):
                    pass
            with pytest.raises(Compacted):
                await after.get("/a", revision=lost.revision)
            assert caught.value.oldest <= after.revision
            async with after.watch("/", since=durable.revision) as watch:
                new = await after.put("/b", b"%d" % number)
                changes = list(await anext(watch))
                while changes[-1].revision < new.revision:
                    changes += await anext(watch)
                assert {change.key for change in changes} == {"/b"}


async def test_a_block_of_revisions_is_renewed_in_time(store: SqliteStore, path: Path) -> None:
    for number in range(12_000):
        lease = await store.put("/lease", b"%d" % number, durability=RELAXED)
        if number % 100 == 0:
            await asyncio.sleep(0)
    async with await SqliteStore.open(crash(path, "crashed.db")) as after:
        assert after.revision > lease.revision


@pytest.mark.slow
async def test_relaxed_writes_wait_when_a_block_is_used_up(store: SqliteStore, path: Path) -> None:
    """No time for the writer thread: a burst has to be slowed down, not refused."""
    writes = (store.put("/lease", b"%d" % n, durability=RELAXED) for n in range(25_000))
    results = await asyncio.gather(*writes)
    assert [result.revision for result in results] == list(range(2, 25_002))
    async with await SqliteStore.open(crash(path, "crashed.db")) as after:
        assert after.revision > store.revision


# ---- a disk that fails


@pytest.mark.parametrize(
    ("error", "words"),
    [(apsw.FullError("full"), "disk is full"), (apsw.IOError("broken"), "broken")],
)
async def test_a_failed_write_did_not_happen(
    path: Path, disk: FaultyDisk, error: Exception, words: str
) -> None:
    async with await SqliteStore.open(path, vfs=disk.name) as store:
        kept = await store.put("/a", b"1")
        disk.error = error
        with pytest.raises(StoreFailed, match=words):
            await store.put("/a", b"2")
        assert await store.get("/a") == kept
        assert store.revision == kept.revision
        assert words in store.problems()[0].message
        # The disk recovers, and the store with it, at revisions never used before.
        disk.error = None
        again = await store.put("/a", b"3", if_revision=kept.revision)
        assert again.revision > kept.revision + 1
        assert store.problems() == ()
        store.check_invariants()
    async with await SqliteStore.open(path) as store:
        assert await store.get("/a") == again


async def test_relaxed_writes_go_on_while_the_disk_fails(path: Path, disk: FaultyDisk) -> None:
    async with await SqliteStore.open(path, vfs=disk.name) as store:
        await store.put("/lease", b"0", durability=RELAXED)
        disk.error = apsw.FullError("full")
        results = await asyncio.gather(
            store.put("/a", b"1"),
            store.put("/lease", b"1", durability=RELAXED),
            store.put("/b", b"1"),
            store.put("/lease", b"2", durability=RELAXED),
            return_exceptions=True,
        )
        assert [type(result) for result in results] == [
            StoreFailed,
            KeyValue,
            StoreFailed,
            KeyValue,
        ]
        with pytest.raises(StoreFailed):
            await store.flush()
        disk.error = None
        await store.flush()
        store.check_invariants()
    async with await SqliteStore.open(path) as store:
        assert [(item.key, item.value) for item in (await store.range("/")).items] == [
            ("/lease", b"2")
        ]


async def test_a_refusal_that_rests_on_a_failed_write_is_reconsidered(
    path: Path, disk: FaultyDisk
) -> None:
    async with await SqliteStore.open(path, vfs=disk.name) as store:
        disk.error = apsw.FullError("full")
        results = await asyncio.gather(
            store.put("/a", b"1", if_revision=0),
            store.put("/a", b"2", if_revision=0, durability=RELAXED),
            store.put("/a", b"3", if_revision=0),
            return_exceptions=True,
        )
        disk.error = None
        # The first never was, so the second is not a mismatch; the third is one.
        assert isinstance(results[0], StoreFailed)
        assert isinstance(results[1], KeyValue)
        assert isinstance(results[2], StoreError)
        assert not isinstance(results[2], StoreFailed)
        assert await store.get("/a") == results[1]


async def test_memory_is_bounded_while_the_disk_fails(path: Path, disk: FaultyDisk) -> None:
    options = DurableOptions(window=HistoryLimits(size_bytes=100_000))
    store = await SqliteStore.open(path, vfs=disk.name, options=options)
    disk.error = apsw.FullError("full")
    for number in range(1000):
        await store.put("/lease", bytes(10_000), durability=RELAXED)
        if number % 100 == 0:
            with pytest.raises(StoreFailed):
                await store.put("/a", b"")
    assert store.statistics().backlog_rows == 1
    with pytest.raises(StoreFailed):
        await store.put("/a", b"")
    assert store.statistics().window_bytes < 500_000
    store.check_invariants()
    with pytest.raises(StoreFailed, match="relaxed writes were lost"):
        await store.close()


async def test_a_store_whose_file_is_gone_does_not_pretend(path: Path) -> None:
    store = await SqliteStore.open(path)
    await store.put("/a", b"1")
    path.rename(path.with_name("elsewhere.db"))
    with pytest.raises(StoreFailed, match="removed or replaced"):
        await store.put("/a", b"2")
    path.with_name("elsewhere.db").rename(path)
    await store.put("/a", b"3")
    await store.close()


@pytest.mark.slow
def test_a_really_full_disk(tmp_path: Path) -> None:
    """A file size limit is the nearest thing to a full disk that needs no root."""
    script = """
import asyncio, resource, signal, sys
from pathlib import Path
from pybernetes.storage import SqliteStore, StoreFailed

async def main():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    store = await SqliteStore.open(Path(sys.argv[1]))
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    kept = []
    try:
        while True:
            kept.append(await store.put(f"/{len(kept)}", bytes(10_000)))
    except StoreFailed as error:
        print(error)
    assert store.problems()
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    kept.append(await store.put("/after", b""))
    assert not store.problems()
    await store.close()
    store = await SqliteStore.open(Path(sys.argv[1]))
    assert sorted((await store.range("/")).items, key=lambda item: item.revision) == kept
    assert len(kept) > 20
    await store.close()
    print("sound")

asyncio.run(main())
"""
    result = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "state.db")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.stdout.endswith("sound\n"), result.stdout + result.stderr


# ---- history


async def fill(store: SqliteStore, count: int, size: int = 10) -> list[int]:
    """Overwrite one key again and again, after one that stays."""
    if await store.get("/kept") is None:
        await store.put("/kept", b"kept")
    revisions = []
    for number in range(0, count, 100):
        writes = [store.put("/a", bytes(size)) for _ in range(min(100, count - number))]
        revisions += [item.revision for item in await asyncio.gather(*writes)]
    return revisions


async def settle(store: SqliteStore) -> None:
    """Until upkeep has done what there was to do."""
    for _ in range(50):
        await asyncio.sleep(0.01)
        await store.flush()


@pytest.mark.slow
async def test_history_older_than_the_limit_goes(path: Path) -> None:
    clock = FixedClock()
    options = DurableOptions(history=HistoryLimits(age=timedelta(hours=1)))
    async with await SqliteStore.open(path, clock=clock, options=options) as store:
        old = await fill(store, 2000)
        clock.time += timedelta(minutes=50)
        young = await fill(store, 500)
        await settle(store)
        assert await store.get("/a", revision=old[0]) is not None
        clock.time += timedelta(minutes=20)
        # The rows after the live list can only be trimmed after the next live list.
        await fill(store, 600)
        await settle(store)
        await fill(store, 600)
        await settle(store)
        with pytest.raises(Compacted):
            await store.get("/a", revision=old[-300])
        assert await store.get("/a", revision=young[0]) is not None
        assert len(rows_on_disk(path)) < 2100
        assert await store.get("/kept") is not None
        store.check_invariants()
    async with await SqliteStore.open(path) as store:
        assert await store.get("/kept") is not None
        assert await store.get("/a", revision=young[0]) is not None


@pytest.mark.slow
async def test_history_is_bounded_by_size(path: Path) -> None:
    options = DurableOptions(history=HistoryLimits(size_bytes=2_000_000))
    async with await SqliteStore.open(path, options=options) as store:
        for _ in range(10):
            await fill(store, 1000, size=2000)
        await settle(store)
        assert path.stat().st_size < 8_000_000
        assert await store.get("/kept") is not None
        with pytest.raises(Compacted):
            await store.get("/a", revision=3)


async def test_compacting_frees_the_rows(store: SqliteStore, path: Path) -> None:
    await fill(store, 3000)
    await store.delete("/a")
    await store.compact(store.revision)
    assert [key for _, key in rows_on_disk(path)] == ["/kept"]


# ---- other people's files


async def test_a_second_server_is_told_who_has_the_file(store: SqliteStore, path: Path) -> None:
    script = f"""
import asyncio
from pathlib import Path
from pybernetes.storage import SqliteStore
asyncio.run(SqliteStore.open(Path({str(path)!r})))
"""
    result = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert f"in use by process {os.getpid()}" in result.stderr
    with pytest.raises(StoreFailed, match="in use by process"):
        await SqliteStore.open(path)
    await store.put("/a", b"still ours")


async def test_nobody_else_may_read_the_secrets(store: SqliteStore, path: Path) -> None:
    await store.put("/a", b"secret")
    for file in (path, path.with_name(path.name + "-wal")):
        assert file.stat().st_mode & 0o077 == 0


async def test_a_backup_is_a_store_that_goes_on_elsewhere(store: SqliteStore, path: Path) -> None:
    kept = await store.put("/a", b"1")
    lease = await store.put("/lease", b"1", durability=RELAXED)
    copy = path.with_name("backup.db")
    await store.backup(copy)
    later = await store.put("/a", b"2")
    assert copy.stat().st_mode & 0o077 == 0
    async with await SqliteStore.open(copy) as restored:
        assert list((await restored.range("/")).items) == [kept, lease]
        with pytest.raises(Compacted):
            async with restored.watch("/", since=later.revision):
                pass
        new = await restored.put("/a", b"3")
        assert new.revision > later.revision + 1_000_000
        revision = restored.revision
    async with await SqliteStore.open(copy) as restored:
        assert restored.revision == revision


async def test_a_backup_put_in_the_place_of_a_killed_store(
    store: SqliteStore, path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The log of the killed store is still there, and must not be applied to the backup."""
    kept = await store.put("/a", b"1")
    await store.backup(tmp_path / "backup.db")
    for number in range(50):
        await store.put(f"/{number}", bytes(1000))
    killed = crash(path, "killed.db")
    (tmp_path / "backup.db").rename(killed)
    async with await SqliteStore.open(killed) as restored:
        assert list((await restored.range("/")).items) == [kept]
        assert restored.revision > 1_000_000
    assert "was replaced" in caplog.text


async def test_a_log_without_its_file_is_not_applied_to_a_new_one(
    store: SqliteStore, path: Path
) -> None:
    await store.put("/a", b"1")
    killed = crash(path, "killed.db")
    killed.unlink()
    with pytest.raises(StoreFailed, match="is missing, though its log"):
        await SqliteStore.open(killed)
