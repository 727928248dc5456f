"""A cluster started by the built product, in a network namespace without a way out.

Everything goes through the commands a user has: `p8s` and an unmodified `kubectl`, both run
inside the namespace. Nothing sleeps: waiting is `kubectl wait`, or reading a watch until
something holds, and always bounded.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e import traces
from tests.e2e.kubectls import version_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

P8S = (sys.executable, "-m", "pybernetes")
# Longer than anything here takes on a machine that is busy with other things as well.
PATIENCE = 90.0
# What commands see of our environment.
_KEPT = ("PATH", "LANG", "TERM", "PYTHONPATH")


class Failed(AssertionError):
    """A command ended with an error that the test did not expect."""


@dataclass(frozen=True, slots=True)
class Ran:
    """What a finished command said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def text(self) -> str:
        """Both streams, for what may appear in either."""
        return self.out + self.err


@dataclass(eq=False)
class Lab:
    """One network namespace, one data directory, at most one cluster."""

    namespace: str
    directory: Path
    kubectl_path: str = "kubectl"
    # The kubeconfig that kubectl uses, where it is not the cluster's own.
    kubeconfig: Path | None = None
    _children: list[subprocess.Popen[bytes]] = field(default_factory=list)
    # Interfaces that were there before anything ran here: the test's own.
    _interfaces: list[str] = field(default_factory=list)

    @property
    def data_dir(self) -> Path:
        return self.directory / "cluster"

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        return {
            **kept,
            # kubectl keeps what it discovered below HOME; another cluster must not see it.
            "HOME": str(self.directory / "home"),
            "TMPDIR": str(self.directory / "home"),
            "KUBECONFIG": str(self.kubeconfig or self.data_dir / "kubeconfig"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def inside(self, arguments: Sequence[str]) -> list[str]:
        if not self._interfaces:
            self._interfaces = traces.interfaces(self.namespace)
        return ["nsenter", f"--net=/run/netns/{self.namespace}", *arguments]

    def run(
        self,
        *arguments: str,
        check: bool = True,
        stdin: str | bytes | None = None,
        timeout: float = PATIENCE,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Ran:
        """Run a command inside the namespace to its end."""
        done = self.run_bytes(*arguments, stdin=stdin, timeout=timeout, env=env, cwd=cwd)
        ran = Ran(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode())
        if check and ran.code:
            raise Failed(f"{' '.join(arguments)[:500]}: exit code {ran.code}\n{ran.text[:4000]}")
        return ran

    def run_bytes(
        self,
        *arguments: str,
        stdin: str | bytes | None = None,
        timeout: float = PATIENCE,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        given = stdin.encode() if isinstance(stdin, str) else stdin
        try:
            return subprocess.run(
                self.inside(arguments),
                input=given,
                stdin=subprocess.DEVNULL if given is None else None,
                capture_output=True,
                timeout=timeout,
                env={**self.environment, **(env or {})},
                cwd=cwd,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            said = ((error.stdout or b"") + (error.stderr or b"")).decode(errors="replace")
            raise Failed(
                f"{' '.join(arguments)[:500]}: no end after {timeout:g} s\n{said[-2000:]}"
            ) from None

    def start(
        self, *arguments: str, stdin: int | None = None, stderr: int | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a command inside the namespace; it is ended when the lab is closed."""
        child = subprocess.Popen(
            self.inside(arguments),
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if stderr is None else stderr,
            env=self.environment,
        )
        self._children.append(child)
        return child

    def p8s(self, *arguments: str, check: bool = True, timeout: float = PATIENCE) -> Ran:
        command = (*P8S, *arguments, f"--data-dir={self.data_dir}")
        try:
            return self.run(*command, check=check, timeout=timeout)
        except Failed as error:
            raise Failed(f"{error}\n{self.last_words()}") from None

    def last_words(self) -> str:
        """The end of the server's log, for whoever reads why a test failed."""
        log = self.data_dir / "server.log"
        return log.read_text()[-3000:] if log.exists() else "no server ever wrote a log"

    def kubectl(
        self,
        *arguments: str,
        namespace: str = "",
        check: bool = True,
        stdin: str | bytes | None = None,
        timeout: float = PATIENCE,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Ran:
        return self.run(
            *self.kubectl_command(*arguments, namespace=namespace),
            check=check,
            stdin=stdin,
            timeout=timeout,
            env=env,
            cwd=cwd,
        )

    def kubectl_command(self, *arguments: str, namespace: str = "") -> list[str]:
        flags = [f"--namespace={namespace}"] if namespace else []
        return [self.kubectl_path, *flags, *arguments]

    def get(self, *arguments: str, namespace: str = "") -> Any:
        return self.kubectl("get", *arguments, "-o", "json", namespace=namespace).json

    def wait_for(
        self,
        *target: str,
        holds: Callable[[dict[str, Any]], bool],
        namespace: str = "",
        timeout: float = PATIENCE,
        what: str = "",
    ) -> dict[str, Any]:
        """Watch until `holds` of one of the objects, and return that one.

        A deleted object has `DELETED` in its metadata.
        """
        last: dict[str, Any] = {}
        for obj in self.watch(*target, namespace=namespace, timeout=timeout):
            last = obj
            if holds(obj):
                return obj
        shown = json.dumps({"metadata": last.get("metadata"), "status": last.get("status")})
        raise Failed(f"{' '.join(target)}: {what or 'it'} did not come; last: {shown[:3000]}")

    def watch(
        self, *target: str, namespace: str = "", timeout: float = PATIENCE
    ) -> Iterator[dict[str, Any]]:
        """Every state of the objects, until the time is over."""
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            # A watch on one name wants the object to exist; as a field selector it need not.
            command = self.kubectl_command(
                "get", *_by_field(target), "--watch", "--output-watch-events", "-o", "json",
                namespace=namespace,
            )  # fmt: skip
            child = self.start(*command)
            try:
                for event in _documents(child, left):
                    obj = event["object"]
                    if event["type"] == "DELETED":
                        obj["metadata"]["DELETED"] = True
                    yield obj
            finally:
                end(child)
                self._children.remove(child)

    def events(self, name: str, namespace: str) -> str:
        """What happened to an object, a line each."""
        selector = f"--field-selector=involvedObject.name={name}"
        return self.kubectl("get", "events", selector, namespace=namespace).out

    def wait_for_replicas(
        self, target: str, count: int, namespace: str, field: str = "readyReplicas"
    ) -> None:
        self.wait_for(
            target, namespace=namespace, what=f"{count} {field}",
            holds=lambda obj: obj["status"].get(field, 0) == count,
        )  # fmt: skip

    def pods(self, selector: str, namespace: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get("pods", "-l", selector, namespace=namespace)["items"]
        return found

    def roll_out(self, target: str, namespace: str, timeout: float = PATIENCE) -> str:
        command = ("rollout", "status", target, f"--timeout={timeout:g}s")
        return self.kubectl(*command, namespace=namespace, timeout=timeout + 10).out

    def server_pid(self) -> int:
        return int((self.data_dir / "server.pid").read_text())

    def needs(self, version: str) -> None:
        """Skip the test where only an older kubectl is to be had."""
        have = version_of(self.kubectl_path)
        if [int(part) for part in have.split(".")] < [int(part) for part in version.split(".")]:
            pytest.skip(f"kubectl {have} cannot do this yet, {version} can")

    def is_own(self, trace: str) -> bool:
        return trace in {f"interface {name}" for name in self._interfaces}

    def close(self) -> None:
        for child in self._children:
            end(child)


def end(child: subprocess.Popen[bytes]) -> None:
    """End a process that we started, and its pipes."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait(5)
    for pipe in (child.stdin, child.stdout, child.stderr):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def _by_field(target: tuple[str, ...]) -> tuple[str, ...]:
    """`pod/x` or `pod x` as `pod --field-selector metadata.name=x`."""
    kind, slash, name = target[0].partition("/")
    if slash:
        return (kind, "--field-selector", f"metadata.name={name}", *target[1:])
    return target


def _documents(child: subprocess.Popen[bytes], seconds: float) -> Iterator[dict[str, Any]]:
    """JSON documents of a process's output, one after the other, while it runs and time is left."""
    assert child.stdout is not None
    chunks: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read(source: int) -> None:
        while chunk := os.read(source, 65536):
            chunks.put(chunk)
        chunks.put(b"")

    # A copy of its own, so that the pipe may be closed under the reader.
    source = os.dup(child.stdout.fileno())

    def read_and_close() -> None:
        try:
            read(source)
        finally:
            os.close(source)

    threading.Thread(target=read_and_close, daemon=True).start()
    deadline = time.monotonic() + seconds
    decoder = json.JSONDecoder()
    text = ""
    while (left := deadline - time.monotonic()) > 0:
        try:
            chunk = chunks.get(timeout=left)
        except queue.Empty:
            return
        if not chunk:
            return
        text += chunk.decode(errors="replace")
        while text := text.lstrip():
            try:
                document, length = decoder.raw_decode(text)
            except ValueError:
                break
            yield document
            text = text[length:]


def make_lab(directory: Path, name: str, *, kubectl: str = "kubectl") -> Lab:
    """A namespace with loopback and nothing else, and a directory."""
    # Short, because sockets and mounts have it in their names.
    lab = Lab(name, directory, kubectl)
    (directory / "home").mkdir(parents=True, exist_ok=True)
    subprocess.run(["ip", "netns", "add", name], check=True)
    subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
    return lab


def remove_lab(lab: Lab) -> None:
    """Take its cluster down by the product's own command; then nothing may be left."""
    lab.close()
    found = traces.look(lab.namespace, lab.data_dir)
    try:
        if (lab.data_dir / "cluster.json").exists():
            lab.p8s("down", "--purge")
        left = [
            trace
            for trace in traces.left(found, lab.namespace, lab.data_dir)
            if not lab.is_own(trace)
        ]
    finally:
        traces.end_processes_in(lab.namespace)
        subprocess.run(["ip", "netns", "delete", lab.namespace], check=True)
        traces.unmount_below(lab.directory)
        shutil.rmtree(lab.directory, ignore_errors=True)
    assert not left, "p8s down --purge left behind:\n  " + "\n  ".join(left)
