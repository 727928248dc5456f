"""Crashes: `kill -9` of a writing process, and power cuts of a made-up disk.

The rule under test: what was acknowledged as durable is there afterwards, nothing
is half there, and no revision is handed out twice, whoever saw it.

Real in the first: the process, its death, the files. Fake in the second: the disk,
which keeps any part of what was written to it but not synced (`faultydisk`).
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from pybernetes.storage import Compacted, Durability, KeyNotFound, SqliteStore
from tests.storage import crash_child
from tests.storage.faultydisk import FaultyDisk

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

pytestmark = [pytest.mark.realtime, pytest.mark.slow]

KILLS = 12
POWER_CUTS = 40


@dataclass
class Told:
    """What a writing process was told before it died."""

    # By key: the value ("-": deleted) of the last acknowledged durable write.
    kept: dict[str, str] = field(default_factory=dict)
    # By key: what was under way when the process died.
    tried: dict[str, str] = field(default_factory=dict)
    # Every value a relaxed key has had; any of them may be what is left.
    relaxed: dict[str, set[str]] = field(default_factory=dict)
    # The revisions of acknowledged writes; and the newest that anyone saw.
    durable_revisions: list[int] = field(default_factory=list)
    newest: int = 0

    def hear(self, line: str) -> None:
        words = line.split()
        if words[0] == "open":
            assert int(words[1]) >= self.newest, "a revision went back"
            return
        kind, key, durability, value = words[:4]
        if durability == "relaxed":
            self.relaxed.setdefault(key, {"-"}).add(value)
        elif kind == "try":
            self.tried[key] = value
        else:
            self.kept[key] = value
            self.tried.pop(key)
        if kind == "ack":
            revision = int(words[4])
            assert revision not in self.durable_revisions[-500:], "a revision was used twice"
            self.newest = max(self.newest, revision)
            if durability == "durable":
                self.durable_revisions.append(revision)

    def settle(self, present: dict[str, str]) -> None:
        """What was undecided is decided now."""
        for key, value in self.tried.items():
            if present.get(key, "-") == value:
                self.kept[key] = value
        self.tried.clear()
        for key in self.relaxed:
            self.relaxed[key].add(present.get(key, "-"))


async def present_of(store: SqliteStore) -> dict[str, str]:
    items = (await store.range("/key/")).items
    return {item.key: item.value.decode().rstrip("x") for item in items}


async def check(store: SqliteStore, told: Told) -> None:
    assert store.problems() == ()
    assert store.revision >= told.newest
    present = await present_of(store)
    for key in told.kept.keys() | told.tried.keys():
        allowed = {told.kept.get(key, "-")}
        if key in told.tried:
            allowed.add(told.tried[key])
        assert present.get(key, "-") in allowed, f"{key} lost an acknowledged write"
    for key, values in told.relaxed.items():
        assert present.get(key, "-") in values
    told.settle(present)
    await check_history(store, told)
    store.check_invariants()


async def check_history(store: SqliteStore, told: Told) -> None:
    """Resuming from an acknowledged revision leads to the present."""
    for since in told.durable_revisions[-200::50]:
        try:
            before = await store.range("/key/", revision=since)
        except Compacted:
            continue
        state = {item.key: item.value for item in before.items}
        newest = max((item.revision for item in (await store.range("/key/")).items), default=0)
        last = since
        async with store.watch("/key/", since=since) as watch:
            while last < newest:
                for change in await anext(watch):
                    assert change.revision > last
                    last = change.revision
                    if change.value is None:
                        state.pop(change.key, None)
                    else:
                        state[change.key] = change.value
        now = {item.key: item.value for item in (await store.range("/key/")).items}
        # A deletion may be newer than the newest value.
        assert {key: value for key, value in state.items() if key in now} == now


def kill_while_writing(path: Path, told: Told, random: Random) -> None:
    """One life of the writer, ended by SIGKILL at a random moment."""
    log_path = path.with_name("log")
    with log_path.open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, crash_child.__file__, str(path), str(random.random())], stdout=log
        )
        deadline = time.monotonic() + 30
        while log_path.stat().st_size == 0 and time.monotonic() < deadline:
            assert child.poll() is None, "the writer could not start"
            time.sleep(0.005)
        time.sleep(random.uniform(0, 0.7))
        assert child.poll() is None, "the writer died by itself"
        child.kill()
        child.wait()
    for line in log_path.read_text().splitlines():
        told.hear(line)


async def test_kill_9_loses_nothing_acknowledged(tmp_path: Path, random: Random) -> None:
    path, told = tmp_path / "state.db", Told()
    for _ in range(KILLS):
        await asyncio.to_thread(kill_while_writing, path, told, random)
        # Sometimes a second server dies before anyone has looked.
        if random.random() < 0.3:
            continue
        async with await SqliteStore.open(path) as store:
            await check(store, told)
    async with await SqliteStore.open(path) as store:
        await check(store, told)
    assert len(told.durable_revisions) > 100 * KILLS


class Cut:
    """Cuts the power at one write or sync of many; keeps what was known at that moment."""

    def __init__(self, disk: FaultyDisk, at: int, directory: Path, random: Random) -> None:
        self._disk, self._left = disk, at
        self._directory, self._random = directory, random
        self.path: Path | None = None
        # By key: every value written, in the order of the calls. None is a deletion, and
        # the beginning.
        self.tried: dict[str, list[bytes | None]] = {}
        # By key: the place in `tried` of the last write acknowledged as durable.
        self.acked: dict[str, int] = {}
        # The newest revision anyone has been told.
        self.newest = 1
        # `acked` and `newest` at the moment of the cut.
        self.known: tuple[dict[str, int], int] | None = None
        disk.before = self.operate

    def operate(self) -> None:
        """On the writer thread, before each write and sync."""
        self._left -= 1
        if self._left == 0:
            self.known = (dict(self.acked), self.newest)
            self.path = self._disk.survivors(self._directory, self._random)


async def write_until_cut(store: SqliteStore, cut: Cut, random: Random) -> None:
    number = 0
    while cut.known is None:
        writes = []
        for _ in range(random.randint(1, 8)):
            number += 1
            key = f"/{random.randrange(12)}"
            value = b"%d " % number + bytes(random.choice((10, 3000, 30000)))
            durability = random.choice(list(Durability))
            writes.append(write_one(store, cut, key, value, durability))
        await asyncio.gather(*writes)


async def write_one(
    store: SqliteStore, cut: Cut, key: str, value: bytes, durability: Durability
) -> None:
    new = None if value.startswith((b"1", b"2")) else value
    tried = cut.tried.setdefault(key, [None])
    place = len(tried)
    tried.append(new)
    try:
        if new is None:
            done = await store.delete(key, durability=durability)
        else:
            done = await store.put(key, value, durability=durability)
    except KeyNotFound:
        return
    cut.newest = max(cut.newest, done.revision)
    if durability is Durability.DURABLE:
        cut.acked[key] = max(place, cut.acked.get(key, 0))


async def test_a_power_cut_loses_nothing_acknowledged(tmp_path: Path, random: Random) -> None:
    for round_ in range(POWER_CUTS):
        directory = tmp_path / str(round_)
        directory.mkdir()
        disk = FaultyDisk(f"power-{round_}")
        store = await SqliteStore.open(directory / "state.db", vfs=disk.name)
        at = random.randint(1, 400)
        cut = Cut(disk, at, directory / "survivors", random)
        await write_until_cut(store, cut, random)
        disk.before = lambda: None
        await store.close()
        disk.unregister()
        assert cut.path is not None
        assert cut.known is not None
        acked, newest = cut.known
        async with await SqliteStore.open(cut.path) as after:
            assert after.problems() == ()
            assert after.revision >= newest, "a revision went back"
            present = {item.key: item.value for item in (await after.range("/")).items}
            for key, tried in cut.tried.items():
                # Nothing before the last acknowledged write; later ones may have made it.
                allowed = tried[acked.get(key, 0) :]
                assert present.get(key) in allowed, f"{key} lost an acknowledged write"
            after.check_invariants()
