"""mount(2) for memory-backed volumes, and taking down whatever is mounted below a directory."""

from __future__ import annotations

import ctypes
import os
import shutil
from typing import TYPE_CHECKING

from pybernetes.kubelet.runtime.linux import mount_points, unmount_below

if TYPE_CHECKING:
    from pathlib import Path

_MS_NOSUID, _MS_NODEV = 2, 4


def mount_memory(directory: Path, size_bytes: int | None = None) -> bool:
    """A tmpfs there; False if there was one already, which stays as it is. Raises OSError."""
    if any(mount.path == str(directory) for mount in mount_points()):
        return False
    options = f"size={size_bytes}" if size_bytes else ""
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.mount(
        b"tmpfs", str(directory).encode(), b"tmpfs", _MS_NOSUID | _MS_NODEV, options.encode()
    )
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(directory))
    return True


def remove_tree(directory: Path) -> None:
    """Unmount and delete everything below. May take long: not for the event loop."""
    if not directory.exists():
        return
    # A mount that stayed would be emptied instead of detached: a hostPath, say.
    unmount_below(directory)
    shutil.rmtree(directory, ignore_errors=False)
