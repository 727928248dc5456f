"""What our containerd is told, and what is said when it cannot be had. Pure, but for /proc."""

from __future__ import annotations

import os
import socket
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pybernetes.kubelet.runtime import containerd, linux
from pybernetes.kubelet.runtime.containerd import (
    Containerd,
    ContainerdOptions,
    ContainerdProblem,
    find_socket,
    what_is_missing,
)
from pybernetes.kubelet.runtime.containerd_config import Layout, config_text, hosts_text
from pybernetes.kubelet.runtime.linux import CgroupMode, Machine

if TYPE_CHECKING:
    from random import Random
    from typing import Any

STRONG = Machine(is_root=True, can_raise_priority=True, cgroups=CgroupMode.V2, has_systemd=True)
WEAK = Machine(is_root=True, can_raise_priority=False, cgroups=CgroupMode.NONE, has_systemd=False)


def config_for(machine: Machine, snapshotter: str = "overlayfs") -> dict[str, Any]:
    text = config_text(
        Layout(Path("/data dir")),
        machine,
        snapshotter=snapshotter,
        cni_conf_dir=Path("/cni/conf"),
        cni_bin_dir=Path("/cni/bin"),
    )
    return tomllib.loads(text)


def test_everything_stays_in_our_directory() -> None:
    config = config_for(STRONG)
    assert config["root"] == "/data dir/root"
    assert config["grpc"]["address"] == "/data dir/containerd.sock"
    cri = config["plugins"]["io.containerd.grpc.v1.cri"]
    assert cri["cni"] == {"bin_dir": "/cni/bin", "conf_dir": "/cni/conf", "max_conf_num": 1}
    assert cri["netns_mounts_under_state_dir"] is True
    options = cri["containerd"]["runtimes"]["runc"]["options"]
    assert options["Root"] == "/data dir/state/runc"


@pytest.mark.parametrize(
    ("machine", "systemd", "restricted", "without_cgroups", "score"),
    [
        pytest.param(STRONG, True, False, False, -999, id="everything"),
        pytest.param(WEAK, False, True, True, 0, id="little"),
    ],
)
def test_it_asks_for_what_the_machine_has(
    machine: Machine, systemd: bool, restricted: bool, without_cgroups: bool, score: int
) -> None:
    config = config_for(machine)
    cri = config["plugins"]["io.containerd.grpc.v1.cri"]
    assert cri["containerd"]["runtimes"]["runc"]["options"]["SystemdCgroup"] is systemd
    assert cri["restrict_oom_score_adj"] is restricted
    assert cri["disable_cgroup"] is without_cgroups
    assert config["oom_score"] == score


def test_local_registries_speak_plain_http() -> None:
    hosts = tomllib.loads(hosts_text("127.0.0.1:5000"))
    assert hosts["server"] == "http://127.0.0.1:5000"


# --- what is missing ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("present", "cni", "sentence"),
    [
        pytest.param({"containerd", "ctr", "runc"}, True, "", id="nothing"),
        pytest.param(
            {"containerd", "ctr"},
            True,
            "runc is not installed: apt-get install runc",
            id="one program",
        ),
        pytest.param(
            set(),
            False,
            "containerd, ctr, runc and the CNI plugins are not installed: "
            "apt-get install containerd runc containernetworking-plugins",
            id="everything",
        ),
    ],
)
def test_what_is_missing_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, present: set[str], cni: bool, sentence: str
) -> None:
    # The machine at hand has everything, or not; a table needs both.
    monkeypatch.setattr("shutil.which", lambda name: name if name in present else None)
    monkeypatch.setattr(containerd, "find_cni_bin_dir", lambda: Path("/cni") if cni else None)
    assert what_is_missing() == sentence


def test_a_socket_is_found_only_if_somebody_listens(tmp_path: Path) -> None:
    dead, alive, file = tmp_path / "dead", tmp_path / "alive", tmp_path / "file"
    file.touch()
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(dead))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(alive))
        server.listen()
        assert find_socket((tmp_path / "nowhere", file, dead, alive)) == alive
    assert find_socket((dead,)) is None


async def test_who_is_not_root_is_told_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, random: Random
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    options = ContainerdOptions(tmp_path / "c", tmp_path / "cni")
    with pytest.raises(ContainerdProblem, match="needs root: run as root, or use --simulate"):
        await Containerd(options, random=random).__aenter__()
    assert not (tmp_path / "c").exists()


@pytest.mark.skipif(
    os.geteuid() != 0 or bool(what_is_missing()), reason="comes after root and containerd"
)
async def test_a_path_too_long_for_a_socket_is_refused(tmp_path: Path, random: Random) -> None:
    options = ContainerdOptions(tmp_path / ("x" * 100), tmp_path / "cni")
    with pytest.raises(ContainerdProblem, match="choose a shorter --data-dir"):
        await Containerd(options, random=random).__aenter__()


# --- the machine ----------------------------------------------------------------------------------


def test_mounts_are_read_with_their_odd_names(monkeypatch: pytest.MonkeyPatch) -> None:
    line = "36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 - cgroup cgroup rw,cpu,cpuacct"
    monkeypatch.setattr(Path, "read_text", lambda self, **_: line)
    [mount] = linux.mount_points()
    assert mount.path == "/mnt 2"
    assert mount.kind == "cgroup"
    assert {"cpu", "cpuacct"} <= mount.options


def test_a_process_is_known_by_its_arguments() -> None:
    assert linux.arguments_of(os.getpid())
    assert linux.arguments_of(2**22 + 1) == []
    assert os.getpid() in linux.descendants(os.getppid())
