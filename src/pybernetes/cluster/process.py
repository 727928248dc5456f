"""The background server as a process: started once, found again, stopped.

The server holds a lock on its pid file for as long as it lives, whatever becomes of it; the lock,
not the number in the file, says whether it runs. So a stale file never hides a server, and a pid
that the kernel gave to somebody else is never signalled.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

# A server asked to stop flushes and closes within this; then it is killed.
STOP_SECONDS = 20


class AlreadyRunning(Exception):
    """Another server holds this data directory."""

    def __init__(self, pid: int, directory: Path) -> None:
        super().__init__(
            f"a server is running on {directory} already (pid {pid}); stop it with: p8s down"
        )
        self.pid = pid


@contextmanager
def hold_pid_file(path: Path) -> Iterator[None]:
    """Be the one server of this data directory until the block ends or the process does."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = _pid_in(path)
        os.close(descriptor)
        raise AlreadyRunning(pid or 0, path.parent) from None
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def running_pid(path: Path) -> int | None:
    """The pid of the server that holds the file's lock, or None."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _pid_in(path)
    else:
        return None
    finally:
        os.close(descriptor)


def start(arguments: Sequence[str], log_file: Path, *, prefix: Sequence[str] = ()) -> int:
    """Start `p8s <arguments>` in the background; the read end of its progress pipe.

    `prefix` is put before the command: what enters a network namespace.
    """
    reading, writing = os.pipe()
    command = [
        *prefix,
        sys.executable,
        "-m",
        "pybernetes",
        *arguments,
        f"--progress-fd={writing}",
    ]
    with log_file.open("ab") as log:
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(writing,),
            start_new_session=True,
            cwd="/",
        )
    os.close(writing)
    return reading


def stop(path: Path, *, seconds: float = STOP_SECONDS) -> bool:
    """Ask the server to stop and wait for its lock; False if none was running.

    It is killed if it has not gone after `seconds`: nothing acknowledged is lost by that.
    """
    pid = running_pid(path)
    if pid is None:
        return False
    process = os.pidfd_open(pid)
    try:
        # Between the lock's answer and pidfd_open the pid may have passed to somebody else.
        if running_pid(path) != pid:
            return True
        signal.pidfd_send_signal(process, signal.SIGTERM)
        if not _wait_gone(process, seconds):
            signal.pidfd_send_signal(process, signal.SIGKILL)
            _wait_gone(process, seconds)
    finally:
        os.close(process)
    return True


def _wait_gone(process: int, seconds: float) -> bool:
    """Wait for the process to end, without polling: a pidfd becomes readable then."""
    import select

    poller = select.poll()
    poller.register(process, select.POLLIN)
    return bool(poller.poll(seconds * 1000))


def _pid_in(path: Path) -> int | None:
    try:
        return int(path.read_text().strip())
    except (OSError, ValueError):
        return None
