"""The cgroups above containers: one for each pod, below one for each quality of service.

The pod's limits hold for everything in it together, memory-backed volumes too; the shares of the
quality of service keep best-effort pods from starving the others. Containers' own cgroups are the
runtime's business. Under systemd all of this is systemd's, and nothing is done here.

Rule: what cannot be written (a controller is not there) is logged and does not stop a pod.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pybernetes.api.core.podresources import (
    BURSTABLE,
    GUARANTEED,
    pod_limits,
    pod_requests,
    qos_class,
)
from pybernetes.kubelet.cgroups import PERIOD_MICROSECONDS, quota, shares
from pybernetes.kubelet.runtime.linux import CgroupMode, cgroup_mode, mount_points

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pybernetes.api.types.core_v1 import Pod
    from pybernetes.apimachinery.quantity import Amount

log = logging.getLogger(__name__)

CONTROLLERS = ("cpu", "memory", "pids")


@dataclass(frozen=True, slots=True)
class PodLimits:
    """What a pod may use as a whole. None: no limit."""

    cpu_shares: int
    cpu_quota_microseconds: int | None
    memory_bytes: int | None
    pids: int | None


def limits_of(pod: Pod, pids: int | None = None) -> PodLimits:
    requests, limits = pod_requests(pod), pod_limits(pod)
    memory = limits.get("memory")
    cpu = limits.get("cpu")
    return PodLimits(
        cpu_shares=shares(_milli(requests.get("cpu", 0))),
        cpu_quota_microseconds=quota(_milli(cpu)) if cpu else None,
        memory_bytes=int(-(-memory // 1)) if memory else None,
        pids=pids,
    )


def _milli(amount: Amount) -> int:
    return int(-(-amount * 1000 // 1))


def weight_of(cpu_shares: int) -> int:
    """The scale of cgroup v2, as runc and upstream convert it."""
    return 1 + (cpu_shares - 2) * 9999 // 262142


class PodCgroups:
    """Blocking: file operations that may take a moment each."""

    def __init__(self, root: str, pids_limit: int | None = None) -> None:
        """`root` is a path from the top of the hierarchies: `/kubepods`."""
        self._root = root.strip("/")
        self._pids = pids_limit
        self._mode = cgroup_mode()
        # The directory of each controller's hierarchy; on v2 all the same one.
        self._tops = _hierarchies(self._mode)
        # Thousandths of processors that burstable pods ask for, by uid.
        self._burstable: dict[str, int] = {}

    def prepare(self, pod: Pod, parent: str) -> None:
        """Make the pod's cgroup, `parent` in the words of its sandbox."""
        quality = pod.status.qos_class or qos_class(pod)
        if quality == BURSTABLE:
            self._burstable[pod.metadata.uid] = _milli(pod_requests(pod).get("cpu", 0))
        for controller in CONTROLLERS:
            directory = self._directory(controller, parent)
            if directory is None:
                continue
            if self._mode is CgroupMode.V2:
                self._enable(directory)
            try:
                directory.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                log.warning("cgroup %s: %s", directory, error)
        self._limit(parent, limits_of(pod, self._pids))
        if quality != GUARANTEED:
            self._weigh(quality.lower())

    def remove(self, pod: Pod, parent: str) -> None:
        self._burstable.pop(pod.metadata.uid, None)
        for top in sorted(set(_all_hierarchies())):
            directory = top / parent.strip("/")
            if not directory.is_dir():
                continue
            for path in sorted(directory.rglob("*"), reverse=True):
                if path.is_dir():
                    _remove(path)
            _remove(directory)

    def _directory(self, controller: str, parent: str) -> Path | None:
        top = self._tops.get(controller)
        return None if top is None else top / parent.strip("/")

    def _enable(self, directory: Path) -> None:
        """Controllers reach down as far as every parent hands them on."""
        top = self._tops["cpu"]
        for parent in reversed(directory.relative_to(top).parents):
            path = top / parent
            path.mkdir(exist_ok=True)
            for controller in CONTROLLERS:
                _write(path / "cgroup.subtree_control", f"+{controller}")

    def _limit(self, parent: str, limits: PodLimits) -> None:
        values: dict[tuple[str, str], str] = {}
        if self._mode is CgroupMode.V2:
            values["cpu", "cpu.weight"] = str(weight_of(limits.cpu_shares))
            if limits.cpu_quota_microseconds is not None:
                text = f"{limits.cpu_quota_microseconds} {PERIOD_MICROSECONDS}"
                values["cpu", "cpu.max"] = text
            if limits.memory_bytes is not None:
                values["memory", "memory.max"] = str(limits.memory_bytes)
        else:
            values["cpu", "cpu.shares"] = str(limits.cpu_shares)
            if limits.cpu_quota_microseconds is not None:
                values["cpu", "cpu.cfs_period_us"] = str(PERIOD_MICROSECONDS)
                values["cpu", "cpu.cfs_quota_us"] = str(limits.cpu_quota_microseconds)
            if limits.memory_bytes is not None:
                values["memory", "memory.limit_in_bytes"] = str(limits.memory_bytes)
        if limits.pids is not None:
            values["pids", "pids.max"] = str(limits.pids)
        self._write_all(parent, values)

    def _weigh(self, quality: str) -> None:
        milli = sum(self._burstable.values()) if quality == BURSTABLE.lower() else 0
        weight = shares(milli)
        if self._mode is CgroupMode.V2:
            values = {("cpu", "cpu.weight"): str(weight_of(weight))}
        else:
            values = {("cpu", "cpu.shares"): str(weight)}
        self._write_all(f"{self._root}/{quality}", values)

    def _write_all(self, parent: str, values: Mapping[tuple[str, str], str]) -> None:
        for (controller, name), value in values.items():
            directory = self._directory(controller, parent)
            if directory is not None:
                _write(directory / name, value)


def _hierarchies(mode: CgroupMode) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for mount in mount_points():
        if mode is CgroupMode.V2 and mount.kind == "cgroup2":
            return {controller: Path(mount.path) for controller in CONTROLLERS}
        if mode is CgroupMode.V1 and mount.kind == "cgroup":
            for controller in CONTROLLERS:
                if controller in mount.options:
                    found[controller] = Path(mount.path)
    return found


def _all_hierarchies() -> list[Path]:
    return [Path(m.path) for m in mount_points() if m.kind in ("cgroup", "cgroup2")]


def _write(path: Path, value: str) -> None:
    try:
        path.write_text(value)
    except OSError as error:
        log.debug("cgroup %s: %s", path, error)


def _remove(directory: Path) -> None:
    try:
        directory.rmdir()
    except OSError as error:
        log.debug("cgroup %s: %s", directory, error)
