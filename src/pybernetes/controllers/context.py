"""What every controller is given, and what every controller is.

A controller keeps one promise of the API. It reads from the process's shared caches, writes
through a client with an identity of its own (`system:serviceaccount:kube-system:<name>`, so that
RBAC says what it may do), and gets time and chance from here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime, timedelta
    from ipaddress import IPv4Network
    from random import Random

    from pybernetes.aio.clock import Clock
    from pybernetes.apimachinery.meta import Key
    from pybernetes.client import Caches, Client, EventRecorder, Source


class Controller(Protocol):
    """See `client.controller.run_controller` for the loop that runs it."""

    @property
    def name(self) -> str: ...

    @property
    def sources(self) -> Sequence[Source]: ...

    async def reconcile(self, key: Key) -> timedelta | None: ...


@runtime_checkable
class SelfRunning(Protocol):
    """A controller whose work does not fit keys of one kind: it brings its own loop."""

    @property
    def name(self) -> str: ...

    async def run(self) -> None: ...


class CertificateSigner(Protocol):
    """Signs certificate requests with the cluster's CA; what holds the key stays outside."""

    def sign(self, request_pem: bytes, *, usages: Sequence[str], expires_at: datetime) -> bytes:
        """A PEM certificate. Raises ValueError for a request that cannot be read."""


@dataclass(frozen=True, slots=True)
class ControllerOptions:
    """The settings of the cluster that controllers need."""

    # Where nodes get their pod ranges from; None: nodes bring their own.
    pod_network: IPv4Network | None = None
    node_prefix_length: int = 24
    # PEM of the CA that clients in pods verify the API server with.
    root_ca: str = ""
    signer: CertificateSigner | None = None
    # Signs the claims of a service account token; None: secrets that ask for one wait.
    sign_token: Callable[[dict[str, Any]], str] | None = None


@dataclass(frozen=True, slots=True)
class ControllerContext:
    client_for: Callable[[str], Client]
    caches: Caches
    clock: Clock
    random: Random
    recorder_for: Callable[[str], EventRecorder]
    options: ControllerOptions = field(default_factory=ControllerOptions)
