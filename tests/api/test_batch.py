"""batch/v1: jobs get selectors of their own, and say in upstream's words what they refuse."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec.structs import replace

from pybernetes.api import codec
from pybernetes.api.batch import CRON_JOBS, JOBS
from tests.api.coreobjects import changed, create, errors_of

TEMPLATE = {"spec": {"containers": [{"name": "work", "image": "work:1"}], "restartPolicy": "Never"}}
JOB: dict[str, Any] = {
    "metadata": {"name": "work", "namespace": "default", "uid": "u1"},
    "spec": {"template": TEMPLATE},
}
CRON: dict[str, Any] = {
    "metadata": {"name": "nightly", "namespace": "default"},
    "spec": {"schedule": "0 3 * * *", "jobTemplate": {"spec": {"template": TEMPLATE}}},
}


def spec_of(resource: Any, manifest: dict[str, Any]) -> dict[str, Any]:
    spec = codec.to_dict(create(resource, manifest).spec)
    return {
        key: value
        for key, value in spec.items()
        if key not in ("template", "selector", "jobTemplate")
    }


def test_defaults() -> None:
    assert spec_of(JOBS, JOB) == {
        "completions": 1,
        "parallelism": 1,
        "backoffLimit": 6,
        "completionMode": "NonIndexed",
        "suspend": False,
        "manualSelector": False,
        "podReplacementPolicy": "TerminatingOrFailed",
    }
    # Only one of the two: completions stay open.
    parallel = spec_of(JOBS, changed(JOB, "spec.parallelism", 3))
    assert "completions" not in parallel
    assert spec_of(JOBS, changed(JOB, "spec.completions", 3))["parallelism"] == 1
    assert spec_of(JOBS, changed(JOB, "spec.backoffLimitPerIndex", 1))["backoffLimit"] == 2**31 - 1
    policy = {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]}
    judged = spec_of(JOBS, changed(JOB, "spec.podFailurePolicy", policy))
    assert judged["podReplacementPolicy"] == "Failed"
    assert judged["podFailurePolicy"]["rules"][0]["onPodConditions"] == [
        {"type": "DisruptionTarget", "status": "True"}
    ]
    assert spec_of(CRON_JOBS, CRON) == {
        "schedule": "0 3 * * *",
        "concurrencyPolicy": "Allow",
        "suspend": False,
        "successfulJobsHistoryLimit": 3,
        "failedJobsHistoryLimit": 1,
    }
    # The job of a cron job is made whole when it is made, its pods already now.
    job = codec.to_dict(create(CRON_JOBS, CRON).spec.job_template.spec)
    assert job.keys() == {"template"}
    assert job["template"]["spec"]["schedulerName"] == "default-scheduler"


def test_a_job_selects_its_own_pods() -> None:
    job = create(JOBS, JOB)
    assert job.spec.selector.match_labels == {"batch.kubernetes.io/controller-uid": "u1"}
    assert job.spec.template.metadata.labels == {
        "batch.kubernetes.io/controller-uid": "u1",
        "batch.kubernetes.io/job-name": "work",
        "controller-uid": "u1",
        "job-name": "work",
    }
    assert job.metadata.labels == job.spec.template.metadata.labels
    assert JOBS.strategy.default(job) == job
    assert errors_of(JOBS, job) == []
    assert errors_of(JOBS, job, job) == []
    by_hand = changed(changed(JOB, "spec.manualSelector", True), "spec.selector", {})
    assert create(JOBS, by_hand).spec.template.metadata.labels == {}


@pytest.mark.parametrize(
    ("path", "value", "errors"),
    [
        (
            "spec.template.spec.restartPolicy",
            None,
            [
                'spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"'
            ],
        ),
        (
            "spec.completions",
            -1,
            ["spec.completions: Invalid value: -1: must be greater than or equal to 0"],
        ),
        (
            "spec.completionMode",
            "Sorted",
            [
                'spec.completionMode: Unsupported value: "Sorted": '
                'supported values: "NonIndexed", "Indexed"'
            ],
        ),
        (
            "spec.maxFailedIndexes",
            1,
            [
                "spec.maxFailedIndexes: Invalid value: 1: requires indexed completion mode",
                "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified",
            ],
        ),
        (
            "spec.podReplacementPolicy",
            "Now",
            [
                'spec.podReplacementPolicy: Unsupported value: "Now": '
                'supported values: "Failed", "TerminatingOrFailed"'
            ],
        ),
        (
            "spec.selector",
            {"matchLabels": {"mine": "1"}},
            [
                "spec.selector: Invalid value: "
                '{"matchLabels":{"mine":"1","batch.kubernetes.io/controller-uid":"u1"}}: '
                "`selector` not auto-generated"
            ],
        ),
    ],
)
def test_jobs(path: str, value: Any, errors: list[str]) -> None:
    assert errors_of(JOBS, create(JOBS, changed(JOB, path, value))) == errors


def test_labels_of_others_are_not_taken() -> None:
    job = create(JOBS, JOB)
    template = job.spec.template
    labels = {**template.metadata.labels, "batch.kubernetes.io/controller-uid": "u2"}
    template = replace(template, metadata=replace(template.metadata, labels=labels))
    other = replace(job, spec=replace(job.spec, template=template))
    assert errors_of(JOBS, other) == [
        "spec.template.metadata.labels[batch.kubernetes.io/controller-uid]: "
        "Invalid value: \"u2\": must be 'u1'"
    ]


def test_indexed_jobs() -> None:
    indexed = changed(JOB, "spec.completionMode", "Indexed")
    assert errors_of(JOBS, create(JOBS, changed(indexed, "spec.parallelism", 2))) == [
        "spec.completions: Required value: when completion mode is Indexed"
    ]
    wide = changed(changed(indexed, "spec.parallelism", 100_001), "spec.completions", 1)
    assert errors_of(JOBS, create(JOBS, wide)) == [
        "spec.parallelism: Invalid value: 100001: "
        "must be less than or equal to 100000 when completion mode is Indexed"
    ]
    long = changed(indexed, "metadata.name", "a" * 62)
    (error,) = errors_of(JOBS, create(JOBS, changed(long, "spec.completions", 11)))
    assert error.startswith(
        f'metadata.name: Invalid value: "{"a" * 62}": '
        f"will not able to create pod with invalid DNS label: {'a' * 62}-10"
    )


RULE = "spec.podFailurePolicy.rules[0]"


@pytest.mark.parametrize(
    ("rule", "errors"),
    [
        ({"action": "FailJob", "onExitCodes": {"operator": "In", "values": [1, 2]}}, []),
        (
            {"onExitCodes": {"operator": "In", "values": [1]}},
            [
                f"{RULE}.action: Required value: valid values: "
                '["Count" "FailIndex" "FailJob" "Ignore"]'
            ],
        ),
        (
            {"action": "Ignore"},
            [
                f'{RULE}: Invalid value: "": '
                "specifying one of OnExitCodes and OnPodConditions is required"
            ],
        ),
        (
            {
                "action": "Ignore",
                "onExitCodes": {"operator": "In", "values": [1]},
                "onPodConditions": [{"type": "DisruptionTarget"}],
            },
            [
                f'{RULE}: Invalid value: "": '
                "specifying both OnExitCodes and OnPodConditions is not supported"
            ],
        ),
        (
            {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [0]}},
            [f"{RULE}.onExitCodes.values[0]: Invalid value: 0: must not be 0 for the In operator"],
        ),
    ],
)
def test_failure_policies(rule: dict[str, Any], errors: list[str]) -> None:
    manifest = changed(JOB, "spec.podFailurePolicy", {"rules": [rule]})
    assert errors_of(JOBS, create(JOBS, manifest)) == errors


def test_failure_policies_want_pods_that_end() -> None:
    manifest = changed(JOB, "spec.podFailurePolicy", {"rules": []})
    manifest = changed(manifest, "spec.template.spec.restartPolicy", "OnFailure")
    assert errors_of(JOBS, create(JOBS, manifest)) == [
        'spec.template.spec.restartPolicy: Invalid value: "OnFailure": '
        'only "Never" is supported when podFailurePolicy is specified'
    ]


@pytest.mark.parametrize(
    ("path", "value", "error"),
    [
        ("spec.parallelism", 5, ""),
        ("spec.suspend", True, ""),
        ("spec.backoffLimit", 1, ""),
        ("spec.ttlSecondsAfterFinished", 1, ""),
        ("spec.completions", 2, "spec.completions: Invalid value: 2: field is immutable"),
        ("spec.completionMode", "Indexed", "spec.completionMode: Invalid value"),
        ("spec.template.spec.containers.0.image", "work:2", "spec.template: Invalid value"),
        ("spec.template.spec.nodeSelector", {"a": "b"}, "spec.template: Invalid value"),
    ],
)
def test_what_of_a_job_may_change(path: str, value: Any, error: str) -> None:
    manifest = changed(JOB, "spec.completions", 1)
    old = create(JOBS, manifest)
    errors = errors_of(JOBS, create(JOBS, changed(manifest, path, value)), old)
    assert len(errors) == bool(error)
    assert not error or errors[0].startswith(error)


def test_suspended_jobs_may_be_placed_elsewhere() -> None:
    suspended = changed(JOB, "spec.suspend", True)
    placed = changed(suspended, "spec.template.spec.nodeSelector", {"a": "b"})
    assert errors_of(JOBS, create(JOBS, placed), create(JOBS, suspended)) == []


def test_elastic_indexed_jobs() -> None:
    indexed = changed(changed(JOB, "spec.completionMode", "Indexed"), "spec.completions", 2)
    old = create(JOBS, changed(indexed, "spec.parallelism", 2))
    more = changed(changed(indexed, "spec.parallelism", 4), "spec.completions", 4)
    assert errors_of(JOBS, create(JOBS, more), old) == []


@pytest.mark.parametrize(
    ("path", "value", "errors"),
    [
        ("spec.timeZone", "Europe/Berlin", []),
        ("spec.schedule", "", ["spec.schedule: Required value"]),
        (
            "spec.schedule",
            "1 2 3",
            ['spec.schedule: Invalid value: "1 2 3": expected exactly 5 fields, found 3: [1 2 3]'],
        ),
        (
            "spec.schedule",
            "TZ=UTC 0 3 * * *",
            [
                'spec.schedule: Invalid value: "TZ=UTC 0 3 * * *": '
                "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
            ],
        ),
        (
            "spec.timeZone",
            "Mars/Olympus",
            ['spec.timeZone: Invalid value: "Mars/Olympus": unknown time zone Mars/Olympus'],
        ),
        (
            "spec.concurrencyPolicy",
            "Sometimes",
            [
                'spec.concurrencyPolicy: Unsupported value: "Sometimes": '
                'supported values: "Allow", "Forbid", "Replace"'
            ],
        ),
        (
            "spec.jobTemplate.spec.selector",
            {"matchLabels": {"a": "b"}},
            [
                'spec.jobTemplate.spec.selector: Invalid value: {"matchLabels":{"a":"b"}}: '
                "`selector` will be auto-generated"
            ],
        ),
        (
            "spec.jobTemplate.spec.manualSelector",
            True,
            [
                'spec.jobTemplate.spec.manualSelector: Unsupported value: "true": '
                'supported values: "nil", "false"'
            ],
        ),
        (
            "metadata.name",
            "n" * 53,
            [f'metadata.name: Invalid value: "{"n" * 53}": must be no more than 52 characters'],
        ),
    ],
)
def test_cron_jobs(path: str, value: Any, errors: list[str]) -> None:
    assert errors_of(CRON_JOBS, create(CRON_JOBS, changed(CRON, path, value))) == errors


def test_old_schedules_with_zones_live_on() -> None:
    old = create(CRON_JOBS, changed(CRON, "spec.schedule", "TZ=UTC 0 3 * * *"))
    assert errors_of(CRON_JOBS, old, old) == []
    zoned = replace(old, spec=replace(old.spec, time_zone="Europe/Berlin"))
    assert errors_of(CRON_JOBS, zoned, old) == [
        'spec.schedule: Invalid value: "TZ=UTC 0 3 * * *": '
        "cannot use both timeZone field and TZ or CRON_TZ in schedule"
    ]


@pytest.mark.parametrize(
    ("status", "cells"),
    [
        ({}, ["Running", "0/1", ""]),
        (
            {
                "succeeded": 1,
                "startTime": "2026-01-01T00:00:00Z",
                "completionTime": "2026-01-01T00:01:30Z",
                "conditions": [{"type": "Complete", "status": "True"}],
            },
            ["Complete", "1/1", 90.0],
        ),
        (
            {"conditions": [{"type": "Suspended", "status": "True"}]},
            ["Suspended", "0/1", ""],
        ),
    ],
)
def test_rows_of_jobs(status: dict[str, Any], cells: list[object]) -> None:
    shown = create(JOBS, changed(JOB, "status", status))
    now = datetime(2026, 1, 2, tzinfo=UTC)
    found = [column.value(shown, now) for column in JOBS.columns[:3]]
    duration = found[2]
    assert [*found[:2], getattr(duration, "total_seconds", lambda: duration)()] == cells
