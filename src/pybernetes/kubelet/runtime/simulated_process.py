"""What goes on inside a simulated container when somebody looks: readiness, and commands."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta
from typing import TYPE_CHECKING

from pybernetes.kubelet.runtime.interface import ContainerState
from pybernetes.kubelet.runtime.script import ZERO, ExecResult
from pybernetes.kubelet.runtime.simulated_stream import SimulatedProcess, echo_input

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from pybernetes.kubelet.runtime.simulated_state import Container

EXIT_COMMAND = re.compile(r"exit (\d+)")


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
    match list(command):
        case ["true"]:
            return ExecResult()
        case ["false"]:
            return ExecResult(code=1)
        case ["echo", *words]:
            return ExecResult(stdout=" ".join(words).encode() + b"\n")
        case ["sleep", seconds]:
            return ExecResult(after=timedelta(seconds=float(seconds)))
        case ["hostname"]:
            return ExecResult(stdout=container.sandbox.spec.hostname.encode() + b"\n")
        case ["env"]:
            lines = [f"{name}={value}\n" for name, value in container.spec.env]
            return ExecResult(stdout="".join(lines).encode())
        case ["sh" | "/bin/sh", "-c", text] if found := EXIT_COMMAND.fullmatch(text.strip()):
            return ExecResult(code=int(found[1]))
    return None


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

    if result.after:
        loop = asyncio.get_running_loop()
        process.timer = loop.call_later(result.after.total_seconds(), finish)
    else:
        finish()
    return process
