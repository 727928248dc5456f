"""StatefulSet: pods with names, storage and an order of their own.

`identity` says what pod number n is and which claims it has, `plan` what one look at the world says
should be done and counted; both are pure. `controller` carries it out.
"""

from __future__ import annotations

from pybernetes.controllers.statefulset.controller import StatefulSetController

__all__ = ["StatefulSetController"]
