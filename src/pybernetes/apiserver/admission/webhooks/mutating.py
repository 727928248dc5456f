"""MutatingAdmissionWebhook: webhooks change the object, one after the other.

Each sees what those before it made. When one of them changed something, the whole mutating chain
runs once more (see `PolicyChain`): our own plugins look at what was added, and then those webhooks
are asked again that wish it (reinvocationPolicy IfNeeded) and for which something has changed since.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from pybernetes.api.resource import Part
from pybernetes.api.types.admissionregistration_v1 import MutatingWebhookConfiguration
from pybernetes.apimachinery.errors import BadRequest, InternalError
from pybernetes.apimachinery.jsontext import JsonError, load_json
from pybernetes.apimachinery.patch import PatchError, json_patch
from pybernetes.apiserver.admission.plugin import Plugin
from pybernetes.apiserver.admission.webhooks.asking import Asker
from pybernetes.apiserver.admission.webhooks.matching import GROUP, Hooks, has_object
from pybernetes.apiserver.admission.webhooks.review import Question, converted, patched_object
from pybernetes.apiserver.hooks import Operation, Reinvocation
from pybernetes.apiserver.verbs.update import confined

if TYPE_CHECKING:
    from pybernetes.apiserver.admission.webhooks.matching import Hook
    from pybernetes.apiserver.admission.world import World
    from pybernetes.apiserver.hooks import Attributes

_PREFIX = "mutation.webhook.admission.k8s.io"
_KINDS = frozenset({"mutatingwebhookconfigurations", "validatingwebhookconfigurations"})


class MutatingWebhooks(Plugin):
    def __init__(self, world: World) -> None:
        self._hooks = Hooks(world.catalog, MutatingWebhookConfiguration)
        self._asker = Asker(world)

    async def mutate(self, attributes: Attributes) -> None:
        if attributes.group == GROUP and attributes.resource in _KINDS:
            _warn_of_conditions(attributes)
        hooks = self._hooks.about(attributes)
        if not hooks:
            return
        again = attributes.reinvocation
        if again is not None and attributes.obj != again.last:
            # Our own plugins answered to what the webhooks had made.
            again.all_are_due()
        for index, hook in enumerate(hooks):
            if again is not None and hook.uid not in again.due:
                continue
            served = self._hooks.match(hook, attributes)
            if served is None:
                continue
            place = f"round_{0 if again is None else 1}_index_{index}"
            changed = await self._invoke(hook, place, await Question.of(attributes, served))
            state = attributes.reinvocation
            if changed and state is None:
                state = attributes.reinvocation = Reinvocation()
            if changed and state is not None:
                state.all_are_due()
            _remember(hook, attributes)
        if attributes.reinvocation is not None:
            attributes.reinvocation.last = attributes.obj

    async def _invoke(self, hook: Hook, place: str, question: Question) -> bool:
        """Whether it changed the object."""
        attributes = question.attributes
        answer = await self._asker.ask(hook, question, mutating=True)
        if answer is None:
            attributes.annotations[f"failed-open.{_PREFIX}/{place}"] = hook.name
            return False
        changed = bool(answer.patch) and await self._change(hook, question, answer.patch)
        note = {"configuration": hook.configuration, "webhook": hook.name, "mutated": changed}
        attributes.annotations[f"{_PREFIX}/{place}"] = msgspec.json.encode(note).decode()
        return changed

    async def _change(self, hook: Hook, question: Question, patch: bytes) -> bool:
        attributes = question.attributes
        try:
            operations, _ = load_json(patch)
            if operations == []:
                return False
            if not has_object(attributes.operation) or question.obj is None:
                raise InternalError(
                    f'admission webhook "{hook.name}" attempted to modify the object, which is'
                    " not supported for this operation"
                )
            value = json_patch(question.value, operations)
        except (JsonError, PatchError) as error:
            raise InternalError(str(error)) from None
        made = patched_object(question, value)
        made = await converted(question.served, attributes.served, made)
        _check_place(made, attributes)
        part = attributes.served.subresource(attributes.subresource)
        if attributes.operation is Operation.UPDATE and isinstance(part, Part):
            # Who may write the status must not write the rest by way of a webhook.
            made = confined(made, attributes.old, part) if part.owns else made
        changed = bool(made != attributes.obj)
        attributes.obj = made
        return changed


def _remember(hook: Hook, attributes: Attributes) -> None:
    """That a webhook was asked, if it wishes to be asked again when others change something."""
    if hook.webhook.reinvocation_policy != "IfNeeded":
        return
    if attributes.reinvocation is None:
        attributes.reinvocation = Reinvocation(wanted=False)
    attributes.reinvocation.called.add(hook.uid)
    attributes.reinvocation.due.discard(hook.uid)


def _check_place(made: Any, attributes: Attributes) -> None:
    """No webhook moves an object to where its writer may perhaps not write."""
    before = getattr(attributes.obj, "metadata", None)
    if before is not None and made.metadata.namespace != before.namespace:
        raise BadRequest(
            "the namespace of the provided object does not match the namespace sent on the request"
        )


def _warn_of_conditions(attributes: Attributes) -> None:
    for index, webhook in enumerate(getattr(attributes.obj, "webhooks", ())):
        if webhook.match_conditions:
            attributes.call.warn(
                f"webhooks[{index}].matchConditions: this server does not evaluate expressions;"
                f" what the webhook matches is treated by its failurePolicy"
                f" ({webhook.failure_policy or 'Fail'})"
            )
