"""Requests and limits as the kernel takes them: shares, quota, bytes, and who dies first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pybernetes.api.core.podresources import BEST_EFFORT, GUARANTEED, qos_class
from pybernetes.apimachinery.quantity import int_value, milli_value
from pybernetes.kubelet.runtime.interface import Resources

if TYPE_CHECKING:
    from pybernetes.api.types.core_v1 import Pod
    from pybernetes.kubelet.pod_state import AnyContainer

LEAST_SHARES, MOST_SHARES = 2, 262144
SHARES_PER_CPU = 1024
PERIOD_MICROSECONDS = 100_000
LEAST_QUOTA_MICROSECONDS = 1000

GUARANTEED_SCORE, BEST_EFFORT_SCORE = -997, 1000
# Priorities from here on belong to the cluster's own pods.
CRITICAL_PRIORITY = 2_000_000_000


def container_resources(
    pod: Pod, container: AnyContainer, *, node_memory: int, least_score: int = -1000
) -> Resources:
    """`least_score` is the lowest score the kernel lets us give: not below our own."""
    requests, limits = container.resources.requests, container.resources.limits
    cpu_limit = milli_value(limits["cpu"]) if "cpu" in limits else None
    cpu = milli_value(requests["cpu"]) if "cpu" in requests else cpu_limit
    memory = int_value(limits["memory"]) if "memory" in limits else None
    score = oom_score(pod, container, node_memory=node_memory)
    return Resources(
        cpu_shares=shares(cpu or 0),
        cpu_quota_microseconds=None if not cpu_limit else quota(cpu_limit),
        cpu_period_microseconds=PERIOD_MICROSECONDS if cpu_limit else None,
        memory_limit_bytes=memory or None,
        oom_score_adj=max(score, least_score),
        hugepage_limits=tuple(
            (_page_size(name), int_value(value))
            for name, value in limits.items()
            if name.startswith("hugepages-")
        ),
    )


def shares(milli_cpu: int) -> int:
    return min(max(milli_cpu * SHARES_PER_CPU // 1000, LEAST_SHARES), MOST_SHARES)


def quota(milli_cpu: int) -> int:
    return max(milli_cpu * PERIOD_MICROSECONDS // 1000, LEAST_QUOTA_MICROSECONDS)


def oom_score(pod: Pod, container: AnyContainer, *, node_memory: int) -> int:
    """Who uses most of what it did not ask for is killed first."""
    if (pod.spec.priority or 0) >= CRITICAL_PRIORITY:
        return GUARANTEED_SCORE
    quality = pod.status.qos_class or qos_class(pod)
    if quality == GUARANTEED:
        return GUARANTEED_SCORE
    if quality == BEST_EFFORT:
        return BEST_EFFORT_SCORE
    request = int_value(container.resources.requests.get("memory", "0"))
    score = 1000 - 1000 * request // max(node_memory, 1)
    return min(max(score, 1000 + GUARANTEED_SCORE), BEST_EFFORT_SCORE - 1)


def _page_size(resource: str) -> str:
    """hugepages-2Mi is 2MB in the names of cgroup files."""
    return resource.removeprefix("hugepages-").removesuffix("i") + "B"
