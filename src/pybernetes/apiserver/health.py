"""/healthz, /livez, /readyz, /version and /metrics: how the server is, and what it is.

A check is a function that returns nothing when all is well and a sentence otherwise. Who
only wants to know whether, gets `ok`; `?verbose` and a failure list the checks. What is
wrong stands in the log, not in the answer: these paths are open to everybody.
"""

from __future__ import annotations

import logging
import platform
from typing import TYPE_CHECKING

from pybernetes.apimachinery.errors import NotFound
from pybernetes.apiserver.hooks import HealthCheck, Route
from pybernetes.apiserver.metrics import CONTENT_TYPE
from pybernetes.apiserver.requestinfo import all_of
from pybernetes.apiserver.respond import encode_json, json_response
from pybernetes.wire.http import Response

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pybernetes.apiserver.call import Call
    from pybernetes.apiserver.hooks import PathHandler
    from pybernetes.apiserver.metrics import Registry

log = logging.getLogger(__name__)

KUBERNETES_MAJOR, KUBERNETES_MINOR = 1, 37

_TEXT = [("Content-Type", "text/plain; charset=utf-8"), ("X-Content-Type-Options", "nosniff")]


def version_info(own_version: str) -> dict[str, str]:
    """What /version says: the API level, and behind a plus what we are."""
    return {
        "major": str(KUBERNETES_MAJOR),
        "minor": str(KUBERNETES_MINOR),
        "emulationMajor": str(KUBERNETES_MAJOR),
        "emulationMinor": str(KUBERNETES_MINOR),
        "minCompatibilityMajor": str(KUBERNETES_MAJOR),
        "minCompatibilityMinor": str(KUBERNETES_MINOR - 1),
        "gitVersion": f"v{KUBERNETES_MAJOR}.{KUBERNETES_MINOR}.0+p8s.{own_version}",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": platform.python_implementation().lower(),
        "platform": f"{platform.system().lower()}/{_architecture()}",
    }


def _architecture() -> str:
    machine = platform.machine().lower()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def version_route(own_version: str) -> Route:
    body = encode_json(version_info(own_version))

    async def answer(call: Call) -> Response:
        return json_response(body)

    return Route("/version", answer)


def metrics_route(registry: Registry) -> Route:
    async def answer(call: Call) -> Response:
        return Response(200, [("Content-Type", CONTENT_TYPE)], registry.text().encode())

    return Route("/metrics", answer)


def health_routes(
    path: str, checks: Callable[[], Mapping[str, HealthCheck]]
) -> tuple[Route, Route]:
    """The path itself and one path per check below it."""
    name = path.strip("/")
    return Route(path, _all_checks(name, checks)), Route(f"{path}/", _one_check(name, checks))


def _all_checks(name: str, checks: Callable[[], Mapping[str, HealthCheck]]) -> PathHandler:
    async def answer(call: Call) -> Response:
        excluded = set(all_of(call.request.query, "exclude"))
        lines, failed = [], []
        for check_name, check in checks().items():
            if check_name in excluded:
                lines.append(f"[+]{check_name} excluded: ok")
            elif problem := check():
                failed.append(check_name)
                log.warning("check failed", extra={"check": check_name, "problem": problem})
                lines.append(f"[-]{check_name} failed: reason withheld")
            else:
                lines.append(f"[+]{check_name} ok")
        if failed:
            lines.append(f"{name} check failed")
            return Response(500, [*_TEXT], ("\n".join(lines) + "\n").encode())
        if "verbose" not in call.query:
            return Response(200, [*_TEXT], b"ok")
        lines.append(f"{name} check passed")
        return Response(200, [*_TEXT], ("\n".join(lines) + "\n").encode())

    return answer


def _one_check(name: str, checks: Callable[[], Mapping[str, HealthCheck]]) -> PathHandler:
    async def answer(call: Call) -> Response:
        check_name = call.info.path.strip("/").removeprefix(f"{name}/")
        check = checks().get(check_name)
        if check is None:
            raise NotFound.unknown_path()
        if problem := check():
            log.warning("check failed", extra={"check": check_name, "problem": problem})
            return Response(500, [*_TEXT], b"internal server error: reason withheld\n")
        return Response(200, [*_TEXT], b"ok")

    return answer
