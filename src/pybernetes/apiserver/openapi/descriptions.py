"""What types and fields are for, in a sentence: the words behind `kubectl explain`.

They stand in `descriptions.txt`, a table to be read by people: a section per type, with a line
about the type and others about fields; `= type` takes over the lines of a section further up. The
section `[*]` is for fields that mean the same wherever they occur. The table is read for a document
and forgotten with it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# Names of fields may have a dollar and dashes: $ref, x-kubernetes-list-type.
_FIELD = re.compile(r"([\w$-]+): ")

TABLE = Path(__file__).with_name("descriptions.txt")

_PREFIXES = (
    "io.k8s.api.",
    "io.k8s.apimachinery.pkg.apis.",
    "io.k8s.apimachinery.pkg.",
    "io.k8s.apiextensions-apiserver.pkg.apis.",
    "io.k8s.kube-aggregator.pkg.apis.",
)


class Descriptions:
    """Texts by type and field; the text about the type itself has the empty name."""

    def __init__(self, table: Mapping[str, Mapping[str, str]]) -> None:
        self._table = table
        self._everywhere = table.get("*", {})

    @classmethod
    def load(cls) -> Descriptions:
        return cls(parse(TABLE.read_text()))

    def of(self, published_name: str) -> Mapping[str, str]:
        own = self._table.get(short_name(published_name))
        return self._everywhere if own is None else {**self._everywhere, **own}


def short_name(published_name: str) -> str:
    """``core.v1.Pod`` for ``io.k8s.api.core.v1.Pod``."""
    for prefix in _PREFIXES:
        if published_name.startswith(prefix):
            return published_name.removeprefix(prefix)
    return published_name


def parse(text: str) -> dict[str, dict[str, str]]:
    table: dict[str, dict[str, str]] = {}
    section: dict[str, str] = {}
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        if line.startswith("["):
            section = table.setdefault(line.strip("[]"), {})
            continue
        if line.startswith("= "):
            for field, words in table[line.removeprefix("= ")].items():
                section.setdefault(field, words)
            continue
        if match := _FIELD.match(line):
            section[match[1]] = line[match.end() :]
        else:
            section[""] = line
    return table
