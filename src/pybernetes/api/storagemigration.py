"""storagemigration.k8s.io: requests to write all objects of a resource in its present version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pybernetes.api.conditions import has_condition
from pybernetes.api.resource import Column, Resource, Scope, Status, Strategy
from pybernetes.api.sameshape import same_shape
from pybernetes.api.types import storagemigration_v1 as v1
from pybernetes.api.types import storagemigration_v1beta1 as v1beta1
from pybernetes.api.validation import validate_immutable, validate_with
from pybernetes.apimachinery.fielderror import FieldError, Path
from pybernetes.apimachinery.names import dns_1035_label_errors, dns_subdomain_errors

if TYPE_CHECKING:
    from collections.abc import Iterator


def validate_migration(new: Any, old: Any) -> Iterator[FieldError]:
    resource, path = new.spec.resource, Path("spec").resource
    if old is not None:
        yield from validate_immutable(new.spec, old.spec, Path("spec"))
        return
    if not resource.resource:
        yield path.resource.required("resource is required")
    else:
        yield from validate_with(dns_1035_label_errors, resource.resource, path.resource)
    if resource.group:
        yield from validate_with(dns_subdomain_errors, resource.group, path.group)


def validate_migration_status(new: Any, old: Any) -> Iterator[FieldError]:
    """What was tried is over, one way or the other."""
    conditions, path = new.status.conditions, Path("status").conditions
    outcomes = [type_ for type_ in ("Succeeded", "Failed") if has_condition(conditions, type_)]
    if len(outcomes) == 2:
        yield path.invalid(conditions, "Both success and failed conditions cannot be true")
    if outcomes and has_condition(conditions, "Running"):
        yield path.invalid(conditions, "Running condition cannot be true when success or failed is")
    if old is None:
        return
    for type_ in ("Succeeded", "Failed"):
        if has_condition(old.status.conditions, type_) and not has_condition(conditions, type_):
            yield path.invalid(
                conditions, f"{type_} condition cannot be set to false once it is true"
            )
    before = old.status.resource_version
    if before and new.status.resource_version != before:
        yield Path("status").resourceVersion.invalid(
            new.status.resource_version, "resourceVersion cannot be updated"
        )


def _resource(migration: Any) -> str:
    resource = migration.spec.resource
    return f"{resource.resource}.{resource.group}" if resource.group else resource.resource


def _outcome(migration: Any) -> str:
    for type_ in ("Succeeded", "Failed", "Running"):
        if has_condition(migration.status.conditions, type_):
            return type_
    return "Pending"


def _migrations(kind: type[Any], version: str) -> Resource[Any]:
    """Stored as the beta, which has the same fields."""
    stored = v1beta1.StorageVersionMigration
    return Resource(
        group="storagemigration.k8s.io",
        version=version,
        kind=kind,
        plural="storageversionmigrations",
        scope=Scope.CLUSTER,
        strategy=Strategy(validate=validate_migration),
        subresources=(Status(validate=validate_migration_status),),
        # Upstream's name column has no format here.
        name_column=False,
        columns=(
            Column("Name", lambda m: m.metadata.name),
            Column("Resource", _resource),
            Column("Status", _outcome),
        ),
        conversion=None if kind is stored else same_shape(kind, stored),
    )


STORAGEMIGRATION_RESOURCES: tuple[Resource[Any], ...] = (
    _migrations(v1.StorageVersionMigration, "v1"),
    _migrations(v1beta1.StorageVersionMigration, "v1beta1"),
)
