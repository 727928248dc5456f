"""Container logs as they are shown: CRI log files read from the end, from a time, or followed.

A CRI log has lines of `time stream tag content`; the tag `P` says that the line goes on. A log is
read through the small interface of `LogFile` (size, read, wait), which files on disk and the
simulated runtime's logs in memory both have.

Rule: following costs nothing while nobody writes: the kernel tells (inotify), nobody asks.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

from pybernetes.apimachinery.timestamp import parse_time

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from pybernetes.kubelet.runtime.interface import LogFile
    from pybernetes.kubelet.server import LogOptions

BLOCK = 64 * 1024

# inotify(7): modify, create, delete, moved from, moved to.
_CHANGES = 0x2 | 0x100 | 0x200 | 0x40 | 0x80
_IN_NONBLOCK, _IN_CLOEXEC = os.O_NONBLOCK, os.O_CLOEXEC


class Ended(Protocol):
    """Awaited until the container has ended."""

    def __call__(self) -> asyncio.Future[None]: ...


@dataclass(frozen=True, slots=True)
class Line:
    time: bytes
    stream: bytes
    partial: bool
    content: bytes


def parse_line(line: bytes) -> Line | None:
    """None for what is not a line of a CRI log."""
    parts = line.split(b" ", 3)
    if len(parts) < 4:
        return None
    tag = parts[2].partition(b":")[0]
    return Line(parts[0], parts[1], tag == b"P", parts[3])


class Shown:
    """Turns lines of a CRI log into what the user sees."""

    def __init__(self, options: LogOptions, now: datetime) -> None:
        self._options = options
        self._since = options.since
        if options.since_seconds is not None:
            self._since = now - timedelta(seconds=options.since_seconds)
        self._left = options.limit_bytes
        self._at_line_start = True
        self._wanted = {"Stdout": b"stdout", "Stderr": b"stderr"}.get(options.stream)

    @property
    def is_full(self) -> bool:
        return self._left is not None and self._left <= 0

    def show(self, text: bytes) -> bytes:
        """Of one raw line, without its newline."""
        line = parse_line(text)
        if line is None or (self._wanted is not None and line.stream != self._wanted):
            return b""
        if self._since is not None and _moment(line.time) < self._since:
            return b""
        shown = line.content if line.partial else line.content + b"\n"
        if self._options.timestamps and self._at_line_start:
            shown = line.time + b" " + shown
        self._at_line_start = not line.partial
        if self._left is not None:
            shown = shown[: self._left]
            self._left -= len(shown)
        return shown


def _moment(text: bytes) -> datetime:
    try:
        return parse_time(text.decode())
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)


def tail_offset(log: LogFile, lines: int) -> int:
    """Where the last so many lines begin."""
    end = log.size
    if lines == 0:
        return end
    position, seen = end, 0
    while position > 0:
        start = max(0, position - BLOCK)
        block = log.read(start, position - start)
        at = len(block)
        while (at := block.rfind(b"\n", 0, at)) >= 0:
            # The newline at the very end closes the last line, it begins none.
            if start + at + 1 < end:
                seen += 1
                if seen == lines:
                    return start + at + 1
        position = start
    return 0


async def read_log(log: LogFile, options: LogOptions, now: datetime) -> AsyncIterator[bytes]:
    """The log as it is shown, in chunks; with `follow` until it will not grow any more."""
    shown = Shown(options, now)
    offset = 0 if options.tail_lines is None else tail_offset(log, options.tail_lines)
    rest = b""
    while True:
        block = log.read(offset, BLOCK)
        if block:
            offset += len(block)
            *lines, rest = (rest + block).split(b"\n")
            chunk = b"".join(_limited(shown, lines))
            if chunk:
                yield chunk
            if shown.is_full:
                return
            continue
        if not options.follow:
            break
        size = offset
        await log.wait_longer_than(size)
        if not log.read(offset, 1):
            break
    if rest and (last := shown.show(rest)):
        yield last


def _limited(shown: Shown, lines: list[bytes]) -> Iterator[bytes]:
    for line in lines:
        if shown.is_full:
            return
        yield shown.show(line)


# --- files ----------------------------------------------------------------------------------------


class FileLog:
    """A log on disk, across its rotations: offsets go on counting in the new file."""

    def __init__(self, path: Path, ended: Ended | None = None) -> None:
        """`ended`: when it will not grow any more; None: it does not grow now."""
        self._path = path
        self._ended = ended
        self._file = path.open("rb")
        # The offset that the present file begins at.
        self._base = 0

    @property
    def size(self) -> int:
        return self._base + os.fstat(self._file.fileno()).st_size

    def read(self, offset: int, limit: int) -> bytes:
        data = os.pread(self._file.fileno(), limit, offset - self._base)
        if not data and self._is_rotated():
            # All of the old file has been read; it is not written to any more.
            self._base = offset
            self._file.close()
            self._file = self._path.open("rb")
            data = os.pread(self._file.fileno(), limit, 0)
        return data

    def _is_rotated(self) -> bool:
        try:
            return self._path.stat().st_ino != os.fstat(self._file.fileno()).st_ino
        except OSError:
            return False

    async def wait_longer_than(self, size: int) -> None:
        if self._ended is None:
            return
        ended = self._ended()
        watch = Watch(self._path.parent)
        try:
            while self.size <= size and not self._is_rotated() and not ended.done():
                changed = asyncio.ensure_future(watch.wait())
                try:
                    await asyncio.wait([changed, ended], return_when=asyncio.FIRST_COMPLETED)
                finally:
                    changed.cancel()
        finally:
            watch.close()
            ended.cancel()

    def close(self) -> None:
        self._file.close()


class Watch:
    """Tells when something in a directory is written, made, moved or deleted. One waiter."""

    def __init__(self, directory: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor: int = libc.inotify_init1(_IN_NONBLOCK | _IN_CLOEXEC)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1 failed")
        if libc.inotify_add_watch(self._descriptor, os.fsencode(directory), _CHANGES) < 0:
            code = ctypes.get_errno()
            self.close()
            raise OSError(code, os.strerror(code), str(directory))
        self._changed = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._descriptor, self._drain)

    def _drain(self) -> None:
        with suppress(BlockingIOError):
            while os.read(self._descriptor, 4096):
                pass
        self._changed.set()

    async def wait(self) -> None:
        await self._changed.wait()
        self._changed.clear()

    def close(self) -> None:
        if self._descriptor >= 0:
            with suppress(RuntimeError):
                asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
