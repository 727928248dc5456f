"""A disk that can be told to fail, to stall, or to lose power. SQLite writes through it.

It keeps, for every file, what has been synced and the writes since then. After a
power cut a disk may hold any of those, whole or torn, in any combination, and
`survivors` makes one such disk up.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

SECTOR = 512


class Image:
    """One file: synced contents, and what was written since, in order."""

    def __init__(self, contents: bytes) -> None:
        self.synced = bytearray(contents)
        # (offset, data), or (size, None) for a truncation.
        self.pending: list[tuple[int, bytes | None]] = []

    def sync(self) -> None:
        for offset, data in self.pending:
            _write(self.synced, offset, data)
        self.pending.clear()

    def survivor(self, random: Random) -> bytes:
        contents = bytearray(self.synced)
        for offset, data in self.pending:
            fate = random.random()
            if fate < 0.4:
                continue
            if fate < 0.6 and data is not None:
                data = data[: random.randrange(0, len(data) + 1, SECTOR)]
            _write(contents, offset, data)
        return bytes(contents)


def _write(contents: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        del contents[offset:]
        return
    if len(contents) < offset:
        contents.extend(bytes(offset - len(contents)))
    contents[offset : offset + len(data)] = data


class FaultyDisk(apsw.VFS):
    """An SQLite file system over the real one. Register, use by `name`, `unregister`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.images: dict[str, Image] = {}
        # Raised by every write and sync while set.
        self.error: Exception | None = None
        # Syncs wait for it.
        self.may_sync = threading.Event()
        self.may_sync.set()
        # Called before every write, sync and truncation, on the writer thread.
        self.before: Callable[[], None] = lambda: None
        self.bytes_written = 0
        super().__init__(name, "")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        return FaultyFile(self, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        self.images.pop(filename, None)
        super().xDelete(filename, syncdir)

    def survivors(self, directory: Path, random: Random) -> Path:
        """What is left after a power cut now, in `directory`; the path of the database."""
        directory.mkdir()
        database = None
        for name, image in self.images.items():
            path = directory / Path(name).name
            path.write_bytes(image.survivor(random))
            if path.suffix == ".db":
                database = path
        assert database is not None
        return database


class FaultyFile(apsw.VFSFile):
    def __init__(self, disk: FaultyDisk, name: Any, flags: list[int]) -> None:
        self._disk = disk
        filename = name.filename() if isinstance(name, apsw.URIFilename) else name
        path = Path(filename) if filename else None
        contents = path.read_bytes() if path is not None and path.exists() else b""
        self._image = Image(contents)
        if filename:
            self._image = disk.images.setdefault(filename, self._image)
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        self._disk.before()
        if self._disk.error is not None:
            raise self._disk.error
        self._disk.bytes_written += len(data)
        self._image.pending.append((offset, bytes(data)))
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:
        self._disk.before()
        self._image.pending.append((newsize, None))
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:
        self._disk.before()
        self._disk.may_sync.wait(timeout=30)
        if self._disk.error is not None:
            raise self._disk.error
        super().xSync(flags)
        self._image.sync()
