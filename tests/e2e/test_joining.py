"""A machine joins another's cluster by a token: two namespaces with a cable between them."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.e2e.images import WEB_1
from tests.e2e.lab import P8S, end
from tests.e2e.objects import deployment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.e2e.lab import Lab

# Of the range for tests of networks (RFC 2544).
SERVER, WORKER = "198.18.9.1", "198.18.9.2"


@pytest.fixture
def machines(labs: Callable[[], AbstractContextManager[Lab]]) -> Iterator[tuple[Lab, Lab]]:
    """The server's machine and another one, in one layer-2 network of their own."""
    with labs() as server, labs() as worker:
        commands = (
            f"-n {server.namespace} link add eth0 type veth"
            f" peer name eth0 netns {worker.namespace}",
            f"-n {server.namespace} address add {SERVER}/24 dev eth0",
            f"-n {worker.namespace} address add {WORKER}/24 dev eth0",
            f"-n {server.namespace} link set eth0 up",
            f"-n {worker.namespace} link set eth0 up",
        )
        for command in commands:
            subprocess.run(["ip", *command.split()], check=True)
        yield server, worker
        # Ours, not the product's: the labs look for what the product left behind.
        cable = ["ip", "-n", server.namespace, "link", "delete", "eth0"]
        subprocess.run(cable, check=True)


def invitation(server: Lab) -> list[str]:
    """The words that `p8s token` says to type on the other machine."""
    said = server.p8s("token").out
    found = re.search(r"p8s agent (--server \S+ --token \S+) \\\n\s+(--ca-hash \S+)", said)
    assert found is not None, said
    return f"{found[1]} {found[2]}".split()


def test_a_machine_joins_and_runs_pods(
    machines: tuple[Lab, Lab], image_archives: list[Path]
) -> None:
    server, worker = machines
    server.p8s("up", f"--advertise-address={SERVER}", "--disable-agent")
    words = [*invitation(server), "--node-name=worker", f"--address={WORKER}"]
    agent_dir = worker.directory / "agent"
    agent = worker.start(*P8S, "agent", f"--data-dir={agent_dir}", *words)
    try:
        server.wait_for("node/worker", holds=lambda _: True)
        server.kubectl("wait", "node/worker", "--for=condition=Ready", "--timeout=60s")
        for path in image_archives:
            worker.run(*P8S, "image", "load", f"--data-dir={agent_dir}", str(path))
        server.kubectl("apply", "-f", "-", stdin=deployment("web", WEB_1, replicas=2))
        server.roll_out("deployment/web", "default")
        pods = server.pods("app=web", "default")
        assert {pod["spec"]["nodeName"] for pod in pods} == {"worker"}
        # The API server reaches the agent of the other machine, too.
        said = server.kubectl("exec", "deployment/web", "--", "hostname").out.strip()
        assert said in {pod["metadata"]["name"] for pod in pods}
    finally:
        end(agent)
        worker.run(*P8S, "down", "--purge", f"--data-dir={agent_dir}")
    assert not agent_dir.exists()


def test_a_wrong_hash_or_token_is_refused(machines: tuple[Lab, Lab]) -> None:
    server, worker = machines
    server.p8s("up", f"--advertise-address={SERVER}", "--disable-agent")
    words = invitation(server)
    for word, wrong, sentence in (
        ("--ca-hash", f"sha256:{'0' * 64}", "does not have the CA of --ca-hash"),
        ("--token", "abcdef.0123456789abcdef", "Unauthorized"),
    ):
        given = list(words)
        given[given.index(word) + 1] = wrong
        agent_dir = worker.directory / "agent"
        ran = worker.run(
            *P8S, "agent", f"--data-dir={agent_dir}", *given, f"--address={WORKER}", check=False
        )
        assert ran.code == 1
        assert sentence in ran.err
