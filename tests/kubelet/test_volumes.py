"""Files of volumes: contents by tables, writing on a real disk in a temporary directory."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from pybernetes.api.types.core_v1 import (
    ConfigMapProjection,
    ConfigMapVolumeSource,
    DownwardAPIProjection,
    DownwardAPIVolumeFile,
    HostPathVolumeSource,
    KeyToPath,
    ObjectFieldSelector,
    ProjectedVolumeSource,
    SecretVolumeSource,
    ServiceAccountTokenProjection,
    Volume,
    VolumeProjection,
)
from pybernetes.kubelet.volumes.atomic import File, write_atomically
from pybernetes.kubelet.volumes.content import ContentFacts, ContentProblem, content_of
from pybernetes.kubelet.volumes.pod import set_up_host_path, sub_path_of
from pybernetes.testing.builders import config_map, pod, secret

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def facts() -> ContentFacts:
    return ContentFacts(
        pod=pod("web", labels={"a": "1", "b": 'say "hi"'}),
        ips=("10.0.0.5",),
        host_ips=("192.0.2.7",),
        allocatable={"cpu": "8"},
        config_map={"config": config_map("config", one="1", two="2")}.get,
        secret={"secret": secret("secret", word="c2VzYW1l")}.get,
        token=lambda projection: f"token for {projection.audience}",
    )


def labels(path: str) -> DownwardAPIVolumeFile:
    return DownwardAPIVolumeFile(
        path=path, field_ref=ObjectFieldSelector(field_path="metadata.labels")
    )


@pytest.mark.parametrize(
    ("source", "files"),
    [
        pytest.param(
            {"config_map": ConfigMapVolumeSource(name="config")},
            {"one": File(b"1", 0o644), "two": File(b"2", 0o644)},
            id="all keys",
        ),
        pytest.param(
            {
                "config_map": ConfigMapVolumeSource(
                    name="config",
                    default_mode=0o600,
                    items=(KeyToPath(key="one", path="sub/1", mode=0o400),),
                )
            },
            {"sub/1": File(b"1", 0o400)},
            id="chosen keys",
        ),
        pytest.param(
            {"config_map": ConfigMapVolumeSource(name="no", optional=True)}, {}, id="optional"
        ),
        pytest.param(
            {"secret": SecretVolumeSource(secret_name="secret", default_mode=0o440)},
            {"word": File(b"sesame", 0o440)},
            id="secret",
        ),
        pytest.param(
            {
                "projected": ProjectedVolumeSource(
                    sources=(
                        VolumeProjection(
                            service_account_token=ServiceAccountTokenProjection(
                                path="token", audience="api"
                            )
                        ),
                        VolumeProjection(
                            config_map=ConfigMapProjection(
                                name="config", items=(KeyToPath(key="one", path="ca.crt"),)
                            )
                        ),
                        VolumeProjection(downward_api=DownwardAPIProjection(items=(labels("l"),))),
                    )
                )
            },
            {
                "token": File(b"token for api", 0o644),
                "ca.crt": File(b"1", 0o644),
                "l": File(b'a="1"\nb="say \\"hi\\""', 0o644),
            },
            id="projected",
        ),
    ],
)
def test_contents(source: dict[str, Any], files: dict[str, File]) -> None:
    assert content_of(Volume(name="v", **source), facts()) == files


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"config_map": ConfigMapVolumeSource(name="no")}, 'configmap "no" not found'),
        ({"secret": SecretVolumeSource(secret_name="no")}, 'secret "no" not found'),
        (
            {
                "config_map": ConfigMapVolumeSource(
                    name="config", items=(KeyToPath(key="no", path="x"),)
                )
            },
            "configmap references non-existent config key: no",
        ),
    ],
)
def test_what_is_missing_is_said(source: dict[str, Any], message: str) -> None:
    with pytest.raises(ContentProblem, match=message):
        content_of(Volume(name="v", **source), facts())


def test_an_update_is_one_move(tmp_path: Path) -> None:
    assert write_atomically(tmp_path, {"a": File(b"1"), "sub/b": File(b"2", 0o600)}, NOW)
    assert (tmp_path / "a").read_text() == "1"
    assert (tmp_path / "sub" / "b").read_text() == "2"
    assert (tmp_path / "sub" / "b").stat().st_mode & 0o777 == 0o600
    before = os.readlink(tmp_path / "..data")
    assert not write_atomically(tmp_path, {"a": File(b"1"), "sub/b": File(b"2", 0o600)}, NOW)
    assert os.readlink(tmp_path / "..data") == before
    assert write_atomically(tmp_path, {"a": File(b"3"), "c": File(b"4")}, NOW)
    assert os.readlink(tmp_path / "..data") != before
    assert (tmp_path / "a").read_text() == "3"
    # The old files are gone, and so is what no link leads to.
    assert sorted(p.name for p in tmp_path.iterdir() if not p.name.startswith("..")) == ["a", "c"]
    assert len([p for p in tmp_path.iterdir() if p.name.startswith("..2")]) == 1


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("Directory", "is not a directory"),
        ("File", "is not a file"),
        ("Socket", "is not a socket file"),
        ("BlockDevice", "is not a block device"),
    ],
)
def test_host_paths_are_what_they_promise(kind: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ContentProblem, match=message):
        set_up_host_path(HostPathVolumeSource(path=str(tmp_path / "no"), type=kind))


def test_host_paths_are_made(tmp_path: Path) -> None:
    set_up_host_path(HostPathVolumeSource(path=str(tmp_path / "a/b"), type="DirectoryOrCreate"))
    assert (tmp_path / "a" / "b").is_dir()
    set_up_host_path(HostPathVolumeSource(path=str(tmp_path / "f"), type="FileOrCreate"))
    assert (tmp_path / "f").is_file()


def test_sub_paths_stay_inside(tmp_path: Path) -> None:
    root = tmp_path / "volume"
    root.mkdir()
    (root / "way-out").symlink_to(tmp_path)
    assert sub_path_of(root, "a/b").is_dir()
    for path in ("../x", "way-out", "way-out/x"):
        with pytest.raises(ContentProblem, match="leads out of the volume"):
            sub_path_of(root, path)
