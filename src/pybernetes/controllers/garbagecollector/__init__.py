"""Garbage collection: what nobody owns any more goes (owner references).

`graph` is who owns whom, kept from metadata alone; `plan` what is to be done about one object;
`controller` carries it out.
"""

from __future__ import annotations

from pybernetes.controllers.garbagecollector.controller import GarbageCollector

__all__ = ["GarbageCollector"]
