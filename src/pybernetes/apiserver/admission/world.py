"""What plugins look at besides the write itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from pybernetes.aio.clock import Clock
    from pybernetes.apiserver.authz.authorizer import ClusterAuthorizer
    from pybernetes.apiserver.backend import Backend
    from pybernetes.apiserver.catalog import Catalog


@dataclass(frozen=True, slots=True)
class World:
    catalog: Catalog
    backend: Backend
    clock: Clock
    random: Random
    authorizer: ClusterAuthorizer
