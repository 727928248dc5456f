"""Client and caches over real sockets on loopback. Fake: the API behind the HTTP server."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from pybernetes.api.types.core_v1 import ConfigMap
from pybernetes.client.caches import Caches
from pybernetes.client.client import Client
from pybernetes.wire.client import HttpClient
from pybernetes.wire.server import serve
from tests.client.fakeserver import FakeServer

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

MAPS = "/api/v1/configmaps"

pytestmark = [pytest.mark.realtime, pytest.mark.slow]


async def wait_until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


async def test_caches_outlive_the_server(random: Random) -> None:
    fake, port = FakeServer(), free_port()
    client = Client(HttpClient(f"http://127.0.0.1:{port}"))
    caches = Caches(client, random=random)
    cache = caches.of(ConfigMap)
    running = asyncio.create_task(caches.run())
    # Nobody is there yet.
    await asyncio.sleep(0.1)
    for round_ in range(2):
        async with serve(fake.handle, host="127.0.0.1", port=port):
            await wait_until(lambda: cache.synced)
            for n in range(50):
                fake.create(MAPS, {"metadata": {"name": f"m{round_}-{n}", "namespace": "d"}})
            await wait_until(lambda: len(cache) == len(fake.objects))
            assert (await client.list(ConfigMap)).resource_version == str(fake.revision)
        fake.create(MAPS, {"metadata": {"name": f"between-{round_}", "namespace": "d"}})
    assert cache.statistics().replacements == 1
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    await client.close()
