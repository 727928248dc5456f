"""Writes api/types/_kinds.py: the light facts about every kind, as one table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .write_types import HEADER

if TYPE_CHECKING:
    from pathlib import Path

    from .model import Model

Json = dict[str, Any]

# Groups whose own API server puts the group into the key.
_QUALIFIED = ("apiextensions.k8s.io", "apiregistration.k8s.io")


def write_index(model: Model, resources: Json, folder: Path, version: str) -> None:
    by_kind = {
        (entry["group"], entry["version"], entry["kind"]): entry for entry in resources["resources"]
    }
    lines = [
        HEADER.format(version=version),
        '"""Every kind there is and the resource it is served as; read through _index."""',
        "",
        "from __future__ import annotations",
        "",
        "from pybernetes.api.types._kindinfo import KindInfo, Subresource",
        "",
        "GROUP_ORDER: tuple[str, ...] = (",
        '    "",',
        *(f'    "{group}",' for group in resources["groupOrder"]),
        ")",
        "",
        "KINDS: tuple[KindInfo, ...] = (",
    ]
    seen: set[tuple[str, str, str]] = set()
    order = ["", *resources["groupOrder"]]
    kinds = []
    for module, definitions in model.modules.items():
        for definition in definitions:
            if definition.gvk:
                kinds.append((definition.gvk[0], module, definition.name))
    kinds.sort(key=lambda kind: (order.index(kind[0][0]) if kind[0][0] in order else 99, kind))
    for gvk, module, name in kinds:
        if gvk in seen:
            raise ValueError(f"{gvk} is defined twice")
        seen.add(gvk)
        lines += _kind_lines(gvk, module, name, by_kind.pop(gvk, None))
    if by_kind:
        raise ValueError(f"resources without a type: {sorted(by_kind)}")
    (folder / "_kinds.py").write_text("\n".join([*lines, ")", ""]))


def _kind_lines(gvk: tuple[str, str, str], module: str, name: str, entry: Json | None) -> list[str]:
    group, version, kind = gvk
    head = f'"{group}", "{version}", "{kind}", "{module}", "{name}"'
    if entry is None:
        return [f"    KindInfo({head}),"]
    lines = ["    KindInfo(", f"        {head},"]
    lines.append(f'        plural="{entry["plural"]}", singular="{entry["singular"]}",')
    lines.append(f"        namespaced={entry['namespaced']},")
    if entry["listKind"]:
        lines.append(f'        list_kind="{entry["listKind"]}",')
    for key, value in (("short_names", entry["shortNames"]), ("categories", entry["categories"])):
        if value:
            lines.append(f"        {key}={_strings(value)},")
    lines.append(f"        verbs={_strings(entry['verbs'])},")
    if entry["subresources"]:
        lines.append("        subresources=(")
        for sub in entry["subresources"]:
            values = ", ".join(f'"{sub[key]}"' for key in ("name", "group", "version", "kind"))
            lines.append(f"            Subresource({values}, {_strings(sub['verbs'])}),")
        lines.append("        ),")
    if entry.get("storageGroupVersion"):
        prefix = entry.get("etcdPrefix") or entry["plural"]
        if group in _QUALIFIED:
            prefix = f"{group}/{entry['plural']}"
        lines.append(f'        storage_prefix="{prefix}",')
        lines.append(f'        storage_version="{entry["storageGroupVersion"]}",')
        lines.append(f'        storage_version_hash="{entry.get("storageVersionHash") or ""}",')
    lines.append(f"        preferred={entry['isPreferred']},")
    return [*lines, "    ),"]


def _strings(values: list[str]) -> str:
    inner = ", ".join(f'"{value}"' for value in values)
    return f"({inner},)" if len(values) == 1 else f"({inner})"
