"""The two programs of the system we run: nft for the rules, ip for links, addresses and routes.

Both take a whole script on their standard input, so that a change costs one process.

Rule: whatever goes wrong becomes a NetworkError whose sentence says what to do about it.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# Debian's package for each program.
_PACKAGES = {"nft": "nftables", "ip": "iproute2", "bridge": "iproute2"}
_TIMEOUT_SECONDS = 60.0
_NO_PERMISSION = ("Operation not permitted", "Permission denied")


class NetworkError(Exception):
    """The network of this machine could not be set up; the message says what to do."""


def find_program(name: str) -> str:
    """The path of a program, also where root's programs are when PATH leaves them out."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if path is None:
        package = _PACKAGES.get(name, name)
        raise NetworkError(f"{name} is not installed; install it with: apt-get install {package}")
    return path


def run_program(arguments: Sequence[str], text: str = "") -> str:
    """Run a program with `text` on its standard input; its output, or NetworkError."""
    command = [find_program(arguments[0]), *arguments[1:]]
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise NetworkError(
            f"{arguments[0]} did not answer for {_TIMEOUT_SECONDS:g} s; see what it waits for with ps"
        ) from None
    except OSError as error:
        raise NetworkError(f"cannot run {command[0]}: {error.strerror}") from error
    if done.returncode != 0:
        raise NetworkError(explain(arguments, done.stderr))
    return done.stdout


def run_nft(script: str) -> None:
    """Load a script, all of it or nothing."""
    run_program(("nft", "-f", "-"), script)


def run_ip(lines: Sequence[str], *, force: bool = False) -> None:
    """Carry out `ip` commands in one process; `force` goes on after a command that failed."""
    if lines:
        arguments = ("ip", "-force", "-batch", "-") if force else ("ip", "-batch", "-")
        run_program(arguments, "\n".join(lines) + "\n")


async def load_nft(script: str) -> None:
    await asyncio.to_thread(run_nft, script)


def explain(arguments: Sequence[str], stderr: str) -> str:
    """One sentence about why a program failed, and what to do."""
    said = first_line(stderr)
    if any(text in stderr for text in _NO_PERMISSION):
        return (
            f"{arguments[0]} may not change this machine's network ({said});"
            " run p8s as root, or try it without containers: p8s up --simulate"
        )
    if arguments[0] == "nft" and ("No such file" in stderr or "not supported" in stderr):
        return (
            f"the kernel lacks something the packet rules need ({said}); load the modules"
            " nf_tables, nft_chain_nat, nft_masq, nft_numgen, nft_fib_ipv4 and nft_reject_ipv4"
        )
    return f"{' '.join(arguments)} failed: {said}"


def explain_os_error(error: OSError, doing: str) -> str:
    if error.errno in (errno.EPERM, errno.EACCES):
        return f"{doing} is not permitted; run p8s as root, or p8s up --simulate"
    if error.errno in (errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT, errno.EINVAL):
        return f"{doing} is not supported by this kernel; load the module nf_tables (modprobe nf_tables)"
    return f"{doing} failed: {error.strerror}"


def first_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0] if lines else "no reason given"
