"""What goes wrong with programs and the kernel becomes one sentence that says what to do."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from pybernetes.network import podnetwork
from pybernetes.network.podnetwork import PodNetworkConfig
from pybernetes.network.program import (
    NetworkError,
    explain,
    explain_os_error,
    find_program,
    run_program,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("program", "stderr", "advice"),
    [
        pytest.param("ip", "RTNETLINK answers: Operation not permitted", "as root", id="no root"),
        pytest.param(
            "nft", "Error: Could not process rule: No such file or directory", "load the modules",
            id="kernel lacks something",
        ),
        pytest.param("nft", "Error: syntax error\n more", "failed: Error: syntax error", id="other"),
        pytest.param("ip", "", "no reason given", id="silent"),
    ],
)  # fmt: skip
def test_sentences(program: str, stderr: str, advice: str) -> None:
    sentence = explain((program,), stderr)
    assert advice in sentence
    assert "\n" not in sentence


def test_kernel_errors_are_explained_too() -> None:
    denied = explain_os_error(PermissionError(errno.EPERM, "no"), "nf_tables")
    assert denied == "nf_tables is not permitted; run p8s as root, or p8s up --simulate"
    lacking = explain_os_error(OSError(errno.EPROTONOSUPPORT, "no"), "nf_tables")
    assert "modprobe nf_tables" in lacking
    assert explain_os_error(OSError(errno.ENOSPC, "full"), "x") == "x failed: full"


def test_a_missing_program_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(NetworkError, match="apt-get install nftables"):
        find_program("nft")


def test_failures_carry_what_the_program_said() -> None:
    with pytest.raises(NetworkError, match=r"cat /nowhere failed: .*: No such file or directory"):
        run_program(("cat", "/nowhere"))


def test_a_foreign_node_address_is_refused_before_anything_is_changed(tmp_path: Path) -> None:
    config = PodNetworkConfig(
        "n", "203.0.113.77", "10.244.0.0/16", "10.96.0.0/16", "10.96.0.10", tmp_path, tmp_path
    )
    with pytest.raises(NetworkError, match="is not an address of this machine"):
        podnetwork.look_around(config)
