"""coordination.k8s.io: leases, by which components say that they are alive, and candidates."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pybernetes.api.resource import AGE, Column, Resource, Scope, Strategy
from pybernetes.api.sameshape import same_shape
from pybernetes.api.types import coordination_v1alpha2 as v1alpha2
from pybernetes.api.types import coordination_v1beta1 as v1beta1
from pybernetes.api.types.coordination_v1 import Lease
from pybernetes.api.validation import validate_immutable, validate_non_negative
from pybernetes.apimachinery.fielderror import FieldError, Path

if TYPE_CHECKING:
    from collections.abc import Iterator

_SEMANTIC_VERSION = re.compile(r"\d+\.\d+\.\d+([-+].+)?")


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


# --- candidates -----------------------------------------------------------------------------------


def validate_candidate(new: Any, old: Any) -> Iterator[FieldError]:
    spec, path = new.spec, Path("spec")
    if not spec.lease_name:
        yield path.leaseName.required()
    if not spec.binary_version:
        yield path.binaryVersion.required()
    for name, value in (
        ("binaryVersion", spec.binary_version),
        ("emulationVersion", spec.emulation_version),
    ):
        if value and not _SEMANTIC_VERSION.fullmatch(value):
            yield path.child(name).invalid(value, "must be a valid semantic version")
    if not spec.strategy:
        yield path.strategy.required()
    elif spec.strategy != "OldestEmulationVersion" and "/" not in spec.strategy:
        yield path.strategy.not_supported(spec.strategy, ["OldestEmulationVersion"])
    if spec.strategy == "OldestEmulationVersion" and not spec.emulation_version:
        yield path.emulationVersion.required(
            "must be specified when `strategy` is 'OldestEmulationVersion'"
        )
    if old is not None:
        yield from validate_immutable(spec.lease_name, old.spec.lease_name, path.leaseName)


def _candidates(kind: type[Any], version: str, gate: str = "") -> Resource[Any]:
    """Stored as the beta; the alpha has the same fields."""
    stored = v1beta1.LeaseCandidate
    return Resource(
        group="coordination.k8s.io",
        version=version,
        kind=kind,
        plural="leasecandidates",
        scope=Scope.NAMESPACED,
        strategy=Strategy(
            validate=validate_candidate, generation_follows=(), allow_create_on_update=True
        ),
        columns=(
            Column("LeaseName", lambda c: c.spec.lease_name),
            Column("BinaryVersion", lambda c: c.spec.binary_version),
            Column("EmulationVersion", lambda c: c.spec.emulation_version),
            AGE,
        ),
        selectable_fields={"spec.leaseName": lambda c: c.spec.lease_name},
        conversion=None if kind is stored else same_shape(kind, stored),
        relaxed=True,
        feature_gate=gate,
    )


COORDINATION_RESOURCES: tuple[Resource[Any], ...] = (
    LEASES,
    _candidates(v1beta1.LeaseCandidate, "v1beta1"),
    _candidates(v1alpha2.LeaseCandidate, "v1alpha2", gate="CoordinatedLeaderElection"),
)
