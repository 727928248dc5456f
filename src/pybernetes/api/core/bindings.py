"""Binding: says on which node a pod runs. Sent to the server, never stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pybernetes.api.resource import Resource, Scope, Strategy
from pybernetes.api.types.core_v1 import Binding
from pybernetes.apimachinery.fielderror import Path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pybernetes.apimachinery.fielderror import FieldError


def validate_binding(new: Binding, old: Binding | None = None) -> Iterator[FieldError]:
    path = Path("target")
    if new.target.kind not in ("", "Node"):
        yield path.kind.not_supported(new.target.kind, ("Node", "<empty>"))
    if not new.target.name:
        yield path.name.required()


BINDINGS = Resource(
    group="",
    version="v1",
    kind=Binding,
    plural="bindings",
    scope=Scope.NAMESPACED,
    strategy=Strategy(validate=validate_binding, generation_follows=()),
)
