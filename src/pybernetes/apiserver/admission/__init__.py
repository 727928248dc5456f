"""Policy on writes: one plugin per idea, in upstream's order.

`PLUGINS` is the chain. Every plugin first gets its chance to change the object, in order; when
the kind's own validation is done, every one judges.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pybernetes.apiserver.admission.certificates import CertificateRequests
from pybernetes.apiserver.admission.claim_resize import ClaimResize
from pybernetes.apiserver.admission.default_class import (
    DefaultIngressClass,
    DefaultStorageClass,
)
from pybernetes.apiserver.admission.default_tolerations import DefaultTolerationSeconds
from pybernetes.apiserver.admission.escalation import Escalation
from pybernetes.apiserver.admission.limit_ranger import LimitRanger
from pybernetes.apiserver.admission.namespace_lifecycle import NamespaceLifecycle
from pybernetes.apiserver.admission.node_restriction import NodeRestriction
from pybernetes.apiserver.admission.plugin import Plugin
from pybernetes.apiserver.admission.podsecurity.plugin import PodSecurity
from pybernetes.apiserver.admission.priority import Priority
from pybernetes.apiserver.admission.resource_quota import ResourceQuotas
from pybernetes.apiserver.admission.runtime_class import RuntimeClasses
from pybernetes.apiserver.admission.service_account import ServiceAccounts
from pybernetes.apiserver.admission.taint_nodes import TaintNodesByCondition
from pybernetes.apiserver.admission.webhooks import MutatingWebhooks, ValidatingWebhooks
from pybernetes.apiserver.admission.world import World

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from pybernetes.apiserver.hooks import Attributes

__all__ = ["PLUGINS", "World", "admission_chain"]

PLUGINS: tuple[Callable[[World], Plugin], ...] = (
    NamespaceLifecycle,
    LimitRanger,
    ServiceAccounts,
    NodeRestriction,
    TaintNodesByCondition,
    PodSecurity,
    Priority,
    DefaultTolerationSeconds,
    DefaultStorageClass,
    ClaimResize,
    RuntimeClasses,
    CertificateRequests,
    DefaultIngressClass,
    Escalation,
    MutatingWebhooks,
    ValidatingWebhooks,
    # Last of all: nothing that is counted may be refused by anybody else.
    ResourceQuotas,
)


class PolicyChain:
    """Plugins in order; each is asked only for what it does: most either change or judge.

    When a webhook has changed an object, the policy runs once more over what became of it.
    """

    def __init__(self, policy: Sequence[Plugin], more: Sequence[Plugin] = ()) -> None:
        self._mutating = _mutating(policy)
        # They reserve something for what they are shown, so they are asked once and last.
        self._reserving = _mutating(more)
        self._validating = [
            p.validate for p in (*policy, *more) if type(p).validate is not Plugin.validate
        ]

    async def mutate(self, attributes: Attributes) -> None:
        for mutate in self._mutating:
            await mutate(attributes)
        if attributes.reinvocation is not None and attributes.reinvocation.wanted:
            for mutate in self._mutating:
                await mutate(attributes)
        for mutate in self._reserving:
            await mutate(attributes)

    async def validate(self, attributes: Attributes) -> None:
        for validate in self._validating:
            await validate(attributes)


def _mutating(plugins: Sequence[Plugin]) -> list[Callable[[Attributes], Awaitable[None]]]:
    return [p.mutate for p in plugins if type(p).mutate is not Plugin.mutate]


def admission_chain(world: World, *more: Plugin) -> PolicyChain:
    """The chain; what is not policy of its own (address allocation) comes last."""
    return PolicyChain([make(world) for make in PLUGINS], more)
