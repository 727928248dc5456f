"""What a pod asks for as a whole, and the quality of service that follows.

Init containers run one after the other before the containers, sidecars (init containers
that restart) beside everything that starts later: a pod needs the larger of what its
containers need together and of what any init container needs together with the sidecars
started before it. What the pod says about itself as a whole (`spec.resources`) wins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pybernetes.apimachinery.quantity import (
    Amount,
    Family,
    family_of,
    format_quantity,
    parse_quantity,
)

if TYPE_CHECKING:
    from pybernetes.api.types.core_v1 import Container, Pod, PodSpec

CPU, MEMORY, EPHEMERAL_STORAGE = "cpu", "memory", "ephemeral-storage"
HUGEPAGES = "hugepages-"
GUARANTEED, BURSTABLE, BEST_EFFORT = "Guaranteed", "Burstable", "BestEffort"

Kind = Literal["requests", "limits"]
Amounts = dict[str, Amount]

# What the quality of service is judged by.
_COMPUTE = (CPU, MEMORY)


def is_hugepages(name: str) -> bool:
    return name.startswith(HUGEPAGES)


def is_native(name: str) -> bool:
    """A resource of Kubernetes itself rather than of a vendor."""
    return "/" not in name or "kubernetes.io/" in name


def is_overcommit_allowed(name: str) -> bool:
    return is_native(name) and not is_hugepages(name)


def is_pod_level(name: str) -> bool:
    """May a pod say this about itself as a whole?"""
    return name in _COMPUTE or is_hugepages(name)


def is_sidecar(container: Container) -> bool:
    """An init container that keeps running."""
    return container.restart_policy == "Always"


def aggregate(spec: PodSpec, kind: Kind) -> Amounts:
    """What the containers of a pod ask for together."""
    total: Amounts = {}
    for container in spec.containers:
        _add(total, getattr(container.resources, kind))
    if not spec.init_containers:
        return total
    sidecars: Amounts = {}
    most: Amounts = {}
    for container in spec.init_containers:
        own = getattr(container.resources, kind)
        if is_sidecar(container):
            _add(total, own)
            _add(sidecars, own)
            needed = sidecars
        else:
            needed = dict(sidecars)
            _add(needed, own)
        _raise_to(most, needed)
    _raise_to(total, most)
    return total


def aggregate_texts(spec: PodSpec, kind: Kind) -> dict[str, str]:
    """The same as quantities, in the suffixes the first container used."""
    families: dict[str, Family] = {}
    for container in (*spec.containers, *spec.init_containers):
        for name, text in getattr(container.resources, kind).items():
            families.setdefault(name, family_of(text))
    amounts = aggregate(spec, kind)
    return {name: format_quantity(amount, families[name]) for name, amount in amounts.items()}


def pod_requests(pod: Pod) -> Amounts:
    """What the scheduler must find on a node: with overhead and pod-level requests."""
    return _of_pod(pod.spec, "requests")


def pod_limits(pod: Pod) -> Amounts:
    """What the pod may use at most; a resource somebody left open is missing."""
    return _of_pod(pod.spec, "limits")


def _of_pod(spec: PodSpec, kind: Kind) -> Amounts:
    total = aggregate(spec, kind)
    if spec.resources is not None:
        for name, amount in getattr(spec.resources, kind).items():
            if is_pod_level(name):
                total[name] = parse_quantity(amount)
    for name, amount in spec.overhead.items():
        # Overhead limits nothing by itself.
        if kind == "requests" or name in total:
            total[name] = total.get(name, 0) + parse_quantity(amount)
    return total


def _add(total: Amounts, amounts: dict[str, str]) -> None:
    for name, amount in amounts.items():
        total[name] = total.get(name, 0) + parse_quantity(amount)


def _raise_to(total: Amounts, amounts: Amounts) -> None:
    for name, amount in amounts.items():
        if amount > total.get(name, 0) or name not in total:
            total[name] = amount


def qos_class(pod: Pod) -> str:
    """Guaranteed, Burstable or BestEffort, from CPU and memory alone."""
    spec = pod.spec
    if spec.resources is not None and (spec.resources.requests or spec.resources.limits):
        return _judge([(spec.resources.requests, spec.resources.limits)])
    return _judge(
        [
            (container.resources.requests, container.resources.limits)
            for container in (*spec.containers, *spec.init_containers)
        ]
    )


def _judge(asked: list[tuple[dict[str, str], dict[str, str]]]) -> str:
    guaranteed, anything = True, False
    for requests, limits in asked:
        for name in _COMPUTE:
            request, limit = _positive(requests, name), _positive(limits, name)
            anything = anything or bool(request or limit)
            # A request left out is the limit.
            guaranteed = guaranteed and bool(limit) and (request or limit) == limit
    if not anything:
        return BEST_EFFORT
    return GUARANTEED if guaranteed else BURSTABLE


def _positive(amounts: dict[str, str], name: str) -> Amount:
    text = amounts.get(name)
    return 0 if text is None else max(parse_quantity(text), 0)
