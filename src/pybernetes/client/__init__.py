"""What every component uses to talk to the API: typed client, caches, controller loop.

Also events, leader election and expectations. Kubeconfig files are in
`pybernetes.client.kubeconfig`, apart, because few need them and they bring sockets and TLS.
See docs/client.md.
"""

from pybernetes.client.cache import Cache
from pybernetes.client.caches import Caches
from pybernetes.client.client import Client, Listing, PatchType, WatchEvent
from pybernetes.client.controller import (
    AddKey,
    Reconcile,
    Source,
    TerminalError,
    changes_of,
    keys_of,
    mapped,
    owner_keys_of,
    run_controller,
)
from pybernetes.client.events import NORMAL, WARNING, EventRecorder, EventWriter, reference_to
from pybernetes.client.expectations import Expectations
from pybernetes.client.kind import (
    AnyKind,
    Kind,
    PartialObject,
    dynamic_kind,
    kind_of,
    metadata_kind,
)
from pybernetes.client.leaderelection import LeaderElector, LeadershipLost, LeaseTimes
from pybernetes.client.transport import Transport

__all__ = [
    "NORMAL",
    "WARNING",
    "AddKey",
    "AnyKind",
    "Cache",
    "Caches",
    "Client",
    "EventRecorder",
    "EventWriter",
    "Expectations",
    "Kind",
    "LeaderElector",
    "LeadershipLost",
    "LeaseTimes",
    "Listing",
    "PartialObject",
    "PatchType",
    "Reconcile",
    "Source",
    "TerminalError",
    "Transport",
    "WatchEvent",
    "changes_of",
    "dynamic_kind",
    "keys_of",
    "kind_of",
    "mapped",
    "metadata_kind",
    "owner_keys_of",
    "reference_to",
    "run_controller",
]
