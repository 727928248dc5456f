"""What the tests of access control share: a control plane in memory, and people who ask it.

Real: the API server with its store in memory, its chain, policy and bootstrap objects. Left out:
controllers and scheduler, so that nothing changes but by the test.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from pybernetes.api.types.core_v1 import Namespace, ServiceAccount
from pybernetes.api.types.meta_v1 import ObjectMeta
from pybernetes.api.user import UserInfo
from pybernetes.cluster.access import AccessOptions
from pybernetes.cluster.controlplane import ControlPlane, ControlPlaneOptions, control_plane
from pybernetes.storage.memory import MemoryStore
from pybernetes.wire.http import Peer
from pybernetes.wire.memory import MemoryHttpClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from random import Random

    from pybernetes.aio.clock import Clock
    from pybernetes.client import Client
    from pybernetes.storage import Store

ADVERTISED = "192.168.7.1"


@asynccontextmanager
async def running(
    clock: Clock, random: Random, store: Store | None = None, **access: Any
) -> AsyncIterator[ControlPlane]:
    options = ControlPlaneOptions(
        controllers=False,
        scheduler=False,
        access=AccessOptions(advertise_address=ADVERTISED, **access),
    )
    async with control_plane(
        store or MemoryStore(), clock=clock, random=random, options=options
    ) as plane:
        # What a controller makes in every namespace.
        for namespace in ("default", "kube-system"):
            if await plane.admin.get_or_none(ServiceAccount, "default", namespace) is None:
                metadata = ObjectMeta(name="default", namespace=namespace)
                await plane.admin.create(ServiceAccount(metadata=metadata))
        yield plane


def user(plane: ControlPlane, name: str, *groups: str) -> Client:
    return plane.client_as(UserInfo(name, groups))


def node_user(plane: ControlPlane, name: str) -> Client:
    return plane.client_as(UserInfo(f"system:node:{name}", ("system:nodes",)))


async def make_namespace(plane: ControlPlane, name: str) -> Namespace:
    return await plane.admin.create(Namespace(metadata=ObjectMeta(name=name)))


async def ask(
    plane: ControlPlane,
    method: str,
    path: str,
    *,
    body: Any = None,
    headers: Sequence[tuple[str, str]] = (),
    subject: tuple[tuple[str, str], ...] = (),
    identity: UserInfo | None = None,
) -> tuple[int, Any]:
    """A request as it comes over a socket: status, and the JSON (or text) of the answer."""
    peer = Peer(address="127.0.0.1", subject=subject, identity=identity, secure=True)
    client = MemoryHttpClient(plane.server.handle, peer=peer)
    data = b"" if body is None else msgspec.json.encode(body)
    said = list(headers)
    if not any(name.lower() == "content-type" for name, _ in said):
        said.append(("content-type", "application/json"))
    response = await client.request(method, path, headers=said, body=data)
    answer = await response.read()
    try:
        return response.status, msgspec.json.decode(answer)
    except msgspec.DecodeError:
        return response.status, answer.decode()
