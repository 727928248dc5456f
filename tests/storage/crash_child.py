"""A process that writes to a store until it is killed, and says what it was told.

    python crash_child.py DATABASE SEED > LOG

Each line of the log is written before (`try`) or after (`ack`) a write, with one
system call, so that whatever the store has acknowledged is in the log, whenever
the process dies. Each key has one writer, so at most one write of it is undecided.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from datetime import timedelta
from pathlib import Path

from pybernetes.storage import Durability, DurableOptions, HistoryLimits, SqliteStore

WRITERS = 24


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


async def write(store: SqliteStore, number: int, chance: random.Random) -> None:
    key = f"/key/{number}"
    durability = Durability.RELAXED if number % 3 == 0 else Durability.DURABLE
    current = await store.get(key)
    count = 0
    while True:
        count += 1
        if_revision = current.revision if current else 0
        if current is not None and chance.random() < 0.2:
            say("try", key, durability.value, "-")
            gone = await store.delete(key, if_revision=if_revision, durability=durability)
            say("ack", key, durability.value, "-", gone.revision)
            current = None
        else:
            value = f"{os.getpid()}.{count}."
            padding = "x" * chance.choice((0, 10, 2000, 20000))
            say("try", key, durability.value, value)
            current = await store.put(
                key, (value + padding).encode(), if_revision=if_revision, durability=durability
            )
            say("ack", key, durability.value, value, current.revision)
        if durability is Durability.RELAXED:
            await asyncio.sleep(0.002)


async def main(path: Path, seed: str) -> None:
    # Everything small, so that all of it happens within a short life.
    options = DurableOptions(
        history=HistoryLimits(size_bytes=4_000_000),
        window=HistoryLimits(size_bytes=100_000),
        flush_new_after=timedelta(milliseconds=20),
        flush_overwrites_after=timedelta(milliseconds=50),
    )
    store = await SqliteStore.open(path, options=options)
    assert not store.problems(), store.problems()
    say("open", store.revision)
    async with asyncio.TaskGroup() as group:
        for number in range(WRITERS):
            group.create_task(write(store, number, random.Random(f"{seed}/{number}")))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
