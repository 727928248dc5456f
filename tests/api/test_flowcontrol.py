"""Flow schemas, priority levels and runtime classes: defaults and upstream's words."""

from __future__ import annotations

from typing import Any

import pytest

from pybernetes.api import codec
from pybernetes.api.flowcontrol import FLOW_SCHEMAS, PRIORITY_LEVELS, entropy_bits
from pybernetes.api.node import RUNTIME_CLASSES
from tests.api.coreobjects import changed, create, errors_of

SCHEMA: dict[str, Any] = {
    "metadata": {"name": "mine"},
    "spec": {
        "priorityLevelConfiguration": {"name": "workload-low"},
        "rules": [
            {
                "subjects": [{"kind": "User", "user": {"name": "me"}}],
                "resourceRules": [
                    {
                        "verbs": ["get"],
                        "apiGroups": [""],
                        "resources": ["pods"],
                        "namespaces": ["*"],
                    }
                ],
            }
        ],
    },
}
LEVEL: dict[str, Any] = {
    "metadata": {"name": "slow"},
    "spec": {"type": "Limited", "limited": {"limitResponse": {"type": "Queue"}}},
}


def test_defaults() -> None:
    assert create(FLOW_SCHEMAS, SCHEMA).spec.matching_precedence == 1000
    assert codec.to_dict(create(PRIORITY_LEVELS, LEVEL).spec) == {
        "type": "Limited",
        "limited": {
            "nominalConcurrencyShares": 30,
            "lendablePercent": 0,
            "limitResponse": {
                "type": "Queue",
                "queuing": {"queues": 64, "handSize": 8, "queueLengthLimit": 50},
            },
        },
    }
    exempt = create(PRIORITY_LEVELS, {"metadata": {"name": "exempt"}, "spec": {"type": "Exempt"}})
    assert codec.to_dict(exempt.spec) == {
        "type": "Exempt",
        "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0},
    }
    assert errors_of(PRIORITY_LEVELS, exempt) == []


RULE = "spec.rules.0.resourceRules.0"
RULE_PATH = "spec.rules[0].resourceRules[0]"


@pytest.mark.parametrize(
    ("path", "value", "errors"),
    [
        (
            "spec.matchingPrecedence",
            1,
            [
                "spec.matchingPrecedence: Invalid value: 1: "
                "only the schema named 'exempt' may have matchingPrecedence 1"
            ],
        ),
        (
            "spec.matchingPrecedence",
            10001,
            ["spec.matchingPrecedence: Invalid value: 10001: must not be greater than 10000"],
        ),
        (
            "spec.priorityLevelConfiguration.name",
            "",
            [
                "spec.priorityLevelConfiguration.name: Required value: "
                "must reference a priority level"
            ],
        ),
        (
            "spec.rules.0.subjects",
            [],
            ["spec.rules[0].subjects: Required value: subjects must contain at least one value"],
        ),
        (
            "spec.rules.0.subjects.0.kind",
            "Group",
            [
                "spec.rules[0].subjects[0].user: Forbidden: "
                "user is forbidden when subject kind is not 'User'",
                "spec.rules[0].subjects[0].group: Required value: "
                "group is required when subject kind is 'Group'",
            ],
        ),
        (
            "spec.rules.0.resourceRules",
            [],
            [
                "spec.rules[0]: Required value: "
                "at least one of resourceRules and nonResourceRules has to be non-empty"
            ],
        ),
        (
            f"{RULE}.verbs",
            ["*", "get"],
            [
                f'{RULE_PATH}.verbs: Invalid value: ["*","get"]: '
                "if '*' is present, must not specify other verbs"
            ],
        ),
        (
            f"{RULE}.verbs",
            ["fly"],
            [
                f'{RULE_PATH}.verbs: Unsupported value: ["fly"]: supported values: "create", '
                '"delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"'
            ],
        ),
        (
            f"{RULE}.namespaces",
            [],
            [
                f"{RULE_PATH}.namespaces: Required value: resource rules that are not cluster "
                "scoped must supply at least one namespace"
            ],
        ),
        (
            "spec.rules.0.nonResourceRules",
            [{"verbs": ["get"], "nonResourceURLs": ["x", "/a//b", "/a*b", "/a/*"]}],
            [
                f'spec.rules[0].nonResourceRules[0].nonResourceURLs[{i}]: Invalid value: "{u}": {m}'
                for i, u, m in (
                    (0, "x", "must start with slash"),
                    (1, "/a//b", "must not contain double slash"),
                    (2, "/a*b", "wildcard can only do suffix matching"),
                )
            ],
        ),
    ],
)
def test_schemas(path: str, value: Any, errors: list[str]) -> None:
    assert errors_of(FLOW_SCHEMAS, create(FLOW_SCHEMAS, SCHEMA)) == []
    assert errors_of(FLOW_SCHEMAS, create(FLOW_SCHEMAS, changed(SCHEMA, path, value))) == errors


QUEUING = "spec.limited.limitResponse.queuing"


@pytest.mark.parametrize(
    ("path", "value", "errors"),
    [
        (
            "spec.type",
            "Exempt",
            [
                'spec.type: Invalid value: "Exempt": '
                "type must be 'Exempt' if and only if name is 'exempt'",
                "spec.limited: Forbidden: must be nil if the type is not Limited",
            ],
        ),
        (
            "spec.limited",
            None,
            ["spec.limited: Required value: must not be empty when type is Limited"],
        ),
        (
            QUEUING,
            {"queues": 512, "handSize": 8},
            [
                f"{QUEUING}.handSize: Invalid value: 8: required entropy bits of deckSize 512 "
                "and handSize 8 should not be greater than 60"
            ],
        ),
        (
            QUEUING,
            {"queues": 4, "handSize": 8},
            [f"{QUEUING}.handSize: Invalid value: 8: should not be greater than queues (4)"],
        ),
        (
            "spec.limited.lendablePercent",
            101,
            [
                "spec.limited.lendablePercent: Invalid value: 101: "
                "must be between 0 and 100, inclusive"
            ],
        ),
        (
            "spec.limited.limitResponse.type",
            "Drop",
            [
                'spec.limited.limitResponse.type: Unsupported value: "Drop": '
                'supported values: "Queue", "Reject"'
            ],
        ),
    ],
)
def test_levels(path: str, value: Any, errors: list[str]) -> None:
    assert errors_of(PRIORITY_LEVELS, create(PRIORITY_LEVELS, LEVEL)) == []
    assert errors_of(PRIORITY_LEVELS, create(PRIORITY_LEVELS, changed(LEVEL, path, value))) == (
        errors
    )


@pytest.mark.parametrize(("deck", "hand", "bits"), [(64, 8, 48), (512, 8, 72), (1024, 6, 60)])
def test_entropy(deck: int, hand: int, bits: int) -> None:
    assert entropy_bits(deck, hand) == bits


RUNTIME: dict[str, Any] = {"metadata": {"name": "sandboxed"}, "handler": "runsc"}


@pytest.mark.parametrize(
    ("path", "value", "error"),
    [
        ("overhead", {"podFixed": {"cpu": "0.5m"}}, ""),
        ("handler", "Run_SC", 'handler: Invalid value: "Run_SC": a lowercase RFC 1123 label'),
        ("handler", "", "handler: Required value"),
        (
            "scheduling",
            {"tolerations": [{"key": "a", "operator": "Exists"}] * 2},
            "scheduling.tolerations[1]: Duplicate value: {",
        ),
        (
            "scheduling",
            {"nodeSelector": {"a b": "c"}},
            'scheduling.nodeSelector: Invalid value: "a b": name part must consist of',
        ),
    ],
)
def test_runtime_classes(path: str, value: Any, error: str) -> None:
    errors = errors_of(RUNTIME_CLASSES, create(RUNTIME_CLASSES, changed(RUNTIME, path, value)))
    assert len(errors) == bool(error)
    assert not error or errors[0].startswith(error)


def test_a_handler_stays() -> None:
    old = create(RUNTIME_CLASSES, RUNTIME)
    new = create(RUNTIME_CLASSES, changed(RUNTIME, "handler", "kata"))
    assert errors_of(RUNTIME_CLASSES, new, old) == [
        'handler: Invalid value: "kata": field is immutable'
    ]
    whole = create(RUNTIME_CLASSES, changed(RUNTIME, "overhead", {"podFixed": {"cpu": "0.5m"}}))
    assert whole.overhead.pod_fixed == {"cpu": "1m"}
