"""Deployment: rolls replica sets over from one pod template to the next.

`revisions` tells which replica set is the present one and numbers them, `plan` decides how large
each should be, `progress` says what the status and its conditions are; all three are pure.
`controller` carries it out.
"""

from __future__ import annotations

from pybernetes.controllers.deployment.controller import DeploymentController

__all__ = ["DeploymentController"]
