"""Container images for tests and examples, made on the spot: no registry, no network.

    archive({"localhost/hello:1": busybox_image(command=("httpd", "-f", "-p", "8080"))})

gives the bytes that `p8s image load` and `ctr images import` take. The writer itself
(`pybernetes.kubelet.runtime.ociimage`) is exported here too.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from pybernetes.kubelet.runtime.ociimage import (
    Directory,
    Entry,
    File,
    Image,
    ImageConfig,
    Symlink,
    archive,
    build_image,
    entries_of,
    layer,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "Directory",
    "Entry",
    "File",
    "Image",
    "ImageConfig",
    "Symlink",
    "archive",
    "build_image",
    "busybox_image",
    "entries_of",
    "find_busybox",
    "layer",
]

BUSYBOX_PATHS = (Path("/bin/busybox"), Path("/usr/bin/busybox"))

# Where a program with a dynamic linker names it (PT_INTERP in an ELF file); a static one does not.
_INTERPRETER = b"/ld-"

_PASSWD = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
_GROUP = b"root:x:0:\nnobody:x:65534:\n"


def find_busybox() -> Path | None:
    """A busybox that runs without libraries."""
    for path in BUSYBOX_PATHS:
        if path.exists() and _INTERPRETER not in path.read_bytes()[:4096]:
            return path
    return None


def busybox_image(
    files: Mapping[str, Entry] | None = None,
    *,
    command: tuple[str, ...] = ("sh",),
    config: ImageConfig | None = None,
) -> Image:
    """Busybox with all its commands, an /etc/passwd, a /tmp for everybody, and `files`.

    `config` replaces the whole configuration; with `command` only what runs. Raises
    FileNotFoundError where there is no static busybox.
    """
    busybox = find_busybox()
    if busybox is None:
        raise FileNotFoundError("no static busybox here: apt-get install busybox-static")
    # The image holds only links to busybox besides, so both layers stay small and the lower one is
    # the same for every image made here: stored once, unpacked once.
    base: dict[str, Entry] = {
        "/bin/busybox": File(busybox.read_bytes(), mode=0o755),
        "/etc/passwd": File(_PASSWD),
        "/etc/group": File(_GROUP),
        "/root": Directory(0o700),
        "/tmp": Directory(0o1777),
        "/usr/bin/env": Symlink("/bin/busybox"),
        "/var/run": Directory(),
        "/var/www": Directory(),
    }
    listing = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
    for name in listing.stdout.split():
        base.setdefault(f"/bin/{name}", Symlink("busybox"))
    layers = [layer(base)]
    if files:
        layers.append(layer(files))
    usual = ImageConfig(command=command, env={"PATH": "/bin:/usr/bin"}, working_directory="/")
    return build_image(layers, config or usual)
