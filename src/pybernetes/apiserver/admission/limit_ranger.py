"""LimitRanger: pods get the requests and limits of their namespace, and stay within its bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from pybernetes.api.core.limitranges import CLAIM, CONTAINER, POD
from pybernetes.api.core.podresources import aggregate
from pybernetes.api.types.core_v1 import LimitRange
from pybernetes.apimachinery.quantity import Family, format_quantity, parse_quantity
from pybernetes.apiserver.admission.plugin import Plugin, is_pod, refused
from pybernetes.apiserver.hooks import Operation
from pybernetes.apiserver.typed import Typed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pybernetes.api.types.core_v1 import Container, LimitRangeItem, PodSpec
    from pybernetes.apiserver.admission.world import World
    from pybernetes.apiserver.hooks import Attributes

ANNOTATION = "kubernetes.io/limit-ranger"
_BINARY = frozenset({"memory", "ephemeral-storage"})


class LimitRanger(Plugin):
    def __init__(self, world: World) -> None:
        self._ranges = Typed(world.catalog, LimitRange)

    async def mutate(self, attributes: Attributes) -> None:
        if attributes.operation is not Operation.CREATE or not is_pod(attributes):
            return
        for found in self._ranges.list(attributes.namespace):
            limits, requests = defaults_of(found)
            if not limits and not requests:
                continue
            pod = attributes.obj
            spec, notes = with_defaults(pod.spec, limits, requests)
            if not notes:
                continue
            said = pod.metadata.annotations
            text = f"LimitRanger plugin set: {'; '.join(notes)}"
            metadata = replace(pod.metadata, annotations={**said, ANNOTATION: text})
            attributes.obj = replace(pod, metadata=metadata, spec=spec)

    async def validate(self, attributes: Attributes) -> None:
        if attributes.operation is Operation.DELETE or attributes.subresource or attributes.group:
            return
        resource = attributes.resource
        # A pod's resources do not change by an update of it.
        if resource == "pods" and attributes.operation is not Operation.CREATE:
            return
        if resource not in ("pods", "persistentvolumeclaims"):
            return
        problems: list[str] = []
        for found in self._ranges.list(attributes.namespace):
            for item in found.spec.limits:
                if resource == "pods":
                    problems += pod_problems(attributes.obj.spec, item)
                elif item.type == CLAIM:
                    requests = attributes.obj.spec.resources.requests
                    problems += bound_problems(item, requests, {})
        if problems:
            text = problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]"
            raise refused(attributes, text)


# --- defaults, purely -----------------------------------------------------------------------------


def defaults_of(found: LimitRange) -> tuple[dict[str, str], dict[str, str]]:
    limits: dict[str, str] = {}
    requests: dict[str, str] = {}
    for item in found.spec.limits:
        if item.type == CONTAINER:
            limits |= item.default
            requests |= item.default_request
    return limits, requests


def with_defaults(
    spec: PodSpec, limits: Mapping[str, str], requests: Mapping[str, str]
) -> tuple[PodSpec, list[str]]:
    """The spec with what containers left open, and notes about what was set."""
    notes: list[str] = []
    containers = tuple(_filled(c, limits, requests, "container", notes) for c in spec.containers)
    init_containers = tuple(
        _filled(c, limits, requests, "init container", notes) for c in spec.init_containers
    )
    return replace(spec, containers=containers, init_containers=init_containers), notes


def _filled(
    container: Container,
    limits: Mapping[str, str],
    requests: Mapping[str, str],
    what: str,
    notes: list[str],
) -> Container:
    present = container.resources
    new_limits = {k: v for k, v in limits.items() if k not in present.limits}
    # A limit somebody set is the request too, before any default.
    new_requests = {
        name: amount
        for name, amount in requests.items()
        if name not in present.requests and name not in present.limits
    }
    if new_requests:
        notes.append(f"{', '.join(sorted(new_requests))} request for {what} {container.name}")
    if new_limits:
        notes.append(f"{', '.join(sorted(new_limits))} limit for {what} {container.name}")
    if not new_limits and not new_requests:
        return container
    resources = replace(
        present,
        limits={**present.limits, **new_limits},
        requests={**present.requests, **new_requests},
    )
    return replace(container, resources=resources)


# --- bounds, purely -------------------------------------------------------------------------------


def pod_problems(spec: PodSpec, item: LimitRangeItem) -> Iterator[str]:
    if item.type == CONTAINER:
        for container in (*spec.containers, *spec.init_containers):
            resources = container.resources
            yield from bound_problems(item, resources.requests, resources.limits)
    elif item.type == POD:
        yield from bound_problems(item, _sums(spec, "requests"), _sums(spec, "limits"))


def _sums(spec: PodSpec, which: str) -> dict[str, str]:
    amounts = aggregate(spec, "requests" if which == "requests" else "limits")
    return {
        name: format_quantity(amount, Family.BINARY if name in _BINARY else Family.DECIMAL)
        for name, amount in amounts.items()
    }


def bound_problems(
    item: LimitRangeItem, requests: Mapping[str, str], limits: Mapping[str, str]
) -> Iterator[str]:
    kind, is_claim = item.type, item.type == CLAIM
    for name, bound in sorted(item.min.items()):
        yield from _below(name, kind, bound, requests.get(name), limits.get(name))
    for name, bound in sorted(item.max.items()):
        if is_claim:
            yield from _above_request(name, kind, bound, requests.get(name))
        else:
            yield from _above(name, kind, bound, requests.get(name), limits.get(name))
    for name, ratio in sorted(item.max_limit_request_ratio.items()):
        yield from _ratio(name, kind, ratio, requests.get(name), limits.get(name))


def _below(
    name: str, kind: str, bound: str, request: str | None, limit: str | None
) -> Iterator[str]:
    start = f"minimum {name} usage per {kind} is {bound}"
    least = parse_quantity(bound)
    if request is None:
        yield f"{start}.  No request is specified"
        return
    if parse_quantity(request) < least:
        yield f"{start}, but request is {request}"
    if limit is not None and parse_quantity(limit) < least:
        yield f"{start}, but limit is {limit}"


def _above(
    name: str, kind: str, bound: str, request: str | None, limit: str | None
) -> Iterator[str]:
    start = f"maximum {name} usage per {kind} is {bound}"
    most = parse_quantity(bound)
    if limit is None:
        yield f"{start}.  No limit is specified"
        return
    if parse_quantity(limit) > most:
        yield f"{start}, but limit is {limit}"
    if request is not None and parse_quantity(request) > most:
        yield f"{start}, but request is {request}"


def _above_request(name: str, kind: str, bound: str, request: str | None) -> Iterator[str]:
    start = f"maximum {name} usage per {kind} is {bound}"
    if request is None:
        yield f"{start}.  No request is specified"
    elif parse_quantity(request) > parse_quantity(bound):
        yield f"{start}, but request is {request}"


def _ratio(
    name: str, kind: str, ratio: str, request: str | None, limit: str | None
) -> Iterator[str]:
    start = f"{name} max limit to request ratio per {kind} is {ratio}"
    asked = 0 if request is None else parse_quantity(request)
    allowed = 0 if limit is None else parse_quantity(limit)
    if not asked:
        yield f"{start}, but no request is specified or request is 0"
    elif not allowed:
        yield f"{start}, but no limit is specified or limit is 0"
    elif allowed / asked > parse_quantity(ratio):
        yield f"{start}, but provided ratio is {float(allowed / asked):.6f}"
