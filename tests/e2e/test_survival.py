"""What a cluster must survive: its server killed under load, its container runtime killed."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e import traces
from tests.e2e.images import BOX, WEB_1
from tests.e2e.lab import end
from tests.e2e.objects import deployment, pod

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.e2e.lab import Lab


@pytest.fixture(scope="module")
def victim(
    labs: Callable[[], AbstractContextManager[Lab]], image_archives: list[Path]
) -> Iterator[Lab]:
    """A cluster of this module's own: what happens to it nobody else shall see."""
    with labs() as lab:
        lab.p8s("up")
        for path in image_archives:
            lab.p8s("image", "load", str(path))
        lab.kubectl("apply", "-f", "-", stdin=deployment("web", WEB_1, replicas=3))
        lab.kubectl("expose", "deployment", "web", "--port=80", "--target-port=8080")
        lab.roll_out("deployment/web", "default")
        yield lab


# Writes as fast as it is answered, and says what was acknowledged. Each line comes after the answer.
_WRITER = """
import http.client, json, ssl, sys
ca, certificate, key, port, name = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
context.load_cert_chain(certificate, key)
connection = http.client.HTTPSConnection("127.0.0.1", int(port), context=context, timeout=30)
for number in range(1_000_000):
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"{name}-{number}"}}
    connection.request("POST", "/api/v1/namespaces/default/configmaps", json.dumps(body),
                       {"Content-Type": "application/json"})
    answer = connection.getresponse()
    made = json.loads(answer.read())
    if answer.status == 201:
        print(made["metadata"]["name"], made["metadata"]["resourceVersion"], flush=True)
"""


def test_kill_9_under_load_loses_nothing_acknowledged(victim: Lab) -> None:
    before = containers_of(victim)
    newest = revision(victim)
    old = victim.server_pid()
    writers = [Writer(victim, f"w{number}") for number in range(3)]
    try:
        for writer in writers:
            writer.wait_for(50)
        os.kill(old, signal.SIGKILL)
        acknowledged = dict(pair for writer in writers for pair in writer.finish())
    finally:
        for writer in writers:
            writer.end()
    assert len(acknowledged) >= 150

    again = victim.p8s("up")
    assert "ready after" in again.out
    assert victim.server_pid() != old
    kept = {
        c["metadata"]["name"]: c["metadata"]["resourceVersion"]
        for c in victim.get("configmaps", namespace="default")["items"]
    }
    lost = set(acknowledged.items()) - set(kept.items())
    assert not lost
    # At most one write of each writer was on its way without an answer.
    assert len(set(kept) - set(acknowledged) - {"kube-root-ca.crt"}) <= len(writers)
    assert revision(victim) > max(newest, *map(int, acknowledged.values()))

    # The same containers, which nobody restarted, and they still serve.
    victim.kubectl("wait", "--for=condition=Ready", "pod", "-l", "app=web", "--timeout=60s")
    assert containers_of(victim) == before
    assert fetch(victim) == "version 1\n"
    victim.kubectl("delete", "configmap", "--all", "--wait=false")


def test_a_restarted_server_goes_on_with_the_work(victim: Lab) -> None:
    """Killed in the middle of a rollout; whoever starts it again finds it finished."""
    victim.kubectl("scale", "deployment", "web", "--replicas=8")
    os.kill(victim.server_pid(), signal.SIGKILL)
    victim.p8s("up")
    victim.roll_out("deployment/web", "default")
    pods = victim.pods("app=web", "default")
    assert len({p["status"]["podIP"] for p in pods}) == 8
    victim.kubectl("scale", "deployment", "web", "--replicas=3")
    victim.wait_for_replicas("deployment/web", 3, "default", "replicas")


def test_what_died_meanwhile_is_noticed(victim: Lab) -> None:
    """A container that dies and a pod that is deleted while nobody looks."""
    victim.kubectl("apply", "-f", "-", stdin=pod("lone", BOX, "exec sleep 7203"))
    victim.kubectl("wait", "--for=condition=Ready", "pod/lone")
    identity = victim.get("pod", "lone")["status"]["containerStatuses"][0]["containerID"]
    (process, *_) = traces.processes_in_cgroup(identity.removeprefix("containerd://"))
    os.kill(victim.server_pid(), signal.SIGKILL)
    os.kill(process, signal.SIGKILL)
    victim.p8s("up")
    victim.wait_for(
        "pod/lone",
        holds=lambda p: (
            p["status"]["containerStatuses"][0]["restartCount"] == 1
            and p["status"]["containerStatuses"][0]["ready"]
        ),
    )
    victim.kubectl("delete", "pod", "lone")


def test_watches_resume_where_they_were_cut_off(victim: Lab) -> None:
    """What happened just before the server died is told to whoever asks from before it."""
    known = revision(victim)
    watching = victim.start(*victim.kubectl_command("get", "cm", "-w", "-o", "name"))
    assert watching.stdout is not None
    assert watching.stdout.readline().startswith(b"configmap/")
    victim.kubectl("create", "cm", "before")
    os.kill(victim.server_pid(), signal.SIGKILL)
    # kubectl itself ends when its watch is cut.
    watching.wait(30)
    end(watching)
    victim.p8s("up")
    victim.kubectl("create", "cm", "after")
    path = f"/api/v1/namespaces/default/configmaps?watch=true&resourceVersion={known}"
    told = victim.kubectl("get", "--raw", f"{path}&timeoutSeconds=2").out.splitlines()
    names = [json.loads(line)["object"]["metadata"]["name"] for line in told]
    assert names == ["before", "after"]
    old = "/api/v1/configmaps?watch=true&resourceVersion=1&timeoutSeconds=2"
    gone = victim.kubectl("get", "--raw", old, check=False)
    # Kept or compacted: one of the two, never a gap.
    assert gone.code == 0 or '"code":410' in gone.text.replace(" ", "")
    victim.kubectl("delete", "cm", "before", "after")


def test_containerd_killed_is_seen_and_survived(victim: Lab) -> None:
    before = containers_of(victim)
    (node,) = victim.get("nodes")["items"]
    name = node["metadata"]["name"]
    (daemon,) = containerds(victim)
    # Stopped, so that nobody can start it again before the node has been looked at.
    os.kill(daemon, signal.SIGSTOP)
    try:
        lost = victim.wait_for(
            f"node/{name}", holds=lambda n: ready_of(n)["status"] != "True", what="NotReady"
        )
        assert "container runtime" in ready_of(lost)["message"]
    finally:
        os.kill(daemon, signal.SIGKILL)
    victim.wait_for(f"node/{name}", holds=lambda n: ready_of(n)["status"] == "True")
    assert containerds(victim) != [daemon]
    victim.kubectl("wait", "--for=condition=Ready", "pod", "-l", "app=web", "--timeout=60s")
    assert containers_of(victim) == before
    victim.kubectl("run", "after", f"--image={BOX}", "--", "sleep", "3600")
    victim.kubectl("wait", "--for=condition=Ready", "pod/after", "--timeout=60s")
    victim.kubectl("delete", "pod", "after", "--now")


def test_down_without_purge_and_up_again_keeps_the_objects(victim: Lab) -> None:
    before = containers_of(victim)
    assert "p8s up brings them back" in victim.p8s("down").out
    assert traces.pod_namespaces(victim.namespace) == frozenset()
    assert containerds(victim) == []
    stopped = victim.p8s("status", check=False)
    assert (stopped.code, "is stopped" in stopped.out) == (3, True)
    victim.p8s("up")
    # Its containers are gone: each pod gets new ones, and keeps its name.
    for name, (identity, _) in before.items():
        victim.wait_for(f"pod/{name}", namespace="default", holds=has_another(identity))
    assert fetch(victim) == "version 1\n"


def has_another(identity: str) -> Callable[[dict[str, Any]], bool]:
    """Whether a pod's container is ready and not the one with this id."""

    def holds(obj: dict[str, Any]) -> bool:
        (status,) = obj["status"]["containerStatuses"]
        return bool(status["ready"]) and status.get("containerID") != identity

    return holds


class Writer:
    """A client that creates objects one after the other and notes what was acknowledged."""

    def __init__(self, lab: Lab, name: str) -> None:
        from tests.e2e.rawhttp import credentials

        host, port, *paths = credentials(lab)
        assert host == "127.0.0.1"
        self._child = lab.start(sys.executable, "-c", _WRITER, *paths, port, name)
        self._lines: list[tuple[str, str]] = []
        self._came = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_for(self, count: int) -> None:
        with self._came:
            assert self._came.wait_for(lambda: len(self._lines) >= count, 60)

    def finish(self) -> list[tuple[str, str]]:
        """Everything acknowledged until the server went away."""
        self._child.wait(60)
        self._reader.join(10)
        return self._lines

    def end(self) -> None:
        end(self._child)

    def _read(self) -> None:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            name, _, version = line.decode().strip().partition(" ")
            with self._came:
                self._lines.append((name, version))
                self._came.notify_all()


def containers_of(lab: Lab) -> dict[str, tuple[str, int]]:
    """Container id and restarts of each pod of the web server."""
    return {
        p["metadata"]["name"]: (
            p["status"]["containerStatuses"][0]["containerID"],
            p["status"]["containerStatuses"][0]["restartCount"],
        )
        for p in lab.pods("app=web", "default")
    }


def revision(lab: Lab) -> int:
    """The newest one: kubectl's own lists do not say it."""
    return int(
        json.loads(lab.kubectl("get", "--raw", "/api/v1/configmaps?limit=1").out)["metadata"][
            "resourceVersion"
        ]
    )


def fetch(lab: Lab) -> str:
    address = lab.get("service", "web")["spec"]["clusterIP"]
    program = f"import urllib.request as u; print(u.urlopen('http://{address}/', timeout=10).read().decode(), end='')"
    return lab.run(sys.executable, "-c", program).out


def containerds(lab: Lab) -> list[int]:
    """The containerd processes of this cluster (not their shims)."""
    found = []
    for pid, _ in traces.processes_in({lab.namespace}):
        words = traces.command_of(pid).split()
        if words and words[0].endswith("containerd"):
            found.append(pid)
    return found


def ready_of(node: dict[str, Any]) -> dict[str, Any]:
    conditions = {c["type"]: c for c in node["status"].get("conditions", [])}
    found: dict[str, Any] = conditions["Ready"]
    return found
