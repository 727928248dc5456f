"""The life of a custom resource as real kubectls see it: old, middle and new.

Real: kubectl, HTTP on loopback, the API server with discovery and OpenAPI. Left out: TLS and
access control. A kubectl that this machine does not have is skipped.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.api.server.test_customresources import NAME, crontab, definition
from tests.api.server.test_openapi_kubectl import kubectl as kubectl  # the fixture

if TYPE_CHECKING:
    from tests.api.server.test_openapi_kubectl import Kubectl

pytestmark = [pytest.mark.slow, pytest.mark.realtime]


def described() -> dict[str, Any]:
    body = definition()
    spec = body["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    spec["description"] = "What is wished."
    spec["properties"]["schedule"]["description"] = "When it runs."
    return body


async def test_from_a_definition_to_its_end(kubectl: Kubectl) -> None:
    await kubectl.well("apply", "-f", "-", stdin=described())
    await kubectl.well("wait", "--for=condition=Established", f"crd/{NAME}", "--timeout=10s")
    await kubectl.well("apply", "-f", "-", stdin=crontab(replicas=2))
    out = await kubectl.well("get", "ct")
    header, row = out.splitlines()
    assert header.split() == ["NAME", "SCHEDULE", "AGE"]
    assert row.split()[:6] == ["one", "*", "*", "*", "*", "*"]
    assert "REPLICAS" in await kubectl.well("get", "crontabs", "-o", "wide")
    assert "crontab.stable.example.com/one" in await kubectl.well("get", "all", "-o", "name")
    explained = await kubectl.well("explain", "crontabs.spec")
    assert "What is wished." in explained
    assert "When it runs." in explained
    await kubectl.well("scale", "--replicas=3", "crontab/one")
    got = json.loads(await kubectl.well("get", "ct", "one", "-o", "json"))
    assert got["spec"]["replicas"] == 3
    changed = crontab(replicas=4)
    assert "configured" in await kubectl.well("apply", "-f", "-", stdin=changed)
    code, _, error = await kubectl(
        "apply", "--validate=false", "-f", "-", stdin=crontab(replicas=11)
    )
    assert code == 1
    assert "spec.replicas in body should be less than or equal to 10" in error
    code, _, error = await kubectl("apply", "-f", "-", stdin=crontab("two", foo=1))
    assert code == 1
    assert "foo" in error
    await kubectl.well("delete", "crd", NAME, "--timeout=20s")
    code, _, error = await kubectl("get", "crontabs")
    assert code == 1
