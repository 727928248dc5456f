"""batch: jobs that run to an end, and jobs on a schedule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from pybernetes.api.conditions import has_condition
from pybernetes.api.core.poddefaults import default_pod_template
from pybernetes.api.core.podspec import validate_pod_template
from pybernetes.api.resource import AGE, Column, Resource, Scope, Status, Strategy
from pybernetes.api.types.batch_v1 import CronJob, Job
from pybernetes.api.types.meta_v1 import LabelSelector
from pybernetes.api.validation import (
    validate_immutable,
    validate_label_selector,
    validate_non_negative,
    validate_one_of,
)
from pybernetes.apimachinery.fielderror import FieldError, Path

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from pybernetes.api.types.batch_v1 import JobSpec, PodFailurePolicy, PodFailurePolicyRule
    from pybernetes.api.types.core_v1 import PodTemplateSpec

CONTROLLER_UID = "batch.kubernetes.io/controller-uid"
JOB_NAME = "batch.kubernetes.io/job-name"
# The names without a prefix that came first; still set, because people select by them.
LEGACY_CONTROLLER_UID, LEGACY_JOB_NAME = "controller-uid", "job-name"

BACKOFF_LIMIT = 6
# What "no limit" is when the limit is per index.
NO_BACKOFF_LIMIT = 2147483647
MAX_INDEXED_PARALLELISM = 100_000
MAX_FAILURE_RULES = 20
MAX_CRON_NAME = 52
_RULE_ACTIONS = ("Count", "FailIndex", "FailJob", "Ignore")


# --- Job ------------------------------------------------------------------------------------------


def default_job(new: Job) -> Job:
    spec = new.spec
    one_pod = spec.completions is None and spec.parallelism is None
    per_index = spec.backoff_limit_per_index is not None
    spec = msgspec.structs.replace(
        spec,
        completions=1 if one_pod else spec.completions,
        parallelism=1 if spec.parallelism is None else spec.parallelism,
        backoff_limit=_or(spec.backoff_limit, NO_BACKOFF_LIMIT if per_index else BACKOFF_LIMIT),
        completion_mode=spec.completion_mode or "NonIndexed",
        suspend=bool(spec.suspend),
        manual_selector=bool(spec.manual_selector),
        pod_replacement_policy=spec.pod_replacement_policy
        or ("TerminatingOrFailed" if spec.pod_failure_policy is None else "Failed"),
        pod_failure_policy=_default_failure_policy(spec.pod_failure_policy),
        template=default_pod_template(spec.template),
    )
    metadata = new.metadata
    if not metadata.labels:
        metadata = msgspec.structs.replace(metadata, labels=spec.template.metadata.labels)
    return msgspec.structs.replace(new, metadata=metadata, spec=spec)


def _default_failure_policy(policy: PodFailurePolicy | None) -> PodFailurePolicy | None:
    if policy is None:
        return None
    rules = []
    for rule in policy.rules:
        conditions = tuple(
            c if c.status else msgspec.structs.replace(c, status="True")
            for c in rule.on_pod_conditions
        )
        rules.append(msgspec.structs.replace(rule, on_pod_conditions=conditions))
    return msgspec.structs.replace(policy, rules=tuple(rules))


def prepare_job(new: Job) -> Job:
    """Give the job a selector of its own, by its uid, unless the user manages selectors."""
    if new.spec.manual_selector:
        return new
    uid = new.metadata.uid
    template = new.spec.template
    labels = {
        **template.metadata.labels,
        CONTROLLER_UID: uid,
        JOB_NAME: new.metadata.name,
        LEGACY_CONTROLLER_UID: uid,
        LEGACY_JOB_NAME: new.metadata.name,
    }
    template = msgspec.structs.replace(
        template, metadata=msgspec.structs.replace(template.metadata, labels=labels)
    )
    selector = new.spec.selector or LabelSelector()
    selector = msgspec.structs.replace(
        selector, match_labels={**selector.match_labels, CONTROLLER_UID: uid}
    )
    spec = msgspec.structs.replace(new.spec, selector=selector, template=template)
    # Defaulting would copy the new labels when the job is next read: see it at once.
    metadata = msgspec.structs.replace(new.metadata, labels=new.metadata.labels or labels)
    return msgspec.structs.replace(new, metadata=metadata, spec=spec)


def validate_job(new: Job, old: Job | None) -> Iterator[FieldError]:
    path = Path("spec")
    yield from _validate_job_spec(new.spec, path)
    if new.spec.selector is None:
        yield path.selector.required()
    elif old is None and not new.spec.manual_selector:
        yield from _validate_generated(new, path)
    if new.spec.completion_mode == "Indexed" and old is None:
        yield from _validate_indexed_name(new)
    if old is not None:
        yield from _validate_job_update(new.spec, old, path)


def _validate_job_spec(spec: JobSpec, path: Path) -> Iterator[FieldError]:
    yield from validate_non_negative(spec.parallelism, path.parallelism)
    yield from validate_non_negative(spec.completions, path.completions)
    yield from validate_non_negative(spec.active_deadline_seconds, path.activeDeadlineSeconds)
    yield from validate_non_negative(spec.backoff_limit, path.backoffLimit)
    yield from validate_non_negative(spec.ttl_seconds_after_finished, path.ttlSecondsAfterFinished)
    yield from validate_non_negative(spec.backoff_limit_per_index, path.backoffLimitPerIndex)
    yield from validate_non_negative(spec.max_failed_indexes, path.maxFailedIndexes)
    yield from validate_label_selector(spec.selector, path.selector)
    yield from _validate_mode(spec, path)
    if spec.pod_failure_policy is not None:
        yield from _validate_failure_policy(spec, spec.pod_failure_policy, path)
    allowed = ("Failed", "TerminatingOrFailed")
    replacement = path.podReplacementPolicy
    if spec.pod_failure_policy is not None:
        if spec.pod_replacement_policy not in ("", "Failed"):
            yield replacement.not_supported(spec.pod_replacement_policy, ["Failed"])
    elif spec.pod_replacement_policy and spec.pod_replacement_policy not in allowed:
        yield replacement.not_supported(spec.pod_replacement_policy, allowed)
    yield from validate_pod_template(spec.template, path.template)
    yield from _validate_restart_policy(spec, path.template)


def _validate_mode(spec: JobSpec, path: Path) -> Iterator[FieldError]:
    modes = ("NonIndexed", "Indexed")
    if spec.completion_mode and spec.completion_mode not in modes:
        yield path.completionMode.not_supported(spec.completion_mode, modes)
    indexed = spec.completion_mode == "Indexed"
    if indexed:
        if spec.completions is None:
            yield path.completions.required("when completion mode is Indexed")
        if (spec.parallelism or 0) > MAX_INDEXED_PARALLELISM:
            yield path.parallelism.invalid(
                spec.parallelism,
                f"must be less than or equal to {MAX_INDEXED_PARALLELISM}"
                " when completion mode is Indexed",
            )
    if not indexed:
        for value, here in (
            (spec.backoff_limit_per_index, path.backoffLimitPerIndex),
            (spec.max_failed_indexes, path.maxFailedIndexes),
        ):
            if value is not None:
                yield here.invalid(value, "requires indexed completion mode")
    if spec.max_failed_indexes is not None and spec.backoff_limit_per_index is None:
        yield path.backoffLimitPerIndex.required("when maxFailedIndexes is specified")


def _validate_failure_policy(
    spec: JobSpec, policy: PodFailurePolicy, path: Path
) -> Iterator[FieldError]:
    rules = path.podFailurePolicy.rules
    if len(policy.rules) > MAX_FAILURE_RULES:
        yield rules.too_many(len(policy.rules), MAX_FAILURE_RULES)
        return
    for index, rule in enumerate(policy.rules):
        yield from _validate_failure_rule(rule, rules[index])


def _validate_failure_rule(rule: PodFailurePolicyRule, path: Path) -> Iterator[FieldError]:
    if not rule.action:
        yield path.action.required('valid values: ["Count" "FailIndex" "FailJob" "Ignore"]')
    elif rule.action not in _RULE_ACTIONS:
        yield path.action.not_supported(rule.action, _RULE_ACTIONS)
    codes = rule.on_exit_codes
    if codes is not None and rule.on_pod_conditions:
        yield path.invalid("", "specifying both OnExitCodes and OnPodConditions is not supported")
    if codes is None and not rule.on_pod_conditions:
        yield path.invalid("", "specifying one of OnExitCodes and OnPodConditions is required")
    if codes is None:
        return
    here = path.onExitCodes
    if codes.operator not in ("In", "NotIn"):
        yield here.operator.not_supported(codes.operator, ["In", "NotIn"])
    if not codes.values:
        yield here.values.invalid(codes.values, "at least one value is required")
    if codes.operator == "In" and 0 in codes.values:
        yield here.values[codes.values.index(0)].invalid(0, "must not be 0 for the In operator")
    if list(codes.values) != sorted(codes.values):
        yield here.values.invalid(codes.values, "must be ordered")
    if len(set(codes.values)) != len(codes.values):
        yield here.values.duplicate(codes.values)


def _validate_restart_policy(spec: JobSpec, template: Path) -> Iterator[FieldError]:
    policy, here = spec.template.spec.restart_policy, template.spec.restartPolicy
    if policy in ("", "Always"):
        yield here.required('valid values: "OnFailure", "Never"')
    elif policy not in ("OnFailure", "Never"):
        yield here.not_supported(policy, ["OnFailure", "Never"])
    elif spec.pod_failure_policy is not None and policy != "Never":
        yield here.invalid(policy, 'only "Never" is supported when podFailurePolicy is specified')


def _validate_generated(new: Job, path: Path) -> Iterator[FieldError]:
    selector = new.spec.selector
    generated = {CONTROLLER_UID: new.metadata.uid}
    if selector is not None and (selector.match_labels != generated or selector.match_expressions):
        yield path.selector.invalid(selector, "`selector` not auto-generated")
    labels = new.spec.template.metadata.labels
    here = path.template.metadata.labels
    for name, value in (
        (CONTROLLER_UID, new.metadata.uid),
        (LEGACY_CONTROLLER_UID, new.metadata.uid),
        (JOB_NAME, new.metadata.name),
        (LEGACY_JOB_NAME, new.metadata.name),
    ):
        if name not in labels:
            yield here.key(name).required(f"must be '{value}'")
        elif labels[name] != value:
            yield here.key(name).invalid(labels[name], f"must be '{value}'")


def _validate_indexed_name(new: Job) -> Iterator[FieldError]:
    from pybernetes.apimachinery.names import dns_label_errors

    last = f"{new.metadata.name}-{max((new.spec.completions or 1) - 1, 0)}"
    for detail in dns_label_errors(last):
        yield Path("metadata").name.invalid(
            new.metadata.name,
            f"will not able to create pod with invalid DNS label: {last}: {detail}",
        )


def _validate_job_update(new: JobSpec, old: Job, path: Path) -> Iterator[FieldError]:
    before = old.spec
    if new.completions != before.completions:
        elastic = new.completion_mode == "Indexed" and new.completions == new.parallelism
        if not elastic:
            yield path.completions.immutable(new.completions)
    yield from validate_immutable(new.selector, before.selector, path.selector)
    yield from validate_immutable(
        _fixed_template(new.template, old), _fixed_template(before.template, old), path.template
    )
    yield from validate_immutable(new.completion_mode, before.completion_mode, path.completionMode)
    yield from validate_immutable(
        new.pod_failure_policy, before.pod_failure_policy, path.podFailurePolicy
    )
    yield from validate_immutable(
        new.backoff_limit_per_index, before.backoff_limit_per_index, path.backoffLimitPerIndex
    )


def _fixed_template(template: PodTemplateSpec, old: Job) -> PodTemplateSpec:
    """The template without what may change while the job is suspended and never ran (KEP-2926)."""
    if not (old.spec.suspend and old.status.start_time is None):
        return template
    spec = msgspec.structs.replace(
        template.spec, node_selector={}, affinity=None, tolerations=(), scheduling_gates=()
    )
    metadata = msgspec.structs.replace(template.metadata, labels={}, annotations={})
    return msgspec.structs.replace(template, metadata=metadata, spec=spec)


def _job_status(job: Job) -> str:
    conditions = job.status.conditions
    if has_condition(conditions, "Complete"):
        return "Complete"
    if has_condition(conditions, "Failed"):
        return "Failed"
    if job.metadata.deletion_timestamp is not None:
        return "Terminating"
    for name in ("Suspended", "FailureTarget", "SuccessCriteriaMet"):
        if has_condition(conditions, name):
            return name
    return "Running"


def _completions(job: Job) -> str:
    spec, done = job.spec, job.status.succeeded
    if spec.completions is not None:
        return f"{done}/{spec.completions}"
    parallelism = spec.parallelism or 0
    return f"{done}/1 of {parallelism}" if parallelism > 1 else f"{done}/1"


def _duration(job: Job, now: datetime) -> object:
    started, ended = job.status.start_time, job.status.completion_time
    if started is None:
        return ""
    return (ended or now) - started


_TEMPLATE_COLUMNS: tuple[Column[Any], ...] = (
    Column(
        "Containers",
        lambda o: ",".join(c.name for c in template_of(o).spec.containers),
        wide=True,
    ),
    Column(
        "Images",
        lambda o: ",".join(c.image for c in template_of(o).spec.containers),
        wide=True,
    ),
    Column("Selector", lambda o: job_spec_of(o).selector, wide=True),
)


def job_spec_of(obj: Job | CronJob) -> JobSpec:
    return obj.spec.job_template.spec if isinstance(obj, CronJob) else obj.spec


def template_of(obj: Job | CronJob) -> PodTemplateSpec:
    return job_spec_of(obj).template


JOBS = Resource(
    group="batch",
    version="v1",
    kind=Job,
    plural="jobs",
    scope=Scope.NAMESPACED,
    strategy=Strategy(
        default=default_job,
        prepare_create=prepare_job,
        validate=validate_job,
        # Upstream's oldest clients expect pods to survive a job they delete (legacy default).
        default_propagation="Orphan",
    ),
    subresources=(Status(),),
    columns=(
        Column("Status", _job_status),
        Column("Completions", _completions),
        Column("Duration", cell_at=_duration),
        AGE,
        *_TEMPLATE_COLUMNS,
    ),
    selectable_fields={"status.successful": lambda j: str(j.status.succeeded)},
)


# --- CronJob --------------------------------------------------------------------------------------


def default_cron_job(new: CronJob) -> CronJob:
    """Job-level fields of the template are left alone: the job gets them when it is made."""
    spec = new.spec
    job_spec = msgspec.structs.replace(
        spec.job_template.spec, template=default_pod_template(spec.job_template.spec.template)
    )
    spec = msgspec.structs.replace(
        spec,
        concurrency_policy=spec.concurrency_policy or "Allow",
        suspend=bool(spec.suspend),
        successful_jobs_history_limit=_or(spec.successful_jobs_history_limit, 3),
        failed_jobs_history_limit=_or(spec.failed_jobs_history_limit, 1),
        job_template=msgspec.structs.replace(spec.job_template, spec=job_spec),
    )
    return msgspec.structs.replace(new, spec=spec)


def validate_cron_job(new: CronJob, old: CronJob | None) -> Iterator[FieldError]:
    from pybernetes.api.cronschedule import schedule_errors, time_zone_errors

    spec, path = new.spec, Path("spec")
    if old is None and len(new.metadata.name) > MAX_CRON_NAME:
        yield Path("metadata").name.invalid(
            new.metadata.name, f"must be no more than {MAX_CRON_NAME} characters"
        )
    if not spec.schedule:
        yield path.schedule.required()
    else:
        allows_zone = old is not None and "TZ" in old.spec.schedule
        has_zone = spec.time_zone is not None
        for detail in schedule_errors(spec.schedule, allows_zone=allows_zone, has_zone=has_zone):
            yield path.schedule.invalid(spec.schedule, detail)
    if spec.time_zone is not None:
        for detail in time_zone_errors(spec.time_zone):
            yield path.timeZone.invalid(spec.time_zone, detail)
    yield from validate_non_negative(spec.starting_deadline_seconds, path.startingDeadlineSeconds)
    yield from validate_one_of(
        spec.concurrency_policy, ("Allow", "Forbid", "Replace"), path.concurrencyPolicy
    )
    yield from validate_non_negative(
        spec.successful_jobs_history_limit, path.successfulJobsHistoryLimit
    )
    yield from validate_non_negative(spec.failed_jobs_history_limit, path.failedJobsHistoryLimit)
    job, here = spec.job_template.spec, path.jobTemplate.spec
    if job.selector is not None:
        yield here.selector.invalid(job.selector, "`selector` will be auto-generated")
    if job.manual_selector:
        yield here.manualSelector.not_supported("true", ["nil", "false"])
    yield from _validate_job_spec(job, here)


CRON_JOBS = Resource(
    group="batch",
    version="v1",
    kind=CronJob,
    plural="cronjobs",
    scope=Scope.NAMESPACED,
    strategy=Strategy(default=default_cron_job, validate=validate_cron_job),
    subresources=(Status(),),
    columns=(
        Column("Schedule", lambda c: c.spec.schedule),
        Column("Timezone", lambda c: c.spec.time_zone),
        Column("Suspend", lambda c: bool(c.spec.suspend), type="boolean"),
        Column("Active", lambda c: len(c.status.active), type="integer"),
        Column("Last Schedule", lambda c: c.status.last_schedule_time),
        AGE,
        *_TEMPLATE_COLUMNS,
    ),
)

BATCH_RESOURCES = (CRON_JOBS, JOBS)


def _or(value: int | None, default: int) -> int:
    return default if value is None else value
