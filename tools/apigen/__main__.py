"""The command: ``python -m tools.apigen --facts ../shared/api``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from .model import build
from .supplement import supplement
from .write_index import write_index
from .write_tables import static_defaults, write_protobuf_table, write_schema_table
from .write_types import write_types

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "pybernetes"


def main() -> None:
    parser = argparse.ArgumentParser(prog="apigen", description=__doc__)
    parser.add_argument("--facts", type=Path, required=True, help="folder of the fact files")
    parser.add_argument("--out", type=Path, default=PACKAGE, help="the package to write into")
    arguments = parser.parse_args()
    generate(arguments.facts, arguments.out)


def generate(facts: Path, out: Path) -> None:
    resources = _load(facts, "resources.json")
    version: str = resources["kubernetes"]
    schema = _load(facts, f"schema_{version}.json")
    protobuf = _load(facts, "protobuf_fields.json")
    unpublished = supplement(protobuf)
    model = build({**schema, **unpublished}, protobuf)
    write_types(model, out / "api" / "types", version)
    write_index(model, resources, out / "api" / "types", version)
    write_schema_table(
        schema,
        unpublished,
        _load(facts, f"enums_{version}.json")["enums"],
        static_defaults(_load(facts, f"static_defaults_{version}.json")),
        out / "api" / "tables" / "schema.json",
    )
    write_protobuf_table(
        protobuf, [*schema, *unpublished], out / "apimachinery" / "tables" / "protobuf.json"
    )


def _load(facts: Path, name: str) -> Any:
    return json.loads((facts / name).read_text())


if __name__ == "__main__":
    main()
