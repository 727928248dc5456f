"""Node life cycle: nodes that fall silent are marked, shunned and, after a while, emptied.

`health` is what a node's silence and conditions mean; `zones` how fast nodes may be emptied while
many are failing; `controller` carries both out.
"""

from __future__ import annotations

from pybernetes.controllers.nodelifecycle.controller import NodeLifecycleController

__all__ = ["NodeLifecycleController"]
