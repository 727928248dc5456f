"""What this machine is and has: the node's capacity and nodeInfo. Reads /proc and /etc once."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pybernetes.kubelet.runtime.linux import CAP_SYS_RESOURCE, has_capability

if TYPE_CHECKING:
    from collections.abc import Mapping

_ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
    "riscv64": "riscv64",
}


@dataclass(frozen=True, slots=True)
class MachineFacts:
    capacity: Mapping[str, str]
    machine_id: str = ""
    system_uuid: str = ""
    boot_id: str = ""
    kernel_version: str = ""
    os_image: str = ""
    architecture: str = "amd64"
    least_oom_score: int = -1000


SIMULATED = MachineFacts(
    capacity={
        "cpu": "8",
        "memory": "16Gi",
        "ephemeral-storage": "100Gi",
        "hugepages-1Gi": "0",
        "hugepages-2Mi": "0",
    },
    machine_id="simulated",
    system_uuid="simulated",
    boot_id="simulated",
    kernel_version="simulated",
    os_image="simulated",
    architecture=_ARCHITECTURES.get(platform.machine(), platform.machine()),
)


def look_at_machine(root: Path) -> MachineFacts:
    """`root` is where pods keep their data: its filesystem is the ephemeral storage."""
    disk = os.statvfs(root)
    return MachineFacts(
        capacity={
            "cpu": str(os.cpu_count() or 1),
            "memory": f"{_memory_kibibytes()}Ki",
            "ephemeral-storage": f"{disk.f_blocks * disk.f_frsize // 1024}Ki",
            "hugepages-1Gi": _hugepages(1048576),
            "hugepages-2Mi": _hugepages(2048),
        },
        machine_id=_read("/etc/machine-id"),
        system_uuid=_read("/sys/class/dmi/id/product_uuid") or _read("/etc/machine-id"),
        boot_id=_read("/proc/sys/kernel/random/boot_id"),
        kernel_version=platform.release(),
        os_image=_os_image(),
        architecture=_ARCHITECTURES.get(platform.machine(), platform.machine()),
        least_oom_score=-1000
        if has_capability(CAP_SYS_RESOURCE)
        else int(_read("/proc/self/oom_score_adj") or 0),
    )


def _read(path: str) -> str:
    with suppress(OSError):
        return Path(path).read_text().strip()
    return ""


def _memory_kibibytes() -> int:
    for line in _read("/proc/meminfo").splitlines():
        name, _, rest = line.partition(":")
        if name == "MemTotal":
            return int(rest.split()[0])
    return 0


def _hugepages(kibibytes: int) -> str:
    count = int(_read(f"/sys/kernel/mm/hugepages/hugepages-{kibibytes}kB/nr_hugepages") or 0)
    return f"{count * kibibytes}Ki" if count else "0"


def _os_image() -> str:
    for line in _read("/etc/os-release").splitlines():
        name, _, value = line.partition("=")
        if name == "PRETTY_NAME":
            return value.strip('"')
    return platform.system()
