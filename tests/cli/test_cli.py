"""The p8s command as a person meets it: words, exit codes, settings. Nothing is started."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pybernetes.cli import COMMANDS, main
from pybernetes.cluster import config as cluster_config
from pybernetes.cluster.config import ClusterConfig

if TYPE_CHECKING:
    from pathlib import Path


def said(capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    captured = capsys.readouterr()
    return captured.out, captured.err


def test_without_a_command_it_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    out, _ = said(capsys)
    for name, summary in COMMANDS.items():
        assert name in out
        assert summary in out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert COMMANDS[command] in said(capsys)[0].replace("\n", " ")


@pytest.mark.parametrize("command", [["kubeconfig"], ["logs"], ["token"], ["image", "ls"]])
def test_without_a_cluster_it_says_what_to_do(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--data-dir", str(tmp_path)]) == 1
    out, err = said(capsys)
    assert out == ""
    assert err.startswith(f"p8s {command[0]}: there is no ")
    assert "p8s up" in err


def test_status_of_nothing_has_a_code_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "--data-dir", str(tmp_path)]) == 3
    assert "p8s up" in said(capsys)[0]


def test_down_of_nothing_is_fine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["down", "--data-dir", str(tmp_path)]) == 0
    assert "nothing to do" in said(capsys)[0]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        pytest.param(["--simulate", "--isolated"], "exclude each other", id="two kinds"),
        pytest.param(["--nodes", "3"], "--nodes goes with --simulate or --isolated", id="nodes"),
        pytest.param(["--simulate", "--nodes", "-1"], "less than none", id="negative"),
        pytest.param(["--simulate", "--port", "0"], "--port 0 is not a port", id="port"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["up", "--data-dir", str(tmp_path), *flags]) == 1
    assert message in said(capsys)[1]
    assert not list(tmp_path.iterdir()), "nothing was written"


def test_the_kubeconfig_is_printed_or_pointed_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = ClusterConfig(data_dir=str(tmp_path))
    cluster_config.save(config)
    config.kubeconfig.write_text("apiVersion: v1\nkind: Config\n")
    assert main(["kubeconfig", "--data-dir", str(tmp_path)]) == 0
    assert said(capsys)[0] == "apiVersion: v1\nkind: Config\n"
    assert main(["kubeconfig", "--path", "--data-dir", str(tmp_path)]) == 0
    assert said(capsys)[0].strip() == str(config.kubeconfig)


def test_an_agent_that_belongs_nowhere_says_how_to_join(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["agent", "--data-dir", str(tmp_path)]) == 1
    assert "p8s token" in said(capsys)[1]


def test_an_unknown_command_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["upp"])
    assert ended.value.code == 2
