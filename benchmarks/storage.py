"""How fast the SQLite store is and what it costs; prints JSON.

    python -m benchmarks.storage [--directory DIR] [--seconds S]

writes      durable puts of 2 KB by 1, 16 and 128 concurrent writers: per second, per
            CPU-second of the whole process, and bytes written to files per payload byte
reads       get, and range over 10,000 objects
start       opening a store of 10,000 objects of 2 KB, and the memory that takes
idle        bytes per hour for 10 leases renewed every 10 s: two days are played, as
            fast as it goes, with the flushes they would have; the second is counted,
            which has the trimming of the first in it
loop        how late the event loop is at worst while 128 writers write

Bytes written are what system calls wrote (`wchar` of /proc/self/io): on an idle
machine a little more reaches the disk, by the file system's own doing.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pybernetes.storage import Durability, DurableOptions, MemoryStore, SqliteStore

VALUE_BYTES = 2000
OBJECTS = 10_000


class PlayedClock:
    """A calendar that is turned by hand."""

    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return time.monotonic()


def bytes_written() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("wchar")).split()[1])


def resident_kib() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


async def measure_writes(directory: Path, writers: int, seconds: float) -> dict[str, Any]:
    async with await SqliteStore.open(directory / f"writes-{writers}.db") as store:
        count = 0
        deadline = time.monotonic() + seconds

        async def write(number: int) -> None:
            nonlocal count
            while time.monotonic() < deadline:
                await store.put(
                    f"/registry/pods/ns/{number}-{count % 1000}", os.urandom(VALUE_BYTES)
                )
                count += 1

        written, cpu, begun = bytes_written(), time.process_time(), time.monotonic()
        await asyncio.gather(*(write(number) for number in range(writers)))
        took, cpu = time.monotonic() - begun, time.process_time() - cpu
        written = bytes_written() - written
        commits = store.statistics().commits
        return {
            "per_second": round(count / took),
            "per_cpu_second": round(count / cpu),
            "writes_per_commit": round(count / commits, 1),
            "bytes_per_payload_byte": round(written / (count * VALUE_BYTES), 2),
        }


async def measure_loop(directory: Path) -> dict[str, float]:
    """How long the loop is held up at a time by 128 writers, at worst and usually."""
    delays: list[float] = []

    async def tick() -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.001)
            delays.append(time.monotonic() - before - 0.001)

    async with await SqliteStore.open(directory / "loop.db") as store:
        ticking = asyncio.create_task(tick())
        for _ in range(100):
            await asyncio.gather(*(store.put(f"/a/{n}", bytes(VALUE_BYTES)) for n in range(128)))
        ticking.cancel()
    delays.sort()
    return {
        "p50_ms": round(delays[len(delays) // 2] * 1000, 2),
        "p99_ms": round(delays[len(delays) * 99 // 100] * 1000, 2),
    }


async def measure_reads(store: Any) -> dict[str, float]:
    await asyncio.gather(
        *(store.put(f"/registry/pods/ns/{n:05}", bytes(VALUE_BYTES)) for n in range(OBJECTS))
    )
    begun = time.process_time()
    for number in range(OBJECTS):
        await store.get(f"/registry/pods/ns/{number:05}")
    get = time.process_time() - begun
    begun = time.process_time()
    await store.range("/registry/pods/")
    whole = time.process_time() - begun
    return {
        "get_us": round(get / OBJECTS * 1e6, 2),
        "range_10000_ms": round(whole * 1000, 2),
    }


async def measure_start(directory: Path) -> dict[str, float]:
    """In a process of its own, so that its memory is its own."""
    path = directory / "start.db"
    async with await SqliteStore.open(path) as store:
        for _ in range(3):
            await asyncio.gather(
                *(
                    store.put(f"/registry/pods/ns/{n:05}", os.urandom(VALUE_BYTES))
                    for n in range(OBJECTS)
                )
            )
    script = f"import benchmarks.storage as b; b.report_start({str(path)!r})"
    root = Path(__file__).resolve().parent.parent
    output = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", script], cwd=root, capture_output=True, check=True
    )
    result: dict[str, float] = json.loads(output.stdout)
    return result


def report_start(path: str) -> None:
    async def start() -> None:
        gc.collect()
        before = resident_kib()
        begun = time.monotonic()
        async with await SqliteStore.open(Path(path)) as store:
            took = time.monotonic() - begun
            print(
                json.dumps(
                    {
                        "open_ms": round(took * 1000, 1),
                        "rss_empty_kib": before,
                        "rss_added_kib": resident_kib() - before,
                        "values_kib": store.statistics().live_bytes // 1024,
                    }
                )
            )

    asyncio.run(start())


async def measure_idle(directory: Path) -> dict[str, Any]:
    clock = PlayedClock()
    # Never by itself: flushes are played at the moments they would come.
    options = DurableOptions(
        flush_new_after=timedelta(days=9), flush_overwrites_after=timedelta(days=9)
    )
    every = DurableOptions().flush_overwrites_after
    path = directory / "idle.db"
    async with await SqliteStore.open(path, clock=clock, options=options) as store:
        names = [f"/registry/leases/kube-node-lease/node-{n}" for n in range(10)]
        for number in range(500):
            await store.put(f"/registry/configmaps/ns/{number}", bytes(VALUE_BYTES))
        for name in names:
            await store.put(name, bytes(450))
        per_day = []
        for _ in range(2):
            written = bytes_written()
            for _ in range(int(timedelta(days=1) / every)):
                for _ in range(int(every / timedelta(seconds=10))):
                    clock.time += timedelta(seconds=10)
                    for name in names:
                        await store.put(name, os.urandom(450), durability=Durability.RELAXED)
                await store.flush()
                await asyncio.sleep(0.001)
            per_day.append(bytes_written() - written)
        return {
            "bytes_per_hour_first_day": per_day[0] // 24,
            "bytes_per_hour": per_day[1] // 24,
            "file_bytes": path.stat().st_size,
        }


async def run(directory: Path, seconds: float) -> dict[str, Any]:
    writes = {
        str(writers): await measure_writes(directory, writers, seconds) for writers in (1, 16, 128)
    }
    async with await SqliteStore.open(directory / "reads.db") as store:
        reads = await measure_reads(store)
    memory = MemoryStore()
    begun = time.process_time()
    memory_reads = await measure_reads(memory)
    memory_write = time.process_time() - begun
    begun = time.process_time()
    memory.fork()
    fork = time.process_time() - begun
    return {
        "writes": writes,
        "loop": await measure_loop(directory),
        "reads": reads,
        "start": await measure_start(directory),
        "idle": await measure_idle(directory),
        "memory": {
            **memory_reads,
            "put_us": round(memory_write / OBJECTS * 1e6, 2),
            "fork_10000_ms": round(fork * 1000, 2),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the store.")
    parser.add_argument("--directory", type=Path, help="where to write; default: a temporary one")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of each write test")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
        print(json.dumps(asyncio.run(run(Path(directory), arguments.seconds)), indent=2))


if __name__ == "__main__":
    main()
