"""logs, exec, attach, port-forward and cp: bytes between a terminal and a container."""

from __future__ import annotations

import fcntl
import hashlib
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from typing import TYPE_CHECKING, Self

import pytest

from tests.e2e.images import BOX, WEB_1
from tests.e2e.lab import end
from tests.e2e.objects import pod

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.lab import Lab

MEGABYTE = bytes(os.urandom(1 << 20))


@pytest.fixture
def box(cluster: Lab, ns: str) -> str:
    """A pod to run things in; its name."""
    start(cluster, ns, pod("box", BOX))
    return "box"


def start(cluster: Lab, ns: str, manifest: str) -> None:
    cluster.kubectl("apply", "-f", "-", namespace=ns, stdin=manifest)
    cluster.kubectl("wait", "--for=condition=Ready", "pods", "--all", namespace=ns)


def test_logs_of_a_pod_that_lives(cluster: Lab, ns: str) -> None:
    # Two pipes have no order between them; hence the pause.
    script = "for i in 1 2 3 4 5; do echo line $i; done; sleep 0.5; echo oops >&2; exec sleep 3600"
    start(cluster, ns, pod("talker", BOX, script))

    def logs(*arguments: str) -> str:
        return cluster.kubectl("logs", "talker", *arguments, namespace=ns).out

    with Following(cluster, ns, "talker") as follower:
        for number in range(1, 6):
            assert follower.readline() == f"line {number}\n".encode()
        assert follower.readline() == b"oops\n"
    whole = logs()
    assert whole.splitlines() == [*(f"line {i}" for i in range(1, 6)), "oops"]
    assert len(logs("--tail=2").splitlines()) == 2
    assert logs("--tail=0") == ""
    assert logs("--limit-bytes=6") == whole[:6]
    assert logs("--since=1h") == whole
    assert logs("--since-time=2100-01-01T00:00:00Z") == ""
    stamp, _, rest = logs("--timestamps").splitlines()[0].partition(" ")
    assert stamp.endswith("Z")
    assert rest == "line 1"
    assert logs("--prefix").startswith("[pod/talker/main] line 1")
    assert cluster.kubectl("logs", "-l", "app=talker", "--tail=-1", namespace=ns).out == whole
    assert logs("--all-containers") == whole


class Following:
    """`kubectl logs -f` as something to read from."""

    def __init__(self, cluster: Lab, ns: str, *arguments: str) -> None:
        command = cluster.kubectl_command("logs", "-f", *arguments, namespace=ns)
        self._child = cluster.start(*command)
        assert self._child.stdout is not None
        self._source = self._child.stdout.fileno()
        self._read = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        end(self._child)

    def readline(self) -> bytes:
        while b"\n" not in self._read:
            chunk = self._more()
            assert chunk, f"the log ended after {self._read!r}"
            self._read += chunk
        line, _, self._read = self._read.partition(b"\n")
        return line + b"\n"

    def rest(self) -> bytes:
        """What is said until the log ends by itself."""
        while chunk := self._more():
            self._read += chunk
        return self._read

    def _more(self) -> bytes:
        ready, _, _ = select.select([self._source], [], [], 30)
        assert ready, "nothing was said for half a minute"
        return os.read(self._source, 65536)


def test_follow_ends_with_the_container(cluster: Lab, ns: str) -> None:
    script = "echo started; until [ -e /tmp/go ]; do sleep 0.1; done; echo done"
    start(cluster, ns, pod("brief", BOX, script, spec={"restartPolicy": "Never"}))
    with Following(cluster, ns, "brief") as follower:
        assert follower.readline() == b"started\n"
        cluster.kubectl("exec", "brief", "--", "touch", "/tmp/go", namespace=ns)
        assert follower.rest() == b"done\n"
    assert cluster.kubectl("logs", "brief", namespace=ns).out == "started\ndone\n"


def test_logs_of_the_container_before(cluster: Lab, ns: str) -> None:
    script = (
        "if [ -e /data/again ]; then echo second; exec sleep 3600; fi;"
        " touch /data/again; echo first; exit 3"
    )
    mounts = {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    volumes = {"volumes": [{"name": "data", "emptyDir": {}}]}
    manifest = pod("twice", BOX, script, container=mounts, spec=volumes)
    cluster.kubectl("apply", "-f", "-", namespace=ns, stdin=manifest)
    cluster.wait_for(
        "pod/twice", namespace=ns,
        holds=lambda p: any(
            c["restartCount"] == 1 and c["ready"] for c in p["status"].get("containerStatuses", [])
        ),
    )  # fmt: skip
    assert cluster.kubectl("logs", "twice", namespace=ns).out == "second\n"
    assert cluster.kubectl("logs", "twice", "--previous", namespace=ns).out == "first\n"
    assert cluster.kubectl("logs", "twice", "-p", "--tail=5", namespace=ns).out == "first\n"


def test_logs_that_cannot_be(cluster: Lab, ns: str, box: str) -> None:
    for arguments, words in (
        ((box, "--previous"), "previous terminated container"),
        ((box, "-c", "other"), "container other is not valid for pod box"),
        (("nobody",), 'pods "nobody" not found'),
    ):
        refused = cluster.kubectl("logs", *arguments, namespace=ns, check=False)
        assert refused.code == 1
        assert words in refused.err


def test_a_long_log_comes_whole(cluster: Lab, ns: str) -> None:
    start(cluster, ns, pod("many", BOX, "seq 1 100000; exec sleep 3600"))
    with Following(cluster, ns, "many") as follower:
        lines = [int(follower.readline()) for _ in range(100_000)]
    assert lines == list(range(1, 100_001))
    tail = cluster.kubectl("logs", "many", "--tail=3", namespace=ns).out
    assert tail == "99998\n99999\n100000\n"


def test_exec_returns_output_errors_and_exit_code(cluster: Lab, ns: str, box: str) -> None:
    def run(
        *command: str, stdin: str | None = None, flags: tuple[str, ...] = ()
    ) -> tuple[int, str, str]:
        ran = cluster.kubectl(
            "exec", *flags, box, "--", *command, namespace=ns, stdin=stdin, check=False
        )
        return ran.code, ran.out, ran.err

    assert run("echo", "hello") == (0, "hello\n", "")
    code, out, err = run("sh", "-c", "echo out; echo err >&2; exit 7")
    assert (code, out) == (7, "out\n")
    assert err.startswith("err\n")
    assert "exit code 7" in err
    assert run("cat", stdin="a\nb", flags=("-i",)) == (0, "a\nb", "")
    assert run("sh", stdin="echo from the shell\n", flags=("-i",)) == (0, "from the shell\n", "")
    code, _, err = run("/no/such/program")
    assert code != 0
    assert "no such file" in err
    wrong = cluster.kubectl("exec", "nobody", "--", "true", namespace=ns, check=False)
    assert 'pods "nobody" not found' in wrong.err
    assert run("true", flags=("-c", "other"))[0] == 1


def test_exec_moves_a_megabyte_both_ways(cluster: Lab, ns: str, box: str) -> None:
    command = cluster.kubectl_command("exec", "-i", box, "--", "cat", namespace=ns)
    came = cluster.run_bytes(*command, stdin=MEGABYTE, timeout=60)
    assert came.returncode == 0, came.stderr
    assert hashlib.sha256(came.stdout).digest() == hashlib.sha256(MEGABYTE).digest()


@pytest.mark.parametrize("websockets", ["true", "false"])
def test_exec_over_both_protocols(cluster: Lab, ns: str, box: str, websockets: str) -> None:
    """kubectl ≥ 1.31 uses WebSockets, earlier ones SPDY; both must move everything."""
    command = cluster.kubectl_command("exec", "-i", box, "--", "sha256sum", namespace=ns)
    told = {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": websockets}
    came = cluster.run_bytes(*command, stdin=MEGABYTE, env=told, timeout=60)
    assert came.stdout.split()[0].decode() == hashlib.sha256(MEGABYTE).hexdigest()


def test_exec_with_a_terminal(cluster: Lab, ns: str, box: str) -> None:
    with Terminal(cluster, ns, "exec", "-it", box, "--", "sh") as terminal:
        terminal.write(b"echo $((6 * 7)); tty; stty size\n")
        said = terminal.read_until(b"30 100")
        assert b"42\r\n" in said
        assert b"/dev/pts/" in said
        terminal.write(b"exit 5\n")
    assert terminal.code == 5


class Terminal:
    """A kubectl at a terminal of 30 lines and 100 columns."""

    def __init__(self, cluster: Lab, ns: str, *arguments: str) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        self._child = subprocess.Popen(
            cluster.inside(cluster.kubectl_command(*arguments, namespace=ns)),
            stdin=theirs, stdout=theirs, stderr=theirs,
            env=cluster.environment, start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        self.code: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.code = self._child.wait(30)
        finally:
            end(self._child)
            os.close(self._ours)

    def write(self, text: bytes) -> None:
        os.write(self._ours, text)

    def read_until(self, awaited: bytes, seconds: float = 30) -> bytes:
        said = b""
        deadline = time.monotonic() + seconds
        while awaited not in said:
            ready, _, _ = select.select([self._ours], [], [], deadline - time.monotonic())
            assert ready, f"no {awaited!r} in {said!r}"
            said += os.read(self._ours, 65536)
        return said


def test_attach_joins_a_running_container(cluster: Lab, ns: str) -> None:
    script = "while read line; do echo got $line; done"
    start(cluster, ns, pod("listener", BOX, script, container={"stdin": True}))
    command = cluster.kubectl_command("attach", "-i", "listener", namespace=ns)
    child = cluster.start(*command, stdin=subprocess.PIPE)
    try:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(b"this\n")
        child.stdin.flush()
        assert child.stdout.readline() == b"got this\n"
    finally:
        end(child)
    assert "got this" in cluster.kubectl("logs", "listener", namespace=ns).out


def test_run_interactively_and_remove(cluster: Lab, ns: str) -> None:
    ran = cluster.kubectl(
        "run", "once", "-i", "--rm", "--restart=Never", f"--image={BOX}", "--quiet", "--", "cat",
        namespace=ns, stdin="through the pod\n",
    )  # fmt: skip
    assert "through the pod" in ran.out
    gone = cluster.kubectl("get", "pod", "once", namespace=ns, check=False)
    assert "NotFound" in gone.err


def test_port_forward_moves_a_megabyte_both_ways(cluster: Lab, ns: str) -> None:
    """Three echoes at once; each sends back what it was sent."""
    ports = (7771, 7772, 7773)
    script = "".join(f"nc -l -p {port} -e cat & " for port in ports) + "sleep 3600"
    listening = f"[ $(netstat -ltn | grep -c ':777') = {len(ports)} ]"
    probe = {"exec": {"command": ["sh", "-c", listening]}, "periodSeconds": 1}
    start(cluster, ns, pod("echo", BOX, script, container={"readinessProbe": probe}))
    with Forwarded(cluster, ns, "pod/echo", *ports) as local:
        program = (
            "import hashlib, socket, sys, threading\n"
            "data = sys.stdin.buffer.read()\n"
            "def once(port):\n"
            "    s = socket.create_connection(('127.0.0.1', port), timeout=30)\n"
            "    def send():\n"
            "        s.sendall(data); s.shutdown(socket.SHUT_WR)\n"
            "    threading.Thread(target=send).start()\n"
            "    got = b''.join(iter(lambda: s.recv(65536), b''))\n"
            "    print(hashlib.sha256(got).hexdigest(), flush=True)\n"
            f"threads = [threading.Thread(target=once, args=(port,)) for port in {local}]\n"
            "[t.start() for t in threads]; [t.join() for t in threads]\n"
        )
        came = cluster.run(sys.executable, "-c", program, stdin=MEGABYTE, timeout=60)
    assert came.out.split() == [hashlib.sha256(MEGABYTE).hexdigest()] * 3, came.err


def test_port_forward_to_a_service_and_to_nobody(cluster: Lab, ns: str) -> None:
    ports = {"ports": [{"containerPort": 8080, "name": "http"}], "command": ["/serve"]}
    start(cluster, ns, pod("web", WEB_1, container=ports))
    cluster.kubectl("expose", "pod", "web", "--port=80", "--target-port=http", namespace=ns)
    with Forwarded(cluster, ns, "service/web", 80) as (port,):
        fetch = f"import urllib.request as u; print(u.urlopen('http://127.0.0.1:{port}/').read())"
        assert cluster.run(sys.executable, "-c", fetch).out == "b'version 1\\n'\n"
    with Forwarded(cluster, ns, "pod/web", 9999) as (port,):
        fetch = (
            "import socket\n"
            f"s = socket.create_connection(('127.0.0.1', {port}), timeout=10)\n"
            "try:\n    print(s.recv(10))\nexcept ConnectionResetError:\n    print(b'')\n"
        )
        assert cluster.run(sys.executable, "-c", fetch).out == "b''\n"


class Forwarded:
    """`kubectl port-forward` to some ports; gives the local ones."""

    def __init__(self, cluster: Lab, ns: str, target: str, *ports: int) -> None:
        wanted = [f":{port}" for port in ports]
        command = cluster.kubectl_command(
            "port-forward", target, *wanted, "--address=127.0.0.1", namespace=ns
        )
        self._ports = ports
        self._child = cluster.start(*command)

    def __enter__(self) -> list[int]:
        assert self._child.stdout is not None
        source = self._child.stdout.fileno()
        said = b""
        while said.count(b"\n") < len(self._ports):
            ready, _, _ = select.select([source], [], [], 30)
            assert ready, f"kubectl port-forward said only {said!r} in half a minute"
            chunk = os.read(source, 65536)
            assert chunk, f"kubectl port-forward ended after {said!r}"
            said += chunk
        # Forwarding from 127.0.0.1:39001 -> 8080
        return [int(line.split()[2].rpartition(":")[2]) for line in said.decode().splitlines()]

    def __exit__(self, *_: object) -> None:
        end(self._child)


def test_cp_both_ways(cluster: Lab, ns: str, box: str, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "deep" / "big").write_bytes(MEGABYTE)
    (tree / "small").write_text("small\n")
    cluster.kubectl("cp", str(tree), f"{box}:/tmp/there", namespace=ns)
    summed = cluster.kubectl("exec", box, "--", "sha256sum", "/tmp/there/deep/big", namespace=ns)
    assert summed.out.split()[0] == hashlib.sha256(MEGABYTE).hexdigest()
    back = tmp_path / "back"
    cluster.kubectl("cp", f"{box}:/tmp/there", str(back), namespace=ns)
    assert (back / "deep" / "big").read_bytes() == MEGABYTE
    assert (back / "small").read_text() == "small\n"


def test_proxy_reaches_the_api_and_pods(cluster: Lab, ns: str) -> None:
    ports = {"ports": [{"containerPort": 8080}], "command": ["/serve"]}
    start(cluster, ns, pod("web", WEB_1, container=ports))
    path = f"/api/v1/namespaces/{ns}/pods/web:8080/proxy/"
    assert cluster.kubectl("get", "--raw", path).out == "version 1\n"


def test_debug_adds_a_container(cluster: Lab, ns: str, box: str) -> None:
    cluster.needs("1.27")
    cluster.kubectl("debug", box, f"--image={BOX}", "-c", "helper", "--", "echo", "from within",
                    namespace=ns)  # fmt: skip
    cluster.wait_for(
        f"pod/{box}", namespace=ns,
        holds=lambda p: any(
            "terminated" in c["state"] for c in p["status"].get("ephemeralContainerStatuses", [])
        ),
    )  # fmt: skip
    assert cluster.kubectl("logs", box, "-c", "helper", namespace=ns).out == "from within\n"
