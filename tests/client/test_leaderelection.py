"""Leader election under virtual time. Real: electors, client. Fake: the server."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from pybernetes.api.types.coordination_v1 import Lease
from pybernetes.apimachinery.meta import Key
from pybernetes.client.leaderelection import LeaderElector, LeadershipLost, LeaseTimes
from pybernetes.wire.http import ConnectionClosed, Request, Response
from tests.client.fakeserver import FakeServer, parse_path

if TYPE_CHECKING:
    from random import Random

    from pybernetes.aio.clock import Clock

KEY = Key("kube-system", "scheduler")
PATH = parse_path("/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/scheduler")


class World:
    """A server and candidates, and a note of who led from when to when."""

    def __init__(self, clock: Clock, random: Random) -> None:
        self.server = FakeServer()
        self.clock, self.random = clock, random
        self.leading: set[str] = set()
        self.terms: list[tuple[float, str]] = []
        self.electors: dict[str, LeaderElector] = {}
        # Candidates that cannot reach the server.
        self.cut_off: set[str] = set()
        self.server.interfere = self._interfere

    def elector(self, identity: str) -> LeaderElector:
        client = self.server.client()
        client.transport._user_agent = identity
        self.electors[identity] = LeaderElector(
            client, KEY, identity, clock=self.clock, random=self.random
        )
        return self.electors[identity]

    async def candidate(self, identity: str) -> None:
        async def lead() -> None:
            assert not self.leading, f"{identity} leads beside {self.leading}"
            self.leading.add(identity)
            self.terms.append((asyncio.get_running_loop().time(), identity))
            try:
                await asyncio.sleep(10**9)
            finally:
                self.leading.discard(identity)

        await self.elector(identity).run(lead)

    def _interfere(self, request: Request) -> Response | None:
        if request.headers.get("user-agent") in self.cut_off:
            raise ConnectionClosed("cut off")
        return None


@pytest.fixture
def world(clock: Clock, random: Random) -> World:
    return World(clock, random)


async def end(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    for task in tasks:
        with suppress(asyncio.CancelledError, LeadershipLost):
            await task


async def test_the_first_leads_and_writes_upstreams_lease(world: World) -> None:
    task = asyncio.create_task(world.candidate("a"))
    await asyncio.sleep(100.5)
    assert world.terms == [(0, "a")]
    lease = await world.server.client().get(Lease, KEY.name, KEY.namespace)
    assert lease.spec.holder_identity == "a"
    assert lease.spec.lease_duration_seconds == 15
    assert lease.spec.acquire_time == "2026-01-01T00:00:00.000000Z"
    assert lease.spec.renew_time == "2026-01-01T00:01:40.000000Z"
    assert lease.spec.lease_transitions == 0
    # One write per two seconds, without reading in between.
    reads = [request for request in world.server.requests if request.startswith("GET")]
    assert len(reads) == 2  # the first look, and ours
    await end(task)


async def test_giving_back_lets_the_next_start_soon(world: World) -> None:
    first = asyncio.create_task(world.candidate("a"))
    await asyncio.sleep(1)
    second = asyncio.create_task(world.candidate("b"))
    await asyncio.sleep(60)
    assert world.leading == {"a"}
    assert world.electors["b"].leader == "a"
    await end(first)
    assert world.server.objects[PATH.key]["spec"]["leaseDurationSeconds"] == 1
    await asyncio.sleep(5)
    assert world.leading == {"b"}
    assert world.server.objects[PATH.key]["spec"]["leaseTransitions"] == 1
    await end(second)


async def test_a_leader_that_is_cut_off_stops_before_another_starts(world: World) -> None:
    first = asyncio.create_task(world.candidate("a"))
    await asyncio.sleep(1)
    second = asyncio.create_task(world.candidate("b"))
    await asyncio.sleep(60)
    world.cut_off.add("a")
    await asyncio.sleep(8)
    assert world.leading == {"a"}
    await asyncio.sleep(4)
    assert world.leading == set()
    with pytest.raises(LeadershipLost):
        await first
    await asyncio.sleep(20)
    assert world.leading == {"b"}
    (_, (when, who)) = world.terms
    assert who == "b"
    assert 73 <= when <= 81
    await end(second)


async def test_a_request_that_hangs_does_not_keep_the_leader_leading(world: World) -> None:
    first = asyncio.create_task(world.candidate("a"))
    await asyncio.sleep(1)

    async def hang(_: Request) -> Response:
        await asyncio.sleep(10**9)
        raise AssertionError

    world.electors["a"]._client.transport._http._handler = hang  # type: ignore[attr-defined]  # a dead peer
    with pytest.raises(LeadershipLost):
        await first
    assert asyncio.get_running_loop().time() == 10


async def test_a_lease_taken_by_force_ends_the_term_at_once(world: World) -> None:
    first = asyncio.create_task(world.candidate("a"))
    await asyncio.sleep(1)
    await world.server.client().patch(
        Lease, KEY.name, KEY.namespace, patch={"spec": {"holderIdentity": "someone"}}
    )
    with pytest.raises(LeadershipLost):
        await first
    assert asyncio.get_running_loop().time() <= 4


async def test_a_deleted_lease_is_made_again_by_its_holder(world: World) -> None:
    first = asyncio.create_task(world.candidate("a"))
    await asyncio.sleep(1)
    world.server.delete(PATH)
    await asyncio.sleep(10)
    assert world.leading == {"a"}
    assert world.server.objects[PATH.key]["spec"]["holderIdentity"] == "a"
    await end(first)


async def test_when_the_work_ends_the_lease_is_given_back(world: World) -> None:
    async def work() -> None:
        await asyncio.sleep(7)

    elector = world.elector("a")
    await elector.run(work)
    assert not elector.is_leader
    assert world.server.objects[PATH.key]["spec"].get("holderIdentity", "") == ""

    async def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await elector.run(fail)
    assert not elector.is_leader


def test_times_that_would_let_two_lead_are_refused() -> None:
    with pytest.raises(ValueError, match="must hold"):
        LeaseTimes(duration=timedelta(seconds=10))
    with pytest.raises(ValueError, match="must hold"):
        LeaseTimes(retry_period=timedelta(seconds=9))


async def test_never_two_leaders_whatever_the_network_does(world: World, random: Random) -> None:
    """`World.candidate` asserts it; here the trouble is random."""

    async def stubborn(identity: str) -> None:
        while True:
            with suppress(LeadershipLost):
                await world.candidate(identity)

    tasks = [asyncio.create_task(stubborn(name)) for name in "abc"]
    for _ in range(300):
        world.cut_off = {name for name in "abc" if random.random() < 0.3}
        await asyncio.sleep(random.random() * 20)
        for task in tasks:
            assert not task.done()
    assert len({who for _, who in world.terms}) == 3
    await end(*tasks)
