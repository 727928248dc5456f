"""pods/eviction: delete a pod if its disruption budget allows it.

The budget is spent before the pod is deleted, in a write of its own: two evictions at
once cannot both use the last disruption. What does not count for a budget (finished,
pending or already going) is deleted without asking.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from pybernetes.api.types.meta_v1 import DeleteOptions
from pybernetes.api.types.policy_v1 import Eviction
from pybernetes.apimachinery.errors import (
    BadRequest,
    Forbidden,
    InternalError,
    NotFound,
    TooManyRequests,
)
from pybernetes.apimachinery.selector import selector_of
from pybernetes.apiserver.body import BodyKind, check_write_options, read_object
from pybernetes.apiserver.hooks import Attributes, Operation
from pybernetes.apiserver.respond import success
from pybernetes.apiserver.verbs.delete import delete_object
from pybernetes.apiserver.verbs.update import DIRECT, rewrite

if TYPE_CHECKING:
    from datetime import datetime

    from pybernetes.apiserver.backend import Backend
    from pybernetes.apiserver.call import Call
    from pybernetes.apiserver.catalog import Served
    from pybernetes.apiserver.entry import Entry
    from pybernetes.wire.http import Response

# Old clients drain nodes with the beta version.
EVICTION = BodyKind(Eviction, also=("policy/v1beta1",))

# Evictions that a budget remembers before its controller has confirmed them.
MAX_DISRUPTED_PODS = 2000

_VIOLATION = "Cannot evict pod as it would violate the pod's disruption budget."


def counts_for_no_budget(pod: Any) -> bool:
    return (
        pod.status.phase in ("Succeeded", "Failed", "Pending")
        or pod.metadata.deletion_timestamp is not None
    )


def is_ready(pod: Any) -> bool:
    return any(c.type == "Ready" and c.status == "True" for c in pod.status.conditions)


def may_go_unready(pod: Any, budget: Any) -> bool:
    """Whether a pod that is not ready may go without spending the budget."""
    if is_ready(pod):
        return False
    if budget.spec.unhealthy_pod_eviction_policy == "AlwaysAllow":
        return True
    status = budget.status
    return bool(status.current_healthy >= status.desired_healthy > 0)


def spent(budget: Any, pod_name: str, now: datetime) -> Any:
    """The budget with one disruption less. Raises TooManyRequests if none is left."""
    name, status = budget.metadata.name, budget.status
    if status.observed_generation < budget.metadata.generation:
        raise _refused(
            f"The disruption budget {name} is still being processed by the server.",
            retry_after_seconds=10,
        )
    if status.disruptions_allowed < 0:
        raise _forbidden(name, "pdb disruptions allowed is negative")
    if len(status.disrupted_pods) > MAX_DISRUPTED_PODS:
        raise _forbidden(
            name,
            "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
        )
    if status.disruptions_allowed == 0:
        raise _refused(
            f"The disruption budget {name} needs {status.desired_healthy} healthy pods and has "
            f"{status.current_healthy} currently"
        )
    return replace(
        budget,
        status=replace(
            status,
            disruptions_allowed=status.disruptions_allowed - 1,
            disrupted_pods={**status.disrupted_pods, pod_name: now},
        ),
    )


def _refused(cause: str, *, retry_after_seconds: int | None = None) -> TooManyRequests:
    return TooManyRequests(
        _VIOLATION,
        retry_after_seconds=retry_after_seconds,
        causes=[{"reason": "DisruptionBudget", "message": cause}],
    )


def _forbidden(name: str, cause: str) -> Forbidden:
    return Forbidden("poddisruptionbudgets", name, cause, group="policy")


async def evict(backend: Backend, call: Call, served: Served) -> Response:
    check_write_options(call.query, "CreateOptions")
    eviction = await read_object(call, EVICTION)
    info = call.info
    if eviction.metadata.name not in ("", info.name):
        raise BadRequest("name in URL does not match name in Eviction object")
    options = eviction.delete_options or DeleteOptions()
    if call.dry_run and not options.dry_run:
        options = replace(options, dry_run=("All",))
    entry = served.cache.get(served.key(info.namespace, info.name))
    if entry is None:
        raise NotFound(served.plural, info.name)
    attributes = Attributes(
        call,
        Operation.CREATE,
        served,
        info.namespace,
        info.name,
        "eviction",
        obj=eviction,
        options=call.query,
        dry_run=bool(options.dry_run),
    )
    await backend.admission.mutate(attributes)
    await backend.admission.validate(attributes)
    pod = served.decode(entry)
    if not counts_for_no_budget(pod):
        await _spend_budget(backend, call, pod, dry_run=bool(options.dry_run))
    await delete_object(backend, call, served, info.name, options, admitted=False)
    return success(status=201)


async def _spend_budget(backend: Backend, call: Call, pod: Any, *, dry_run: bool) -> None:
    budgets = backend.catalog.find_stored("policy", "poddisruptionbudgets")
    if budgets is None:
        return
    labels = pod.metadata.labels
    matching = [
        budget
        for entry in budgets.cache.select(pod.metadata.namespace)
        if selector_of((budget := budgets.decode(entry)).spec.selector).matches(labels)
    ]
    if not matching:
        return
    if len(matching) > 1:
        raise InternalError(
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does "
            "not support."
        )
    budget = matching[0]
    if may_go_unready(pod, budget):
        return
    now = backend.clock.now().replace(microsecond=0)
    if dry_run:
        spent(budget, pod.metadata.name, now)
        return

    def propose(old: Any, entry: Entry) -> Any:
        return spent(old, pod.metadata.name, now)

    await rewrite(backend, call, budgets, propose, manner=DIRECT, name=budget.metadata.name)
