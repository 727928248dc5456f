"""A containerd of its own for a test module, in a network namespace without a way out.

Everything it makes is in one temporary directory and one network namespace, and all of it is gone
afterwards: sandboxes through CRI, then processes by id, mounts, directories, the namespace.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import random
import shutil
import socket
import subprocess
import tempfile
import threading
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pybernetes.kubelet.runtime.containerd import Containerd, ContainerdOptions, what_is_missing
from pybernetes.kubelet.runtime.containerd_removal import remove_all_sandboxes, remove_all_traces
from pybernetes.kubelet.runtime.cri import CriRuntime
from pybernetes.testing.images import archive, busybox_image, find_busybox
from pybernetes.testing.runtime_contract import IMAGE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SUBNET = "10.211.0.0/24"


def why_not() -> str:
    """What keeps real containers from running here; empty if nothing does."""
    if os.geteuid() != 0:
        return "real containers need root"
    if missing := what_is_missing():
        return missing
    if shutil.which("ip") is None:
        return "ip is not installed: apt-get install iproute2"
    if find_busybox() is None:
        return "no static busybox here: apt-get install busybox-static"
    return ""


@dataclass(frozen=True)
class Place:
    """Where one module's containers are."""

    directory: Path
    namespace: str

    @property
    def options(self) -> ContainerdOptions:
        return ContainerdOptions(
            directory=self.directory / "c",
            cni_conf_dir=self.directory / "cni",
            network_namespace=Path("/run/netns") / self.namespace,
        )

    @property
    def addresses_in_use(self) -> set[str]:
        directory = self.directory / "ipam" / "contract"
        return {path.name for path in directory.glob("10.*")}

    @asynccontextmanager
    async def containerd(self) -> AsyncIterator[tuple[Containerd, CriRuntime]]:
        """containerd and a runtime over it, with the test image, and no pods when it is left."""
        chance = random.Random(0)
        async with (
            Containerd(self.options, random=chance) as containerd,
            CriRuntime(containerd.socket_path, random=chance) as runtime,
        ):
            if await runtime.image_status(IMAGE) is None:
                await containerd.import_images(archive({IMAGE: busybox_image()}))
            yield containerd, runtime
            await remove_all_sandboxes(runtime)

    async def connect(self, host: str, port: int) -> SocketConnection:
        """A connection made inside the network namespace."""
        connected = await asyncio.to_thread(_connect_inside, self.namespace, host, port)
        return SocketConnection(*await asyncio.open_connection(sock=connected))


class SocketConnection:
    """A `wire.Connection` over a connected socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def read(self) -> bytes:
        return await self._reader.read(65536)

    def write(self, data: bytes) -> None:
        self._writer.write(data)

    async def drain(self) -> None:
        await self._writer.drain()

    def close(self) -> None:
        self._writer.close()

    async def wait_closed(self) -> None:
        await self._writer.wait_closed()


def _connect_inside(namespace: str, host: str, port: int) -> socket.socket:
    made: list[socket.socket] = []

    def make() -> None:
        # Only the thread that makes the socket moves, and it ends here; the socket stays inside.
        with (Path("/run/netns") / namespace).open() as file:
            if ctypes.CDLL(None).setns(file.fileno(), 0) == 0:
                made.append(socket.create_connection((host, port), timeout=5))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if not made:
        raise ConnectionRefusedError(f"nobody answers at {host}:{port} in {namespace}")
    made[0].setblocking(False)
    return made[0]


def make_place() -> Place:
    # Short, because sockets and mounts have it in their names.
    directory = Path(tempfile.mkdtemp(prefix="p8s-"))
    place = Place(directory, directory.name)
    (place.directory / "cni").mkdir()
    network = {
        "cniVersion": "0.4.0",
        "name": "contract",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "contract0",
                "isGateway": True,
                "ipam": {
                    "type": "host-local",
                    "dataDir": str(place.directory / "ipam"),
                    "ranges": [[{"subnet": SUBNET}]],
                },
            }
        ],
    }
    (place.directory / "cni" / "10-contract.conflist").write_text(json.dumps(network))
    _ip("netns", "add", place.namespace)
    _ip("-n", place.namespace, "link", "set", "lo", "up")
    return place


def remove_place(place: Place) -> None:
    try:
        asyncio.run(remove_all_traces(place.options, random=random.Random(0)))
    finally:
        _ip("netns", "delete", place.namespace)
        shutil.rmtree(place.directory, ignore_errors=True)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
