"""What the documents name must exist: files they link to, commands they show, exports they promise."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import pybernetes
from pybernetes.cli import COMMANDS

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
_LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    for target in _LINK.findall(document.read_text()):
        assert (document.parent / target).exists(), f"{target} is not there"


def test_the_readme_names_real_commands() -> None:
    shown = set(re.findall(r"\bp8s (\w+)", (ROOT / "README.md").read_text()))
    assert shown <= COMMANDS.keys()


def test_decisions_are_numbered_once() -> None:
    numbers = [path.name[:4] for path in (ROOT / "docs/adr").glob("[0-9]*.md")]
    assert len(numbers) == len(set(numbers))


def test_every_module_says_what_it_is() -> None:
    silent = []
    for module in pkgutil.walk_packages(pybernetes.__path__, "pybernetes."):
        if "_pb2" in module.name or module.name == "pybernetes.__main__":
            continue
        found = importlib.util.find_spec(module.name)
        assert found is not None
        assert found.origin is not None
        text = Path(found.origin).read_text()
        # Generated modules say so in a comment on their first line.
        if not text.lstrip().startswith(('"""', 'r"""', "# Generated")):
            silent.append(module.name)
    assert not silent


@pytest.mark.parametrize(
    "package",
    ["apiserver", "client", "controllers", "kubelet", "scheduler", "storage", "testing"],
)
def test_exports_exist_and_are_documented(package: str) -> None:
    module = importlib.import_module(f"pybernetes.{package}")
    for name in module.__all__:
        exported = getattr(module, name)
        if isinstance(exported, type) or inspect.isfunction(exported):
            assert exported.__doc__, f"pybernetes.{package}.{name} says nothing about itself"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_heading(command: str) -> None:
    assert f"\n## p8s {command}\n" in (ROOT / "docs/p8s.md").read_text()
