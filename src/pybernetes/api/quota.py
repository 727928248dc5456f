"""What an object counts towards a ResourceQuota, and which quotas count it. Pure.

Shared by admission, which lets nothing in that would exceed, and by the controller that adds up
what is there; were they to count differently, a quota would be wrong for ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pybernetes.api.core.podresources import (
    BEST_EFFORT,
    is_hugepages,
    is_native,
    pod_limits,
    pod_requests,
    qos_class,
)
from pybernetes.api.core.podstate import is_finished
from pybernetes.apimachinery.errors import resource_text
from pybernetes.apimachinery.quantity import Family, add, compare, format_quantity, sub

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from pybernetes.api.types.core_v1 import (
        Container,
        PersistentVolumeClaim,
        Pod,
        ResourceQuota,
        ScopedResourceSelectorRequirement,
        Service,
    )
    from pybernetes.apimachinery.quantity import Amount

Usage = dict[str, str]

_COMPUTE = ("cpu", "memory", "ephemeral-storage")
_BINARY = ("memory", "ephemeral-storage")
# Kinds that may be limited by their bare plural, an older form of count/.
_BY_PLURAL = frozenset({"configmaps", "secrets", "replicationcontrollers", "resourcequotas"})
# What every container must say when a quota limits it.
_MUST_SAY = frozenset(
    {"cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"}
)


def usage_of(obj: Any, group: str, plural: str, now: datetime | None = None) -> Usage:
    """What one object uses. A pod that has ended, or should have, uses only its place."""
    usage = {f"count/{resource_text(plural, group)}": "1"}
    if group:
        return usage
    if plural == "pods":
        if not _is_over(obj, now):
            usage["pods"] = "1"
            usage |= _of_pod(obj)
    elif plural == "services":
        usage |= _of_service(obj)
    elif plural == "persistentvolumeclaims":
        usage |= _of_claim(obj)
    elif plural in _BY_PLURAL:
        usage[plural] = "1"
    return usage


def _is_over(pod: Pod, now: datetime | None) -> bool:
    if is_finished(pod):
        return True
    deletion = pod.metadata.deletion_timestamp
    return deletion is not None and now is not None and now > deletion


def _of_pod(pod: Pod) -> Usage:
    usage: Usage = {}
    for name, amount in pod_requests(pod).items():
        text = _text(name, amount)
        if name in _COMPUTE or is_hugepages(name):
            usage[name] = usage[f"requests.{name}"] = text
        elif not is_native(name):
            usage[f"requests.{name}"] = text
    for name, amount in pod_limits(pod).items():
        if name in _COMPUTE:
            usage[f"limits.{name}"] = _text(name, amount)
    return usage


def _text(name: str, amount: Amount) -> str:
    binary = name in _BINARY or is_hugepages(name)
    return format_quantity(amount, Family.BINARY if binary else Family.DECIMAL)


def _of_service(service: Service) -> Usage:
    spec, usage = service.spec, {"services": "1"}
    if spec.type == "LoadBalancer":
        usage["services.loadbalancers"] = "1"
        if spec.allocate_load_balancer_node_ports is False:
            usage["services.nodeports"] = str(sum(bool(port.node_port) for port in spec.ports))
        else:
            usage["services.nodeports"] = str(len(spec.ports))
    elif spec.type == "NodePort":
        usage["services.nodeports"] = str(len(spec.ports))
    return usage


def _of_claim(claim: PersistentVolumeClaim) -> Usage:
    usage = {"persistentvolumeclaims": "1"}
    storage = claim.spec.resources.requests.get("storage")
    if storage is not None:
        usage["requests.storage"] = storage
    annotated = claim.metadata.annotations.get("volume.beta.kubernetes.io/storage-class")
    if storage_class := annotated or claim.spec.storage_class_name:
        prefix = f"{storage_class}.storageclass.storage.k8s.io/"
        usage |= {f"{prefix}{name}": amount for name, amount in tuple(usage.items())}
    return usage


# --- which quotas count it ------------------------------------------------------------------------


def counts(quota: ResourceQuota, obj: Any, group: str, plural: str) -> bool:
    """Whether the scopes of a quota include an object; without scopes they include all."""
    spec = quota.spec
    selector = spec.scope_selector
    requirements = () if selector is None else selector.match_expressions
    if not spec.scopes and not requirements:
        return True
    if group or plural != "pods":
        return False
    return all(_in_scope(obj, scope) for scope in spec.scopes) and all(
        _fits(obj, requirement) for requirement in requirements
    )


def _in_scope(pod: Pod, scope: str) -> bool:
    seconds = pod.spec.active_deadline_seconds
    terminating = seconds is not None and seconds >= 0
    if scope == "Terminating":
        return terminating
    if scope == "NotTerminating":
        return not terminating
    if scope == "BestEffort":
        return qos_class(pod) == BEST_EFFORT
    if scope == "NotBestEffort":
        return qos_class(pod) != BEST_EFFORT
    if scope == "PriorityClass":
        return bool(pod.spec.priority_class_name)
    if scope == "CrossNamespacePodAffinity":
        return _looks_across_namespaces(pod)
    return False


def _fits(pod: Pod, requirement: ScopedResourceSelectorRequirement) -> bool:
    if requirement.scope_name != "PriorityClass":
        return _in_scope(pod, requirement.scope_name)
    name, operator = pod.spec.priority_class_name, requirement.operator
    if operator == "In":
        return name in requirement.values
    if operator == "NotIn":
        return name not in requirement.values
    return bool(name) is (operator == "Exists")


def _looks_across_namespaces(pod: Pod) -> bool:
    affinity = pod.spec.affinity
    if affinity is None:
        return False
    for part in (affinity.pod_affinity, affinity.pod_anti_affinity):
        if part is None:
            continue
        preferred = part.preferred_during_scheduling_ignored_during_execution
        terms = (
            *part.required_during_scheduling_ignored_during_execution,
            *(weighted.pod_affinity_term for weighted in preferred),
        )
        if any(term.namespaces or term.namespace_selector is not None for term in terms):
            return True
    return False


def unsaid(pod: Pod, limited: Iterable[str]) -> dict[str, list[str]]:
    """What a quota limits and containers leave open: resource → names of those containers."""
    wanted = _MUST_SAY & set(limited)
    if not wanted or pod.spec.resources is not None:
        return {}
    lacking: dict[str, list[str]] = {}
    for container in (*pod.spec.containers, *pod.spec.init_containers):
        for name in wanted - _said_by(container):
            lacking.setdefault(name, []).append(container.name)
    return {name: sorted(lacking[name]) for name in sorted(lacking)}


def _said_by(container: Container) -> set[str]:
    requests = container.resources.requests
    said = {*requests, *(f"requests.{name}" for name in requests)}
    return said | {f"limits.{name}" for name in container.resources.limits}


# --- arithmetic -----------------------------------------------------------------------------------


def masked(usage: Mapping[str, str], names: Iterable[str]) -> Usage:
    """Only what is limited."""
    return {name: usage[name] for name in names if name in usage}


def added(left: Mapping[str, str], right: Mapping[str, str]) -> Usage:
    result = dict(left)
    for name, amount in right.items():
        result[name] = add(result.get(name, "0"), amount)
    return result


def subtracted(left: Mapping[str, str], right: Mapping[str, str]) -> Usage:
    result = dict(left)
    for name, amount in right.items():
        result[name] = sub(result.get(name, "0"), amount)
    return result


def exceeded(usage: Mapping[str, str], hard: Mapping[str, str]) -> list[str]:
    """The names of what is more than allowed, in order."""
    return sorted(
        name for name, amount in usage.items() if name in hard and compare(amount, hard[name]) > 0
    )


def told(usage: Mapping[str, str], names: Iterable[str]) -> str:
    """Amounts as messages tell them."""
    return ",".join(f"{name}={usage.get(name, '0')}" for name in sorted(names))


# --- what must be looked at -----------------------------------------------------------------------


def places_of(hard: Iterable[str]) -> set[tuple[str, str]]:
    """Group and plural of everything that the limited names are about."""
    return {_place_of(name) for name in hard}


def _place_of(name: str) -> tuple[str, str]:
    if name.startswith("count/"):
        plural, _, group = name.removeprefix("count/").partition(".")
        return (group, plural)
    if name in _BY_PLURAL:
        return ("", name)
    if name == "services" or name.startswith("services."):
        return ("", "services")
    if name in ("persistentvolumeclaims", "requests.storage") or ".storageclass." in name:
        return ("", "persistentvolumeclaims")
    return ("", "pods")
