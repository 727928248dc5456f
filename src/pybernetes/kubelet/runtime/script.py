"""What simulated containers and images do: values, put together by whoever writes a test.

    runtime.script("web", exits(code=1, after=seconds(1)))
    runtime.script("web-*/sidecar", ready(after=seconds(5)), logs("listening", every=seconds(1)))
    runtime.script("db", oom(after=seconds(3)), attempts=2)      # the first two starts only

A pattern is `container-or-pod`, `pod/container` or `namespace/pod/container`, each part with the
wildcards of a shell. All scripts that match are laid over each other, the one given last on top.
Without a script a container starts at once, does what its command says if that is simple enough
(see `simulated_shell`) and else runs for ever, answers probes with yes, and ends with 0 when it is
asked to.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from pybernetes.kubelet.runtime.interface import REASON_OOM_KILLED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ZERO = timedelta(0)


@dataclass(frozen=True, slots=True)
class ExecResult:
    """How a command ends: at once, or after some time."""

    stdout: bytes = b""
    stderr: bytes = b""
    code: int = 0
    after: timedelta = ZERO


# (port, path) → (status, body)
HttpHandler = Callable[[int, str], tuple[int, bytes]]
# command → how it ends; None: not a command of mine
ExecHandler = Callable[[Sequence[str]], ExecResult | None]


@dataclass(frozen=True, slots=True)
class LogLines:
    """Lines written `after` the start, and again `every` so often."""

    lines: tuple[str, ...]
    after: timedelta = ZERO
    every: timedelta | None = None
    is_stderr: bool = False


@dataclass(frozen=True, slots=True)
class Script:
    """Everything that can be said of a container's behaviour. None: not said."""

    exit_after: timedelta | None = None
    exit_code: int | None = None
    exit_reason: str | None = None
    exit_message: str | None = None
    create_error: str | None = None
    start_error: str | None = None
    stop_after: timedelta | None = None
    """None: as soon as it is asked to stop."""
    stop_code: int | None = None
    ignores_stop: bool | None = None
    logs: tuple[LogLines, ...] | None = None
    ready_after: timedelta | None = None
    ready_until: timedelta | None = None
    ports: tuple[int, ...] | None = None
    """Ports it listens on; None: on every port that no other container of the pod claims."""
    http: HttpHandler | None = None
    exec: ExecHandler | None = None
    grpc_serving: bool | None = None
    cpu_nanocores: int | None = None
    memory_bytes: int | None = None


_FIELDS = tuple(field.name for field in dataclasses.fields(Script))
PLAIN = Script()


def overlay(below: Script, above: Script) -> Script:
    """What `above` says, and else what `below` says."""
    said = {name: value for name in _FIELDS if (value := getattr(above, name)) is not None}
    return dataclasses.replace(below, **said)


# --- behaviours -----------------------------------------------------------------------------------


def exits(code: int = 0, *, after: timedelta = ZERO, message: str = "", reason: str = "") -> Script:
    """The process ends by itself. `message` is its termination message."""
    return Script(
        exit_after=after, exit_code=code, exit_reason=reason or None, exit_message=message or None
    )


def oom(after: timedelta = ZERO) -> Script:
    """The kernel kills it for want of memory."""
    return Script(exit_after=after, exit_code=137, exit_reason=REASON_OOM_KILLED)


def fails_to_create(message: str) -> Script:
    return Script(create_error=message)


def fails_to_start(message: str) -> Script:
    """For example: exec: "nosuch": executable file not found in $PATH."""
    return Script(start_error=message)


def stops(after: timedelta = ZERO, *, code: int = 0) -> Script:
    """How it takes being asked to stop."""
    return Script(stop_after=after, stop_code=code, ignores_stop=False)


def ignores_stop() -> Script:
    """It goes on until it is killed at the end of the grace period."""
    return Script(ignores_stop=True)


def logs(
    *lines: str, after: timedelta = ZERO, every: timedelta | None = None, is_stderr: bool = False
) -> Script:
    return Script(logs=(LogLines(lines, after, every, is_stderr),))


def ready(after: timedelta = ZERO, *, until: timedelta | None = None) -> Script:
    """Probes of every kind say yes from then until then, counted from the start."""
    return Script(ready_after=after, ready_until=until)


def never_ready() -> Script:
    return Script(ready_after=timedelta.max)


def listens(*ports: int) -> Script:
    """Only on these ports; without any, on none."""
    return Script(ports=ports)


def serves_grpc(serving: bool = True) -> Script:
    """What a gRPC health check is told, instead of whether it is ready."""
    return Script(grpc_serving=serving)


def http(handler: HttpHandler) -> Script:
    """Answers GET requests."""
    return Script(http=handler)


def execs(results: Mapping[str, ExecResult] | ExecHandler) -> Script:
    """Answers `exec`: a function, or the result for each command line (words joined by blanks)."""
    if callable(results):
        return Script(exec=results)
    table = dict(results)
    return Script(exec=lambda command: table.get(" ".join(command)))


def uses(*, cpu_nanocores: int | None = None, memory_bytes: int | None = None) -> Script:
    """What statistics report. More memory than its limit and it is killed when it starts."""
    return Script(cpu_nanocores=cpu_nanocores, memory_bytes=memory_bytes)


# --- which script is whose ------------------------------------------------------------------------


def pattern_matches(pattern: str, namespace: str, pod: str, container: str) -> bool:
    parts = pattern.split("/")
    if len(parts) == 1:
        return fnmatchcase(pod, pattern) or fnmatchcase(container, pattern)
    names = (pod, container) if len(parts) == 2 else (namespace, pod, container)
    return len(parts) <= 3 and all(map(fnmatchcase, names, parts))


@dataclass(frozen=True, slots=True)
class ScriptLine:
    pattern: str
    script: Script
    attempts: int | None = None
    """Only so many starts of a container, counted from its first."""


class Scripts:
    """All that was scripted, in the order it was; `version` grows with every line."""

    def __init__(self) -> None:
        self._lines: list[ScriptLine] = []

    @property
    def version(self) -> int:
        return len(self._lines)

    def add(self, pattern: str, behaviours: Iterable[Script], attempts: int | None) -> None:
        script, lines = PLAIN, PLAIN.logs
        for behaviour in behaviours:
            script = overlay(script, behaviour)
            # Several calls of `logs` belong together, unlike everything else.
            lines = (lines or ()) + (behaviour.logs or ())
        script = dataclasses.replace(script, logs=lines or None)
        self._lines.append(ScriptLine(pattern, script, attempts))

    def of(self, namespace: str, pod: str, container: str, start: int) -> Script:
        """`start` counts from 0."""
        result = PLAIN
        for line in self._lines:
            if line.attempts is not None and start >= line.attempts:
                continue
            if pattern_matches(line.pattern, namespace, pod, container):
                result = overlay(result, line.script)
        return result


# --- images ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ImageScript:
    """What a pull of an image does."""

    after: timedelta = ZERO
    error: str = ""
    """With {ref} where the full reference is to stand; empty: the pull succeeds."""
    reason: str = "ErrImagePull"
    code: str = "Unknown"
    failures: int | None = None
    """Fails so many times, then succeeds. None: always."""
    wants: str | None = None
    """The user name that is let in all the same."""
    size_bytes: int = 4_000_000
    username: str = ""
    uid: int | None = None


def pulls(
    *, after: timedelta = ZERO, size_bytes: int = 4_000_000, uid: int | None = None, user: str = ""
) -> ImageScript:
    """It exists; and what its configuration says of the user."""
    return ImageScript(after=after, size_bytes=size_bytes, uid=uid, username=user)


def missing(*, failures: int | None = None) -> ImageScript:
    """The registry does not have it."""
    return ImageScript(
        error=(
            'failed to pull and unpack image "{ref}": failed to resolve reference "{ref}": '
            "{ref}: not found"
        ),
        code="NotFound",
        failures=failures,
    )


def unauthorized(*, wants: str | None = None, failures: int | None = None) -> ImageScript:
    """The registry wants other credentials: those of user `wants`."""
    return ImageScript(
        error=(
            'failed to pull and unpack image "{ref}": failed to resolve reference "{ref}": '
            "pull access denied, repository does not exist or may require authorization"
        ),
        wants=wants,
        failures=failures,
    )


def registry_unavailable(*, failures: int | None = None) -> ImageScript:
    return ImageScript(
        error="RegistryUnavailable: the registry of {ref} does not answer",
        reason="RegistryUnavailable",
        failures=failures,
    )
