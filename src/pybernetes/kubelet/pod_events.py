"""What can happen to a pod, and what can be done about it: the words of the pod machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from datetime import timedelta

    from pybernetes.api.types.core_v1 import Pod
    from pybernetes.kubelet.pod_state import Incarnation, ProbeKind

# --- events ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Changed:
    """A newer version of the object."""

    pod: Pod


@dataclass(frozen=True, slots=True)
class Forgotten:
    """The object is gone from the API."""


@dataclass(frozen=True, slots=True)
class Condemned:
    """The kubelet itself ends the pod (eviction, shutdown, refusal)."""

    reason: str
    message: str
    grace: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class ObjectsChanged:
    """A ConfigMap or Secret the pod refers to appeared or changed: what failed may work now."""


@dataclass(frozen=True, slots=True)
class VolumesReady:
    pass


@dataclass(frozen=True, slots=True)
class VolumesFailed:
    message: str


@dataclass(frozen=True, slots=True)
class SandboxReady:
    id: str
    ips: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SandboxFailed:
    message: str


@dataclass(frozen=True, slots=True)
class SandboxLost:
    id: str


@dataclass(frozen=True, slots=True)
class SandboxStopped:
    pass


@dataclass(frozen=True, slots=True)
class Removed:
    pass


@dataclass(frozen=True, slots=True)
class ImageReady:
    container: str


@dataclass(frozen=True, slots=True)
class ImageFailed:
    """`reason` is ErrImagePull, ErrImageNeverPull, InvalidImageName, RegistryUnavailable …"""

    container: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Started:
    """The runtime started it; it may have ended already."""

    container: str
    incarnation: Incarnation


@dataclass(frozen=True, slots=True)
class StartFailed:
    """It never ran. With an incarnation, the runtime keeps a dead one of it."""

    container: str
    reason: str
    message: str
    incarnation: Incarnation | None = None


@dataclass(frozen=True, slots=True)
class HookDone:
    """The postStart hook is through."""

    container: str


@dataclass(frozen=True, slots=True)
class HookFailed:
    container: str
    message: str


@dataclass(frozen=True, slots=True)
class Exited:
    container: str
    incarnation: Incarnation


@dataclass(frozen=True, slots=True)
class Verdict:
    """A probe has made up its mind about the incarnation with that id."""

    container: str
    kind: ProbeKind
    id: str
    success: bool


ContainerEvent: TypeAlias = (
    ImageReady | ImageFailed | Started | StartFailed | HookDone | HookFailed | Exited | Verdict
)
PodEvent: TypeAlias = (
    Changed
    | Forgotten
    | Condemned
    | ObjectsChanged
    | Tick
    | VolumesReady
    | VolumesFailed
    | SandboxReady
    | SandboxFailed
    | SandboxLost
    | SandboxStopped
    | Removed
)
Event: TypeAlias = PodEvent | ContainerEvent


# --- actions --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PrepareVolumes:
    pass


@dataclass(frozen=True, slots=True)
class RunSandbox:
    attempt: int


@dataclass(frozen=True, slots=True)
class StopSandbox:
    """Stop it. Without an id there is none, and the outcome is the same."""

    id: str


@dataclass(frozen=True, slots=True)
class PullImage:
    container: str


@dataclass(frozen=True, slots=True)
class StartContainer:
    container: str
    attempt: int


@dataclass(frozen=True, slots=True)
class RunPostStart:
    container: str
    id: str


@dataclass(frozen=True, slots=True)
class StopContainer:
    """preStop hook, then stop within the grace. Asked again, the new grace counts."""

    container: str
    id: str
    grace: timedelta
    message: str
    pre_stop: bool = True


@dataclass(frozen=True, slots=True)
class Abandon:
    """Give up what is on its way for the pod's start: volumes and pulls."""


@dataclass(frozen=True, slots=True)
class Remove:
    """Everything: volumes, containers, sandboxes; the object, unless it is gone already."""

    delete_object: bool


@dataclass(frozen=True, slots=True)
class Say:
    """An event about the pod or one of its containers."""

    type: str
    reason: str
    message: str
    container: str = ""


Action: TypeAlias = (
    PrepareVolumes
    | RunSandbox
    | StopSandbox
    | PullImage
    | StartContainer
    | RunPostStart
    | StopContainer
    | Abandon
    | Remove
    | Say
)
