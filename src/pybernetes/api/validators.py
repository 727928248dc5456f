"""Checks that kinds of every group share: numbers, percentages, selectors, labels.

Pure generators of field errors with upstream's texts; a kind's validator yields from them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pybernetes.apimachinery.intstr import is_percent
from pybernetes.apimachinery.names import label_value_errors, percent_errors, qualified_name_errors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pybernetes.api.types.meta_v1 import LabelSelector
    from pybernetes.apimachinery.fielderror import FieldError, Path

NEGATIVE = "must be greater than or equal to 0"

_WITH_VALUES = ("In", "NotIn")
_WITHOUT_VALUES = ("Exists", "DoesNotExist")


def not_negative(value: int | None, path: Path) -> Iterator[FieldError]:
    if value is not None and value < 0:
        yield path.invalid(value, NEGATIVE)


def one_of(value: str, supported: Sequence[str], path: Path) -> Iterator[FieldError]:
    """Required, and one of these; they are printed in this order."""
    if not value:
        yield path.required()
    elif value not in supported:
        yield path.not_supported(value, supported)


def int_or_percent(value: int | str | None, path: Path) -> Iterator[FieldError]:
    """A number of at least 0, or a percentage."""
    if value is None:
        return
    if isinstance(value, int):
        yield from not_negative(value, path)
        return
    for detail in percent_errors(value):
        yield path.invalid(value, detail)


def at_most_all(value: int | str | None, path: Path) -> Iterator[FieldError]:
    """No more than 100%."""
    if isinstance(value, str) and is_percent(value) and int(value[:-1]) > 100:
        yield path.invalid(value, "must not be greater than 100%")


def is_zero(value: int | str | None) -> bool:
    """0 or 0%."""
    if isinstance(value, str):
        return is_percent(value) and int(value[:-1]) == 0
    return value == 0


def labels(values: Mapping[str, str], path: Path) -> Iterator[FieldError]:
    for key, value in values.items():
        for detail in qualified_name_errors(key):
            yield path.invalid(key, detail)
        for detail in label_value_errors(value):
            yield path.invalid(value, detail)


def label_selector(selector: LabelSelector | None, path: Path) -> Iterator[FieldError]:
    if selector is None:
        return
    yield from labels(selector.match_labels, path.matchLabels)
    for index, requirement in enumerate(selector.match_expressions):
        here = path.matchExpressions[index]
        if requirement.operator in _WITH_VALUES:
            if not requirement.values:
                yield here.values.required("must be specified when `operator` is 'In' or 'NotIn'")
        elif requirement.operator in _WITHOUT_VALUES:
            if requirement.values:
                yield here.values.forbidden(
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
                )
        else:
            yield here.operator.invalid(requirement.operator, "not a valid selector operator")
        for detail in qualified_name_errors(requirement.key):
            yield here.child("key").invalid(requirement.key, detail)
        for number, value in enumerate(requirement.values):
            for detail in label_value_errors(value):
                yield here.values[number].invalid(value, detail)


def unchanged(new: object, old: object, path: Path) -> Iterator[FieldError]:
    """The field cannot be changed once it is set."""
    if new != old:
        yield path.immutable(new)
