"""Validation of the downward API: which facts about itself a pod may read."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pybernetes.api.core.podresources import is_hugepages
from pybernetes.apimachinery.names import qualified_name_errors
from pybernetes.apimachinery.quantity import canonical_quantity

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Set as AbstractSet

    from pybernetes.api.types.core_v1 import ObjectFieldSelector, ResourceFieldSelector
    from pybernetes.apimachinery.fielderror import FieldError, Path

# What may be read into an environment variable, and what into a file.
ENV_FIELDS = frozenset(
    {
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
        "spec.nodeName",
        "spec.serviceAccountName",
        "status.hostIP",
        "status.hostIPs",
        "status.podIP",
        "status.podIPs",
    }
)
VOLUME_FIELDS = frozenset(
    {
        "metadata.name",
        "metadata.namespace",
        "metadata.labels",
        "metadata.annotations",
        "metadata.uid",
    }
)
# Everything a pod has that can be named by a field path.
_KNOWN = (
    ENV_FIELDS
    | VOLUME_FIELDS
    | {"spec.restartPolicy", "spec.schedulerName", "spec.host", "status.phase"}
)
_SUBSCRIPT = re.compile(r"(.+)\['(.*)'\]", re.DOTALL)

_RESOURCES = frozenset(
    f"{kind}.{name}"
    for kind in ("limits", "requests")
    for name in ("cpu", "memory", "ephemeral-storage")
)
_SIZE_DIVISORS = ("1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei")


def validate_field_ref(
    reference: ObjectFieldSelector, supported: AbstractSet[str], path: Path
) -> Iterator[FieldError]:
    field = reference.field_path
    if not reference.api_version:
        yield path.apiVersion.required()
        return
    if not field:
        yield path.fieldPath.required()
        return
    match = _SUBSCRIPT.fullmatch(field)
    name = match.group(1) if match else field
    if reference.api_version != "v1":
        problem = f"unsupported pod version: {reference.api_version}"
        yield path.fieldPath.invalid(field, f"error converting fieldPath: {problem}")
    elif name not in _KNOWN:
        problem = f"field label not supported: {name}"
        yield path.fieldPath.invalid(field, f"error converting fieldPath: {problem}")
    elif match is None:
        if field not in supported:
            yield path.fieldPath.not_supported(field, supported)
    elif name in ("metadata.annotations", "metadata.labels"):
        key = match.group(2)
        for message in qualified_name_errors(key.lower() if "annot" in name else key):
            yield path.invalid(key, message)
    else:
        yield path.invalid(name, "does not support subscript")


def validate_resource_field_ref(
    reference: ResourceFieldSelector, path: Path, *, in_volume: bool
) -> Iterator[FieldError]:
    resource = reference.resource
    name = resource.partition(".")[2]
    if in_volume and not reference.container_name:
        yield path.containerName.required()
    elif not resource:
        yield path.resource.required()
    elif resource not in _RESOURCES and not is_hugepages(name):
        yield path.resource.not_supported(resource, _RESOURCES)
    if reference.divisor in ("", "0"):
        return
    kind, divisors = {
        "cpu": ("cpu resource", ("1m", "1")),
        "memory": ("memory resource", _SIZE_DIVISORS),
        "ephemeral-storage": ("local ephemeral storage resource", _SIZE_DIVISORS),
    }.get(name, ("hugepages resource", _SIZE_DIVISORS))
    if canonical_quantity(reference.divisor) not in divisors:
        if kind == "cpu resource":
            detail = "only divisor's values 1m and 1 are supported with the cpu resource"
        else:
            listed = ", ".join(divisors)
            detail = f"only divisor's values {listed} are supported with the {kind}"
        yield path.divisor.invalid(resource, detail)
