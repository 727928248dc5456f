"""What a failed pod means for its job (podFailurePolicy), and when enough succeeded (successPolicy).

Pure. The first rule that matches decides; a failure no rule matches counts against the limits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pybernetes.controllers.job.indexes import parse_indexes

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from pybernetes.api.types.batch_v1 import (
        Job,
        PodFailurePolicyOnExitCodesRequirement,
        PodFailurePolicyRule,
    )
    from pybernetes.api.types.core_v1 import ContainerStatus, Pod

COUNT, IGNORE, FAIL_JOB, FAIL_INDEX = "Count", "Ignore", "FailJob", "FailIndex"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is done about a failed pod."""

    action: str = COUNT
    # Why the job fails.
    message: str = ""


def judge(job: Job, pod: Pod) -> Verdict:
    """What the job's policy says about a failed pod."""
    policy = job.spec.pod_failure_policy
    for number, rule in enumerate(policy.rules if policy else ()):
        reason = _match(rule, pod)
        if reason:
            if rule.action == FAIL_INDEX and job.spec.backoff_limit_per_index is None:
                continue
            message = f"{reason} matching {rule.action} rule at index {number}"
            return Verdict(rule.action, message)
    return Verdict()


def _match(rule: PodFailurePolicyRule, pod: Pod) -> str:
    """How the rule matches; empty if it does not."""
    where = f"{pod.metadata.namespace}/{pod.metadata.name}"
    if rule.on_exit_codes is not None:
        status = _with_exit_code(pod, rule.on_exit_codes)
        if status is None or status.state.terminated is None:
            return ""
        code = status.state.terminated.exit_code
        return f"Container {status.name} for pod {where} failed with exit code {code}"
    for pattern in rule.on_pod_conditions:
        wanted = (pattern.type, pattern.status or "True")
        if any((c.type, c.status) == wanted for c in pod.status.conditions):
            return f"Pod {where} has condition {pattern.type}"
    return ""


def _with_exit_code(
    pod: Pod, rule: PodFailurePolicyOnExitCodesRequirement
) -> ContainerStatus | None:
    for status in (*pod.status.container_statuses, *pod.status.init_container_statuses):
        ended = status.state.terminated
        if ended is None or ended.exit_code == 0:
            continue
        if rule.container_name and rule.container_name != status.name:
            continue
        if (ended.exit_code in rule.values) == (rule.operator == "In"):
            return status
    return None


def enough_succeeded(job: Job, completed: AbstractSet[int]) -> str:
    """The message of the success policy's first rule that holds; empty if none does."""
    policy = job.spec.success_policy
    for number, rule in enumerate(policy.rules if policy else ()):
        done = len(completed)
        wanted = rule.succeeded_count
        if rule.succeeded_indexes:
            named = parse_indexes(rule.succeeded_indexes, below=job.spec.completions or 0)
            done = len(completed & named)
            wanted = len(named) if wanted is None else wanted
        if wanted is not None and done >= wanted:
            return f"Matched rules at index {number}"
    return ""
