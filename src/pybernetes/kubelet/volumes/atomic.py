"""Files that change all at once: how ConfigMaps and their like appear in a volume.

The files live in a directory with a name of its time, `..data` is a link to it, and what the user
sees are links through `..data`. An update writes a new directory and moves the link: a reader sees
the old files or the new ones, never some of each.
"""

from __future__ import annotations

import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

DATA = "..data"
_DATA_NEW = "..data_tmp"


@dataclass(frozen=True, slots=True)
class File:
    data: bytes
    mode: int = 0o644


Payload = dict[str, File]


def write_atomically(
    directory: Path, payload: Mapping[str, File], now: datetime, *, group: int | None = None
) -> bool:
    """Make the directory hold exactly these files; False if it did already."""
    link = directory / DATA
    old = link.readlink().name if link.is_symlink() else ""
    if old and _holds(directory / old, payload, group):
        return False
    name = f"..{now:%Y_%m_%d_%H_%M_%S}.{secrets.randbelow(10**10)}"
    made = directory / name
    made.mkdir(mode=0o755)
    made.chmod(0o755)
    for path, file in payload.items():
        _write(made, path, file, group)
    new = directory / _DATA_NEW
    new.unlink(missing_ok=True)
    new.symlink_to(name)
    new.replace(link)
    _show(directory, {PurePosixPath(path).parts[0] for path in payload})
    if old:
        shutil.rmtree(directory / old, ignore_errors=True)
    return True


def _write(root: Path, path: str, file: File, group: int | None) -> None:
    target = root / path
    parents = list(target.relative_to(root).parents)[:-1]
    for parent in reversed(parents):
        (root / parent).mkdir(mode=0o755, exist_ok=True)
        _give(root / parent, 0o755, group, directory=True)
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(file.data)
    _give(target, file.mode, group)


def _give(path: Path, mode: int, group: int | None, *, directory: bool = False) -> None:
    if group is not None:
        os.chown(path, -1, group)
        mode |= 0o2550 if directory else 0o440
    path.chmod(mode)


def _show(directory: Path, wanted: set[str]) -> None:
    """The links users see: one for each first part of a path."""
    for entry in list(directory.iterdir()):
        if not entry.name.startswith("..") and entry.name not in wanted and entry.is_symlink():
            entry.unlink()
    for name in wanted:
        link = directory / name
        if not link.is_symlink():
            link.symlink_to(f"{DATA}/{name}")


def _holds(made: Path, payload: Mapping[str, File], group: int | None) -> bool:
    found = {
        str(path.relative_to(made)): path
        for path in made.rglob("*")
        if path.is_file() and not path.is_symlink()
    }
    if found.keys() != payload.keys():
        return False
    for name, path in found.items():
        wanted = payload[name].mode | (0o440 if group is not None else 0)
        if (path.stat().st_mode & 0o777) != wanted or path.read_bytes() != payload[name].data:
            return False
    return True
