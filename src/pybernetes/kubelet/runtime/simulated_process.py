"""What goes on inside a simulated container when somebody looks: readiness, and commands."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

from pybernetes.kubelet.runtime.interface import ContainerState
from pybernetes.kubelet.runtime.script import ZERO, ExecResult
from pybernetes.kubelet.runtime.simulated_shell import run
from pybernetes.kubelet.runtime.simulated_stream import SimulatedProcess, echo_input

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from pybernetes.kubelet.runtime.simulated_shell import Run
    from pybernetes.kubelet.runtime.simulated_state import Container


def is_ready(container: Container, now: datetime) -> bool:
    """Whether its probes would be answered with yes."""
    if container.state is not ContainerState.RUNNING or container.started_at is None:
        return False
    script, age = container.script, now - container.started_at
    if script.ready_until is not None and age >= script.ready_until:
        return False
    return age >= (script.ready_after or ZERO)


def result_of(container: Container, command: Sequence[str], now: datetime) -> ExecResult:
    """How a command in this container ends: as scripted, as such commands do, or as it is ready."""
    handler = container.script.exec
    result = handler(command) if handler is not None else None
    if result is None:
        result = _usual_result(container, command)
    if result is None:
        result = ExecResult(code=0 if is_ready(container, now) else 1)
    return result


def _usual_result(container: Container, command: Sequence[str]) -> ExecResult | None:
    usual = run_of(container, command)
    if usual is None:
        return None
    after = timedelta.max if usual.after is None else usual.after
    return ExecResult(usual.stdout, usual.stderr, usual.code, after)


def run_of(container: Container, command: Sequence[str]) -> Run | None:
    spec = container.spec
    return run(command, dict(spec.env), container.sandbox.spec.hostname)


def start_process(container: Container, command: Sequence[str], now: datetime) -> SimulatedProcess:
    """The same, as a stream; `cat` sends its input back."""
    if list(command) == ["cat"]:
        return SimulatedProcess(echo_input)
    result = result_of(container, command, now)
    process = SimulatedProcess()

    def finish() -> None:
        process.emit(result.stdout)
        process.emit(result.stderr, is_stderr=True)
        process.exit(result.code)

    if result.after == timedelta.max:
        pass  # until it is closed
    elif result.after:
        loop = asyncio.get_running_loop()
        process.timer = loop.call_later(result.after.total_seconds(), finish)
    else:
        finish()
    return process
