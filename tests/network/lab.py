"""A node, its pods and a stranger, each a network namespace of its own; nothing can leave them.

    outside ──veth── node ──p8s0 (a bridge)── pod 0, pod 1 …

The node's default route leads to `outside`, which swallows everything: what the leak rule must
stop would arrive there and be counted. Servers and clients are sockets made inside a namespace
and used from this process, so a question costs no process.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import socket
import subprocess
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from pybernetes.cluster.isolation import in_namespace

if TYPE_CHECKING:
    from collections.abc import Iterator

POD_NETWORK = "10.244.0.0/16"
SERVICE_NETWORK = "10.96.0.0/16"
NODE_ADDRESS = "198.51.100.1"
OUTSIDE_ADDRESS = "198.51.100.2"
BRIDGE_ADDRESS = "10.244.0.1"

# Everything that must never be seen on the way out: counted where it would arrive.
_WATCH = """
table ip watch {
  chain prerouting {
    type filter hook prerouting priority raw; policy accept;
    ip daddr { 10.96.0.0/16, 10.244.0.0/16 } counter
  }
}
"""

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin") is None,
    reason="needs root and nftables: network namespaces and real packet rules",
)


@dataclass
class Lab:
    node: str
    outside: str
    # Namespace of each pod by its address.
    pods: dict[str, str] = field(default_factory=dict)

    @property
    def namespaces(self) -> list[str]:
        return [self.node, self.outside, *self.pods.values()]

    def leaked(self) -> int:
        """Packets to cluster addresses that reached the outside."""
        text = output("ip", "netns", "exec", self.outside, "nft", "list", "table", "ip", "watch")
        return int(text.split("counter packets ")[1].split()[0])

    def nft(self, *arguments: str) -> str:
        return output("ip", "netns", "exec", self.node, "nft", *arguments)


@contextlib.contextmanager
def lab(pods: int = 3) -> Iterator[Lab]:
    name = f"t{os.getpid()}"
    made = Lab(f"{name}-node", f"{name}-out")
    for n in range(pods):
        made.pods[f"10.244.0.{n + 2}"] = f"{name}-pod{n}"
    try:
        for namespace in made.namespaces:
            run("ip", "netns", "add", namespace)
            batch(namespace, ["link set lo up"])
        _wire(made)
        yield made
    finally:
        for namespace in made.namespaces:
            subprocess.run(["ip", "netns", "delete", namespace], check=False, capture_output=True)


def _wire(made: Lab) -> None:
    batch(
        made.node,
        [
            f"link add up0 type veth peer name eth0 netns {made.outside}",
            f"address add {NODE_ADDRESS}/24 dev up0",
            "link set up0 up",
            "link add p8s0 type bridge",
            f"address add {BRIDGE_ADDRESS}/24 dev p8s0",
            "link set p8s0 up",
        ],
    )
    batch(made.outside, [f"address add {OUTSIDE_ADDRESS}/24 dev eth0", "link set eth0 up"])
    # The outside takes every packet for itself, and sends what a load balancer would to the node.
    batch(
        made.outside,
        ["route add local 0.0.0.0/1 dev lo", f"route add 203.0.113.0/24 via {NODE_ADDRESS}"],
    )
    run("ip", "netns", "exec", made.outside, "nft", "-f", "-", stdin=_WATCH)
    for n, (address, namespace) in enumerate(made.pods.items()):
        batch(
            made.node,
            [
                f"link add port{n} type veth peer name eth0 netns {namespace}",
                f"link set port{n} master p8s0",
                f"link set port{n} type bridge_slave hairpin on",
                f"link set port{n} up",
            ],
        )
        batch(
            namespace,
            [
                f"address add {address}/24 dev eth0",
                "link set eth0 up",
                f"route add default via {BRIDGE_ADDRESS}",
            ],
        )
    with in_namespace(made.node):
        for path in ("ipv4/ip_forward", "bridge/bridge-nf-call-iptables"):
            with contextlib.suppress(FileNotFoundError), open(f"/proc/sys/net/{path}", "w") as file:
                file.write("1")
    batch(made.node, [f"route add default via {OUTSIDE_ADDRESS}"])


class Servers:
    """Servers that say who they are and who asked: `10.244.0.2 from 10.244.0.3`."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._stop, self._stopped = os.pipe()
        self._selector.register(self._stop, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._serve, name="servers", daemon=True)
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> Servers:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        os.write(self._stopped, b"x")
        self._thread.join(5)
        for one in self._sockets:
            one.close()
        self._selector.close()
        os.close(self._stop)
        os.close(self._stopped)

    def add(self, namespace: str, name: str, number: int = 8080, address: str = "0.0.0.0") -> None:
        with in_namespace(namespace):
            tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for one in (tcp, udp):
            one.bind((address, number))
            one.setblocking(False)
            self._sockets.append(one)
        tcp.listen(128)
        self._selector.register(tcp, selectors.EVENT_READ, name)
        self._selector.register(udp, selectors.EVENT_READ, name)

    def _serve(self) -> None:
        # TCP connections that stay open are echoed, so that a test can see them live on.
        while True:
            for key, _ in self._selector.select():
                if key.fd == self._stop:
                    return
                one = key.fileobj
                assert isinstance(one, socket.socket)
                with contextlib.suppress(OSError):
                    self._answer(one, key.data)

    def _answer(self, one: socket.socket, name: str) -> None:
        if name.startswith("conn:"):
            data = one.recv(1024)
            if data:
                one.sendall(name[5:].encode())
            else:
                self._selector.unregister(one)
                one.close()
        elif one.type == socket.SOCK_DGRAM:
            _, peer = one.recvfrom(1024)
            one.sendto(f"{name} from {peer[0]}".encode(), peer)
        else:
            connection, peer = one.accept()
            connection.sendall(f"{name} from {peer[0]}".encode())
            self._sockets.append(connection)
            self._selector.register(connection, selectors.EVENT_READ, f"conn:{name}")


def connect(
    namespace: str, address: str, number: int, *, udp: bool = False, source: str = ""
) -> socket.socket:
    kind = socket.SOCK_DGRAM if udp else socket.SOCK_STREAM
    with in_namespace(namespace):
        one = socket.socket(socket.AF_INET, kind)
    one.settimeout(1.0)
    try:
        if source:
            one.bind((source, 0))
        one.connect((address, number))
    except BaseException:
        one.close()
        raise
    return one


def ask(
    namespace: str, address: str, number: int = 80, *, udp: bool = False, source: str = ""
) -> str:
    """What the server that was reached says of itself; OSError if none was."""
    with contextlib.closing(connect(namespace, address, number, udp=udp, source=source)) as one:
        if udp:
            one.send(b"?")
        return one.recv(1024).decode()


def names(answers: list[str]) -> set[str]:
    return {answer.split()[0] for answer in answers}


def run(*command: str, stdin: str = "") -> None:
    output(*command, stdin=stdin)


def output(*command: str, stdin: str = "") -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


def batch(namespace: str, lines: list[str]) -> None:
    run("ip", "-n", namespace, "-batch", "-", stdin="\n".join(lines) + "\n")
