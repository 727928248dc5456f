"""From a request to what answers it: a verb on a resource, a subresource, or a path.

The last step of the chain. What is not served is 404 and what is served otherwise 405,
in upstream's words, before anything is read or decoded.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from pybernetes.api.resource import Action, Connect, Part, Scale
from pybernetes.apimachinery.errors import NotFound, StatusError
from pybernetes.apiserver.subresources import ACTIONS
from pybernetes.apiserver.subresources.scale import get_scale, patch_scale, update_scale
from pybernetes.apiserver.verbs.create import create
from pybernetes.apiserver.verbs.delete import delete, delete_collection
from pybernetes.apiserver.verbs.patch import patch
from pybernetes.apiserver.verbs.read import get, list_, watch
from pybernetes.apiserver.verbs.update import update

if TYPE_CHECKING:
    from pybernetes.apiserver.backend import Backend
    from pybernetes.apiserver.call import Call
    from pybernetes.apiserver.catalog import Served
    from pybernetes.apiserver.hooks import Route
    from pybernetes.apiserver.requestinfo import RequestInfo
    from pybernetes.wire.http import Response

Verb = Callable[["Backend", "Call", "Served"], Awaitable["Response"]]

VERBS: dict[str, Verb] = {
    "get": get,
    "list": list_,
    "watch": watch,
    "create": create,
    "update": update,
    "patch": patch,
    "delete": delete,
    "deletecollection": delete_collection,
}

SCALE_VERBS: dict[str, Verb] = {"get": get_scale, "update": update_scale, "patch": patch_scale}

# Verbs on one object, whose path must name the namespace of a namespaced kind.
_NAMING_VERBS = frozenset({"get", "update", "patch", "delete"})


def method_not_allowed() -> StatusError:
    return StatusError(
        "the server does not allow this method on the requested resource",
        code=405,
        reason="MethodNotAllowed",
    )


class Dispatcher:
    """Routes calls; knows the table of paths and the backend the verbs work on."""

    def __init__(self, backend: Backend, routes: tuple[Route, ...]) -> None:
        self._backend = backend
        self._catalog = backend.catalog
        self._exact = {route.path: route for route in routes if not route.path.endswith("/")}
        # Longest first, so that the most particular route wins.
        self._below = sorted(
            (route for route in routes if route.path.endswith("/")),
            key=lambda route: -len(route.path),
        )

    @property
    def paths(self) -> list[str]:
        return sorted([*self._exact, *(route.path.rstrip("/") for route in self._below)])

    async def __call__(self, call: Call) -> Response:
        info = call.info
        if not info.is_resource:
            return await self._path(call)
        served = self._catalog.find(info.group, info.version, info.resource)
        if served is None:
            raise NotFound.unknown_path()
        call.served = served
        _check_scope(served, info)
        if served.needs_preparation:
            await served.prepare()
        if served.deprecation:
            call.warn(served.deprecation)
        if info.subresource:
            return await self._subresource(call, served)
        if info.verb not in served.verbs:
            raise method_not_allowed()
        if not served.is_stored:
            return await self._action(call, served, served.plural, "")
        return await VERBS[info.verb](self._backend, call, served)

    async def _path(self, call: Call) -> Response:
        path = call.info.path
        route = self._exact.get(path) or self._exact.get(path.rstrip("/"))
        if route is None:
            route = next((route for route in self._below if path.startswith(route.path)), None)
        if route is None:
            raise NotFound.unknown_path()
        if call.request.method not in route.methods:
            raise method_not_allowed()
        return await route.handler(call)

    async def _subresource(self, call: Call, served: Served) -> Response:
        info, backend = call.info, self._backend
        subresource: Any = served.subresource(info.subresource)
        if subresource is None or not info.name:
            raise NotFound.unknown_path()
        if info.verb not in served.subresource_verbs(info.subresource):
            raise method_not_allowed()
        if isinstance(subresource, Part):
            if info.verb == "update":
                return await update(backend, call, served, subresource)
            if info.verb == "patch":
                return await patch(backend, call, served, subresource)
            return await get(backend, call, served)
        if isinstance(subresource, Scale):
            return await SCALE_VERBS[info.verb](backend, call, served)
        if isinstance(subresource, Connect):
            key = (served.group, served.plural, info.subresource)
            if (connect := backend.connects.get(key)) is None:
                raise NotFound.unknown_path()
            return await connect(call, served, info.namespace, info.name)
        assert isinstance(subresource, Action)
        return await self._action(call, served, served.plural, info.subresource)

    async def _action(self, call: Call, served: Served, plural: str, subresource: str) -> Response:
        """A POST that makes something happen: ours, or one that was plugged in."""
        key = (served.group, plural, subresource)
        if (connect := self._backend.connects.get(key)) is not None:
            return await connect(call, served, call.info.namespace, call.info.name)
        if (action := ACTIONS.get(key)) is None:
            raise NotFound.unknown_path()
        return await action(self._backend, call, served)


def _check_scope(served: Served, info: RequestInfo) -> None:
    if served.is_namespaced and not info.namespace:
        # Across namespaces one can look, but not write; and a name alone says nothing.
        if info.verb in _NAMING_VERBS or info.subresource:
            raise NotFound.unknown_path()
        if info.verb == "create":
            raise method_not_allowed()
    if not served.is_namespaced and info.namespace and served.plural != "namespaces":
        raise NotFound.unknown_path()
    # A collection is not updated, and a name is not created.
    has_body = info.verb in ("create", "update", "patch") and not info.subresource
    if has_body and bool(info.name) is not (info.verb in _NAMING_VERBS):
        raise method_not_allowed()
