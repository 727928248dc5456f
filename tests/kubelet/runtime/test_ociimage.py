"""Images made on the spot: their bytes, and the program that holds a pod. No runtime needed."""

from __future__ import annotations

import io
import json
import os
import platform
import shutil
import signal
import subprocess
import tarfile
import time
from typing import TYPE_CHECKING, Any

import pytest

from pybernetes.kubelet.runtime.ociimage import digest_of
from pybernetes.kubelet.runtime.pauseimage import pause_image, pause_program
from pybernetes.testing.images import (
    Directory,
    File,
    ImageConfig,
    Symlink,
    archive,
    build_image,
    busybox_image,
    entries_of,
    find_busybox,
    layer,
)

if TYPE_CHECKING:
    from pathlib import Path


def files_in(content: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        members = [member for member in tar.getmembers() if member.isfile()]
        return {member.name: _read(tar, member) for member in members}


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None
    return file.read()


def test_a_layer_holds_files_links_and_their_parents() -> None:
    content = layer(
        {
            "/b/c/file": File(b"x", mode=0o600, uid=1, gid=2),
            "a/link": Symlink("../b"),
            "/b": Directory(0o1777),
        }
    )
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        members = {member.name: member for member in tar.getmembers()}
    assert list(members) == ["a", "a/link", "b", "b/c", "b/c/file"]
    assert members["b"].mode == 0o1777
    assert members["b/c"].mode == 0o755
    assert (members["b/c/file"].mode, members["b/c/file"].uid, members["b/c/file"].gid) == (
        0o600,
        1,
        2,
    )
    assert members["a/link"].linkname == "../b"
    assert {member.mtime for member in members.values()} == {0}


def test_the_same_content_is_the_same_image() -> None:
    def build() -> Any:
        files = layer({"/a": File(b"1")})
        return build_image([files], ImageConfig(command=("a",)), architecture="amd64")

    assert build() == build()


def test_an_archive_is_an_oci_layout_and_a_docker_archive() -> None:
    files = layer({"/a": File(b"1")})
    image = build_image(
        [files],
        ImageConfig(
            entrypoint=("/a",),
            command=("b",),
            env={"X": "1"},
            user="7:8",
            working_directory="/w",
            labels={"l": "v"},
            exposed_ports=("80/tcp",),
            stop_signal="SIGQUIT",
        ),
        architecture="arm64",
    )
    inside = files_in(archive([("localhost/x:1", image), ("localhost/x:2", image)]))
    assert json.loads(inside["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    for name, content in inside.items():
        if name.startswith("blobs/"):
            assert digest_of(content) == name.removeprefix("blobs/").replace("/", ":")

    names = [
        line["annotations"]["io.containerd.image.name"]
        for line in json.loads(inside["index.json"])["manifests"]
    ]
    assert names == ["localhost/x:1", "localhost/x:2"]
    [entry] = json.loads(inside["manifest.json"])
    assert entry["RepoTags"] == names
    assert inside[entry["Layers"][0]] == files
    config = json.loads(inside[entry["Config"]])
    assert config["architecture"] == "arm64"
    assert config["rootfs"]["diff_ids"] == [digest_of(files)]
    assert config["config"] == {
        "User": "7:8",
        "ExposedPorts": {"80/tcp": {}},
        "Env": ["X=1"],
        "Entrypoint": ["/a"],
        "Cmd": ["b"],
        "WorkingDir": "/w",
        "Labels": {"l": "v"},
        "StopSignal": "SIGQUIT",
    }


def test_a_directory_becomes_a_layer(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/tool").write_bytes(b"#!")
    (tmp_path / "bin/tool").chmod(0o755)
    (tmp_path / "link").symlink_to("bin/tool")
    entries = entries_of(tmp_path, "/opt")
    assert entries["/opt/bin/tool"] == File(b"#!", 0o755)
    assert entries["/opt/link"] == Symlink("bin/tool")


@pytest.mark.skipif(
    find_busybox() is None, reason="no static busybox: apt-get install busybox-static"
)
def test_busybox_images_share_their_lower_layer() -> None:
    plain = busybox_image()
    site = busybox_image({"/var/www/index.html": File(b"hello")}, command=("httpd", "-f"))
    assert plain.layers[0] == site.layers[0]
    assert len(site.layers) == 2
    with tarfile.open(fileobj=io.BytesIO(plain.blobs[plain.layers[0]])) as tar:
        assert tar.getmember("bin/httpd").linkname == "busybox"
        assert tar.getmember("tmp").mode == 0o1777


# --- the pause program ----------------------------------------------------------------------------


def test_an_unknown_machine_is_named() -> None:
    with pytest.raises(ValueError, match="no pause program for sparc64"):
        pause_program("sparc64")


@pytest.mark.parametrize(("machine", "number"), [("x86_64", 62), ("aarch64", 183)])
def test_the_program_is_a_small_static_executable(machine: str, number: int) -> None:
    program = pause_program(machine)
    assert program[:6] == b"\x7fELF\x02\x01"
    assert int.from_bytes(program[18:20], "little") == number
    assert len(program) < 512
    assert pause_image(machine).manifest_digest.startswith("sha256:")


def interpreter_for(machine: str) -> list[str] | None:
    """What is put in front of a program for that machine to run it here; None: it cannot run."""
    if machine == platform.machine():
        return []
    emulator = shutil.which(f"qemu-{machine}-static") or shutil.which(f"qemu-{machine}")
    return [emulator] if emulator else None


@pytest.mark.slow
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_it_waits_until_it_is_told_to_end(
    machine: str, ending: signal.Signals, tmp_path: Path
) -> None:
    interpreter = interpreter_for(machine)
    if interpreter is None:
        pytest.skip(f"no emulator for {machine} here: apt-get install qemu-user-static")
    program = tmp_path / "pause"
    program.write_bytes(pause_program(machine))
    program.chmod(0o755)
    process = subprocess.Popen([*interpreter, str(program)])
    try:
        time.sleep(0.1)
        process.send_signal(signal.SIGCHLD)
        time.sleep(0.05)
        assert process.poll() is None
        process.send_signal(ending)
        assert process.wait(5) == 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="a process namespace of one's own needs root")
def test_as_process_one_it_collects_orphans(tmp_path: Path) -> None:
    program = tmp_path / "pause"
    program.write_bytes(pause_program())
    program.chmod(0o755)
    script = f"(sleep 0.2 &); (sleep 0.3 &); exec {program}"
    command = ["unshare", "--pid", "--fork", "--kill-child", "sh", "-c", script]
    process = subprocess.Popen(command)
    try:
        time.sleep(0.1)
        [first] = children(process.pid)
        assert len(children(first)) == 2
        time.sleep(0.4)
        assert children(first) == []
        os.kill(first, signal.SIGTERM)
        assert process.wait(5) == 0
    finally:
        process.kill()
        process.wait()


def children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]
