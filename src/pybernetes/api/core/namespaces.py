"""Namespace: where names live. It goes when its contents and its finalizers are gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from pybernetes.api.resource import AGE, Column, Finalize, Resource, Scope, Status, Strategy
from pybernetes.api.types.core_v1 import Namespace, NamespaceStatus
from pybernetes.api.validation import validate_with
from pybernetes.apimachinery.fielderror import Path
from pybernetes.apimachinery.names import dns_label_errors, qualified_name_errors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pybernetes.apimachinery.fielderror import FieldError

FINALIZER = "kubernetes"
# Lets selectors of namespaces choose one by its name.
NAME_LABEL = "kubernetes.io/metadata.name"
ACTIVE, TERMINATING = "Active", "Terminating"


def default_namespace(new: Namespace) -> Namespace:
    metadata = new.metadata
    # With generateName the name comes later, and the label with the next default.
    if metadata.name and metadata.labels.get(NAME_LABEL) != metadata.name:
        labels = {**metadata.labels, NAME_LABEL: metadata.name}
        new = replace(new, metadata=replace(metadata, labels=labels))
    if not new.status.phase:
        new = replace(new, status=replace(new.status, phase=ACTIVE))
    return new


def _prepare_create(new: Namespace) -> Namespace:
    finalizers = new.spec.finalizers
    if FINALIZER not in finalizers:
        finalizers = (*finalizers, FINALIZER)
    named = default_namespace(new)
    spec = replace(new.spec, finalizers=finalizers)
    return replace(named, spec=spec, status=NamespaceStatus(phase=ACTIVE))


def _prepare_update(new: Namespace, old: Namespace) -> Namespace:
    # Finalizers have a door of their own.
    return replace(new, spec=replace(new.spec, finalizers=old.spec.finalizers))


def validate_namespace(new: Namespace, old: Namespace | None) -> Iterator[FieldError]:
    for index, finalizer in enumerate(new.spec.finalizers):
        path = Path("spec").finalizers[index]
        errors = list(validate_with(qualified_name_errors, finalizer, path))
        yield from errors
        if not errors and "/" not in finalizer and finalizer not in (FINALIZER, "orphan"):
            yield path.invalid(
                finalizer, "name is neither a standard finalizer name nor is it fully qualified"
            )


def validate_namespace_status(new: Namespace, old: Namespace | None) -> Iterator[FieldError]:
    path, phase = Path("status").Phase, new.status.phase
    if new.metadata.deletion_timestamp is None:
        if phase != ACTIVE:
            yield path.invalid(phase, "may only be 'Active' if `deletionTimestamp` is empty")
    elif phase != TERMINATING:
        yield path.invalid(phase, "may only be 'Terminating' if `deletionTimestamp` is not empty")


NAMESPACES = Resource(
    group="",
    version="v1",
    kind=Namespace,
    plural="namespaces",
    scope=Scope.CLUSTER,
    strategy=Strategy(
        default=default_namespace,
        prepare_create=_prepare_create,
        prepare_update=_prepare_update,
        validate=validate_namespace,
        name_errors=dns_label_errors,
        generation_follows=(),
    ),
    subresources=(
        Status(validate=validate_namespace_status),
        Finalize(validate=validate_namespace),
    ),
    columns=(Column("Status", lambda namespace: namespace.status.phase), AGE),
    selectable_fields={
        "name": lambda namespace: namespace.metadata.name,
        "status.phase": lambda namespace: namespace.status.phase,
    },
)
