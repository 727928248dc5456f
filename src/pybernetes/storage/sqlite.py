"""The SQLite backend: the journal as one table in one file, and nothing but SQL.

    change    one row for each change, by revision, appended and in time trimmed
    fact      a few numbers: the reserved revision, the floor of the history, ...
    live      the revisions of the live rows at some recent revision

There is no index of keys: it is in memory, where it costs nothing to write (see
docs/adr/0003-sqlite-layout.md for the measurements). A start reads `live`, the rows
after it, and the values of the live rows. Rows carry a checksum; one that cannot be
read, or does not match, is one damaged object and not a damaged store.

One connection, in one thread, which holds the file exclusively. A commit is one SQL
statement wherever possible: every statement gives up the interpreter lock, and
getting it back from a busy event loop takes milliseconds.

Rule: `floor` never passes `live.upto`, so that the rows after `live` always say which
of the revisions in it have been replaced.
"""

from __future__ import annotations

import json
import logging
import os
import zlib
from array import array
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import apsw

from pybernetes.aio.clock import Clock, SystemClock
from pybernetes.storage.durable import REVISION_BLOCK, DurableOptions, DurableStore
from pybernetes.storage.files import (
    has_log,
    holder_of,
    lock_of,
    remove_database,
    set_aside_foreign_log,
    sync_directory,
)
from pybernetes.storage.journal import Commit, Opened, Row, Upkeep, UpkeepDone
from pybernetes.storage.ledger import Gap, end_of
from pybernetes.storage.store import Change, KeyValue, Problem, StoreFailed
from pybernetes.storage.writerthread import WriterThread

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

log = logging.getLogger(__name__)

# "p8s" and a byte to spare, so that `file` and we can tell the file from others.
APPLICATION_ID = 0x70387301
LAYOUT_VERSION = 1

# Check-point when the write-ahead log has grown to this many pages (8 MiB).
WAL_PAGES = 1000
# Upkeep is asked for after this many rows, trims at least that many, and at most these.
UPKEEP_ROWS = 256
TRIM_ROWS = 1000
# The past is read in steps of this many revisions or rows, so that commits get between.
STEP_REVISIONS = 5000
STEP_ROWS = 500
# Rows in one INSERT. SQLite allows 32,766 parameters and the statement cache 16 KiB of SQL.
INSERT_ROWS = 256
# More damaged objects than this, and than a tenth of all, are no store to go on with.
DAMAGE_LIMIT = 10
# A store restored from a backup goes on this far beyond it: more than can have been
# written since, so that no revision is handed out twice.
RESTORE_JUMP = 1_000_000_000

PRAGMAS = (
    "page_size=8192",
    "locking_mode=EXCLUSIVE",
    "journal_mode=WAL",
    "synchronous=FULL",
    "wal_autocheckpoint=0",
    "cache_size=-4096",
)

SCHEMA = f"""
CREATE TABLE change(
    revision INTEGER PRIMARY KEY, previous INTEGER NOT NULL, created INTEGER NOT NULL,
    at INTEGER NOT NULL, checksum INTEGER NOT NULL, key TEXT NOT NULL, value BLOB);
CREATE TABLE fact(name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
CREATE TABLE live(upto INTEGER PRIMARY KEY, revisions BLOB NOT NULL);
INSERT INTO fact VALUES ('reserved', 1), ('clean', 1), ('floor', 1), ('gaps', '[]');
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {LAYOUT_VERSION};
"""


class SqliteStore(DurableStore):
    """The store of a cluster that shall survive."""

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        clock: Clock | None = None,
        options: DurableOptions | None = None,
        vfs: str = "",
    ) -> SqliteStore:
        """Open the file, or make it if there is none. Raises `StoreFailed`, saying why.

        `vfs` names another SQLite file system than the machine's, such as one that fails.
        """
        journal = SqliteJournal(path, vfs)
        thread = WriterThread(f"store {path.name}")
        try:
            opened = await thread.submit(journal.open)
        except BaseException:
            await thread.submit(journal.close)
            await thread.stop()
            raise
        for problem in opened.problems:
            log.error("%s: %s", path, problem.message)
        return cls(
            journal,
            thread,
            opened,
            clock=clock if clock is not None else SystemClock(),
            options=options if options is not None else DurableOptions(),
        )

    async def __aenter__(self) -> SqliteStore:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


def checksum_of(key: str, value: bytes | None) -> int:
    return zlib.crc32(value or b"", zlib.crc32(key.encode()))


@lru_cache(maxsize=INSERT_ROWS)
def _insert_sql(rows: int) -> str:
    return "INSERT INTO change VALUES " + ",".join(["(?,?,?,?,?,?,?)"] * rows)


class SqliteJournal:
    """A `Journal` in an SQLite file. Lives on the writer thread."""

    def __init__(self, path: Path, vfs: str = "") -> None:
        self._path = path
        self._vfs = vfs or None
        self._connection: apsw.Connection | None = None
        # The descriptor that keeps other processes out.
        self._lock: int | None = None
        # Which file we opened, to notice when it is taken away.
        self._identity = (0, 0)
        self._floor = 0
        # The `live` table is complete up to this revision.
        self._live_upto = 0
        self._wal_pages = 0
        self._rows_since_upkeep = 0

    # ---- opening

    def open(self) -> Opened:
        with self._failures("open"):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = lock_of(self._path)
            if not self._path.exists():
                if has_log(self._path):
                    raise StoreFailed(
                        f"{self._path} is missing, though its log {self._path.name}-wal is there. "
                        "Put the file back, or remove the log to begin with an empty cluster."
                    )
                self._create()
            elif self._path.stat().st_size == 0:
                raise StoreFailed(
                    f"{self._path} is empty, so its contents are lost. Put back a backup, or "
                    "remove the file to begin with an empty cluster."
                )
            if aside := set_aside_foreign_log(self._path):
                log.warning("%s was replaced: the old log is now %s", self._path, aside)
            connection = self._connect(self._path)
            self._connection = connection
            self._check_layout(connection)
            try:
                opened = self._load()
            except (KeyError, TypeError, ValueError) as error:
                raise apsw.CorruptError(f"its facts make no sense: {error!r}") from error
        status = self._path.stat()
        self._identity = (status.st_dev, status.st_ino)
        return opened

    def _create(self) -> None:
        """Make the file under another name, so that there is never half a store."""
        fresh = self._path.with_name(self._path.name + ".new")
        remove_database(fresh)
        # Secrets are in there; SQLite gives the log the same permissions.
        os.close(os.open(fresh, os.O_CREAT | os.O_WRONLY, 0o600))
        connection = self._connect(fresh)
        connection.execute("BEGIN IMMEDIATE;" + SCHEMA + "COMMIT").fetchall()
        connection.close()
        fresh.rename(self._path)
        sync_directory(self._path.parent)

    def _connect(self, path: Path) -> apsw.Connection:
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE, vfs=self._vfs)
        # One by one: a statement that answers with a row holds up those behind it.
        for pragma in PRAGMAS:
            connection.execute(f"PRAGMA {pragma}").fetchall()
        if connection.pragma("journal_mode") != "wal":
            raise StoreFailed(f"{path}: this file system cannot hold a write-ahead log")
        connection.set_wal_hook(self._note_wal)
        return connection

    def _note_wal(self, connection: apsw.Connection, name: str, pages: int) -> int:
        self._wal_pages = pages
        return apsw.SQLITE_OK

    def _check_layout(self, connection: apsw.Connection) -> None:
        application = connection.execute("PRAGMA application_id").get
        version = connection.execute("PRAGMA user_version").get
        if application != APPLICATION_ID:
            raise StoreFailed(f"{self._path} is a database, but not a store of pybernetes")
        if version > LAYOUT_VERSION:
            raise StoreFailed(
                f"{self._path} was written by a newer pybernetes (layout {version}, this one "
                f"knows {LAYOUT_VERSION}). Run that version, or put back an older backup."
            )

    def _load(self) -> Opened:
        facts = dict(self._sql("SELECT name, value FROM fact"))
        self._floor = facts["floor"]
        gaps = [Gap(first, last) for first, last in json.loads(facts["gaps"])]
        live, newest, problems = self._load_live()
        items, damaged, unreadable = self._load_items(live)
        problems += unreadable
        if len(damaged) > max(DAMAGE_LIMIT, len(live) // 10):
            # A cluster from which half the objects have vanished would tear itself down.
            raise StoreFailed(
                f"{self._path} is damaged: {len(damaged)} of {len(live)} objects cannot be read. "
                "Put back a backup, or move the file away to begin with an empty cluster."
            )
        newest = max(newest, self._floor)
        reserved = max(facts["reserved"], newest)
        revision = newest
        if "restored" in facts:
            reserved = max(reserved, newest) + RESTORE_JUMP
        if "restored" in facts or facts["clean"] < reserved:
            # Someone may have seen relaxed writes that are lost: go on beyond all of
            # them, and let nobody resume from there.
            gaps.append(Gap(newest + 1, reserved))
            revision = reserved + 1
        gaps = [gap for gap in gaps if gap.last >= self._floor]
        reserved = revision + REVISION_BLOCK
        self._run(
            "BEGIN IMMEDIATE;"
            "INSERT OR REPLACE INTO fact VALUES ('reserved', ?), ('clean', 0), ('gaps', ?);"
            "DELETE FROM fact WHERE name = 'restored';"
            "COMMIT",
            (reserved, json.dumps([[gap.first, gap.last] for gap in gaps])),
        )
        return Opened(items, revision, reserved, self._floor, tuple(gaps), problems, damaged)

    def _load_live(self) -> tuple[list[int], int, list[Problem]]:
        """The revisions of the live rows, the newest revision, and what was wrong."""
        live: set[int] = set()
        problems: list[Problem] = []
        try:
            for upto, packed in self._sql("SELECT upto, revisions FROM live"):
                revisions = array("q")
                revisions.frombytes(zlib.decompress(packed))
                live, self._live_upto = set(revisions), upto
        except (apsw.CorruptError, zlib.error, ValueError, TypeError):
            # It only saves time. All rows say the same.
            live, self._live_upto = set(), 0
        newest = self._live_upto
        for revision, previous, is_deletion in sorted(self._tail(self._live_upto, problems)):
            live.discard(previous)
            if not is_deletion:
                live.add(revision)
            newest = max(newest, revision)
        return sorted(live), newest, problems

    def _tail(self, since: int, problems: list[Problem]) -> Iterator[tuple[int, int, bool]]:
        """Revision, previous and whether it is a deletion, of every readable row after."""
        columns = "SELECT revision, previous, value IS NULL FROM change WHERE revision > ?"
        last = since
        try:
            for row in self._cursor(columns + " ORDER BY revision", (since,)):
                last = row[0]
                yield row
            return
        except apsw.CorruptError:
            pass
        # A damaged page is in the way: take what can be read from the other side.
        first = None
        with suppress(apsw.CorruptError):
            for row in self._cursor(columns + " ORDER BY revision DESC", (last,)):
                first = row[0]
                yield row
        upto = "the end" if first is None else f"revision {first}"
        message = f"the rows between revision {last} and {upto} cannot be read"
        problems.append(Problem("", last + 1, message))

    def _load_items(
        self, live: Sequence[int]
    ) -> tuple[list[KeyValue], dict[int, str], list[Problem]]:
        items: dict[str, KeyValue] = {}
        damaged: dict[int, str] = {}
        unseen = set(live)
        for row in self._rows(live):
            unseen.discard(row[0])
            item = _item_of(row)
            if item is None:
                damaged[row[0]] = row[2] if isinstance(row[2], str) else ""
            else:
                items[item.key] = item
        damaged.update(dict.fromkeys(sorted(unseen), ""))
        problems = [
            Problem(
                key,
                revision,
                f"{key or 'an object'} written at revision {revision} is damaged and left out",
            )
            for revision, key in damaged.items()
        ]
        return list(items.values()), damaged, problems

    def _rows(self, revisions: Sequence[int]) -> Iterator[tuple[Any, ...]]:
        """revision, created, key, value, checksum of these rows, as far as they can be read."""
        columns = "SELECT revision, created, key, value, checksum FROM change WHERE revision "
        seen = set()
        try:
            wanted = json.dumps(list(revisions))
            for row in self._cursor(columns + "IN (SELECT value FROM json_each(?))", (wanted,)):
                seen.add(row[0])
                yield row
            return
        except apsw.CorruptError:
            pass
        for revision in revisions:
            if revision not in seen:
                with suppress(apsw.CorruptError):
                    yield from self._cursor(columns + "= ?", (revision,))

    # ---- writing

    def commit(self, commit: Commit) -> bool:
        with self._failures("write"):
            self._check_identity()
            rows = commit.rows
            plain = commit.reserved is None and commit.live is None and not commit.clean
            if plain and len(rows) <= INSERT_ROWS:
                if rows:
                    self._insert(rows)
            else:
                self._commit_more(commit)
        if commit.live is not None:
            self._live_upto = commit.live[1]
        self._rows_since_upkeep += len(rows)
        return self._rows_since_upkeep >= UPKEEP_ROWS or self._wal_pages >= WAL_PAGES

    def _commit_more(self, commit: Commit) -> None:
        with self._transaction():
            for start in range(0, len(commit.rows), INSERT_ROWS):
                self._insert(commit.rows[start : start + INSERT_ROWS])
            if commit.reserved is not None:
                self._set_fact("reserved", commit.reserved)
            if commit.clean:
                self._set_fact("clean", commit.reserved)
            if commit.live is not None:
                revisions, upto = commit.live
                packed = zlib.compress(revisions.tobytes(), 1)
                self._run("DELETE FROM live; INSERT INTO live VALUES (?, ?)", (upto, packed))

    def _insert(self, rows: Sequence[Row]) -> None:
        values: list[object] = []
        for row in rows:
            values += (
                row.revision,
                row.previous,
                row.created,
                row.at_ms,
                checksum_of(row.key, row.value),
                row.key,
                row.value,
            )
        self._run(_insert_sql(len(rows)), values)

    def _set_fact(self, name: str, value: object) -> None:
        self._run("UPDATE fact SET value = ? WHERE name = ?", (value, name))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._run("BEGIN IMMEDIATE")
        try:
            yield
            self._run("COMMIT")
        except BaseException:
            # SQLite has rolled back by itself after some errors, and not after others.
            if self._open_connection().in_transaction:
                self._run("ROLLBACK")
            raise

    # ---- upkeep

    def upkeep(self, upkeep: Upkeep) -> UpkeepDone:
        with self._failures("trim"):
            self._rows_since_upkeep = 0
            target, is_more = self._expired(upkeep)
            done = self._trim_to(target, again=is_more)
            if self._wal_pages >= WAL_PAGES:
                self._checkpoint()
            return done

    def _expired(self, upkeep: Upkeep) -> tuple[int, bool]:
        """How far the limits want the history trimmed now, and whether that is all."""
        target, count = self._sql(
            "SELECT max(revision), count(*) FROM ("
            "  SELECT revision, at FROM change WHERE revision > ? ORDER BY revision LIMIT ?"
            ") WHERE at < ?",
            (self._floor, TRIM_ROWS, upkeep.expired_before_ms),
        )[0]
        if count >= UPKEEP_ROWS:
            # A few rows at a time would dirty the same pages again and again.
            return target, count == TRIM_ROWS
        pages, free, size = (
            self._sql(f"PRAGMA {name}")[0][0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        excess = (pages - free) * size - upkeep.live_bytes - upkeep.max_history_bytes
        if excess <= 0:
            return self._floor, False
        target = self._sql(
            "SELECT max(revision) FROM ("
            "  SELECT revision FROM change WHERE revision > ? ORDER BY revision LIMIT ?)",
            (self._floor, TRIM_ROWS),
        )[0][0]
        return target or self._floor, target is not None

    def trim(self, revision: int) -> UpkeepDone:
        with self._failures("trim"):
            target = self._sql(
                "SELECT max(revision) FROM (SELECT revision FROM change"
                " WHERE revision > ? AND revision <= ? ORDER BY revision LIMIT ?)",
                (self._floor, revision, TRIM_ROWS),
            )[0][0]
            # Without rows in between, the floor can go all the way.
            last_step = target is None
            return self._trim_to(max(revision if last_step else target, 0), again=not last_step)

    def _trim_to(self, target: int, *, again: bool) -> UpkeepDone:
        """Delete what was replaced or was a deletion up to `target`, and raise the floor."""
        if target <= self._floor:
            return UpkeepDone(self._floor)
        if target > self._live_upto:
            return UpkeepDone(self._floor, wants_live=True)
        span = (self._floor, target)
        with self._transaction():
            self._run(
                "DELETE FROM change WHERE revision IN"
                " (SELECT previous FROM change WHERE revision > ? AND revision <= ?)",
                span,
            )
            self._run(
                "DELETE FROM change WHERE revision > ? AND revision <= ? AND value IS NULL", span
            )
            self._set_fact("floor", target)
        self._floor = target
        return UpkeepDone(target, again=again)

    def _checkpoint(self) -> None:
        """Move the log into the file. Readers and the log's own reset cost nothing here."""
        self._sql("PRAGMA wal_checkpoint(PASSIVE)")
        self._wal_pages = 0

    # ---- reading the past

    def changes(self, prefix: str, since: int, until: int) -> tuple[list[Change], int]:
        with self._failures("read"):
            stop = min(until, since + STEP_REVISIONS)
            condition, bounds = _key_condition(prefix)
            rows = self._sql(
                "SELECT c.revision, c.key, c.value, c.checksum, c.created > c.previous,"
                "  p.key, p.value, p.checksum"
                " FROM change c LEFT JOIN change p ON p.revision = c.previous"
                f" WHERE c.revision > ? AND c.revision <= ? AND {condition}"
                " ORDER BY c.revision LIMIT ?",
                (since, stop, *bounds, STEP_ROWS),
            )
            changes = []
            for revision, key, value, checksum, created, *before in rows:
                if not isinstance(key, str) or checksum != checksum_of(key, value):
                    log.error("%s: the change at revision %d is damaged", self._path, revision)
                    continue
                previous = None
                if before[0] is not None and before[2] == checksum_of(before[0], before[1]):
                    previous = None if created else before[1]
                changes.append(Change(key, value, previous, revision, bool(created)))
            return changes, rows[-1][0] if len(rows) == STEP_ROWS else stop

    def replaced(self, prefix: str, since: int, until: int) -> tuple[dict[str, int], int]:
        with self._failures("read"):
            stop = min(until, since + STEP_REVISIONS)
            condition, bounds = _key_condition(prefix)
            rows = self._sql(
                "SELECT key, previous, created > previous FROM change c"
                f" WHERE revision > ? AND revision <= ? AND {condition} ORDER BY revision",
                (since, stop, *bounds),
            )
            found: dict[str, int] = {}
            for key, previous, created in rows:
                found.setdefault(key, 0 if created else previous)
            return found, stop

    def read(self, revisions: Sequence[int]) -> list[KeyValue]:
        with self._failures("read"):
            items = (_item_of(row) for row in self._rows(revisions))
            return [item for item in items if item is not None]

    # ---- backup, closing

    def backup(self, path: Path) -> None:
        with self._failures("back up"):
            partial = path.with_name(path.name + ".partial")
            remove_database(partial)
            os.close(os.open(partial, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600))
            target = apsw.Connection(str(partial), flags=apsw.SQLITE_OPEN_READWRITE)
            try:
                with target.backup("main", self._open_connection(), "main") as copy:
                    copy.step(-1)
                target.execute("INSERT OR REPLACE INTO fact VALUES ('restored', 1)")
                target.execute("PRAGMA journal_mode=DELETE")
            finally:
                target.close()
            partial.rename(path)
            sync_directory(path.parent)

    def size_bytes(self) -> int:
        log_path = self._path.with_name(self._path.name + "-wal")
        return sum(path.stat().st_size for path in (self._path, log_path) if path.exists())

    def close(self) -> None:
        """Let go of the file. What was committed stays in the log if it cannot be moved."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except apsw.Error as error:
                log.warning("%s: closed without a check-point: %s", self._path, error)
                connection.close(force=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # ---- the edge

    def _open_connection(self) -> apsw.Connection:
        if self._connection is None:
            raise StoreFailed(f"{self._path} is not open")
        return self._connection

    def _cursor(self, sql: str, parameters: Sequence[object] = ()) -> Iterator[Any]:
        return self._open_connection().execute(sql, parameters)

    def _sql(self, sql: str, parameters: Sequence[object] = ()) -> list[Any]:
        return list(self._cursor(sql, parameters))

    def _run(self, sql: str, parameters: Sequence[object] = ()) -> None:
        self._open_connection().execute(sql, parameters).fetchall()

    def _check_identity(self) -> None:
        """Refuse to write into a file that has no name any more: nobody would find it."""
        try:
            status = self._path.stat()
        except FileNotFoundError:
            status = None
        if status is None or (status.st_dev, status.st_ino) != self._identity:
            raise StoreFailed(
                f"{self._path} was removed or replaced while the server was using it. "
                "Stop the server, put the file back, and start again."
            )

    @contextmanager
    def _failures(self, doing: str) -> Iterator[None]:
        """Say what SQLite's errors mean, and what to do."""
        try:
            yield
        except (apsw.BusyError, BlockingIOError) as error:
            raise StoreFailed(
                f"{self._path} is in use by {holder_of(self._path)}. Two servers cannot share "
                "a data directory: stop the other one, or give this one its own."
            ) from error
        except (apsw.NotADBError, apsw.CorruptError) as error:
            raise StoreFailed(
                f"{self._path} is damaged ({error}). Move it away together with its -wal file, "
                "and put back a backup, or start without it to begin with an empty cluster."
            ) from error
        except apsw.FullError as error:
            raise StoreFailed(
                f"cannot {doing} {self._path}: the disk is full. Make room; the server goes "
                "on by itself."
            ) from error
        except (apsw.Error, OSError) as error:
            raise StoreFailed(f"cannot {doing} {self._path}: {error}") from error


def _item_of(row: tuple[Any, ...]) -> KeyValue | None:
    """The value of a row as `_rows` yields it, or None if it is not what was written."""
    revision, created, key, value, checksum = row
    if not isinstance(key, str) or not isinstance(value, bytes) or not isinstance(created, int):
        return None
    if checksum != checksum_of(key, value) or not 0 < created <= revision:
        return None
    return KeyValue(key, value, revision, created)


def _key_condition(prefix: str) -> tuple[str, tuple[str, ...]]:
    end = end_of(prefix)
    if end is None:
        return "c.key >= ?", (prefix,)
    return "c.key >= ? AND c.key < ?", (prefix, end)
