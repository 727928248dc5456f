"""One exception per reason the API can give, each knowing its v1 Status.

The same classes are raised in the API server and by the client that reads its answer
(`StatusError.from_status`), so that a controller says `except NotFound` wherever it runs.
Messages are upstream's word for word: clients, scripts and people match on them.

A constructor takes what the message is made of; the plain `StatusError` takes everything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from pybernetes.apimachinery.fielderror import FieldError

# An entry of Status.details.causes.
Cause = Mapping[str, Any]


class StatusError(Exception):
    """An answer of the API that is not success.

    `details` is the `details` of the Status (kind, name, group, uid, causes,
    retryAfterSeconds), or None if there are none.
    """

    code: int = 500
    reason: str = ""
    message: str
    details: dict[str, Any] | None

    def __init__(
        self,
        message: str,
        *,
        code: int | None = None,
        reason: str | None = None,
        details: Mapping[str, Any] | None = None,
        retry_after_seconds: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code
        if reason is not None:
            self.reason = reason
        filled = {key: value for key, value in (details or {}).items() if value}
        if retry_after_seconds:
            filled["retryAfterSeconds"] = retry_after_seconds
        self.details = filled or None

    @property
    def retry_after_seconds(self) -> int | None:
        """After how long the server asks to try again, if it does."""
        return (self.details or {}).get("retryAfterSeconds")

    @property
    def causes(self) -> Sequence[Cause]:
        causes: Sequence[Cause] = (self.details or {}).get("causes", ())
        return causes

    def has_cause(self, reason: str) -> bool:
        return any(cause.get("reason") == reason for cause in self.causes)

    def status(self) -> dict[str, Any]:
        """The v1 Status object, in the field order of the API."""
        status: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            status["reason"] = self.reason
        if self.details:
            status["details"] = self.details
        status["code"] = self.code
        return status

    @staticmethod
    def from_status(status: Mapping[str, Any]) -> StatusError:
        """The exception a Status stands for; an unknown reason is judged by its code."""
        reason, code = status.get("reason") or "", status.get("code") or 0
        kind = _BY_REASON.get(reason) or _BY_CODE.get(code) or StatusError
        error = kind.__new__(kind)
        StatusError.__init__(
            error,
            status.get("message") or "",
            code=code or kind.code,
            reason=reason,
            details=status.get("details"),
        )
        return error


def resource_text(resource: str, group: str) -> str:
    """`pods`, `deployments.apps`."""
    return f"{resource}.{group}" if group else resource


def _details(resource: str, name: str, group: str, causes: Iterable[Cause] = ()) -> dict[str, Any]:
    return {"name": name, "group": group, "kind": resource, "causes": list(causes)}


class NotFound(StatusError):
    """404: there is no such object."""

    code = 404
    reason = "NotFound"

    def __init__(self, resource: str, name: str, *, group: str = "") -> None:
        super().__init__(
            f'{resource_text(resource, group)} "{name}" not found',
            details=_details(resource, name, group),
        )

    @classmethod
    def unknown_path(cls) -> NotFound:
        """There is not even such a resource."""
        error = cls.__new__(cls)
        StatusError.__init__(error, "the server could not find the requested resource")
        return error


class AlreadyExists(StatusError):
    """409: the name is taken."""

    code = 409
    reason = "AlreadyExists"

    def __init__(
        self, resource: str, name: str, *, group: str = "", generated: bool = False
    ) -> None:
        message = f'{resource_text(resource, group)} "{name}" already exists'
        if generated:
            message += ", the server was not able to generate a unique name for the object"
        super().__init__(
            message,
            details=_details(resource, name, group),
            retry_after_seconds=1 if generated else None,
        )


class Conflict(StatusError):
    """409: the object is not (any more) what the writer took it for."""

    code = 409
    reason = "Conflict"

    # The cause of nearly every conflict: somebody else wrote first.
    MODIFIED: ClassVar[str] = (
        "the object has been modified; please apply your changes to the latest version "
        "and try again"
    )

    def __init__(
        self,
        resource: str,
        name: str,
        cause: str = MODIFIED,
        *,
        group: str = "",
        causes: Iterable[Cause] = (),
    ) -> None:
        super().__init__(
            f'Operation cannot be fulfilled on {resource_text(resource, group)} "{name}": {cause}',
            details=_details(resource, name, group, causes),
        )

    @classmethod
    def of_apply(cls, message: str, causes: Iterable[Cause]) -> Conflict:
        """Server-side apply met fields that others own."""
        error = cls.__new__(cls)
        StatusError.__init__(error, message, details={"causes": list(causes)})
        return error


class Invalid(StatusError):
    """422: the object breaks rules; every broken rule is a cause."""

    code = 422
    reason = "Invalid"

    def __init__(self, kind: str, group: str, name: str, errors: Iterable[FieldError]) -> None:
        found = list(errors)
        super().__init__(
            invalid_message(kind, group, name, found),
            details=_details(kind, name, group, [error.cause for error in found]),
        )


def invalid_message(kind: str, group: str, name: str, errors: Iterable[FieldError]) -> str:
    # The sentence says each thing once, in order; the causes keep everything.
    texts = list(dict.fromkeys(map(str, errors)))
    message = f'{resource_text(kind, group)} "{name}" is invalid'
    if not texts:
        return message
    return f"{message}: {texts[0]}" if len(texts) == 1 else f"{message}: [{', '.join(texts)}]"


class Forbidden(StatusError):
    """403: not allowed, by authorization or by admission."""

    code = 403
    reason = "Forbidden"

    def __init__(
        self,
        resource: str,
        name: str,
        cause: str,
        *,
        group: str = "",
        causes: Iterable[Cause] = (),
    ) -> None:
        what = resource_text(resource, group)
        if not resource:
            message = f"forbidden: {cause}"
        elif not name:
            message = f"{what} is forbidden: {cause}"
        else:
            message = f'{what} "{name}" is forbidden: {cause}'
        super().__init__(message, details=_details(resource, name, group, causes))


class Unauthorized(StatusError):
    """401: we do not know who is asking."""

    code = 401
    reason = "Unauthorized"

    def __init__(self, message: str = "Unauthorized") -> None:
        super().__init__(message)


class BadRequest(StatusError):
    """400: the request itself cannot be understood."""

    code = 400
    reason = "BadRequest"


class MethodNotSupported(StatusError):
    """405: the resource exists, the verb does not."""

    code = 405
    reason = "MethodNotAllowed"

    def __init__(self, resource: str, action: str, *, group: str = "") -> None:
        super().__init__(
            f'{action} is not supported on resources of kind "{resource_text(resource, group)}"',
            details=_details(resource, "", group),
        )


class NotAcceptable(StatusError):
    """406: no representation the client would take."""

    code = 406
    reason = "NotAcceptable"

    def __init__(self, accepted: Iterable[str]) -> None:
        super().__init__(f"only the following media types are accepted: {', '.join(accepted)}")

    @classmethod
    def no_table(cls, resource: str, *, group: str = "") -> NotAcceptable:
        error = cls.__new__(cls)
        StatusError.__init__(
            error,
            f"the resource {resource_text(resource, group)} does not support being "
            "converted to a Table",
        )
        return error


class UnsupportedMediaType(StatusError):
    """415: a body in a format we do not read."""

    code = 415
    reason = "UnsupportedMediaType"

    def __init__(self, accepted: Iterable[str]) -> None:
        super().__init__(
            "the body of the request was in an unknown format - accepted media types include: "
            + ", ".join(accepted)
        )


class Expired(StatusError):
    """410: the revision asked for is no longer kept; start again from a list."""

    code = 410
    reason = "Expired"


class Gone(StatusError):
    """410: what was asked for is gone for good."""

    code = 410
    reason = "Gone"


class RequestEntityTooLarge(StatusError):
    """413: a body over the limit."""

    code = 413
    reason = "RequestEntityTooLarge"

    def __init__(self, limit: int) -> None:
        super().__init__(f"Request entity too large: limit is {limit}")


class TooManyRequests(StatusError):
    """429: not now; also what an eviction hears that a disruption budget refuses."""

    code = 429
    reason = "TooManyRequests"

    def __init__(
        self,
        message: str,
        *,
        retry_after_seconds: int | None = None,
        causes: Iterable[Cause] = (),
    ) -> None:
        super().__init__(
            message, details={"causes": list(causes)}, retry_after_seconds=retry_after_seconds
        )


class InternalError(StatusError):
    """500: our fault."""

    code = 500
    reason = "InternalError"

    def __init__(self, cause: str) -> None:
        super().__init__(
            f"Internal error occurred: {cause}", details={"causes": [{"message": cause}]}
        )


class ServerTimeout(StatusError):
    """500 with the wish that the client tries again."""

    code = 500
    reason = "ServerTimeout"

    def __init__(
        self, resource: str, operation: str, *, group: str = "", retry_after_seconds: int = 0
    ) -> None:
        super().__init__(
            f"The {operation} operation against {resource_text(resource, group)} could not be "
            "completed at this time, please try again.",
            details=_details(resource, operation, group),
            retry_after_seconds=retry_after_seconds,
        )


class ServiceUnavailable(StatusError):
    """503: not ready to serve this."""

    code = 503
    reason = "ServiceUnavailable"

    def __init__(self, message: str, *, retry_after_seconds: int | None = None) -> None:
        super().__init__(message, retry_after_seconds=retry_after_seconds)


class Timeout(StatusError):
    """504: the request's own time is over."""

    code = 504
    reason = "Timeout"

    def __init__(self, message: str, *, retry_after_seconds: int | None = None) -> None:
        super().__init__(f"Timeout: {message}", retry_after_seconds=retry_after_seconds)


_KINDS: tuple[type[StatusError], ...] = (
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotSupported,
    NotAcceptable,
    Conflict,
    AlreadyExists,
    Gone,
    Expired,
    RequestEntityTooLarge,
    UnsupportedMediaType,
    Invalid,
    TooManyRequests,
    ServerTimeout,
    InternalError,
    ServiceUnavailable,
    Timeout,
)
_BY_REASON = {kind.reason: kind for kind in _KINDS}
# The first of a code stands for answers that name no reason we know.
_BY_CODE = {kind.code: kind for kind in reversed(_KINDS)} | {500: InternalError}
