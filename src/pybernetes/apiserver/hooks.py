"""Where the rest of the API server plugs in: who asks, may they, and what does policy say.

The chain calls an `Authenticator` and an `Authorizer`; the write path calls an
`Admission` twice, first to change the object, then to judge it; subresources that need
a connection of their own (log, exec, attach, portforward, proxy, token) are `Connect`
handlers; paths outside /api and /apis stand in a route table of `PathHandler`s.

Everything here is a protocol or a value. `AllowAll` and `NoAdmission` are what a server
without access control runs with: a library cluster, or a test of something else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pybernetes.api.types.meta_v1 import DeleteOptions
    from pybernetes.api.user import UserInfo
    from pybernetes.apiserver.call import Call
    from pybernetes.apiserver.catalog import Served
    from pybernetes.wire.http import Request, Response


class Authenticator(Protocol):
    """Finds out who sends a request."""

    async def authenticate(self, request: Request) -> UserInfo | None:
        """The user; None if the request carries nothing this one understands.

        Raises Unauthorized for credentials that are understood and wrong.
        """


class Verdict(Enum):
    ALLOW = "allow"
    DENY = "deny"
    NO_OPINION = "no opinion"


@dataclass(slots=True)
class Access:
    """What somebody wants to do: either to a resource or, with `is_resource` false, to a path."""

    user: UserInfo
    verb: str
    is_resource: bool = True
    namespace: str = ""
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    name: str = ""
    path: str = ""
    # The selectors of a list, watch or deletecollection, as text.
    label_selector: str = ""
    field_selector: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict, and why: the reason is shown to whoever was refused."""

    verdict: Verdict
    reason: str = ""

    @property
    def allowed(self) -> bool:
        return self.verdict is Verdict.ALLOW


class Authorizer(Protocol):
    async def authorize(self, access: Access) -> Decision: ...


class Operation(StrEnum):
    CREATE = "CREATE"
    UPDATE = "UPDATE"
    DELETE = "DELETE"
    CONNECT = "CONNECT"


@dataclass(slots=True)
class Reinvocation:
    """What mutating webhooks have done so far, for the second and last round of the chain."""

    # Whether somebody changed something, so that there is a second round.
    wanted: bool = True
    # Webhooks asked so far that wish to be asked again if need be, by configuration and name.
    called: set[str] = field(default_factory=set)
    # Those of them for which something has changed since.
    due: set[str] = field(default_factory=set)
    # The object as the webhooks left it.
    last: Any = None

    def all_are_due(self) -> None:
        self.wanted = True
        self.due |= self.called


@dataclass(slots=True)
class Attributes:
    """What admission looks at. A mutating plugin replaces `obj`; nothing else changes.

    `obj` is the object as it would be stored (None for a deletion), `old` what is
    stored now (None for a creation). For a subresource whose body is another kind
    (Binding, Eviction, Scale, TokenRequest) `obj` and `old` are of that kind.
    """

    call: Call
    operation: Operation
    served: Served
    namespace: str
    name: str
    subresource: str = ""
    obj: Any = None
    old: Any = None
    # CreateOptions, UpdateOptions or PatchOptions as the query had them; for a
    # deletion the DeleteOptions.
    options: Mapping[str, str] | DeleteOptions = field(default_factory=dict)
    dry_run: bool = False
    # Notes of plugins for the audit log, by "<plugin>/<key>".
    annotations: dict[str, str] = field(default_factory=dict)
    # Made by the first mutating webhook that needs it.
    reinvocation: Reinvocation | None = None
    # What plugins want to be called for when the write is over, made with the first.
    _afterwards: list[Callable[[], None]] | None = None

    def afterwards(self, callback: Callable[[], None]) -> None:
        """Call this when the write is over, whether it succeeded, failed or was cancelled.

        A write that succeeded is in the caches by then: who reserved something for it
        can let go of the reservation.
        """
        if self._afterwards is None:
            self._afterwards = []
        self._afterwards.append(callback)

    def finish(self) -> None:
        for callback in self._afterwards or ():
            callback()
        self._afterwards = None

    @property
    def user(self) -> UserInfo:
        return self.call.user

    @property
    def group(self) -> str:
        return self.served.group

    @property
    def resource(self) -> str:
        return self.served.plural

    @property
    def kind(self) -> str:
        return self.served.kind_name

    def is_for(self, group: str, resource: str, subresource: str = "") -> bool:
        return self.resource == resource and self.group == group and self.subresource == subresource


class Admission(Protocol):
    """Policy on writes. Both raise Forbidden (or another StatusError) to refuse.

    Under optimistic concurrency a write may be tried again: both must bear being
    called more than once for one request.
    """

    async def mutate(self, attributes: Attributes) -> None: ...

    async def validate(self, attributes: Attributes) -> None: ...


# Answers a subresource that is a connection rather than an object. `name` exists or
# not: the handler looks for itself. Authorization is done, admission is the handler's.
Connect = Callable[["Call", "Served", str, str], Awaitable["Response"]]

# Answers a path outside /api and /apis, or a discovery path within them.
PathHandler = Callable[["Call"], Awaitable["Response"]]

# A readiness or liveness check: None, or a sentence saying what is wrong.
HealthCheck = Callable[[], "str | None"]


@dataclass(frozen=True, slots=True)
class Route:
    """One entry of the route table for paths that are not resources.

    `path` ends with `/` if everything below it belongs to the handler too.
    """

    path: str
    handler: PathHandler
    methods: frozenset[str] = frozenset({"GET", "HEAD"})


class FieldManager(Protocol):
    """Keeps metadata.managedFields; server-side apply is its user."""

    def created(self, call: Call, served: Served, obj: Any) -> Any: ...

    def updated(self, call: Call, served: Served, old: Any, new: Any) -> Any: ...


class AllowAll:
    """An authorizer for servers without access control."""

    async def authorize(self, access: Access) -> Decision:
        return Decision(Verdict.ALLOW)


class AuthorizerUnion:
    """Asks in order; the first opinion counts, and silence is a refusal."""

    def __init__(self, members: Sequence[Authorizer]) -> None:
        self._members = tuple(members)

    async def authorize(self, access: Access) -> Decision:
        reasons = []
        for member in self._members:
            decision = await member.authorize(access)
            if decision.verdict is not Verdict.NO_OPINION:
                return decision
            if decision.reason:
                reasons.append(decision.reason)
        return Decision(Verdict.NO_OPINION, "\n".join(reasons))


class AuthenticatorUnion:
    """Asks in order; the first that knows the caller answers."""

    def __init__(self, members: Sequence[Authenticator]) -> None:
        self._members = tuple(members)

    async def authenticate(self, request: Request) -> UserInfo | None:
        for member in self._members:
            if (user := await member.authenticate(request)) is not None:
                return user
        return None


class NoAdmission:
    async def mutate(self, attributes: Attributes) -> None:
        return None

    async def validate(self, attributes: Attributes) -> None:
        return None


class AdmissionChain:
    """Plugins in order; every one mutates, then every one judges."""

    def __init__(self, plugins: Sequence[Admission]) -> None:
        self._plugins = tuple(plugins)

    async def mutate(self, attributes: Attributes) -> None:
        for plugin in self._plugins:
            await plugin.mutate(attributes)

    async def validate(self, attributes: Attributes) -> None:
        for plugin in self._plugins:
            await plugin.validate(attributes)
