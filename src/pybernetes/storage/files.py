"""What a database file needs of the file system and is not SQL."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def remove_database(path: Path) -> None:
    for name in (path.name, path.name + "-wal", path.name + "-journal"):
        path.with_name(name).unlink(missing_ok=True)


def has_log(path: Path) -> bool:
    return path.with_name(path.name + "-wal").exists()


def set_aside_foreign_log(path: Path) -> Path | None:
    """Move a log away that belongs to another file; returns where to.

    SQLite would apply it, and make a mess of a backup that was put in the place of a
    database whose server was killed. A backup is not in write-ahead mode (its header
    says so, at offset 18), and a store that has a log always is.
    """
    with path.open("rb") as file:
        header = file.read(20)
    if header[18:19] != b"\x01" or not has_log(path):
        return None
    aside = path.with_name(path.name + "-wal.replaced")
    path.with_name(path.name + "-wal").rename(aside)
    return aside


def sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lock_of(path: Path) -> int:
    """Lock a database for this process; the descriptor holds the lock until it is closed.

    A file of its own, since SQLite's locks are POSIX locks: a process loses those on a
    file as soon as any part of it opens the file and closes it again.
    """
    descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def holder_of(path: Path) -> str:
    """Who has locked a database, in words, as far as it is known."""
    with suppress(OSError, ValueError):
        return f"process {int(path.with_name(path.name + '.lock').read_text())}"
    return "another process"
