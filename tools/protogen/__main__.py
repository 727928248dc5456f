"""Write the gRPC messages the kubelet speaks: `python -m tools.protogen [--facts FILE]`.

With `--facts` (a JSON table of messages, field numbers and services, gathered from the published
protocols) `cri.proto` is written anew; without it only the Python modules are made again from the
.proto files at hand. Needs grpcio-tools, which nothing needs at run time.

Windows is left out: what is not described is not decoded, and costs no memory.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"
PROTO_DIRECTORY = SOURCE / "pybernetes/kubelet/runtime/proto"

# Protocols taken from the facts: table name → file written.
PROTOCOLS = {"cri.runtime.v1": "cri.proto"}

HEADER = """\
// Written by tools/protogen from a table of field numbers; never edited by hand.
// Protocol: {source}
"""


def is_left_out(type_name: str) -> bool:
    return "Windows" in type_name


def proto_text(table: dict[str, Any]) -> str:
    """The .proto file for one protocol of the facts."""
    lines = [
        HEADER.format(source=table["source"].partition("@")[0]),
        'syntax = "proto3";',
        "",
        f"package {table['package']};",
        "",
    ]
    for service, methods in table["services"].items():
        lines.append(f"service {service} {{")
        for name, request, reply in methods:
            lines.append(f"  rpc {name}({request}) returns ({reply});")
        lines += ["}", ""]
    for name, values in table["enums"].items():
        if "." not in name:
            lines += [*enum_lines(name, values, ""), ""]
    for name, fields in table["messages"].items():
        if not is_left_out(name) and "." not in name:
            lines += [*message_lines(name, fields, table, ""), ""]
    return "\n".join(lines)


def enum_lines(name: str, values: list[list[Any]], indent: str) -> list[str]:
    body = [f"{indent}  {label} = {number};" for number, label in values]
    return [f"{indent}enum {name.rpartition('.')[2]} {{", *body, f"{indent}}}"]


def message_lines(
    name: str, fields: list[list[Any]], table: dict[str, Any], indent: str
) -> list[str]:
    inner = indent + "  "
    lines = [f"{indent}message {name.rpartition('.')[2]} {{"]
    for nested, values in table["enums"].items():
        if nested.rpartition(".")[0] == name:
            lines += enum_lines(nested, values, inner)
    for nested, nested_fields in table["messages"].items():
        if nested.rpartition(".")[0] == name:
            lines += message_lines(nested, nested_fields, table, inner)
    groups: dict[str, list[str]] = {}
    for number, field, kind, *options in fields:
        if is_left_out(kind):
            continue
        text = f"{field_type(kind)} {field} = {number};"
        oneof = next((o.partition(":")[2] for o in options if o.startswith("oneof:")), "")
        if oneof:
            groups.setdefault(oneof, []).append(f"{inner}  {text}")
        else:
            lines.append(inner + text)
    for oneof, members in groups.items():
        lines += [f"{inner}oneof {oneof} {{", *members, f"{inner}}}"]
    return [*lines, f"{indent}}}"]


def field_type(kind: str) -> str:
    if kind.startswith("*"):
        return f"repeated {kind[1:]}"
    if kind.startswith("map<"):
        key, _, value = kind[4:-1].partition(",")
        return f"map<{key}, {value.strip()}>"
    return kind


def write_modules(protos: list[Path]) -> None:
    """The *_pb2.py and .pyi beside each .proto."""
    command = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        f"--proto_path={SOURCE}",
        f"--python_out={SOURCE}",
        f"--pyi_out={SOURCE}",
        *map(str, protos),
    ]
    subprocess.run(command, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--facts", type=Path, help="grpc_fields.json")
    arguments = parser.parse_args()
    if arguments.facts:
        facts = json.loads(arguments.facts.read_text())
        for table, file in PROTOCOLS.items():
            (PROTO_DIRECTORY / file).write_text(proto_text(facts[table]))
    write_modules(sorted(PROTO_DIRECTORY.glob("*.proto")))


if __name__ == "__main__":
    main()
