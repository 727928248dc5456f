"""/stats/summary and /metrics/resource: what the node's pods use, asked of the runtime when asked.

Nothing is sampled in between; the runtime counts anyway.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pybernetes.apimachinery.timestamp import format_time
from pybernetes.wire.http import Response

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pybernetes.kubelet.kubelet import Kubelet
    from pybernetes.kubelet.runtime.interface import ContainerStats
    from pybernetes.kubelet.worker import PodWorker
    from pybernetes.wire.http import Request

_JSON = [("Content-Type", "application/json")]
_TEXT = [("Content-Type", "text/plain; version=0.0.4; charset=utf-8")]

Usage = list[tuple["PodWorker", list["ContainerStats"]]]


async def _usage(kubelet: Kubelet) -> Usage:
    by_pod: dict[str, list[ContainerStats]] = {}
    for stats in await kubelet.context.runtime.list_container_stats():
        by_pod.setdefault(stats.labels.get("io.kubernetes.pod.uid", ""), []).append(stats)
    return [
        (worker, by_pod[worker.state.pod.metadata.uid])
        for worker in kubelet.workers
        if worker.state.pod.metadata.uid in by_pod
    ]


class StatsPages:
    """The two pages, as handlers for `KubeletServer(more=…)`."""

    def __init__(self, kubelet: Kubelet) -> None:
        self._kubelet = kubelet

    async def summary(self, request: Request) -> Response:
        usage = await _usage(self._kubelet)
        now = format_time(self._kubelet.context.clock.now())
        everything = [stats for _, found in usage for stats in found]
        body = {
            "node": {
                "nodeName": self._kubelet.config.node_name,
                "cpu": _cpu(everything, now),
                "memory": _memory(everything, now),
            },
            "pods": [_pod(worker, found) for worker, found in usage],
        }
        return Response(200, _JSON, json.dumps(body).encode())

    async def resource(self, request: Request) -> Response:
        usage = await _usage(self._kubelet)
        return Response(200, _TEXT, resource_metrics(usage).encode())

    async def metrics(self, request: Request) -> Response:
        found = self._kubelet.statistics()
        lines = ["# TYPE kubelet_running_pods gauge"]
        lines.append(f"kubelet_running_pods {found.pods.get('running', 0)}")
        lines.append("# TYPE kubelet_running_containers gauge")
        for stage, count in sorted(found.containers.items()):
            lines.append(f'kubelet_running_containers{{container_state="{stage}"}} {count}')
        return Response(200, _TEXT, ("\n".join(lines) + "\n").encode())


def _pod(worker: PodWorker, found: Sequence[ContainerStats]) -> dict[str, Any]:
    meta = worker.state.pod.metadata
    at = format_time(max(stats.at for stats in found))
    return {
        "podRef": {"name": meta.name, "namespace": meta.namespace, "uid": meta.uid},
        "startTime": format_time(worker.state.started_at),
        "containers": [
            {
                "name": stats.name,
                "cpu": _cpu([stats], format_time(stats.at)),
                "memory": _memory([stats], format_time(stats.at)),
                "rootfs": {
                    "usedBytes": stats.writable_layer_bytes or 0,
                    "inodesUsed": stats.writable_layer_inodes or 0,
                },
            }
            for stats in found
        ],
        "cpu": _cpu(found, at),
        "memory": _memory(found, at),
    }


def _cpu(found: Iterable[ContainerStats], at: str) -> dict[str, Any]:
    found = list(found)
    return {
        "time": at,
        "usageNanoCores": sum(stats.cpu_usage_nanocores or 0 for stats in found),
        "usageCoreNanoSeconds": sum(stats.cpu_usage_nanoseconds or 0 for stats in found),
    }


def _memory(found: Iterable[ContainerStats], at: str) -> dict[str, Any]:
    found = list(found)
    return {
        "time": at,
        "usageBytes": sum(stats.memory_usage_bytes or 0 for stats in found),
        "workingSetBytes": sum(stats.memory_working_set_bytes or 0 for stats in found),
        "rssBytes": sum(stats.memory_rss_bytes or 0 for stats in found),
        "pageFaults": sum(stats.page_faults or 0 for stats in found),
        "majorPageFaults": sum(stats.major_page_faults or 0 for stats in found),
    }


def resource_metrics(usage: Usage) -> str:
    """What metrics-server reads, in the text format of Prometheus."""
    cpu, memory = [], []
    pod_cpu, pod_memory = [], []
    for worker, found in usage:
        meta = worker.state.pod.metadata
        pod = f'namespace="{meta.namespace}",pod="{meta.name}"'
        for stats in found:
            labels = f'{{container="{stats.name}",{pod}}}'
            cpu.append(f"{labels} {(stats.cpu_usage_nanoseconds or 0) / 1e9}")
            memory.append(f"{labels} {stats.memory_working_set_bytes or 0}")
        pod_cpu.append(f"{{{pod}}} {sum(s.cpu_usage_nanoseconds or 0 for s in found) / 1e9}")
        pod_memory.append(f"{{{pod}}} {sum(s.memory_working_set_bytes or 0 for s in found)}")
    everything = [stats for _, found in usage for stats in found]
    node_cpu = sum(s.cpu_usage_nanoseconds or 0 for s in everything) / 1e9
    node_memory = sum(s.memory_working_set_bytes or 0 for s in everything)
    families = (
        ("container_cpu_usage_seconds_total", "counter", cpu),
        ("container_memory_working_set_bytes", "gauge", memory),
        ("pod_cpu_usage_seconds_total", "counter", pod_cpu),
        ("pod_memory_working_set_bytes", "gauge", pod_memory),
        ("node_cpu_usage_seconds_total", "counter", [f" {node_cpu}"]),
        ("node_memory_working_set_bytes", "gauge", [f" {node_memory}"]),
        ("scrape_error", "gauge", [" 0"]),
        ("resource_scrape_error", "gauge", [" 0"]),
    )
    lines = []
    for name, kind, samples in families:
        lines.append(f"# TYPE {name} {kind}")
        lines += [name + sample for sample in samples]
    return "\n".join(lines) + "\n"
