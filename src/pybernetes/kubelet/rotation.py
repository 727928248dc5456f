"""Log rotation: a container's log that has grown too large is renamed, and the runtime reopens it.

Names are upstream's: `0.log`, then `0.log.20260102-150405`, older ones compressed as `….gz`; at most
so many of them. Sizes are looked at now and then, which is one stat per running container.
"""

from __future__ import annotations

import asyncio
import gzip
import logging
import shutil
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from pybernetes.kubelet.config import log_path
from pybernetes.kubelet.pod_state import Stage
from pybernetes.kubelet.runtime.interface import ContainerRuntimeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from pybernetes.kubelet.context import NodeContext
    from pybernetes.kubelet.worker import PodWorker

log = logging.getLogger(__name__)

LOOK_EVERY = timedelta(seconds=10)
SUFFIX = "%Y%m%d-%H%M%S"
COMPRESSED = ".gz"


def surplus(names: Sequence[str], keep: int) -> list[str]:
    """Which rotated logs go, so that at most `keep` are left: the oldest, by their names."""
    ordered = sorted(names)
    return ordered[: max(len(ordered) - keep, 0)]


def rotate_files(path: Path, now: datetime, most_files: int) -> Path:
    """Rename the log, compress what was rotated before; returns its new name. Blocking."""
    rotated = [p for p in path.parent.glob(path.name + ".*") if not p.name.endswith(".tmp")]
    # Of most_files one is the new log, one the log that is being rotated.
    gone = surplus([p.name for p in rotated], max(most_files - 2, 0))
    for old in rotated:
        if old.name in gone:
            old.unlink(missing_ok=True)
        elif not old.name.endswith(COMPRESSED):
            _compress(old)
    target = path.with_name(f"{path.name}.{now:{SUFFIX}}")
    path.rename(target)
    return target


def _compress(path: Path) -> None:
    packed = path.with_name(path.name + COMPRESSED)
    unfinished = packed.with_name(packed.name + ".tmp")
    with path.open("rb") as source, gzip.open(unfinished, "wb") as out:
        shutil.copyfileobj(source, out)
    unfinished.rename(packed)
    path.unlink()


class LogRotation:
    def __init__(self, context: NodeContext) -> None:
        self._context = context

    async def look(self, workers: Iterable[PodWorker]) -> None:
        """Rotate what has grown too large."""
        limit = self._context.config.log_max_bytes
        for worker in workers:
            directory = Path(self._context.config.pod_log_dir(worker.state.pod))
            for record in worker.state.containers.values():
                if record.stage is not Stage.RUNNING or record.latest is None:
                    continue
                path = directory / log_path(record.name, record.latest.attempt)
                try:
                    if path.stat().st_size > limit:
                        await self._rotate(path, record.latest.id)
                except OSError as error:
                    log.debug("log %s: %s", path, error)

    async def _rotate(self, path: Path, container_id: str) -> None:
        now, most = self._context.clock.now(), self._context.config.log_max_files
        target = await asyncio.to_thread(rotate_files, path, now, most)
        try:
            await self._context.runtime.reopen_log(container_id)
        except ContainerRuntimeError as error:
            # The runtime still writes to the renamed file: let it keep its name.
            log.warning("rotating %s: %s", path, error)
            target.rename(path)
