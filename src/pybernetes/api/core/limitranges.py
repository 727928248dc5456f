"""LimitRange: bounds and defaults for what single objects of a namespace may ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from pybernetes.api.core.podresources import is_hugepages
from pybernetes.api.core.resourcelists import validate_resource_name
from pybernetes.api.resource import Resource, Scope, Strategy
from pybernetes.api.types.core_v1 import LimitRange, LimitRangeItem
from pybernetes.api.validation import changed_each, rounded_amounts, validate_one_of, validate_with
from pybernetes.apimachinery.fielderror import Path
from pybernetes.apimachinery.names import qualified_name_errors
from pybernetes.apimachinery.quantity import compare, parse_quantity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pybernetes.apimachinery.fielderror import FieldError

CONTAINER, POD, CLAIM = "Container", "Pod", "PersistentVolumeClaim"
_LISTS = ("max", "min", "default", "default_request", "max_limit_request_ratio")


def default_limit_range(new: LimitRange) -> LimitRange:
    limits = changed_each(new.spec.limits, _default_item)
    if limits is new.spec.limits:
        return new
    return replace(new, spec=replace(new.spec, limits=limits))


def _default_item(item: LimitRangeItem) -> LimitRangeItem:
    changes: dict[str, Any] = {}
    for name in _LISTS:
        amounts = getattr(item, name)
        if (rounded := rounded_amounts(amounts)) is not amounts:
            changes[name] = rounded
    if changes:
        item = replace(item, **changes)
    if item.type != CONTAINER:
        return item
    default = {**item.max, **item.default}
    request = {**item.min, **default, **item.default_request}
    if default == item.default and request == item.default_request:
        return item
    return replace(item, default=default, default_request=request)


def validate_limit_range(new: LimitRange, old: LimitRange | None) -> Iterator[FieldError]:
    types: set[str] = set()
    for index, item in enumerate(new.spec.limits):
        path = Path("spec").limits[index]
        if not item.type:
            yield from validate_one_of(item.type, (), path.type)
        else:
            yield from validate_with(qualified_name_errors, item.type, path.type)
            if "/" not in item.type and item.type not in (CONTAINER, POD, CLAIM):
                yield path.type.invalid(
                    item.type, "must be a standard limit type or fully qualified"
                )
        if item.type in types:
            yield path.type.duplicate(item.type)
        types.add(item.type)
        yield from _validate_item(item, path)


def _validate_item(item: LimitRangeItem, path: Path) -> Iterator[FieldError]:
    if item.type == POD:
        for wire_name, amounts in (
            ("default", item.default),
            ("defaultRequest", item.default_request),
        ):
            if amounts:
                yield path.child(wire_name).forbidden("may not be specified when `type` is 'Pod'")
    if item.type == CLAIM and "storage" not in item.min and "storage" not in item.max:
        yield path.limits.required(
            "either minimum or maximum storage value is required, but neither was provided"
        )
    named: dict[str, None] = {}
    for name in _LISTS:
        named |= dict.fromkeys(getattr(item, name))
    for name in named:
        yield from validate_resource_name(name, path.max.key(name))
        yield from _validate_order(item, name, path)


def _validate_order(item: LimitRangeItem, name: str, path: Path) -> Iterator[FieldError]:
    """min <= defaultRequest <= default <= max, as far as they are given."""
    low, high = item.min.get(name), item.max.get(name)
    default, request = item.default.get(name), item.default_request.get(name)
    pairs = (
        ("min", low, "min", high, "max"),
        ("defaultRequest", low, "min", request, "default request"),
        ("default", low, "min", default, "default"),
        ("defaultRequest", request, "default request", high, "max"),
        ("defaultRequest", request, "default request", default, "default limit"),
        ("default", default, "default", high, "max"),
    )
    for wire_name, less, less_text, more, more_text in pairs:
        if less is not None and more is not None and compare(less, more) > 0:
            wrong = (
                request
                if wire_name == "defaultRequest"
                else default
                if wire_name == "default"
                else low
            )
            yield (
                path.child(wire_name)
                .key(name)
                .invalid(
                    wrong,
                    f"{less_text} value {less} is greater than {more_text} value {more}",
                )
            )
    ratio = item.max_limit_request_ratio.get(name)
    if ratio is not None:
        here = path.maxLimitRequestRatio.key(name)
        if parse_quantity(ratio) < 1:
            yield here.invalid(ratio, f"ratio {ratio} is less than 1")
        if low is not None and high is not None and parse_quantity(low) > 0:
            limit = parse_quantity(high) / parse_quantity(low)
            if parse_quantity(ratio) > limit:
                yield here.invalid(
                    ratio, f"ratio {ratio} is greater than max/min = {float(limit):f}"
                )
    if is_hugepages(name) and default is not None and request is not None and default != request:
        yield path.defaultRequest.key(name).invalid(
            request,
            f"default value {default} must equal to defaultRequest value {request} in hugepage",
        )


LIMIT_RANGES = Resource(
    group="",
    version="v1",
    kind=LimitRange,
    plural="limitranges",
    scope=Scope.NAMESPACED,
    strategy=Strategy(
        default=default_limit_range,
        validate=validate_limit_range,
        generation_follows=(),
        allow_create_on_update=True,
    ),
)
