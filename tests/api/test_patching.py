"""Strategic merge patches by the real schemas: what kubectl sends must land where it should."""

from __future__ import annotations

from typing import Any

import pytest

from pybernetes.api.schemas import schema_of
from pybernetes.apimachinery.patch import strategic_merge_patch

DEPLOYMENT: dict[str, Any] = {
    "metadata": {"finalizers": ["a"], "labels": {"x": "1"}},
    "spec": {
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}},
        "template": {
            "spec": {
                "containers": [
                    {
                        "name": "a",
                        "image": "1",
                        "args": ["x"],
                        "env": [{"name": "X", "value": "1"}],
                        "ports": [{"containerPort": 80, "protocol": "TCP"}],
                    }
                ],
                "volumes": [{"name": "v", "emptyDir": {}}],
                "tolerations": [{"key": "a"}],
                "nodeSelector": {"disk": "ssd"},
            }
        },
    },
}


@pytest.mark.parametrize(
    ("patch", "path", "result"),
    [
        pytest.param(
            {"containers": [{"name": "a", "env": [{"name": "Y", "value": "2"}]}]},
            "containers.0.env",
            [{"name": "Y", "value": "2"}, {"name": "X", "value": "1"}],
            id="environment by name",
        ),
        pytest.param(
            {"containers": [{"name": "a", "ports": [{"containerPort": 80, "name": "http"}]}]},
            "containers.0.ports",
            [{"containerPort": 80, "protocol": "TCP", "name": "http"}],
            id="ports by number",
        ),
        pytest.param(
            {"containers": [{"name": "a", "args": ["y"]}]}, "containers.0.args", ["y"],
            id="arguments as a whole",
        ),
        pytest.param(
            {"volumes": [{"$retainKeys": ["name", "secret"], "name": "v", "secret": {}}]},
            "volumes",
            [{"name": "v", "secret": {}}],
            id="a volume changes its kind",
        ),
        pytest.param({"tolerations": [{"key": "b"}]}, "tolerations", [{"key": "b"}],
                     id="tolerations as a whole"),
        pytest.param({"nodeSelector": {"zone": "a"}}, "nodeSelector", {"disk": "ssd", "zone": "a"},
                     id="maps merge"),
        pytest.param(
            {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}],
             "containers": [{"name": "b", "image": "2"}]},
            "containers.0",
            {"name": "b", "image": "2"},
            id="a container in its place",
        ),
    ],
)  # fmt: skip
def test_templates(patch: dict[str, Any], path: str, result: Any) -> None:
    schema = schema_of("apps", "v1", "Deployment")
    whole = {"spec": {"template": {"spec": patch}}}
    value: Any = strategic_merge_patch(DEPLOYMENT, whole, schema)["spec"]["template"]["spec"]
    for step in path.split("."):
        value = value[int(step)] if step.isdecimal() else value[step]
    assert value == result


def test_unions_and_metadata() -> None:
    schema = schema_of("apps", "v1", "Deployment")
    patch = {
        "metadata": {"finalizers": ["b"], "labels": {"x": None}},
        "spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}},
    }
    result = strategic_merge_patch(DEPLOYMENT, patch, schema)
    assert result["spec"]["strategy"] == {"type": "Recreate"}
    assert result["metadata"] == {"finalizers": ["b", "a"], "labels": {}}
