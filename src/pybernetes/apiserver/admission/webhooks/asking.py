"""Asks one webhook about one write, and says what follows if it does not answer."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING
from uuid import UUID

from pybernetes.apimachinery.errors import BadRequest, InternalError
from pybernetes.apiserver.admission.webhooks.client import CallFailed, WebhookClients
from pybernetes.apiserver.admission.webhooks.review import judgement, refusal, review

if TYPE_CHECKING:
    from pybernetes.apiserver.admission.webhooks.matching import Hook
    from pybernetes.apiserver.admission.webhooks.review import Judgement, Question
    from pybernetes.apiserver.admission.world import World

log = logging.getLogger(__name__)

_NO_CONDITIONS = "matchConditions are not supported: this server does not evaluate expressions"


class Asker:
    def __init__(self, world: World) -> None:
        self._random = world.random
        self._clients = WebhookClients(world.catalog)
        world.backend.closers.append(self._clients.close)

    async def ask(self, hook: Hook, question: Question, *, mutating: bool) -> Judgement | None:
        """What it says; None if it did not answer and that is to be borne.

        Raises the webhook's refusal, InternalError if it did not answer and must, BadRequest for
        a dry run that would not be one.
        """
        webhook, attributes = hook.webhook, question.attributes
        if attributes.dry_run and webhook.side_effects not in ("None", "NoneOnDryRun"):
            raise BadRequest(f'admission webhook "{hook.name}" does not support dry run')
        try:
            if webhook.match_conditions:
                # Whether it is meant at all cannot be known, so it counts as not answering.
                raise CallFailed(_NO_CONDITIONS)
            uid = str(UUID(int=self._random.getrandbits(128), version=4))
            version, body = review(question, hook, uid)
            data = await self._clients.call(webhook.client_config, body, hook.timeout_seconds)
            answer = judgement(data, uid, version, mutating=mutating)
        except CallFailed as failure:
            text = f'failed calling webhook "{hook.name}": {failure}'
            if hook.fails_open:
                log.warning("failing open: %s", text)
                return None
            log.warning("failing closed: %s", text)
            raise InternalError(text) from None
        for key, value in answer.annotations.items():
            attributes.annotations[f"{hook.name}/{key}"] = value
        for sentence in answer.warnings:
            attributes.call.warn(sentence)
        if not answer.allowed:
            raise refusal(hook.name, answer.status)
        return answer
