"""The few manifests these tests are made of, as JSON for `kubectl apply -f -`."""

from __future__ import annotations

import json
from typing import Any


def deployment(
    name: str,
    image: str,
    *,
    replicas: int = 1,
    spec: dict[str, Any] | None = None,
    container: dict[str, Any] | None = None,
    pod: dict[str, Any] | None = None,
) -> str:
    """A web server on port 8080, ready when it answers."""
    labels = {"app": name}
    web = {
        "name": name,
        "image": image,
        "ports": [{"containerPort": 8080}],
        "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
        **(container or {}),
    }
    pod_spec = {"terminationGracePeriodSeconds": 10, "containers": [web], **(pod or {})}
    return json.dumps(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name, "labels": labels},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod_spec},
                **(spec or {}),
            },
        }
    )


def pod(
    name: str,
    image: str,
    script: str = "sleep 3600",
    *,
    grace: int = 0,
    spec: dict[str, Any] | None = None,
    container: dict[str, Any] | None = None,
) -> str:
    """A pod of one container, called `main`, that runs a shell script."""
    main = {
        "name": "main",
        "image": image,
        "command": ["sh", "-c", script],
        **(container or {}),
    }
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": name}},
            "spec": {"terminationGracePeriodSeconds": grace, "containers": [main], **(spec or {})},
        }
    )
