"""Container logs: files as the runtime writes them, read as the user wants them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from pybernetes.kubelet.logs import FileLog, read_log, tail_offset
from pybernetes.kubelet.rotation import rotate_files, surplus
from pybernetes.kubelet.server import LogOptions

if TYPE_CHECKING:
    from pathlib import Path

    from pybernetes.kubelet.runtime.interface import LogFile

NOW = datetime(2026, 1, 1, 0, 1, tzinfo=UTC)


def line(second: int, text: str, stream: str = "stdout", tag: str = "F") -> bytes:
    return f"2026-01-01T00:00:{second:02}.123456789Z {stream} {tag} {text}\n".encode()


LOG = line(1, "one") + line(2, "half ", tag="P") + line(3, "whole") + line(4, "bad", "stderr")


class Bytes:
    """A log that does not grow."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def size(self) -> int:
        return len(self._data)

    def read(self, offset: int, limit: int) -> bytes:
        # Small reads, to cut lines in the middle.
        return self._data[offset : offset + min(limit, 7)]

    async def wait_longer_than(self, size: int) -> None:
        return


async def shown(log: LogFile, options: LogOptions) -> str:
    return b"".join([chunk async for chunk in read_log(log, options, NOW)]).decode()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        pytest.param(LogOptions(), "one\nhalf whole\nbad\n", id="all"),
        pytest.param(LogOptions(stream="Stderr"), "bad\n", id="one stream"),
        pytest.param(LogOptions(limit_bytes=6), "one\nha", id="limited"),
        pytest.param(LogOptions(limit_bytes=0), "", id="nothing"),
        pytest.param(LogOptions(since=NOW - timedelta(seconds=57)), "whole\nbad\n", id="since"),
        pytest.param(LogOptions(since_seconds=56), "bad\n", id="since seconds"),
        pytest.param(
            LogOptions(timestamps=True, since_seconds=56),
            "2026-01-01T00:00:04.123456789Z bad\n",
            id="with times",
        ),
        pytest.param(LogOptions(follow=True), "one\nhalf whole\nbad\n", id="followed to its end"),
    ],
)
async def test_what_is_shown(options: LogOptions, text: str) -> None:
    assert await shown(Bytes(LOG), options) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, ""), (1, "bad\n"), (2, "whole\nbad\n"), (9, "one\nhalf whole\nbad\n")]
)
async def test_tails(count: int, text: str, tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_bytes(LOG)
    log = FileLog(path)
    assert await shown(log, LogOptions(tail_lines=count)) == text
    log.close()


def test_a_long_tail_is_found_block_by_block(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_bytes(b"".join(line(1, f"{n:>100}") for n in range(10_000)))
    log = FileLog(path)
    one = path.stat().st_size // 10_000
    assert tail_offset(log, 5000) == one * 5000
    assert tail_offset(log, 20_000) == 0
    log.close()


@pytest.mark.realtime
async def test_a_log_is_followed_across_its_rotation(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_bytes(line(1, "one"))
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    log = FileLog(path, lambda: asyncio.ensure_future(asyncio.shield(ended)))
    seen: list[bytes] = []

    async def follow() -> None:
        async for chunk in read_log(log, LogOptions(follow=True), NOW):
            seen.append(chunk)

    following = asyncio.create_task(follow())
    await asyncio.sleep(0.05)
    assert seen == [b"one\n"]
    with path.open("ab") as file:
        file.write(line(2, "two"))
    await asyncio.sleep(0.05)
    rotate_files(path, NOW, 5)
    path.write_bytes(line(3, "three"))
    await asyncio.sleep(0.05)
    with path.open("ab") as file:
        file.write(line(4, "four"))
    await asyncio.sleep(0.05)
    assert not following.done()
    ended.set_result(None)
    await asyncio.wait_for(following, 2)
    assert b"".join(seen) == b"one\ntwo\nthree\nfour\n"
    log.close()


def test_rotated_logs_are_compressed_and_few(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    for number in range(8):
        path.write_bytes(LOG)
        rotate_files(path, NOW + timedelta(seconds=number), 5)
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == [
        "0.log.20260101-000104.gz",
        "0.log.20260101-000105.gz",
        "0.log.20260101-000106.gz",
        "0.log.20260101-000107",
    ]


def test_the_oldest_go_first() -> None:
    assert surplus(["c", "a", "b"], 2) == ["a"]
    assert surplus(["c"], 2) == []
