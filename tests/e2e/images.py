"""The images of these tests, made of busybox: nothing is pulled."""

from __future__ import annotations

from pybernetes.testing.images import File, ImageConfig, archive, busybox_image

# Two versions of a web server that says which one it is.
WEB_1 = "localhost/web:1"
WEB_2 = "localhost/web:2"
# Busybox itself; runs a shell unless told otherwise.
BOX = "localhost/box:1"
# Nobody has it, and nothing leads to where it would be.
MISSING = "localhost/missing:1"

# Serves until it is told to stop; then a moment longer, as a server does that lets its clients end.
_SERVE = b"""#!/bin/sh
httpd -f -p 8080 -h /www &
trap 'sleep 2; kill $!; exit 0' TERM
wait
"""


def archives() -> dict[str, bytes]:
    """File name -> archive for `p8s image load`."""
    web = {
        name: busybox_image(
            {"/www/index.html": File(f"version {number}\n".encode()), "/serve": _script()},
            config=ImageConfig(command=("/serve",), env={"PATH": "/bin"}, working_directory="/"),
        )
        for number, name in ((1, WEB_1), (2, WEB_2))
    }
    return {"images.tar": archive({**web, BOX: busybox_image()})}


def _script() -> File:
    return File(_SERVE, mode=0o755)
