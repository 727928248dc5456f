"""coordination.k8s.io: leases, by which components say that they are alive."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pybernetes.api.resource import AGE, Column, Resource, Scope, Strategy
from pybernetes.api.types.coordination_v1 import Lease
from pybernetes.api.validation import validate_non_negative
from pybernetes.apimachinery.fielderror import FieldError, Path

if TYPE_CHECKING:
    from collections.abc import Iterator


def validate_lease(new: Lease, old: Lease | None) -> Iterator[FieldError]:
    spec, path = new.spec, Path("spec")
    if spec is None:
        return
    if spec.lease_duration_seconds is not None and spec.lease_duration_seconds <= 0:
        yield path.leaseDurationSeconds.invalid(
            spec.lease_duration_seconds, "must be greater than 0"
        )
    yield from validate_non_negative(spec.lease_transitions, path.leaseTransitions)
    if spec.preferred_holder and not spec.strategy:
        yield path.preferredHolder.forbidden("may only be specified if `strategy` is defined")


def _holder(lease: Lease) -> str:
    return (lease.spec.holder_identity if lease.spec else "") or ""


LEASES = Resource(
    group="coordination.k8s.io",
    version="v1",
    kind=Lease,
    plural="leases",
    scope=Scope.NAMESPACED,
    strategy=Strategy(validate=validate_lease, generation_follows=(), allow_create_on_update=True),
    columns=(Column("Holder", _holder), AGE),
    # A heartbeat that is lost in a crash would be stale anyway.
    relaxed=True,
)

COORDINATION_RESOURCES = (LEASES,)
