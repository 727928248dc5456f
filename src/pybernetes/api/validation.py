"""Validators that kinds share: labels, selectors, numbers, enumerations, quantities.

All yield `FieldError`s under the path they are given. `changed_each` is for defaults: it
keeps a tuple that nothing changed in, so that whole objects cost no copies.
"""

from __future__ import annotations

from operator import is_
from typing import TYPE_CHECKING, TypeVar

from pybernetes.apimachinery.names import (
    MAX_SUBDOMAIN,
    dns_label_errors,
    dns_subdomain_errors,
    label_value_errors,
    percent_errors,
    qualified_name_errors,
    range_message,
)
from pybernetes.apimachinery.quantity import canonical_resource, parse_quantity

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from pybernetes.api.types.meta_v1 import LabelSelector
    from pybernetes.apimachinery.fielderror import FieldError, Path

T = TypeVar("T")

NEGATIVE = "must be greater than or equal to 0"
NOT_POSITIVE = "must be greater than zero"
INT32_MAX = 2**31 - 1


def changed_each(items: tuple[T, ...], change: Callable[[T], T]) -> tuple[T, ...]:
    """Every item through `change`; the same tuple if that changed none."""
    if not items:
        return items
    changed = tuple([change(item) for item in items])
    return items if all(map(is_, items, changed)) else changed


def rounded_amounts(amounts: dict[str, str]) -> dict[str, str]:
    """A ResourceList as it is kept: every quantity canonical and at most milli-fine."""
    for amount in amounts.values():
        if canonical_resource(amount) != amount:
            return {name: canonical_resource(amount) for name, amount in amounts.items()}
    return amounts


def validate_with(
    errors_of: Callable[[str], Sequence[str]], value: str, path: Path
) -> Iterator[FieldError]:
    """The messages of a rule of `apimachinery.names`, as field errors."""
    for message in errors_of(value):
        yield path.invalid(value, message)


def validate_dns_label(value: str, path: Path) -> Iterator[FieldError]:
    for message in dns_label_errors(value):
        yield path.invalid(value, message)


def validate_one_of(
    value: str, supported: Sequence[str] | AbstractSet[str], path: Path
) -> Iterator[FieldError]:
    """A required enumeration. The order in messages is that of a sequence; sets are sorted."""
    if not value:
        yield path.required()
    elif value not in supported:
        yield path.not_supported(value, supported)


def validate_non_negative(value: int | None, path: Path) -> Iterator[FieldError]:
    if value is not None and value < 0:
        yield path.invalid(value, NEGATIVE)


def validate_range(value: int | None, low: int, high: int, path: Path) -> Iterator[FieldError]:
    if value is not None and not low <= value <= high:
        yield path.invalid(value, range_message(low, high))


def validate_labels(labels: Mapping[str, str], path: Path) -> Iterator[FieldError]:
    for key, value in labels.items():
        for message in qualified_name_errors(key):
            yield path.invalid(key, message)
        for message in label_value_errors(value):
            yield path.invalid(value, message)


def validate_label_name(name: str, path: Path) -> Iterator[FieldError]:
    for message in qualified_name_errors(name):
        yield path.invalid(name, message)


def validate_label_selector(selector: LabelSelector | None, path: Path) -> Iterator[FieldError]:
    if selector is None:
        return
    yield from validate_labels(selector.match_labels, path.matchLabels)
    for index, part in enumerate(selector.match_expressions):
        here = path.matchExpressions[index]
        if part.operator in ("In", "NotIn"):
            if not part.values:
                yield here.child("values").required(
                    "must be specified when `operator` is 'In' or 'NotIn'"
                )
        elif part.operator in ("Exists", "DoesNotExist"):
            if part.values:
                yield here.child("values").forbidden(
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
                )
        else:
            yield here.operator.invalid(part.operator, "not a valid selector operator")
        yield from validate_label_name(part.key, here.child("key"))
        for number, value in enumerate(part.values):
            for message in label_value_errors(value):
                yield here.child("values")[number].invalid(value, message)


def is_empty_selector(selector: LabelSelector) -> bool:
    return not selector.match_labels and not selector.match_expressions


def validate_non_negative_quantity(value: str, path: Path) -> Iterator[FieldError]:
    if value.startswith("-") and parse_quantity(value) < 0:
        yield path.invalid(value, NEGATIVE)


def validate_count_or_percent(value: int | str | None, path: Path) -> Iterator[FieldError]:
    """A number that may be a percentage, as maxUnavailable."""
    if isinstance(value, str):
        for message in percent_errors(value):
            yield path.invalid(value, message)
    else:
        yield from validate_non_negative(value, path)


def validate_not_above_hundred_percent(value: int | str | None, path: Path) -> Iterator[FieldError]:
    if isinstance(value, str) and not percent_errors(value) and int(value[:-1]) > 100:
        yield path.invalid(value, "must not be greater than 100%")


def validate_immutable(new: object, old: object, path: Path) -> Iterator[FieldError]:
    if new != old:
        yield path.immutable(new)


def validate_unique(values: Collection[str], path: Path) -> Iterator[FieldError]:
    seen: set[str] = set()
    for index, value in enumerate(values):
        if value in seen:
            yield path[index].duplicate(value)
        seen.add(value)


# A domain, a slash, and a path that may be as long as a domain in a label's company.
_MAX_SIGNER_NAME = 571


def validate_signer_name(name: str, path: Path) -> Iterator[FieldError]:
    """`example.com/signer-name`: who signs certificates, or vouches for them."""
    if not name:
        yield path.required()
        return
    domain, slash, rest = name.partition("/")
    if not slash or "/" in rest:
        yield path.invalid(
            name, "must be a fully qualified domain and path of the form 'example.com/signer-name'"
        )
        return
    if len(domain) > MAX_SUBDOMAIN:
        yield path.too_long(MAX_SUBDOMAIN)
    yield from _validate_each_label(domain, dns_label_errors, path)
    if "." not in domain:
        yield path.invalid(
            domain, "should be a domain with at least two segments separated by dots"
        )
    yield from _validate_each_label(rest, dns_subdomain_errors, path)
    if len(name) > _MAX_SIGNER_NAME:
        yield path.too_long(_MAX_SIGNER_NAME)


def _validate_each_label(
    value: str, errors_of: Callable[[str], Sequence[str]], path: Path
) -> Iterator[FieldError]:
    """The problems of the first bad one; those of others would look the same."""
    for label in value.split("."):
        if errors := errors_of(label):
            for message in errors:
                yield path.invalid(value, f'validating label "{label}": {message}')
            return
