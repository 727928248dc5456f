"""Leader election: of several processes that could do a thing, one does it, by a Lease.

The leader renews its Lease every two seconds; a candidate takes it when it has not
seen it renewed for fifteen. Candidates never compare clocks: what counts is how long
*they* have not seen a change, on their own monotonic time.

Safety: a leader that could not renew for ten seconds stops, five before another may
start, and its work is over before the Lease is given back.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from msgspec.structs import replace

from pybernetes.api.types.coordination_v1 import Lease, LeaseSpec
from pybernetes.api.types.meta_v1 import ObjectMeta
from pybernetes.apimachinery.errors import StatusError
from pybernetes.apimachinery.timestamp import format_micro_time
from pybernetes.wire.http import WireError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from random import Random

    from pybernetes.aio.clock import Clock
    from pybernetes.apimachinery.meta import Key
    from pybernetes.client.client import Client

log = logging.getLogger(__name__)

# Candidates wait up to this much longer, so that they do not all ask at once.
JITTER = 1.2


class LeadershipLost(Exception):
    """The Lease could not be renewed in time, so the work was stopped."""


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """Upstream's figures. `duration` > `renew_deadline` > `retry_period` × 1.2."""

    duration: timedelta = timedelta(seconds=15)
    renew_deadline: timedelta = timedelta(seconds=10)
    retry_period: timedelta = timedelta(seconds=2)

    def __post_init__(self) -> None:
        if not self.duration > self.renew_deadline > self.retry_period * JITTER:
            raise ValueError("lease duration > renew deadline > retry period * 1.2 must hold")


class LeaderElector:
    """One candidate, known by its identity, which must be different for each process."""

    def __init__(
        self,
        client: Client,
        lease: Key,
        identity: str,
        *,
        clock: Clock,
        random: Random,
        times: LeaseTimes | None = None,
    ) -> None:
        self._client = client
        self._key = lease
        self._identity = identity
        self._clock = clock
        self._random = random
        self._times = times or LeaseTimes()
        # The Lease as last seen or written, and the loop time when it was seen to change.
        self._observed: Lease | None = None
        self._observed_at = 0.0

    @property
    def leader(self) -> str:
        """Who leads, as far as we know; empty if nobody does."""
        return "" if self._observed is None else self._observed.spec.holder_identity

    @property
    def is_leader(self) -> bool:
        return self.leader == self._identity

    async def run(self, lead: Callable[[], Awaitable[None]]) -> None:
        """Wait to become leader, then lead; give the Lease back when `lead` returns.

        Raises LeadershipLost after stopping `lead`, or what `lead` raised. When
        cancelled, `lead` is stopped and the Lease given back.
        """
        await self._acquire()
        log.info("%s: %s is the leader now", self._key, self._identity)
        lost = False
        problem: Exception | None = None

        async def leading() -> None:
            nonlocal problem
            try:
                await lead()
            except Exception as error:  # raised again below, without a group around it
                problem = error
            finally:
                renewing_task.cancel()

        async def renewing() -> None:
            nonlocal lost
            await self._renew_until_too_late()
            lost = True
            leading_task.cancel()

        try:
            async with asyncio.TaskGroup() as tasks:
                leading_task = tasks.create_task(leading(), name=f"leader of {self._key}")
                renewing_task = tasks.create_task(renewing(), name=f"lease {self._key}")
        finally:
            if not lost:
                await self._release()
        if problem is not None:
            raise problem
        if lost:
            raise LeadershipLost(f"{self._key}: could not renew the lease in time")

    async def _acquire(self) -> None:
        period = self._times.retry_period.total_seconds()
        while True:
            if await self._try_acquire_or_renew():
                return
            await asyncio.sleep(period * (1 + JITTER * self._random.random()))

    async def _renew_until_too_late(self) -> None:
        loop = asyncio.get_running_loop()
        period = self._times.retry_period.total_seconds()
        patience = self._times.renew_deadline.total_seconds()
        renewed_at = loop.time()
        try:
            while self.is_leader:
                # A request that hangs must not keep us leading.
                async with asyncio.timeout_at(renewed_at + patience):
                    await asyncio.sleep(period)
                    if await self._try_acquire_or_renew():
                        renewed_at = loop.time()
        except TimeoutError:
            pass
        log.error("%s: %s has lost the leadership", self._key, self._identity)

    async def _try_acquire_or_renew(self) -> bool:
        """One look at the Lease, and one write if it is ours or free. Is it ours now?"""
        try:
            if self.is_leader and self._is_valid():
                assert self._observed is not None
                try:
                    # Nobody else should have written: save the reading.
                    self._observe(await self._client.update(self._renewed(self._observed)))
                    return True
                except StatusError as error:
                    log.info("%s: not as we left it: %s", self._key, error)
            lease = await self._client.get_or_none(Lease, self._key.name, self._key.namespace)
            if lease is None:
                self._observe(await self._client.create(self._claimed(None)))
                return True
            if self._observed is None or lease.metadata != self._observed.metadata:
                self._observe(lease)
            if self.leader and not self.is_leader and self._is_valid():
                return False
            renewed = self._renewed(lease) if self.is_leader else self._claimed(lease)
            self._observe(await self._client.update(renewed))
            return True
        except (StatusError, WireError, OSError) as error:
            log.info("%s: %s did not get the lease: %s", self._key, self._identity, error)
            return False

    def _is_valid(self) -> bool:
        """May the holder we know of still believe that it leads?"""
        if self._observed is None:
            return False
        seconds = self._observed.spec.lease_duration_seconds or 0
        return asyncio.get_running_loop().time() < self._observed_at + seconds

    def _observe(self, lease: Lease) -> None:
        self._observed = lease
        self._observed_at = asyncio.get_running_loop().time()

    def _claimed(self, lease: Lease | None) -> Lease:
        """The Lease with us as a new holder."""
        now = format_micro_time(self._clock.now())
        before = None if lease is None else lease.spec
        spec = LeaseSpec(
            holder_identity=self._identity,
            lease_duration_seconds=int(self._times.duration.total_seconds()),
            acquire_time=now,
            renew_time=now,
            lease_transitions=0 if before is None else (before.lease_transitions or 0) + 1,
        )
        if lease is None:
            metadata = ObjectMeta(name=self._key.name, namespace=self._key.namespace)
            return Lease(metadata=metadata, spec=spec)
        return replace(lease, spec=spec)

    def _renewed(self, lease: Lease) -> Lease:
        return replace(
            lease, spec=replace(lease.spec, renew_time=format_micro_time(self._clock.now()))
        )

    async def _release(self) -> None:
        """Let the next one start at once. Best effort, and not for long."""
        now = format_micro_time(self._clock.now())
        try:
            async with asyncio.timeout(self._times.renew_deadline.total_seconds()):
                # Read anew: a renewal may have been cut off after it was carried out.
                lease = await self._client.get(Lease, self._key.name, self._key.namespace)
                if lease.spec.holder_identity == self._identity:
                    spec = replace(
                        lease.spec,
                        holder_identity="",
                        lease_duration_seconds=1,
                        acquire_time=now,
                        renew_time=now,
                    )
                    self._observe(await self._client.update(replace(lease, spec=spec)))
        except (StatusError, WireError, OSError, TimeoutError) as error:
            log.info("%s: the lease was not given back: %s", self._key, error)
