"""What a database file needs of the file system and is not SQL."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def remove_database(path: Path) -> None:
    for name in (path.name, path.name + "-wal", path.name + "-journal"):
        path.with_name(name).unlink(missing_ok=True)


def sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def holder_of(path: Path) -> str:
    """Who has locked a file, in words, as far as the kernel tells."""
    with suppress(OSError, ValueError, IndexError):
        inode = str(path.stat().st_ino)
        for line in Path("/proc/locks").read_text().splitlines():
            fields = line.split()
            if fields[5].rpartition(":")[2] == inode and fields[4].isdigit():
                return f"process {fields[4]}"
    return "another process"
