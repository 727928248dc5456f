"""The way of a request: links around links, their order in the tuple at the end.

A link gets the server and the step below it and returns a step. It feels only what is
below it and must not care what is above. Errors are raised as StatusError at any depth
and become answers in one place; whatever else is raised becomes a 500 with an id that
the log has too, and nothing more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from pybernetes.api.user import ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED, UserInfo
from pybernetes.apimachinery.duration import parse_duration
from pybernetes.apimachinery.errors import (
    BadRequest,
    Forbidden,
    InternalError,
    StatusError,
    Timeout,
    Unauthorized,
)
from pybernetes.apiserver.call import Call
from pybernetes.apiserver.hooks import Access
from pybernetes.apiserver.impersonation import completed, needed_accesses, wished_identity
from pybernetes.apiserver.requestinfo import BadPath, parse_query, parse_request
from pybernetes.apiserver.respond import status_response
from pybernetes.wire.http import Response, WireError

if TYPE_CHECKING:
    from pybernetes.apiserver.server import ApiServer

log = logging.getLogger(__name__)

Step = Callable[[Call], Awaitable[Response]]
Link = Callable[["ApiServer", Step], Step]

# What metrics call the verbs of resource requests.
METRIC_VERBS = {
    "create": "POST",
    "update": "PUT",
    "deletecollection": "DELETE",
}


def with_request_info(server: ApiServer, below: Step) -> Step:
    """Say what is asked for; name the request, so that its traces can be found."""

    async def step(call: Call) -> Response:
        request = call.request
        call.query = parse_query(request.query)
        problem: BadPath | None = None
        try:
            call.info = parse_request(request.method, request.decoded_path, call.query)
        except BadPath as error:
            problem = error
        response = await (below(call) if problem is None else _refuse(problem))
        response.headers.append(("Audit-Id", call.audit_id))
        if call.has_warnings:
            response.headers.extend(call.warning_headers)
        return response

    return step


async def _refuse(problem: BadPath) -> Response:
    return status_response(BadRequest(str(problem)))


def with_metrics(server: ApiServer, below: Step) -> Step:
    """Count and time; watches and other streams are counted when they begin."""
    requests, durations = server.request_total, server.request_duration
    monotonic = server.clock.monotonic

    async def step(call: Call) -> Response:
        started = monotonic()
        response = await below(call)
        info = call.info
        verb = METRIC_VERBS.get(info.verb) or info.verb.upper()
        served = call.served
        if served is None:
            labels = (verb if verb in KNOWN_VERBS else "other", "", "", "", "")
        else:
            labels = (verb, served.group, served.version, served.plural, info.subresource)
        requests.add(*labels, str(response.status))
        if not info.is_long_running:
            durations.observe(monotonic() - started, *labels)
        return response

    return step


KNOWN_VERBS = frozenset({"GET", "LIST", "WATCH", "POST", "PUT", "PATCH", "DELETE", "HEAD"})


def with_answers_to_errors(server: ApiServer, below: Step) -> Step:
    """Every failure is a Status; a failure of ours says no more than where to look."""

    async def step(call: Call) -> Response:
        try:
            return await below(call)
        except StatusError as error:
            return status_response(error)
        except WireError:
            raise  # the client went away: there is nobody to answer
        except Exception:
            log.exception(
                "request failed",
                extra={
                    "audit_id": call.audit_id,
                    "method": call.request.method,
                    "path": call.request.path,
                },
            )
            cause = (
                f"the server could not handle the request; its log has more under {call.audit_id}"
            )
            return status_response(InternalError(cause))

    return step


def with_deadline(server: ApiServer, below: Step) -> Step:
    """No request outlives its time, except those that are meant to last."""
    longest = server.config.request_timeout_seconds

    async def step(call: Call) -> Response:
        info = call.info
        if info.is_long_running:
            return await below(call)
        seconds = longest
        if call.query and (text := call.query.get("timeout")):
            seconds = min(_seconds_of(text), longest)
        try:
            async with asyncio.timeout(seconds):
                return await below(call)
        except TimeoutError:
            raise Timeout(
                "request did not complete within requested timeout - context deadline exceeded"
            ) from None

    return step


def _seconds_of(text: str) -> float:
    try:
        seconds = parse_duration(text).total_seconds()
    except ValueError:
        seconds = -1
    if seconds < 0:
        raise BadRequest(f"invalid timeout specified in the request URL: {text}")
    # Zero means no wish of the client's own.
    return seconds or float("inf")


def with_authentication(server: ApiServer, below: Step) -> Step:
    """Find out who asks. In-process callers carry their identity with them."""
    authenticator = server.authenticator
    nobody = UserInfo(ANONYMOUS, (UNAUTHENTICATED,))

    async def step(call: Call) -> Response:
        request = call.request
        identity = request.peer.identity
        user = identity if isinstance(identity, UserInfo) else None
        if user is None and authenticator is not None:
            user = await authenticator.authenticate(request)
        if user is None:
            if not server.config.anonymous:
                raise Unauthorized
            call.user = nobody
        elif AUTHENTICATED in user.groups or UNAUTHENTICATED in user.groups:
            call.user = user
        else:
            groups = (*user.groups, AUTHENTICATED)
            call.user = UserInfo(user.name, groups, user.uid, user.extra)
        return await below(call)

    return step


def with_impersonation(server: ApiServer, below: Step) -> Step:
    """Become who the caller may become, if it wants to be somebody else."""
    authorizer = server.authorizer

    async def step(call: Call) -> Response:
        wished = wished_identity(call.request.headers)
        if wished is None:
            return await below(call)
        for access in needed_accesses(call.user, wished):
            decision = await authorizer.authorize(access)
            if not decision.allowed:
                raise forbidden(access, decision.reason)
        call.impersonator = call.user
        call.user = completed(wished)
        return await below(call)

    return step


def with_authorization(server: ApiServer, below: Step) -> Step:
    authorizer = server.authorizer

    async def step(call: Call) -> Response:
        access = access_of(call)
        decision = await authorizer.authorize(access)
        if not decision.allowed:
            raise forbidden(access, decision.reason)
        return await below(call)

    return step


def access_of(call: Call) -> Access:
    info, query = call.info, call.query
    if not info.is_resource:
        return Access(call.user, info.verb, False, path=info.path)
    return Access(
        call.user,
        info.verb,
        True,
        info.namespace,
        info.group,
        info.version,
        info.resource,
        info.subresource,
        info.name,
        info.path,
        query.get("labelSelector", "") if query else "",
        query.get("fieldSelector", "") if query else "",
    )


def forbidden(access: Access, reason: str = "") -> Forbidden:
    """The refusal in upstream's words."""
    user = f'User "{access.user.name}" cannot {access.verb}'
    more = f": {reason}" if reason else ""
    if not access.is_resource:
        return Forbidden("", "", f'{user} path "{access.path}"{more}')
    resource = access.resource
    if access.subresource:
        resource = f"{resource}/{access.subresource}"
    where = f'in the namespace "{access.namespace}"' if access.namespace else "at the cluster scope"
    return Forbidden(
        access.resource,
        access.name,
        f'{user} resource "{resource}" in API group "{access.group}" {where}{more}',
        group=access.group,
    )


# The order is the order in which a request passes them.
CHAIN: tuple[Link, ...] = (
    with_request_info,
    with_metrics,
    with_answers_to_errors,
    with_deadline,
    with_authentication,
    with_impersonation,
    with_authorization,
)


def linked(server: ApiServer, links: tuple[Link, ...], last: Step) -> Step:
    """The links around the last step, the first one outermost."""
    step = last
    for link in reversed(links):
        step = link(server, step)
    return step
