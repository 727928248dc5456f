"""Validation of resource lists: what may be asked for, and how much of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pybernetes.api.core.podresources import is_hugepages, is_native, is_overcommit_allowed
from pybernetes.api.validation import NEGATIVE
from pybernetes.apimachinery.names import qualified_name_errors
from pybernetes.apimachinery.quantity import QuantityError, compare, is_quantity, parse_quantity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from collections.abc import Set as AbstractSet

    from pybernetes.api.types.core_v1 import ResourceRequirements
    from pybernetes.apimachinery.fielderror import FieldError, Path

_CONTAINER = frozenset({"cpu", "memory", "ephemeral-storage"})
_COUNTED = frozenset(
    {
        "pods",
        "services",
        "replicationcontrollers",
        "resourcequotas",
        "secrets",
        "configmaps",
        "persistentvolumeclaims",
        "services.nodeports",
        "services.loadbalancers",
    }
)
_STANDARD = (
    _CONTAINER
    | _COUNTED
    | {
        "requests.cpu",
        "requests.memory",
        "requests.ephemeral-storage",
        "limits.cpu",
        "limits.memory",
        "limits.ephemeral-storage",
        "storage",
        "requests.storage",
    }
)


def is_extended(name: str) -> bool:
    """A vendor's resource (`example.com/gpu`)."""
    if is_native(name) or name.startswith("requests."):
        return False
    return not qualified_name_errors(f"requests.{name}")


def is_standard(name: str) -> bool:
    return name in _STANDARD or is_hugepages(name)


def is_whole_number(name: str) -> bool:
    """A resource that is counted in pieces."""
    return name in _COUNTED or is_extended(name)


def validate_amount(name: str, amount: str, path: Path) -> Iterator[FieldError]:
    try:
        value = parse_quantity(amount)
    except QuantityError as error:
        yield path.invalid(amount, str(error))
        return
    if value < 0:
        yield path.invalid(amount, NEGATIVE)
    if value.denominator != 1 and is_whole_number(name):
        yield path.invalid(amount, "must be an integer")


def validate_resource_name(name: str, path: Path) -> Iterator[FieldError]:
    """A name that may stand in quotas, limits and capacities."""
    errors = qualified_name_errors(name)
    for message in errors:
        yield path.invalid(name, message)
    if not errors and "/" not in name and not is_standard(name):
        yield path.invalid(name, "must be a standard resource type or fully qualified")


def validate_container_resource_name(name: str, path: Path) -> Iterator[FieldError]:
    if name in _CONTAINER:
        return
    errors = qualified_name_errors(name)
    for message in errors:
        yield path.invalid(name, message)
    if errors:
        return
    if "/" not in name:
        if not is_hugepages(name):
            yield path.invalid(name, "must be a standard resource for containers")
    elif not is_native(name) and not is_extended(name):
        yield path.invalid(name, "doesn't follow extended resource name standard")


def validate_resource_list(amounts: Mapping[str, str], path: Path) -> Iterator[FieldError]:
    """Capacities, overhead and the like."""
    for name, amount in amounts.items():
        here = path.key(name)
        yield from validate_resource_name(name, here)
        yield from validate_amount(name, amount, here)


def validate_requirements(
    resources: ResourceRequirements, claim_names: AbstractSet[str], path: Path
) -> Iterator[FieldError]:
    """Requests and limits of a container."""
    limits, requests = resources.limits, resources.requests
    if not limits and not requests and not resources.claims:
        return
    for where, amounts in (("limits", limits), ("requests", requests)):
        for name, amount in amounts.items():
            # By far the most usual: an ordinary resource, and not a negative amount of it.
            if name in _CONTAINER and amount[:1].isdecimal() and is_quantity(amount):
                continue
            here = path.child(where).key(name)
            yield from validate_container_resource_name(name, here)
            yield from validate_amount(name, amount, here)
            if is_hugepages(name):
                yield from _validate_hugepages(name, amount, here)
    yield from validate_requests_within_limits(resources, path)
    named = limits.keys() | requests.keys()
    if any(map(is_hugepages, named)) and not named & {"cpu", "memory"}:
        yield path.forbidden("HugePages require cpu or memory")
    yield from _validate_claims(resources, claim_names, path.claims)


def validate_requests_within_limits(
    resources: ResourceRequirements, path: Path
) -> Iterator[FieldError]:
    limits, requests = resources.limits, resources.requests
    for name, request in requests.items():
        limit = limits.get(name)
        if limit is None:
            if not is_overcommit_allowed(name):
                yield path.limits.required("Limit must be set for non overcommitable resources")
            continue
        if request == limit:
            continue
        difference = compare(request, limit)
        if difference and not is_overcommit_allowed(name):
            yield path.requests.invalid(request, f"must be equal to {name} limit of {limit}")
        elif difference > 0:
            yield path.requests.invalid(
                request, f"must be less than or equal to {name} limit of {limit}"
            )


def _validate_hugepages(name: str, amount: str, path: Path) -> Iterator[FieldError]:
    try:
        size, value = parse_quantity(name.removeprefix("hugepages-")), parse_quantity(amount)
    except QuantityError as error:
        yield path.invalid(name, str(error))
        return
    if size <= 0 or value % size:
        yield path.invalid(amount, f"{amount} is not positive integer multiple of {name}")


def _validate_claims(
    resources: ResourceRequirements, claim_names: AbstractSet[str], path: Path
) -> Iterator[FieldError]:
    seen: set[tuple[str, str]] = set()
    for index, claim in enumerate(resources.claims):
        here = path[index]
        if not claim.name:
            yield here.name.required()
        elif (claim.name, claim.request) in seen:
            yield here.duplicate(f"{claim.name}/{claim.request}" if claim.request else claim.name)
        elif claim.name not in claim_names:
            yield here.name.not_found(claim.name)
        seen.add((claim.name, claim.request))
