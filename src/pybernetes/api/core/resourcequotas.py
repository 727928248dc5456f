"""ResourceQuota: how much a namespace may have in all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from pybernetes.api.core.podresources import is_native
from pybernetes.api.core.resourcelists import is_standard, validate_amount
from pybernetes.api.resource import AGE, Column, Resource, Scope, Status, Strategy
from pybernetes.api.types.core_v1 import ResourceQuota
from pybernetes.api.validation import rounded_amounts, validate_with
from pybernetes.apimachinery.fielderror import Path
from pybernetes.apimachinery.names import qualified_name_errors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pybernetes.apimachinery.fielderror import FieldError

_SPEC = Path("spec")
# Which pods a quota counts; of each pair at most one.
SCOPES = (
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
)
_CONFLICTING = ({"BestEffort", "NotBestEffort"}, {"Terminating", "NotTerminating"})
_COMPUTE = frozenset(
    f"{prefix}{name}"
    for prefix in ("", "requests.", "limits.")
    for name in ("cpu", "memory", "ephemeral-storage")
) | {"pods"}
_WITH_VALUES = ("In", "NotIn")
_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")


def default_resource_quota(new: ResourceQuota) -> ResourceQuota:
    hard = rounded_amounts(new.spec.hard)
    status = new.status
    hard_seen, used = rounded_amounts(status.hard), rounded_amounts(status.used)
    if hard_seen is not status.hard or used is not status.used:
        new = replace(new, status=replace(status, hard=hard_seen, used=used))
    return new if hard is new.spec.hard else replace(new, spec=replace(new.spec, hard=hard))


def is_quota_name(name: str) -> bool:
    """Something that can be limited by a quota."""
    if "/" not in name:
        return is_standard(name) or name.startswith(("count/", "requests.hugepages-"))
    return True


def validate_resource_quota(new: ResourceQuota, old: ResourceQuota | None) -> Iterator[FieldError]:
    yield from _validate_hard(new.spec.hard, _SPEC.hard)
    scopes = new.spec.scopes
    if scopes:
        yield from _validate_scopes(new)
    if new.spec.scope_selector is not None:
        yield from _validate_selector(new)
    if old is None:
        return
    if sorted(scopes) != sorted(old.spec.scopes):
        yield _SPEC.scopes.immutable(list(scopes))
    if new.spec.scope_selector != old.spec.scope_selector:
        yield _SPEC.scopeSelector.immutable(new.spec.scope_selector)


def _validate_hard(hard: Mapping[str, str], path: Path) -> Iterator[FieldError]:
    for name, amount in hard.items():
        here = path.key(name)
        yield from validate_with(qualified_name_errors, name, here)
        if not is_quota_name(name):
            yield here.invalid(name, "must be a standard resource for quota")
        yield from validate_amount(name, amount, here)
        if name.startswith("count/") and "m" in amount:
            yield here.invalid(amount, "must be an integer")


def _validate_scopes(quota: ResourceQuota) -> Iterator[FieldError]:
    scopes, path = quota.spec.scopes, _SPEC.scopes
    for scope in scopes:
        if scope not in SCOPES:
            yield path.invalid(list(scopes), "unsupported scope")
        elif any(not _fits(scope, name) for name in quota.spec.hard):
            yield path.invalid(list(scopes), "unsupported scope applied to resource")
    for pair in _CONFLICTING:
        if pair <= set(scopes):
            yield path.invalid(list(scopes), "conflicting scopes")


def _fits(scope: str, name: str) -> bool:
    if scope == "BestEffort":
        return name in ("pods", "count/pods")
    if scope == "VolumeAttributesClass":
        return "storage" in name or "persistentvolumeclaims" in name
    return name in _COMPUTE or name == "count/pods" or not is_native(name) or "hugepages-" in name


def _validate_selector(quota: ResourceQuota) -> Iterator[FieldError]:
    selector = quota.spec.scope_selector
    assert selector is not None
    for index, part in enumerate(selector.match_expressions):
        here = _SPEC.scopeSelector.matchExpressions[index]
        if part.scope_name not in SCOPES:
            yield here.scopeName.invalid(part.scope_name, "unsupported scope")
        if part.operator not in _OPERATORS:
            yield here.operator.invalid(part.operator, "not a valid selector operator")
        elif part.operator in _WITH_VALUES and not part.values:
            yield here.child("values").required(
                "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"
            )
        elif part.operator not in _WITH_VALUES and part.values:
            yield here.child("values").invalid(
                list(part.values),
                "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector",
            )


def _validate_status(new: ResourceQuota, old: ResourceQuota | None) -> Iterator[FieldError]:
    yield from _validate_hard(new.status.hard, Path("status").hard)
    yield from _validate_hard(new.status.used, Path("status").used)


def _used_text(quota: ResourceQuota, *, limits: bool) -> str:
    names = sorted(name for name in quota.status.hard if name.startswith("limits.") is limits)
    return ", ".join(
        f"{name}: {quota.status.used.get(name, '0')}/{quota.status.hard[name]}" for name in names
    )


RESOURCE_QUOTAS = Resource(
    group="",
    version="v1",
    kind=ResourceQuota,
    plural="resourcequotas",
    scope=Scope.NAMESPACED,
    strategy=Strategy(
        default=default_resource_quota, validate=validate_resource_quota, generation_follows=()
    ),
    subresources=(Status(validate=_validate_status),),
    columns=(
        Column("Request", lambda quota: _used_text(quota, limits=False)),
        Column("Limit", lambda quota: _used_text(quota, limits=True)),
        AGE,
    ),
)
