"""Published examples of every kind, as JSON and as protobuf; they exist only where we develop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pybernetes.api.types._index import info_of_kind

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
EXAMPLES = SHARED / "fixtures" / "api"
FACTS = SHARED / "api"

needs_examples = pytest.mark.skipif(
    not EXAMPLES.is_dir(), reason="the published examples are not on this machine"
)


def example_names() -> list[str]:
    """``core.v1.Pod`` …, as far as this version has the kind; empty where there are none."""
    names = sorted(path.stem for path in EXAMPLES.glob("*.json"))
    return [name for name in names if info_of_kind(*kind_of(example(name))) is not None]


def example(name: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((EXAMPLES / f"{name}.json").read_bytes())
    return value


def protobuf_example(name: str) -> bytes:
    return (EXAMPLES / f"{name}.pb").read_bytes()


def kind_of(value: dict[str, Any]) -> tuple[str, str, str]:
    """Group, version and kind an object names; the kind is empty if it names none."""
    group, _, version = value.get("apiVersion", "").rpartition("/")
    return group, version, value.get("kind", "")
