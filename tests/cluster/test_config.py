"""A cluster's settings: read back, checked, and turned into what its parts are told. Files are real."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
import pytest

from pybernetes.cluster import config as cluster_config
from pybernetes.cluster import nodesettings
from pybernetes.cluster.config import ClusterConfig, ConfigError
from pybernetes.cluster.preflight import Machine, problems

if TYPE_CHECKING:
    from pathlib import Path

READY = Machine(
    is_linux=True,
    is_root=True,
    missing_programs=frozenset(),
    missing_plugins=frozenset(),
    busy_ports=frozenset(),
)


def test_settings_survive_in_their_file(tmp_path: Path) -> None:
    config = ClusterConfig(data_dir=str(tmp_path), port=7443, disabled=("dns",))
    cluster_config.save(config)
    assert cluster_config.load(tmp_path) == config
    assert cluster_config.load(tmp_path / "elsewhere") is None


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / cluster_config.FILE_NAME).write_text("{")
    with pytest.raises(ConfigError, match=r"cannot read .*cluster\.json"):
        cluster_config.load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"port": 70000}, "--port 70000 is not a port", id="port"),
        pytest.param({"service_cidr": "10.96"}, "--service-cidr 10.96 is not a network", id="text"),
        pytest.param({"pod_cidr": "fd00::/64"}, "only IPv4", id="ipv6"),
        pytest.param({"pod_cidr": "10.96.0.0/20"}, "overlap", id="overlap"),
        pytest.param({"service_cidr": "10.96.0.0/30"}, "at most /28", id="too small"),
        pytest.param({"disabled": ("etcd",)}, "cannot disable etcd", id="part"),
    ],
)
def test_what_cannot_work_is_refused(changes: dict[str, object], message: str) -> None:
    config = msgspec.structs.replace(ClusterConfig(data_dir="/tmp/x"), **changes)
    with pytest.raises(ConfigError, match=message):
        config.check()


def test_well_known_addresses_are_those_of_kubeadm() -> None:
    config = ClusterConfig(data_dir="/tmp/x")
    assert str(config.kubernetes_address) == "10.96.0.1"
    assert str(config.dns_address) == "10.96.0.10"


@pytest.mark.parametrize(
    ("settings", "machine", "sentences"),
    [
        pytest.param({}, READY, [], id="nothing lacks"),
        pytest.param(
            {},
            {"is_root": False},
            [
                "real containers need root; run this with sudo, or try it without containers:"
                " p8s up --simulate"
            ],
            id="not root",
        ),
        pytest.param({"simulated_nodes": 1}, {"is_root": False}, [], id="simulation needs nothing"),
        pytest.param(
            {},
            {"missing_programs": frozenset({"containerd", "nft"})},
            ["containerd, nftables must be installed: apt-get install containerd nftables"],
            id="packages are named",
        ),
        pytest.param(
            {"simulated_nodes": 1},
            {"busy_ports": frozenset({6443})},
            [
                "port 6443 is in use by another program; stop that program,"
                " or choose another port with --port"
            ],
            id="port in use",
        ),
        pytest.param(
            {"disabled": ("agent",)},
            {"missing_programs": frozenset({"runc"})},
            [],
            id="without an agent nothing is needed",
        ),
    ],
)
def test_every_lack_is_one_sentence(
    settings: dict[str, object], machine: Machine | dict[str, object], sentences: list[str]
) -> None:
    facts = replace(READY, **machine) if isinstance(machine, dict) else machine  # type: ignore[arg-type]  # fields by name
    config = msgspec.structs.replace(ClusterConfig(data_dir="/tmp/x"), **settings)
    assert [problem.sentence for problem in problems(config, facts)] == sentences


def test_two_nodes_of_one_machine_share_nothing(tmp_path: Path) -> None:
    config = ClusterConfig(data_dir=str(tmp_path))
    one = nodesettings.settings_of(config, "a", "198.18.0.1", tmp_path / "a")
    other = nodesettings.settings_of(config, "b", "198.18.0.2", tmp_path / "b")
    assert one.cgroup_parent != other.cgroup_parent
    assert one.containerd().directory != other.containerd().directory
    assert one.pod_network().state_dir != other.pod_network().state_dir


def test_settings_of_nodes_survive_and_are_found(tmp_path: Path) -> None:
    config = ClusterConfig(data_dir=str(tmp_path))
    settings = nodesettings.local_settings(config, "198.18.0.1")
    nodesettings.save(settings)
    assert nodesettings.load(settings.directory) == settings
    assert nodesettings.all_nodes(config) == [settings]
