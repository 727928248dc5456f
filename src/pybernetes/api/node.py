"""node.k8s.io: runtime classes, which say how the containers of a pod are run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from pybernetes.api.core.resourcelists import validate_resource_list
from pybernetes.api.core.scheduling import validate_tolerations
from pybernetes.api.resource import AGE, Column, Resource, Scope, Strategy
from pybernetes.api.types.node_v1 import RuntimeClass
from pybernetes.api.validation import (
    rounded_amounts,
    validate_dns_label,
    validate_immutable,
    validate_labels,
)
from pybernetes.apimachinery.fielderror import FieldError, Path

if TYPE_CHECKING:
    from collections.abc import Iterator


def default_runtime_class(new: RuntimeClass) -> RuntimeClass:
    overhead = new.overhead
    if overhead is None or (fixed := rounded_amounts(overhead.pod_fixed)) is overhead.pod_fixed:
        return new
    return replace(new, overhead=replace(overhead, pod_fixed=fixed))


def validate_runtime_class(new: RuntimeClass, old: RuntimeClass | None) -> Iterator[FieldError]:
    if old is not None:
        yield from validate_immutable(new.handler, old.handler, Path("handler"))
    if not new.handler:
        yield Path("handler").required()
    else:
        yield from validate_dns_label(new.handler, Path("handler"))
    if new.overhead is not None:
        yield from validate_resource_list(new.overhead.pod_fixed, Path("overhead").podFixed)
    if new.scheduling is not None:
        path, tolerations = Path("scheduling"), new.scheduling.tolerations
        yield from validate_labels(new.scheduling.node_selector, path.nodeSelector)
        yield from validate_tolerations(tolerations, path.tolerations)
        for index, toleration in enumerate(tolerations):
            if toleration in tolerations[:index]:
                yield path.tolerations[index].duplicate(toleration)


RUNTIME_CLASSES = Resource(
    group="node.k8s.io",
    version="v1",
    kind=RuntimeClass,
    plural="runtimeclasses",
    scope=Scope.CLUSTER,
    strategy=Strategy(
        default=default_runtime_class, validate=validate_runtime_class, generation_follows=()
    ),
    columns=(Column("Handler", lambda c: c.handler), AGE),
)

NODE_RESOURCES: tuple[Resource[Any], ...] = (RUNTIME_CLASSES,)
