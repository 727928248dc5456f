"""Policy on writes: one plugin per idea, in upstream's order.

`PLUGINS` is the chain. Every plugin first gets its chance to change the object, in order; when
the kind's own validation is done, every one judges.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pybernetes.apiserver.admission.certificates import CertificateRequests
from pybernetes.apiserver.admission.default_class import (
    DefaultIngressClass,
    DefaultStorageClass,
)
from pybernetes.apiserver.admission.default_tolerations import DefaultTolerationSeconds
from pybernetes.apiserver.admission.escalation import Escalation
from pybernetes.apiserver.admission.limit_ranger import LimitRanger
from pybernetes.apiserver.admission.namespace_lifecycle import NamespaceLifecycle
from pybernetes.apiserver.admission.node_restriction import NodeRestriction
from pybernetes.apiserver.admission.podsecurity.plugin import PodSecurity
from pybernetes.apiserver.admission.priority import Priority
from pybernetes.apiserver.admission.resource_quota import ResourceQuotas
from pybernetes.apiserver.admission.runtime_class import RuntimeClasses
from pybernetes.apiserver.admission.service_account import ServiceAccounts
from pybernetes.apiserver.admission.taint_nodes import TaintNodesByCondition
from pybernetes.apiserver.admission.world import World
from pybernetes.apiserver.hooks import AdmissionChain

if TYPE_CHECKING:
    from collections.abc import Callable

    from pybernetes.apiserver.hooks import Admission

__all__ = ["PLUGINS", "World", "admission_chain"]

PLUGINS: tuple[Callable[[World], Admission], ...] = (
    NamespaceLifecycle,
    LimitRanger,
    ServiceAccounts,
    NodeRestriction,
    TaintNodesByCondition,
    PodSecurity,
    Priority,
    DefaultTolerationSeconds,
    DefaultStorageClass,
    RuntimeClasses,
    CertificateRequests,
    DefaultIngressClass,
    Escalation,
    # Last of all: nothing that is counted may be refused by anybody else.
    ResourceQuotas,
)


def admission_chain(world: World, *more: Admission) -> AdmissionChain:
    """The chain; what is not policy of its own (address allocation) comes last."""
    return AdmissionChain([*(make(world) for make in PLUGINS), *more])
