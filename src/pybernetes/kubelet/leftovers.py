"""Directories of pods that were deleted while no kubelet was there to remove them."""

from __future__ import annotations

import logging
import shutil
from typing import TYPE_CHECKING

from pybernetes.kubelet.volumes.mount import remove_tree

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from pybernetes.kubelet.config import KubeletConfig

log = logging.getLogger(__name__)


def remove_leftovers(config: KubeletConfig, known: AbstractSet[str]) -> None:
    """Of pods whose uid is not known: volumes, files, logs. Blocking."""
    if config.root_dir is None or not (config.root_dir / "pods").is_dir():
        return
    for directory in (config.root_dir / "pods").iterdir():
        if directory.name in known:
            continue
        log.info("removing %s, whose pod is gone", directory)
        try:
            # Logs first: their directory may be shared with others, and ours are known by the
            # pod's own directory only.
            for logs in config.log_dir.glob(f"*_*_{directory.name}"):
                shutil.rmtree(logs, ignore_errors=True)
            remove_tree(directory)
        except OSError as error:
            log.warning("%s: %s", directory, error)
