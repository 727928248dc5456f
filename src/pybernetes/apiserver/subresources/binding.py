"""pods/binding: put a pod on a node, once.

What the scheduler writes. Sets spec.nodeName, takes over the binding's annotations and
reports the pod as scheduled, all in one write; a pod that has a node keeps it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from pybernetes.api.types.core_v1 import Binding, PodCondition
from pybernetes.apimachinery.errors import BadRequest, Conflict, Invalid
from pybernetes.apimachinery.fielderror import Path
from pybernetes.apiserver.body import BodyKind, check_write_options, read_object
from pybernetes.apiserver.hooks import Attributes, Operation
from pybernetes.apiserver.respond import success
from pybernetes.apiserver.verbs.update import DIRECT, rewrite

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from pybernetes.apimachinery.fielderror import FieldError
    from pybernetes.apiserver.backend import Backend
    from pybernetes.apiserver.call import Call
    from pybernetes.apiserver.catalog import Served
    from pybernetes.apiserver.entry import Entry
    from pybernetes.wire.http import Response

BINDING = BodyKind(Binding)


def binding_errors(binding: Any) -> Iterator[FieldError]:
    target = Path("target")
    if binding.target.kind not in ("", "Node"):
        yield target.kind.not_supported(binding.target.kind, ("Node", "<empty>"))
    if not binding.target.name:
        yield target.name.required()


def bound(pod: Any, binding: Any, now: datetime) -> Any:
    """The pod on its node. Raises Conflict if it cannot go there."""
    metadata, name = pod.metadata, pod.metadata.name
    if metadata.deletion_timestamp is not None:
        raise _refused(name, f"pod {name} is being deleted, cannot be assigned to a host")
    if pod.spec.node_name:
        raise _refused(name, f'pod {name} is already assigned to node "{pod.spec.node_name}"')
    if pod.spec.scheduling_gates:
        raise _refused(name, f"pod {name} has non-empty .spec.schedulingGates")
    said = binding.metadata
    if said.uid and said.uid != metadata.uid:
        raise _refused(
            name,
            f"Precondition failed: UID in precondition: {said.uid}, UID in object meta: {metadata.uid}",
        )
    scheduled = PodCondition(type="PodScheduled", status="True", last_transition_time=now)
    before = [c for c in pod.status.conditions if c.type == "PodScheduled"]
    if before and before[0].status == "True":
        scheduled = replace(scheduled, last_transition_time=before[0].last_transition_time)
    others = [c for c in pod.status.conditions if c.type != "PodScheduled"]
    return replace(
        pod,
        metadata=replace(metadata, annotations={**metadata.annotations, **said.annotations}),
        spec=replace(pod.spec, node_name=binding.target.name),
        status=replace(pod.status, conditions=(*others, scheduled)),
    )


def _refused(name: str, cause: str) -> Conflict:
    return Conflict("pods/binding", name, cause)


async def bind(backend: Backend, call: Call, served: Served) -> Response:
    check_write_options(call.query, "CreateOptions")
    binding = await read_object(call, BINDING)
    info = call.info
    # Both pods/x/binding and the older bindings collection end here.
    name = info.name or binding.metadata.name
    if info.name and binding.metadata.name not in ("", info.name):
        raise BadRequest("name in URL does not match name in Binding object")
    if problems := list(binding_errors(binding)):
        raise Invalid("Binding", "", name, problems)
    pods = backend.catalog.find("", "v1", "pods")
    assert pods is not None
    attributes = Attributes(
        call,
        Operation.CREATE,
        pods,
        info.namespace,
        name,
        "binding",
        obj=binding,
        options=call.query,
        dry_run=call.dry_run,
    )
    await backend.admission.mutate(attributes)
    await backend.admission.validate(attributes)
    now = backend.clock.now().replace(microsecond=0)

    def propose(old: Any, entry: Entry) -> Any:
        wanted = attributes.obj.metadata.resource_version
        if wanted and wanted != old.metadata.resource_version:
            raise Conflict("pods/binding", name)
        return bound(old, attributes.obj, now)

    await rewrite(backend, call, pods, propose, manner=DIRECT, name=name)
    return success(status=201)
