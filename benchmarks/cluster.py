"""A whole cluster as a process: how soon it is there, what it costs at rest, how fast pods start.

`python -m benchmarks.cluster` prints JSON. Runs in a network namespace of its own without a way
out, which it enters itself; needs root, containerd and kubectl for the real part and says so where
they are missing. Shorter than the figures deserve, for a quick look:

    BENCH_IDLE_SECONDS=5 BENCH_WRITE_SECONDS=10 BENCH_ROUNDS=2 python -m benchmarks.cluster

Seconds are wall clock on a machine that does nothing else; CPU is a share of one core.
"""

from __future__ import annotations

import base64
import ctypes
import http.client
import json
import os
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tests.e2e.conftest import why_not_here
from tests.e2e.images import WEB_1, archives
from tests.e2e.kubectls import default_kubectl
from tests.e2e.lab import P8S, Lab, end, make_lab, remove_lab

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

IDLE_SECONDS = float(os.environ.get("BENCH_IDLE_SECONDS", "60"))
WRITE_SECONDS = float(os.environ.get("BENCH_WRITE_SECONDS", "300"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
# Starts of a fresh cluster; each pays for making its keys.
STARTS = int(os.environ.get("BENCH_STARTS", "3"))
# After a start or a change the process gets this long to come to rest before it is watched.
SETTLE_SECONDS = min(10.0, IDLE_SECONDS)
PODS = 20
PAGE = os.sysconf("SC_PAGE_SIZE")
TICKS = os.sysconf("SC_CLK_TCK")


def main() -> int:
    results: dict[str, Any] = {}
    with laboratory() as lab:
        enter(lab.namespace)
        results["simulated"] = {
            "cold_start": cold_starts(lab, "--simulate"),
            **at_rest(lab, "--simulate", "--nodes=1"),
        }
        if reason := why_not_here():
            results["real"] = {"skipped": reason}
        else:
            results["real"] = {"cold_start": cold_starts(lab), **real(lab)}
    print(json.dumps(results, indent=2))
    return 0


# --- what is measured ---------------------------------------------------------------------------


def cold_starts(lab: Lab, *flags: str) -> dict[str, float]:
    """From the start of the process to /readyz and to a Ready node; the median of some starts."""
    found = []
    for _ in range(STARTS):
        with server(lab, *flags) as started:
            found.append(started.times)
    return {name: rounded(statistics.median(t[name] for t in found)) for name in found[0]}


def at_rest(lab: Lab, *flags: str) -> dict[str, Any]:
    """What a control plane costs that nobody asks anything."""
    with server(lab, *flags) as running:
        time.sleep(SETTLE_SECONDS)
        return {"idle": usage(running.pid, IDLE_SECONDS)}


def real(lab: Lab) -> dict[str, Any]:
    with server(lab) as running:
        load_images(lab)
        time.sleep(SETTLE_SECONDS)
        results: dict[str, Any] = {"idle": usage(running.pid, IDLE_SECONDS)}
        results["idle"] |= written_per_hour(running.pid)
        results["create_to_ready"] = creations(lab, running.api)
        lab.kubectl("create", "deployment", "many", f"--image={WEB_1}")
        ready(running.api, "many", 1)
        results[f"scale_1_to_{PODS}_seconds"] = rounded(scale(lab, running.api, "many", PODS))
        time.sleep(SETTLE_SECONDS)
        results[f"idle_with_{PODS}_pods"] = usage(running.pid, IDLE_SECONDS)
        results[f"scale_{PODS}_to_1_seconds"] = rounded(scale(lab, running.api, "many", 1))
        return results


def usage(pid: int, seconds: float) -> dict[str, float]:
    """Memory and CPU of the server; beside it what its containerd and the shims take."""
    others = [p for p in descendants(pid) if p != pid]
    before, before_others = cpu_of([pid]), cpu_of(others)
    time.sleep(seconds)
    return {
        "rss_mb": rounded(memory_of([pid])),
        "cpu_percent": rounded(100 * (cpu_of([pid]) - before) / seconds),
        "containerd_rss_mb": rounded(memory_of(others)),
        "containerd_cpu_percent": rounded(100 * (cpu_of(others) - before_others) / seconds),
    }


def written_per_hour(pid: int) -> dict[str, float]:
    before = written_by(pid)
    time.sleep(WRITE_SECONDS)
    written = written_by(pid) - before
    return {"written_kb_per_hour": rounded(written / 1000 * 3600 / WRITE_SECONDS)}


def creations(lab: Lab, api: Api) -> dict[str, float]:
    """From typing `kubectl create deployment` to its pod being Ready."""
    seconds = []
    for number in range(ROUNDS):
        name = f"one-{number}"
        started = time.monotonic()
        lab.kubectl("create", "deployment", name, f"--image={WEB_1}")
        ready(api, name, 1)
        seconds.append(time.monotonic() - started)
        lab.kubectl("delete", "deployment", name, "--cascade=foreground")
    return {
        "p50_seconds": rounded(statistics.median(seconds)),
        "max_seconds": rounded(max(seconds)),
    }


def scale(lab: Lab, api: Api, name: str, replicas: int) -> float:
    """Until that many pods are ready, and no others are left."""
    started = time.monotonic()
    lab.kubectl("scale", "deployment", name, f"--replicas={replicas}")
    ready(api, name, replicas)
    there: dict[str, bool] = {}
    for event in api.watch(f"/api/v1/namespaces/default/pods?labelSelector=app%3D{name}"):
        if event["type"] in ("ADDED", "MODIFIED"):
            there[event["object"]["metadata"]["name"]] = True
        elif event["type"] == "DELETED":
            there.pop(event["object"]["metadata"]["name"], None)
        if event["type"] in ("BOOKMARK", "DELETED") and len(there) == replicas:
            break
    return time.monotonic() - started


def ready(api: Api, name: str, replicas: int) -> None:
    path = "/apis/apps/v1/namespaces/default/deployments"
    for event in api.watch(f"{path}?fieldSelector=metadata.name%3D{name}"):
        status = event["object"].get("status", {})
        if status.get("readyReplicas", 0) == replicas == status.get("replicas", 0):
            return


# --- processes ----------------------------------------------------------------------------------


class Started:
    """A server that runs, and how long it took to come that far."""

    def __init__(self, pid: int, api: Api, times: dict[str, float]) -> None:
        self.pid, self.api, self.times = pid, api, times


@contextmanager
def server(lab: Lab, *flags: str) -> Iterator[Started]:
    """`p8s server` on a fresh data directory until its node is Ready, and no trace of it after."""
    log = (lab.directory / "server.log").open("ab")
    began = time.monotonic()
    child = subprocess.Popen(
        [*P8S, "server", f"--data-dir={lab.data_dir}", "--node-name=bench", *flags],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        cwd="/",
    )
    try:
        kubeconfig = lab.data_dir / "kubeconfig"
        api = Api(kubeconfig, lambda: child.poll() is None)
        api.wait_ready()
        times = {"readyz_seconds": time.monotonic() - began}
        for event in api.watch("/api/v1/nodes"):
            conditions = event["object"].get("status", {}).get("conditions", [])
            if any(c["type"] == "Ready" and c["status"] == "True" for c in conditions):
                break
        times["node_ready_seconds"] = time.monotonic() - began
        yield Started(child.pid, api, times)
    finally:
        end(child)
        log.close()
        if lab.data_dir.exists():
            lab.p8s("down", "--purge")


class Api:
    """The API server by plain HTTPS, so that the asking costs little of what is measured."""

    def __init__(self, kubeconfig: Path, alive: Callable[[], bool]) -> None:
        self._kubeconfig = kubeconfig
        self._alive = alive
        self._context: ssl.SSLContext | None = None

    def wait_ready(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self._alive():
            try:
                if self._get("/readyz").status == 200:
                    return
            except (OSError, http.client.HTTPException):
                pass
            # The moment cannot be awaited from outside: nobody is there yet who would tell.
            time.sleep(0.005)
        raise RuntimeError("the server did not become ready")

    def watch(self, path: str) -> Iterator[dict[str, Any]]:
        """What is there, a bookmark, and then every change."""
        mark = "&" if "?" in path else "?"
        options = (
            "watch=true&sendInitialEvents=true&allowWatchBookmarks=true"
            "&resourceVersionMatch=NotOlderThan&timeoutSeconds=120"
        )
        answer = self._get(f"{path}{mark}{options}")
        for line in answer:
            yield json.loads(line)
        raise RuntimeError(f"{path}: what was waited for did not come")

    def _get(self, path: str) -> http.client.HTTPResponse:
        context = self._tls()
        connection = http.client.HTTPSConnection("127.0.0.1", 6443, context=context, timeout=130)
        connection.request("GET", path)
        return connection.getresponse()

    def _tls(self) -> ssl.SSLContext:
        if self._context is None:
            config = yaml.safe_load(self._kubeconfig.read_text())
            user = config["users"][0]["user"]
            authority = config["clusters"][0]["cluster"]["certificate-authority-data"]
            context = ssl.create_default_context(cadata=base64.b64decode(authority).decode())
            with tempfile.NamedTemporaryFile() as pair:
                for name in ("client-certificate-data", "client-key-data"):
                    pair.write(base64.b64decode(user[name]))
                pair.flush()
                context.load_cert_chain(pair.name)
            self._context = context
        return self._context


def descendants(pid: int) -> list[int]:
    """A process and all that came out of it; shims are found by their command line."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            found += [int(child) for child in task.read_text().split()]
    network = Path(f"/proc/{pid}/ns/net").stat().st_ino
    for path in Path("/proc").glob("[0-9]*/comm"):
        try:
            if not path.read_text().startswith("containerd-shim"):
                continue
            if (path.parent / "ns/net").stat().st_ino == network:
                found.append(int(path.parent.name))
        except OSError:
            continue
    return sorted(set(found))


def memory_of(pids: list[int]) -> float:
    """Resident megabytes."""
    pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids]
    return sum(pages) * PAGE / 1e6


def cpu_of(pids: list[int]) -> float:
    """Seconds of CPU so far."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def written_by(pid: int) -> int:
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["write_bytes"])


# --- the place ----------------------------------------------------------------------------------


@contextmanager
def laboratory() -> Iterator[Lab]:
    with ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="p8s-bench-"))
        lab = make_lab(directory, directory.name, kubectl=default_kubectl() or "kubectl")
        home = os.open("/proc/self/ns/net", os.O_RDONLY)
        stack.callback(remove_lab, lab)
        stack.callback(os.close, home)
        stack.callback(_setns, home)
        yield lab


def enter(namespace: str) -> None:
    """Move this process, which has one thread, into a network namespace."""
    descriptor = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        _setns(descriptor)
    finally:
        os.close(descriptor)


def _setns(descriptor: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, 0x40000000):
        raise OSError(ctypes.get_errno(), "cannot enter the network namespace; root may")


def load_images(lab: Lab) -> None:
    for name, content in archives().items():
        path = lab.directory / name
        path.write_bytes(content)
        lab.p8s("image", "load", str(path))


def rounded(value: float) -> float:
    return round(value, 3)


if __name__ == "__main__":
    if os.geteuid() != 0:
        print(json.dumps({"skipped": "network namespaces need root"}))
        sys.exit(0)
    sys.exit(main())
