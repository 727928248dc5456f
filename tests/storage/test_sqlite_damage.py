"""Damage stays where it is: one row is one object, and a file says what is wrong with it.

Real: SQLite and files. The damage is done to closed files, through SQL or byte by byte.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import apsw
import pytest

from pybernetes.storage import KeyValue, SqliteStore, StoreFailed, Unreadable

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

pytestmark = pytest.mark.realtime

COUNT = 200


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """A store with two hundred objects of 2 KB, each written twice."""
    path = tmp_path / "state.db"
    async with await SqliteStore.open(path) as store:
        for value in (b"first", b"second"):
            for number in range(COUNT):
                await store.put(f"/pods/{number:03}", value * 400)
    return path


def sql(path: Path, text: str, *parameters: Any) -> None:
    connection = apsw.Connection(str(path))
    connection.execute(text, parameters).fetchall()
    connection.close()


def revision_of(number: int) -> int:
    return 2 + COUNT + number


async def check_all_but(store: SqliteStore, damaged: set[int]) -> None:
    items = (await store.range("/")).items
    good = [f"/pods/{number:03}" for number in range(COUNT) if number not in damaged]
    assert [item.key for item in items] == good
    assert {item.value for item in items} == {b"second" * 400}
    store.check_invariants()


@pytest.mark.parametrize(
    "change",
    [
        "value = x'00ff'",
        "value = 'text'",
        "value = 17",
        "created = 100000",
        "created = 'soon'",
        "checksum = 1",
        "key = '/pods/other'",
    ],
)
async def test_a_damaged_row_is_one_damaged_object(
    path: Path, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    revision = revision_of(50)
    sql(path, f"UPDATE change SET {change} WHERE revision = ?", revision)
    async with await SqliteStore.open(path) as store:
        await check_all_but(store, {50})
        (problem,) = store.problems()
        assert problem.revision == revision
        assert f"revision {revision} is damaged" in problem.message
        assert problem.message in caplog.text
        await store.put("/pods/new", b"goes on")


async def test_a_damaged_object_is_not_absent_but_can_be_written_anew(path: Path) -> None:
    sql(path, "UPDATE change SET value = x'00' WHERE revision = ?", revision_of(50))
    for _ in range(2):
        async with await SqliteStore.open(path) as store:
            with pytest.raises(Unreadable):
                await store.get("/pods/050")
    async with await SqliteStore.open(path) as store:
        new = await store.put("/pods/050", b"second" * 400, if_revision=0)
        assert await store.get("/pods/050") == new
        assert store.problems() == ()
        await store.compact(store.revision)
    async with await SqliteStore.open(path) as store:
        assert store.problems() == ()
        await check_all_but(store, set())


async def test_a_missing_row_is_one_damaged_object(path: Path) -> None:
    sql(path, "DELETE FROM change WHERE revision = ?", revision_of(50))
    async with await SqliteStore.open(path) as store:
        await check_all_but(store, {50})
        assert [problem.revision for problem in store.problems()] == [revision_of(50)]


@pytest.mark.parametrize("damage", ["revisions = x'1234'", "revisions = 7", "upto = 'much'"])
async def test_the_list_of_live_rows_is_only_there_to_save_time(path: Path, damage: str) -> None:
    if "upto" in damage:
        sql(path, "DELETE FROM live")
    else:
        sql(path, f"UPDATE live SET {damage}")
    async with await SqliteStore.open(path) as store:
        await check_all_but(store, set())
        assert store.problems() == ()


async def test_damaged_history_is_left_out(path: Path) -> None:
    sql(path, "UPDATE change SET value = x'00' WHERE revision = 52")
    async with await SqliteStore.open(path) as store:
        await check_all_but(store, set())
        assert store.problems() == ()
        page = await store.range("/", revision=1 + COUNT)
        assert len(page.items) == COUNT - 1
        async with store.watch("/", since=1) as watch:
            changes = list(await anext(watch))
            while changes[-1].revision < store.revision:
                changes += await anext(watch)
        assert len(changes) == 2 * COUNT - 1
        assert next(c for c in changes if c.revision == revision_of(50)).previous is None


@pytest.mark.slow
async def test_damaged_pages_hurt_the_objects_in_them(path: Path, random: Random) -> None:
    """Whatever happens to the file, the store opens with most of it, or says why not."""
    clean = path.read_bytes()
    opened = 0
    for round_ in range(25):
        contents = bytearray(clean)
        page = random.randrange(1, len(contents) // 8192)
        kind = round_ % 3
        for offset in range(page * 8192, page * 8192 + 8192):
            contents[offset] = 0 if kind == 0 else random.randrange(256) if kind == 1 else 255
        path.write_bytes(contents)
        path.with_name(path.name + "-wal").unlink(missing_ok=True)
        store = await open_unless_damaged(path)
        if store is None:
            continue
        opened += 1
        items = (await store.range("/")).items
        lost = COUNT - len([item for item in items if item.value == b"second" * 400])
        assert lost <= 20
        assert bool(store.problems()) >= bool(lost)
        # If the page that writes go to is the damaged one, they fail, and say so.
        with suppress(StoreFailed):
            put = await store.put("/pods/new", b"new")
            assert await store.get("/pods/new") == put
        store.check_invariants()
        with suppress(StoreFailed):
            await store.close()
    assert opened > 10


async def open_unless_damaged(path: Path) -> SqliteStore | None:
    try:
        return await SqliteStore.open(path)
    except StoreFailed as error:
        if "is damaged" not in str(error):
            raise
        return None


@pytest.mark.slow
async def test_a_cut_off_file_never_loses_objects_in_silence(path: Path) -> None:
    clean = path.read_bytes()
    for size in range(8192, len(clean), len(clean) // 20):
        path.write_bytes(clean[:size])
        path.with_name(path.name + "-wal").unlink(missing_ok=True)
        store = await open_unless_damaged(path)
        if store is not None:
            items = (await store.range("/")).items
            assert len(items) + len(store.problems()) >= COUNT
            await store.close()


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        (b"", "is empty"),
        (b"this is not a database at all" * 1000, "is damaged"),
        (bytes(100_000), "is damaged"),
    ],
)
async def test_a_file_that_is_no_store_is_refused_by_name(
    tmp_path: Path, contents: bytes, words: str
) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(contents)
    with pytest.raises(StoreFailed, match=words) as caught:
        await SqliteStore.open(path)
    assert str(path) in str(caught.value)
    assert "backup" in str(caught.value)
    # Nothing was made of it.
    assert path.read_bytes() == contents


async def test_other_databases_and_newer_layouts_are_refused(tmp_path: Path, path: Path) -> None:
    other = tmp_path / "other.db"
    sql(other, "CREATE TABLE t(x)")
    with pytest.raises(StoreFailed, match="not a store of pybernetes"):
        await SqliteStore.open(other)
    sql(path, "PRAGMA user_version = 99")
    with pytest.raises(StoreFailed, match="written by a newer pybernetes"):
        await SqliteStore.open(path)


async def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreFailed, match="cannot open"):
        await SqliteStore.open(tmp_path / "file" / "state.db")


async def test_a_creation_that_was_interrupted_is_begun_again(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.with_name("state.db.new").write_bytes(b"half a file")
    async with await SqliteStore.open(path) as store:
        assert await store.put("/a", b"") == KeyValue("/a", b"", 2, 2)
