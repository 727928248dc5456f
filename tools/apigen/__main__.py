"""The command: ``python -m tools.apigen --facts ../shared/api``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from .model import build
from .write_index import write_index
from .write_types import write_types

ROOT = Path(__file__).resolve().parents[2]
API = ROOT / "src" / "pybernetes" / "api"


def main() -> None:
    parser = argparse.ArgumentParser(prog="apigen", description=__doc__)
    parser.add_argument("--facts", type=Path, required=True, help="folder of the fact files")
    facts: Path = parser.parse_args().facts
    resources = _load(facts, "resources.json")
    version: str = resources["kubernetes"]
    model = build(_load(facts, f"schema_{version}.json"), _load(facts, "protobuf_fields.json"))
    write_types(model, API / "types", version)
    write_index(model, resources, API / "types", version)


def _load(facts: Path, name: str) -> Any:
    return json.loads((facts / name).read_text())


if __name__ == "__main__":
    main()
