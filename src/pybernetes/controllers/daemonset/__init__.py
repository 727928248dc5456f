"""DaemonSet: one pod on every node that takes it.

`placement` says which nodes those are and what such a pod looks like, `plan` what one look at the
world says should be done and counted; both are pure. `controller` carries it out.
"""

from __future__ import annotations

from pybernetes.controllers.daemonset.controller import DaemonSetController

__all__ = ["DaemonSetController"]
