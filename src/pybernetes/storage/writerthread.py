"""The writer thread: everything that may wait for a disk happens here, in order.

One thread for one file. Jobs run in the order they were submitted; results come
back to the event loop, in the same order, as futures. The thread is a daemon: a
process that forgets to close its store still ends, as if it had been killed.

Rule: a job never touches what belongs to the loop, and the loop never calls what
belongs to the thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class WriterThread:
    """Runs jobs one after the other, off the event loop."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        # Jobs not yet begun, with where to put their results. None ends the thread.
        # Bounded by its callers: one commit, and one read for each waiting reader.
        self._jobs: SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]] | None]
        self._jobs = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[], T]) -> asyncio.Future[T]:
        """Run `job` after all earlier ones. Cancelling the future does not stop the job."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._jobs.put((job, future))
        return future

    async def stop(self) -> None:
        """End the thread after the jobs it has. Nothing may be submitted afterwards."""
        last = self.submit(lambda: None)
        self._jobs.put(None)
        await last
        self._thread.join()

    def _run(self) -> None:
        while (item := self._jobs.get()) is not None:
            job, future = item
            result, error = None, None
            try:
                result = job()
            except Exception as caught:
                error = caught
            # A loop that was closed under us has nobody left who waits.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(_finish, future, result, error)
            # Do not keep the last job's data alive until the next one comes.
            del item, job, future, result, error


def _finish(future: asyncio.Future[Any], result: object, error: Exception | None) -> None:
    if future.cancelled():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
