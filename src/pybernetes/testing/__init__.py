"""The public test kit: a whole cluster in memory, under virtual time.

`Cluster` is the cluster, `builders` makes objects, `images` makes container images; the pytest
plugin gives `async def` tests virtual time and the `cluster` fixture. See docs/testing.md.

This module stays light, because the plugin is loaded wherever pybernetes is installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pybernetes.testing.cluster import Cluster, SyncCluster

__all__ = ["Cluster", "SyncCluster"]


def __getattr__(name: str) -> object:
    if name in __all__:
        from pybernetes.testing import cluster

        return getattr(cluster, name)
    raise AttributeError(name)
