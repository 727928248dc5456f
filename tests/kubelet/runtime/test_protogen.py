"""The writer of .proto files, and that what is committed is what it writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools.protogen.__main__ import PROTO_DIRECTORY, PROTOCOLS, ROOT, proto_text

FACTS = ROOT.parent / "shared/api/grpc_fields.json"


def test_a_table_becomes_a_proto_file() -> None:
    table = {
        "source": "somewhere:api.proto@1234 2026-01-01",
        "package": "p.v1",
        "services": {"S": [["Get", "Q", "A"], ["Watch", "Q", "stream A"]]},
        "enums": {"Kind": [[0, "NONE"]], "A.Inner": [[0, "ZERO"], [1, "ONE"]]},
        "messages": {
            "Q": [],
            "A": [
                [1, "names", "*string"],
                [2, "labels", "map<string,string>"],
                [3, "inner", "Inner"],
                [4, "left", "int64", "oneof:side"],
                [5, "right", "bool", "oneof:side"],
                [6, "windows", "WindowsThing"],
            ],
            "WindowsThing": [[1, "x", "string"]],
        },
    }
    text = proto_text(table)
    for line in (
        "// Protocol: somewhere:api.proto",
        "package p.v1;",
        "  rpc Watch(Q) returns (stream A);",
        "enum Kind {",
        "  enum Inner {",
        "  repeated string names = 1;",
        "  map<string, string> labels = 2;",
        "  oneof side {",
        "    int64 left = 4;",
    ):
        assert line in text.splitlines(), line
    assert "Windows" not in text


@pytest.mark.skipif(not FACTS.exists(), reason="the facts are only where this is developed")
@pytest.mark.parametrize(("table", "file"), PROTOCOLS.items())
def test_what_is_committed_is_what_is_written(table: str, file: str) -> None:
    facts = json.loads(FACTS.read_text())
    assert Path(PROTO_DIRECTORY / file).read_text() == proto_text(facts[table])
