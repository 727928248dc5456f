"""Which endpoint goes into which slice. Pure, and minimal in what has to be written.

An endpoint that exists stays in its slice, new ones fill slices that are written anyway, then
slices with room, and only then make new ones (KEP-752). All endpoints of a slice have the same
ports.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec

from pybernetes.api.types.discovery_v1 import Endpoint, EndpointPort, EndpointSlice
from pybernetes.api.types.meta_v1 import ObjectMeta, OwnerReference

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pybernetes.aio.clock import Clock
    from pybernetes.apimachinery.meta import Key

# Upstream's --max-endpoints-per-slice.
MAX_ENDPOINTS = 100
# A service with more endpoints than fit into a slice is looked at at most this often.
BATCH_SECONDS = 0.5

Ports = tuple[EndpointPort, ...]


class Pace:
    """Lets many changes of a large service come together: looking at it costs what its pods cost.

    Small services are looked at on every change, so that a new endpoint is known at once.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        # When each large service was last looked at; monotonic seconds.
        self._looked: dict[Key, float] = {}

    def wait(self, key: Key, size: int) -> timedelta | None:
        """How long to wait before looking; None: look now, which is noted."""
        now = self._clock.monotonic()
        since = now - self._looked.pop(key, float("-inf"))
        if size <= MAX_ENDPOINTS:
            return None
        if since < BATCH_SECONDS:
            self._looked[key] = now - since
            return timedelta(seconds=BATCH_SECONDS - since) + timedelta(milliseconds=1)
        self._looked[key] = now
        return None


@dataclass(frozen=True, slots=True)
class SlicePlan:
    """What has to be written so that the slices say what is true."""

    create: tuple[EndpointSlice, ...] = ()
    update: tuple[EndpointSlice, ...] = ()
    delete: tuple[EndpointSlice, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceShape:
    """What all slices of one service have in common."""

    generate_name: str
    namespace: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str] = field(default_factory=dict)
    owner: OwnerReference
    # By what an endpoint is known again: the uid of its pod, or its address.
    identity: Callable[[Endpoint], str]
    # Keep one slice without endpoints, so that "no endpoints" is said and not guessed.
    keeps_one: bool


@dataclass(slots=True)
class _Draft:
    """A slice as it is being planned."""

    ports: Ports
    endpoints: list[Endpoint] = field(default_factory=list)
    existing: EndpointSlice | None = None
    changed: bool = False

    @property
    def room(self) -> int:
        return MAX_ENDPOINTS - len(self.endpoints)


def plan_family(
    shape: SliceShape,
    family: str,
    wanted: Mapping[Ports, Mapping[str, Endpoint]],
    existing: Sequence[EndpointSlice],
) -> SlicePlan:
    """`wanted` are endpoints by their ports and identity; `existing` the slices of this family."""
    drafts = [_keep(s, wanted.get(s.ports, {}), shape.identity) for s in existing]
    kept = {(d.ports, shape.identity(e)) for d in drafts for e in d.endpoints}
    for ports, endpoints in wanted.items():
        new = [e for identity, e in endpoints.items() if (ports, identity) not in kept]
        drafts += _fill([d for d in drafts if d.ports == ports], new, ports)
    filled = [draft for draft in drafts if draft.endpoints]
    empty = [draft.existing for draft in drafts if draft.existing and not draft.endpoints]
    if not filled and shape.keeps_one:
        filled = [_placeholder(empty.pop(0) if empty else None)]
    create, update = [], []
    for draft in filled:
        if draft.existing is None:
            create.append(_new_slice(shape, family, draft))
        elif draft.changed or not _dressed(draft.existing, shape):
            update.append(_changed_slice(shape, draft, draft.existing))
    return SlicePlan(tuple(create), tuple(update), tuple(empty))


def _keep(
    existing: EndpointSlice, wanted: Mapping[str, Endpoint], identity: Callable[[Endpoint], str]
) -> _Draft:
    """The slice with what is still wanted of it, brought up to date."""
    draft = _Draft(ports=existing.ports, existing=existing)
    for endpoint in existing.endpoints:
        now = wanted.get(identity(endpoint))
        if now is None:
            draft.changed = True
            continue
        draft.changed |= now != endpoint
        draft.endpoints.append(now)
    return draft


def _fill(drafts: list[_Draft], new: list[Endpoint], ports: Ports) -> list[_Draft]:
    """Put new endpoints where there is room, first where a write is due anyway."""
    for draft in sorted(drafts, key=lambda d: (not d.changed, d.room)):
        if not new:
            break
        take, new = new[: draft.room], new[draft.room :]
        draft.endpoints += take
        draft.changed |= bool(take)
    return [
        _Draft(ports=ports, endpoints=new[start : start + MAX_ENDPOINTS])
        for start in range(0, len(new), MAX_ENDPOINTS)
    ]


def _placeholder(existing: EndpointSlice | None) -> _Draft:
    changed = existing is not None and bool(existing.ports or existing.endpoints)
    return _Draft(ports=(), existing=existing, changed=changed)


def _dressed(existing: EndpointSlice, shape: SliceShape) -> bool:
    metadata = existing.metadata
    return metadata.labels == shape.labels and metadata.annotations == shape.annotations


def _new_slice(shape: SliceShape, family: str, draft: _Draft) -> EndpointSlice:
    return EndpointSlice(
        metadata=ObjectMeta(
            generate_name=shape.generate_name,
            namespace=shape.namespace,
            labels=dict(shape.labels),
            annotations=dict(shape.annotations),
            owner_references=(shape.owner,),
        ),
        address_type=family,
        endpoints=tuple(draft.endpoints),
        ports=draft.ports,
    )


def _changed_slice(shape: SliceShape, draft: _Draft, existing: EndpointSlice) -> EndpointSlice:
    return msgspec.structs.replace(
        existing,
        metadata=msgspec.structs.replace(
            existing.metadata, labels=dict(shape.labels), annotations=dict(shape.annotations)
        ),
        ports=draft.ports,
        endpoints=tuple(draft.endpoints),
    )
