"""How a starting server tells whoever started it what it has done, and how long each step took.

The starter hands over one end of a pipe (`--progress-fd`); the server writes a JSON object a line.
The pipe's end of file is the end of the start: after a `ready` line it is a success, without one
the server died. Nobody polls, and nobody guesses from a log file.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Step:
    """One line of progress: a step that began, ended or failed; `ready` closes the start."""

    kind: str
    name: str = ""
    seconds: float = 0.0
    message: str = ""


@dataclass(slots=True)
class Progress:
    """Writes steps to the pipe, if there is one; a reader that went away is no error."""

    descriptor: int | None = None
    # Finished steps in order, with the seconds each took: also what benchmarks read.
    durations: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        self._say(Step("begin", name))
        started = time.perf_counter()
        try:
            yield
        except Exception as error:
            self._say(Step("failed", name, time.perf_counter() - started, str(error)))
            raise
        self.durations[name] = time.perf_counter() - started
        self._say(Step("done", name, self.durations[name]))

    def note(self, message: str) -> None:
        """Something the person starting the cluster should know, such as a part left out."""
        self._say(Step("note", message=message))

    def ready(self) -> None:
        self._say(Step("ready"))
        self.close()

    def close(self) -> None:
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None

    def _say(self, step: Step) -> None:
        if self.descriptor is None:
            return
        line = {"kind": step.kind, "name": step.name, "seconds": step.seconds}
        if step.message:
            line["message"] = step.message
        try:
            os.write(self.descriptor, json.dumps(line).encode() + b"\n")
        except BrokenPipeError:
            self.close()


def read_steps(descriptor: int) -> Iterator[Step]:
    """Steps as they come, until the server closes its end."""
    with os.fdopen(descriptor, "rb") as lines:
        for line in lines:
            said = json.loads(line)
            yield Step(said["kind"], said["name"], said["seconds"], said.get("message", ""))
