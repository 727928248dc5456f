"""PersistentVolumeClaim: what storage somebody wants, and which volume it got."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from pybernetes.api.core.difference import difference_text
from pybernetes.api.core.volumedefaults import default_claim_spec
from pybernetes.api.resource import AGE, Column, Resource, Scope, Status, Strategy
from pybernetes.api.types.core_v1 import (
    PersistentVolumeClaim,
    PersistentVolumeClaimSpec,
    PersistentVolumeClaimStatus,
)
from pybernetes.api.validation import (
    NEGATIVE,
    NOT_POSITIVE,
    rounded_amounts,
    validate_immutable,
    validate_label_selector,
    validate_with,
)
from pybernetes.apimachinery.fielderror import Path
from pybernetes.apimachinery.names import dns_subdomain_errors
from pybernetes.apimachinery.quantity import compare, parse_quantity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pybernetes.apimachinery.fielderror import FieldError

ACCESS_MODES = frozenset({"ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"})
_SHORT_MODES = {
    "ReadWriteOnce": "RWO",
    "ReadOnlyMany": "ROX",
    "ReadWriteMany": "RWX",
    "ReadWriteOncePod": "RWOP",
}
VOLUME_MODES = frozenset({"Block", "Filesystem"})
_LEGACY_CLASS = "volume.beta.kubernetes.io/storage-class"
_SPEC = Path("spec")


def access_modes_text(modes: tuple[str, ...]) -> str:
    """RWO,ROX,RWX,RWOP: each once, in this order."""
    return ",".join([short for mode, short in _SHORT_MODES.items() if mode in modes])


# --- defaults -----------------------------------------------------------------------------


def default_claim(new: PersistentVolumeClaim) -> PersistentVolumeClaim:
    spec, status = default_claim_spec(new.spec), new.status
    if not status.phase:
        status = replace(status, phase="Pending")
    capacity = rounded_amounts(status.capacity)
    if capacity is not status.capacity:
        status = replace(status, capacity=capacity)
    if spec is new.spec and status is new.status:
        return new
    return replace(new, spec=spec, status=status)


def _prepare_create(new: PersistentVolumeClaim) -> PersistentVolumeClaim:
    return replace(new, status=PersistentVolumeClaimStatus(phase="Pending"))


# --- validation ---------------------------------------------------------------------------


def validate_claim(
    new: PersistentVolumeClaim, old: PersistentVolumeClaim | None
) -> Iterator[FieldError]:
    yield from validate_claim_spec(new.spec, _SPEC)
    if old is not None:
        yield from _validate_update(new, old)


def validate_claim_spec(spec: PersistentVolumeClaimSpec, path: Path) -> Iterator[FieldError]:
    """Also of the templates of ephemeral volumes and stateful sets."""
    yield from validate_access_modes(spec.access_modes, path.accessModes)
    yield from validate_label_selector(spec.selector, path.selector)
    storage = spec.resources.requests.get("storage")
    if storage is None:
        yield path.resources.key("storage").required()
    elif parse_quantity(storage) <= 0:
        detail = NOT_POSITIVE if parse_quantity(storage) == 0 else NEGATIVE
        yield path.resources.key("storage").invalid(storage, detail)
    if spec.storage_class_name:
        yield from validate_with(
            dns_subdomain_errors, spec.storage_class_name, path.storageClassName
        )
    if spec.volume_attributes_class_name:
        yield from validate_with(
            dns_subdomain_errors,
            spec.volume_attributes_class_name,
            path.volumeAttributesClassName,
        )
    if spec.volume_mode and spec.volume_mode not in VOLUME_MODES:
        yield path.volumeMode.not_supported(spec.volume_mode, VOLUME_MODES)
    for wire_name, source in (
        ("dataSource", spec.data_source),
        ("dataSourceRef", spec.data_source_ref),
    ):
        if source is None:
            continue
        here = path.child(wire_name)
        if not source.name:
            yield here.name.required()
        if not source.kind:
            yield here.kind.required()
        if not source.api_group and source.kind and source.kind != "PersistentVolumeClaim":
            yield here.invalid(
                source.kind, "must be 'PersistentVolumeClaim' when referencing the default apiGroup"
            )
    reference, plain = spec.data_source_ref, spec.data_source
    if reference is not None and plain is not None and not reference.namespace:
        same = (plain.api_group or "", plain.kind, plain.name)
        if same != (reference.api_group or "", reference.kind, reference.name):
            yield path.invalid(plain, "must match dataSourceRef")


def validate_access_modes(modes: tuple[str, ...], path: Path) -> Iterator[FieldError]:
    if not modes:
        yield path.required("at least 1 access mode is required")
    for mode in modes:
        if mode not in ACCESS_MODES:
            yield path.not_supported(mode, ACCESS_MODES)
    if "ReadWriteOncePod" in modes and len(modes) > 1:
        yield path.forbidden("may not use ReadWriteOncePod with other access modes")


def _validate_update(
    new: PersistentVolumeClaim, old: PersistentVolumeClaim
) -> Iterator[FieldError]:
    spec = new.spec
    if not old.spec.volume_name:
        # Binding is the one change that an unbound claim sees.
        spec = replace(spec, volume_name=old.spec.volume_name)
    before = old.spec.resources.requests.get("storage")
    after = new.spec.resources.requests.get("storage")
    if new.status.phase == "Bound" and before is not None and after is not None:
        requests = {**new.spec.resources.requests, "storage": before}
        spec = replace(spec, resources=replace(new.spec.resources, requests=requests))
    if new.spec.storage_class_name != old.spec.storage_class_name and (
        old.metadata.annotations.get(_LEGACY_CLASS) == new.spec.storage_class_name
        or old.spec.storage_class_name is None
    ):
        # A class may be given to a claim that had none, or moved from the old annotation.
        spec = replace(spec, storage_class_name=old.spec.storage_class_name)
    spec = replace(spec, volume_attributes_class_name=old.spec.volume_attributes_class_name)
    if spec != old.spec:
        yield _SPEC.forbidden(
            "spec is immutable after creation except resources.requests and "
            "volumeAttributesClassName for bound claims\n" + difference_text(old.spec, spec, "spec")
        )
    # A resize that failed may be taken back, but not below what there is.
    least = old.status.capacity.get("storage", "0")
    if (
        before is not None
        and after is not None
        and compare(after, before) < 0
        and compare(after, least) <= 0
    ):
        yield _SPEC.resources.requests.storage.forbidden(
            "field can not be less than status.capacity"
        )
    yield from validate_immutable(new.spec.volume_mode, old.spec.volume_mode, _SPEC.volumeMode)


# --- columns ------------------------------------------------------------------------------


def _phase(claim: PersistentVolumeClaim) -> str:
    return "Terminating" if claim.metadata.deletion_timestamp else claim.status.phase


def _capacity(claim: PersistentVolumeClaim) -> str:
    return claim.status.capacity.get("storage", "") if claim.spec.volume_name else ""


def _modes(claim: PersistentVolumeClaim) -> str:
    return access_modes_text(claim.status.access_modes) if claim.spec.volume_name else ""


def _class(claim: PersistentVolumeClaim) -> str:
    return claim.metadata.annotations.get(_LEGACY_CLASS) or claim.spec.storage_class_name or ""


PERSISTENT_VOLUME_CLAIMS = Resource(
    group="",
    version="v1",
    kind=PersistentVolumeClaim,
    plural="persistentvolumeclaims",
    scope=Scope.NAMESPACED,
    strategy=Strategy(
        default=default_claim,
        prepare_create=_prepare_create,
        validate=validate_claim,
        generation_follows=(),
    ),
    subresources=(Status(),),
    columns=(
        Column("Status", _phase),
        Column("Volume", lambda claim: claim.spec.volume_name),
        Column("Capacity", _capacity),
        Column("Access Modes", _modes),
        Column("StorageClass", _class),
        Column(
            "VolumeAttributesClass",
            lambda claim: claim.spec.volume_attributes_class_name or "<unset>",
        ),
        AGE,
        Column("VolumeMode", lambda claim: claim.spec.volume_mode or "<unset>", wide=True),
    ),
)
