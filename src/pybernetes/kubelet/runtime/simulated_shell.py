"""What very simple commands do, so that simulated containers need no script for them.

Understood: `true`, `false`, `echo`, `sleep`, `exit`, `env`, `hostname`, `cat` of nothing, alone or
as `sh -c` of a list of them joined by `;`, `&&` or newlines, with `>&2`. A command that is not
understood is not guessed at: `run` gives None.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SHELLS = ("sh", "/bin/sh", "bash", "/bin/bash", "ash", "/bin/ash")
SEPARATORS = re.compile(r"\s*(?:;|&&|\n)\s*")
FOR_EVER = ("inf", "infinity")


@dataclass(frozen=True, slots=True)
class Printed:
    after: timedelta
    data: bytes
    is_stderr: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """What a command prints, and when; and how it ends. `after` None: never."""

    printed: tuple[Printed, ...] = ()
    after: timedelta | None = timedelta(0)
    code: int = 0

    @property
    def stdout(self) -> bytes:
        return b"".join(item.data for item in self.printed if not item.is_stderr)

    @property
    def stderr(self) -> bytes:
        return b"".join(item.data for item in self.printed if item.is_stderr)


def run(command: Sequence[str], env: Mapping[str, str], hostname: str) -> Run | None:
    """How the command goes, or None."""
    parts = _parts(command)
    if parts is None:
        return None
    printed: list[Printed] = []
    now, code = timedelta(0), 0
    for words in parts:
        is_stderr = words[-1:] in (["1>&2"], [">&2"])
        match words[:-1] if is_stderr else words:
            case ["true"] | [":"]:
                code = 0
            case ["false"]:
                code = 1
            case ["echo", *texts]:
                printed.append(Printed(now, " ".join(texts).encode() + b"\n", is_stderr))
                code = 0
            case ["env"]:
                lines = "".join(f"{name}={value}\n" for name, value in env.items())
                printed.append(Printed(now, lines.encode(), is_stderr))
                code = 0
            case ["hostname"]:
                printed.append(Printed(now, hostname.encode() + b"\n", is_stderr))
                code = 0
            case ["sleep", text] if text in FOR_EVER:
                return Run(tuple(printed), None)
            case ["sleep", text] if re.fullmatch(r"\d+(\.\d+)?", text):
                now += timedelta(seconds=float(text))
                code = 0
            case ["exit", *number] if all(text.isdigit() for text in number):
                return Run(tuple(printed), now, int(number[0]) if number else code)
            case _:
                return None
    return Run(tuple(printed), now, code)


def _parts(command: Sequence[str]) -> list[list[str]] | None:
    """The simple commands of it, in order."""
    match list(command):
        case [shell, "-c", text] if shell in SHELLS:
            # Substitutions, pipes, redirections and control structures are more than we know.
            if re.search(r"[$`|<(){}]|>(?!&2)|(?<![>&])&(?!&)", text):
                return None
            # With `&&` what follows `false` is left out; nobody writes that, so it is not known.
            if "&&" in text and "false" in text:
                return None
            try:
                return [shlex.split(part) for part in SEPARATORS.split(text.strip()) if part]
            except ValueError:
                return None
        case [name, *rest]:
            return [[name.rpartition("/")[2], *rest]]
    return None
