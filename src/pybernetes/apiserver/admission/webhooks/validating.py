"""ValidatingAdmissionWebhook: webhooks judge what would be stored, all at the same time.

The refusal that the client sees is that of the first of them in order, not in time.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from pybernetes.api.types.admissionregistration_v1 import ValidatingWebhookConfiguration
from pybernetes.apiserver.admission.plugin import Plugin
from pybernetes.apiserver.admission.webhooks.asking import Asker
from pybernetes.apiserver.admission.webhooks.matching import Hooks
from pybernetes.apiserver.admission.webhooks.review import Question

if TYPE_CHECKING:
    from pybernetes.apiserver.admission.webhooks.matching import Hook
    from pybernetes.apiserver.admission.world import World
    from pybernetes.apiserver.catalog import Served
    from pybernetes.apiserver.hooks import Attributes

_PREFIX = "failed-open.validating.webhook.admission.k8s.io"


class ValidatingWebhooks(Plugin):
    def __init__(self, world: World) -> None:
        self._hooks = Hooks(world.catalog, ValidatingWebhookConfiguration)
        self._asker = Asker(world)

    async def validate(self, attributes: Attributes) -> None:
        hooks = self._hooks.about(attributes)
        if not hooks:
            return
        # By version, for several webhooks see the same.
        questions: dict[Served, Question] = {}
        concerned: list[tuple[Hook, Question]] = []
        for hook in hooks:
            served = self._hooks.match(hook, attributes)
            if served is None:
                continue
            if served not in questions:
                questions[served] = await Question.of(attributes, served)
            concerned.append((hook, questions[served]))
        if not concerned:
            return
        outcomes = await asyncio.gather(
            *(self._asker.ask(hook, question, mutating=False) for hook, question in concerned),
            return_exceptions=True,
        )
        for index, outcome in enumerate(outcomes):
            if outcome is None:
                place = f"round_0_index_{index}"
                attributes.annotations[f"{_PREFIX}/{place}"] = concerned[index][0].name
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
