"""The background process: found by its lock, stopped by its id. Real child processes, ended here."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pybernetes.cluster import process
from pybernetes.cluster.progress import Progress, read_steps

if TYPE_CHECKING:
    from pathlib import Path

HOLDER = """
import sys, time
from pathlib import Path
from pybernetes.cluster.process import hold_pid_file
with hold_pid_file(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "pid")], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    return child


def test_the_holder_is_found_and_nobody_else_may_hold(
    holder: subprocess.Popen[str], tmp_path: Path
) -> None:
    path = tmp_path / "pid"
    assert process.running_pid(path) == holder.pid
    with pytest.raises(process.AlreadyRunning, match=f"pid {holder.pid}"):
        process.hold_pid_file(path).__enter__()
    assert process.stop(path)
    assert holder.wait(10) != 0
    assert holder.stdout is not None
    holder.stdout.close()


def test_a_file_that_a_crash_left_says_nothing(
    holder: subprocess.Popen[str], tmp_path: Path
) -> None:
    holder.kill()
    holder.wait()
    assert holder.stdout is not None
    holder.stdout.close()
    path = tmp_path / "pid"
    assert path.read_text().strip() == str(holder.pid)
    assert process.running_pid(path) is None
    assert not process.stop(path)
    with process.hold_pid_file(path):
        assert process.running_pid(path) == os.getpid()


def test_progress_comes_over_the_pipe() -> None:
    reading, writing = os.pipe()
    progress = Progress(writing)
    with progress.step("store"):
        pass
    with pytest.raises(OSError, match="no port"), progress.step("HTTPS"):
        raise OSError("no port")
    progress.note("without DNS")
    progress.ready()
    steps = [(step.kind, step.name, step.message) for step in read_steps(reading)]
    assert steps == [
        ("begin", "store", ""),
        ("done", "store", ""),
        ("begin", "HTTPS", ""),
        ("failed", "HTTPS", "no port"),
        ("note", "", "without DNS"),
        ("ready", "", ""),
    ]


def test_a_reader_that_left_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    progress = Progress(writing)
    with progress.step("store"):
        pass
    assert progress.descriptor is None
