"""PersistentVolume: a piece of storage that a claim can have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from pybernetes.api.core.difference import difference_text
from pybernetes.api.core.persistentvolumeclaims import (
    VOLUME_MODES,
    access_modes_text,
    validate_access_modes,
)
from pybernetes.api.core.resourcelists import validate_amount
from pybernetes.api.core.scheduling import validate_node_selector
from pybernetes.api.core.volumedefaults import SHARED_SOURCE_DEFAULTS
from pybernetes.api.core.volumes import validate_driver_name, validate_host_path, validate_nfs
from pybernetes.api.resource import AGE, Column, Resource, Scope, Status, Strategy
from pybernetes.api.types._struct import wire_name
from pybernetes.api.types.core_v1 import (
    PersistentVolume,
    PersistentVolumeSpec,
    PersistentVolumeStatus,
    Volume,
)
from pybernetes.api.validation import (
    NOT_POSITIVE,
    rounded_amounts,
    validate_immutable,
    validate_with,
)
from pybernetes.apimachinery.fielderror import Path
from pybernetes.apimachinery.names import dns_subdomain_errors
from pybernetes.apimachinery.quantity import parse_quantity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pybernetes.apimachinery.fielderror import FieldError

_SPEC = Path("spec")
RECLAIM_POLICIES = frozenset({"Delete", "Recycle", "Retain"})
_LEGACY_CLASS = "volume.beta.kubernetes.io/storage-class"
# What a persistent volume can be: the sources it shares with Volume, and local.
PV_SOURCES = tuple(
    name
    for name in PersistentVolumeSpec.__struct_fields__
    if name == "local" or name in Volume.__struct_fields__
)


def default_persistent_volume(new: PersistentVolume) -> PersistentVolume:
    spec, status = new.spec, new.status
    changes: dict[str, Any] = {}
    if not spec.persistent_volume_reclaim_policy:
        changes["persistent_volume_reclaim_policy"] = "Retain"
    if not spec.volume_mode:
        changes["volume_mode"] = "Filesystem"
    capacity = rounded_amounts(spec.capacity)
    if capacity is not spec.capacity:
        changes["capacity"] = capacity
    for name, change in SHARED_SOURCE_DEFAULTS.items():
        source = getattr(spec, name)
        if source is not None and (whole := change(source)) is not source:
            changes[name] = whole
    if changes:
        spec = replace(spec, **changes)
    if not status.phase:
        status = replace(status, phase="Pending")
    if spec is new.spec and status is new.status:
        return new
    return replace(new, spec=spec, status=status)


def _prepare_create(new: PersistentVolume) -> PersistentVolume:
    return replace(new, status=PersistentVolumeStatus(phase="Pending"))


def _sources_of(spec: PersistentVolumeSpec) -> dict[str, Any]:
    sources = ((name, getattr(spec, name)) for name in PV_SOURCES)
    return {name: source for name, source in sources if source is not None}


def validate_persistent_volume(
    new: PersistentVolume, old: PersistentVolume | None
) -> Iterator[FieldError]:
    spec = new.spec
    yield from validate_access_modes(spec.access_modes, _SPEC.accessModes)
    if not spec.capacity:
        yield _SPEC.capacity.required()
    elif "storage" not in spec.capacity or len(spec.capacity) > 1:
        yield _SPEC.capacity.not_supported(dict(spec.capacity), ("storage",))
    for name, amount in spec.capacity.items():
        yield from validate_amount(name, amount, _SPEC.capacity.key(name))
        if parse_quantity(amount) == 0:
            yield _SPEC.capacity.key(name).invalid(amount, NOT_POSITIVE)
    policy = spec.persistent_volume_reclaim_policy
    if policy and policy not in RECLAIM_POLICIES:
        yield _SPEC.persistentVolumeReclaimPolicy.not_supported(policy, RECLAIM_POLICIES)
    yield from _validate_sources(spec)
    if spec.node_affinity is not None:
        if spec.node_affinity.required is None:
            yield _SPEC.nodeAffinity.child("required").required(
                "must specify required node constraints"
            )
        else:
            yield from validate_node_selector(
                spec.node_affinity.required, _SPEC.nodeAffinity.child("required")
            )
    if spec.storage_class_name:
        yield from validate_with(
            dns_subdomain_errors, spec.storage_class_name, _SPEC.storageClassName
        )
    if spec.volume_mode and spec.volume_mode not in VOLUME_MODES:
        yield _SPEC.volumeMode.not_supported(spec.volume_mode, VOLUME_MODES)
    if old is not None:
        yield from _validate_update(new, old)


def _validate_sources(spec: PersistentVolumeSpec) -> Iterator[FieldError]:
    given = _sources_of(spec)
    for name in list(given)[1:]:
        yield _SPEC.child(wire_name(name)).forbidden("may not specify more than 1 volume type")
    if not given:
        yield _SPEC.required("must specify a volume type")
    if spec.host_path is not None:
        yield from validate_host_path(spec.host_path, _SPEC.hostPath)
        if (
            spec.host_path.path.strip("/") == ""
            and spec.persistent_volume_reclaim_policy == "Recycle"
        ):
            yield _SPEC.persistentVolumeReclaimPolicy.forbidden(
                "may not be 'recycle' for a hostPath mount of '/'"
            )
    if spec.nfs is not None:
        yield from validate_nfs(spec.nfs, _SPEC.nfs)
    if spec.csi is not None:
        yield from validate_driver_name(spec.csi.driver, _SPEC.csi.driver)
        if not spec.csi.volume_handle:
            yield _SPEC.csi.volumeHandle.required()
    if spec.local is not None:
        if not spec.local.path:
            yield _SPEC.local.child("path").required()
        if spec.node_affinity is None:
            yield _SPEC.nodeAffinity.required("Local volume requires node affinity")


def _validate_update(new: PersistentVolume, old: PersistentVolume) -> Iterator[FieldError]:
    sources, were = _sources_of(new.spec), _sources_of(old.spec)
    if new.spec.csi is not None and old.spec.csi is not None:
        # Secrets for growing the volume may be named late.
        late = replace(
            new.spec.csi,
            controller_expand_secret_ref=old.spec.csi.controller_expand_secret_ref,
            node_expand_secret_ref=old.spec.csi.node_expand_secret_ref,
        )
        sources["csi"] = late
    if sources != were:
        bare = replace(old.spec, **{**dict.fromkeys(were), **sources})
        yield _SPEC.persistentvolumesource.forbidden(
            "spec.persistentvolumesource is immutable after creation\n"
            + difference_text(old.spec, bare, "spec")
        )
    yield from validate_immutable(new.spec.volume_mode, old.spec.volume_mode, _SPEC.volumeMode)
    if old.spec.node_affinity is not None and new.spec.node_affinity != old.spec.node_affinity:
        yield _SPEC.nodeAffinity.immutable(new.spec.node_affinity)


# --- columns ------------------------------------------------------------------------------


def _phase(volume: PersistentVolume) -> str:
    return "Terminating" if volume.metadata.deletion_timestamp else volume.status.phase


def _claim(volume: PersistentVolume) -> str:
    claim = volume.spec.claim_ref
    return "" if claim is None else f"{claim.namespace}/{claim.name}"


def _class(volume: PersistentVolume) -> str:
    return volume.metadata.annotations.get(_LEGACY_CLASS) or volume.spec.storage_class_name


PERSISTENT_VOLUMES = Resource(
    group="",
    version="v1",
    kind=PersistentVolume,
    plural="persistentvolumes",
    scope=Scope.CLUSTER,
    strategy=Strategy(
        default=default_persistent_volume,
        prepare_create=_prepare_create,
        validate=validate_persistent_volume,
        generation_follows=(),
    ),
    subresources=(Status(),),
    columns=(
        Column("Capacity", lambda volume: volume.spec.capacity.get("storage", "")),
        Column("Access Modes", lambda volume: access_modes_text(volume.spec.access_modes)),
        Column("Reclaim Policy", lambda volume: volume.spec.persistent_volume_reclaim_policy),
        Column("Status", _phase),
        Column("Claim", _claim),
        Column("StorageClass", _class),
        Column(
            "VolumeAttributesClass",
            lambda volume: volume.spec.volume_attributes_class_name or "<unset>",
        ),
        Column("Reason", lambda volume: volume.status.reason),
        AGE,
        Column("VolumeMode", lambda volume: volume.spec.volume_mode or "<unset>", wide=True),
    ),
)
