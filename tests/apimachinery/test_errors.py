"""Statuses and field errors: pure values; nothing is fake here."""

from __future__ import annotations

import pytest

from pybernetes.apimachinery import errors
from pybernetes.apimachinery.errors import StatusError
from pybernetes.apimachinery.fielderror import OMIT_VALUE, FieldError, Path

SPEC = Path("spec")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (SPEC.containers[0].name.required(), "spec.containers[0].name: Required value"),
        (SPEC.replicas.invalid(-1, "too few"), "spec.replicas: Invalid value: -1: too few"),
        (SPEC.x.invalid('a"b\n', ""), 'spec.x: Invalid value: "a\\"b\\n"'),
        (SPEC.x.invalid(True, "no"), "spec.x: Invalid value: true: no"),
        (SPEC.x.invalid({"a": ["b"]}, "no"), 'spec.x: Invalid value: {"a":["b"]}: no'),
        (SPEC.x.invalid(OMIT_VALUE, "no"), "spec.x: Invalid value: no"),
        (
            SPEC.type.not_supported("X", {"B", "A"}),
            'spec.type: Unsupported value: "X": supported values: "A", "B"',
        ),
        (
            SPEC.restartPolicy.not_supported("X", ("OnFailure", "Never")),
            'spec.restartPolicy: Unsupported value: "X": supported values: "OnFailure", "Never"',
        ),
        (SPEC.ports[1].duplicate("a"), 'spec.ports[1]: Duplicate value: "a"'),
        (
            Path("metadata").labels.key("a/b").forbidden("no"),
            "metadata.labels[a/b]: Forbidden: no",
        ),
        (SPEC.x.not_found("a"), 'spec.x: Not found: "a"'),
        (Path("").too_long(1048576), "[]: Too long: may not be more than 1048576 bytes"),
        (SPEC.x.too_many(3, 2), "spec.x: Too many: 3: must have at most 2 items"),
        (SPEC.x.immutable("a"), 'spec.x: Invalid value: "a": field is immutable'),
        (SPEC.x.internal("boom"), "spec.x: Internal error: boom"),
    ],
)
def test_field_error_text(error: FieldError, text: str) -> None:
    assert str(error) == text


def test_python_names_are_not_wire_names() -> None:
    with pytest.raises(AttributeError):
        _ = SPEC.host_network


def test_methods_do_not_hide_fields() -> None:
    assert str(SPEC.tolerations[0].child("key")) == "spec.tolerations[0].key"
    assert SPEC.child("a", "b") == Path("spec").a.b


def test_invalid_says_each_thing_once_and_keeps_every_cause() -> None:
    problem = SPEC.replicas.invalid(-1, "bad")
    error = errors.Invalid("Deployment", "apps", "web", [problem, problem])
    assert error.message == (
        'Deployment.apps "web" is invalid: spec.replicas: Invalid value: -1: bad'
    )
    assert error.status() == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": error.message,
        "reason": "Invalid",
        "details": {
            "name": "web",
            "group": "apps",
            "kind": "Deployment",
            "causes": [
                {
                    "reason": "FieldValueInvalid",
                    "message": "Invalid value: -1: bad",
                    "field": "spec.replicas",
                }
            ]
            * 2,
        },
        "code": 422,
    }


def test_several_problems_are_bracketed() -> None:
    error = errors.Invalid("Pod", "", "x", [SPEC.a.required(), SPEC.b.required()])
    assert error.message == ('Pod "x" is invalid: [spec.a: Required value, spec.b: Required value]')


@pytest.mark.parametrize(
    ("error", "code", "reason", "message"),
    [
        (errors.NotFound("pods", "x"), 404, "NotFound", 'pods "x" not found'),
        (
            errors.NotFound("deployments", "x", group="apps"),
            404,
            "NotFound",
            'deployments.apps "x" not found',
        ),
        (
            errors.NotFound.unknown_path(),
            404,
            "NotFound",
            "the server could not find the requested resource",
        ),
        (errors.AlreadyExists("pods", "x"), 409, "AlreadyExists", 'pods "x" already exists'),
        (
            errors.Conflict("pods", "x"),
            409,
            "Conflict",
            'Operation cannot be fulfilled on pods "x": the object has been modified; please '
            "apply your changes to the latest version and try again",
        ),
        (errors.Forbidden("pods", "", "no"), 403, "Forbidden", "pods is forbidden: no"),
        (errors.Forbidden("pods", "x", "no"), 403, "Forbidden", 'pods "x" is forbidden: no'),
        (errors.Forbidden("", "", "no"), 403, "Forbidden", "forbidden: no"),
        (errors.Unauthorized(), 401, "Unauthorized", "Unauthorized"),
        (errors.BadRequest("bad"), 400, "BadRequest", "bad"),
        (
            errors.MethodNotSupported("pods", "update"),
            405,
            "MethodNotAllowed",
            'update is not supported on resources of kind "pods"',
        ),
        (
            errors.NotAcceptable(["a/b", "c/d"]),
            406,
            "NotAcceptable",
            "only the following media types are accepted: a/b, c/d",
        ),
        (errors.Expired("too old"), 410, "Expired", "too old"),
        (
            errors.RequestEntityTooLarge(3145728),
            413,
            "RequestEntityTooLarge",
            "Request entity too large: limit is 3145728",
        ),
        (errors.TooManyRequests("wait"), 429, "TooManyRequests", "wait"),
        (
            errors.InternalError("boom"),
            500,
            "InternalError",
            "Internal error occurred: boom",
        ),
        (errors.Timeout("slow"), 504, "Timeout", "Timeout: slow"),
    ],
)
def test_statuses_travel(error: StatusError, code: int, reason: str, message: str) -> None:
    assert (error.code, error.reason, error.message) == (code, reason, message)
    again = StatusError.from_status(error.status())
    assert type(again) is type(error)
    assert again.status() == error.status()


def test_unknown_reasons_are_judged_by_code() -> None:
    assert isinstance(StatusError.from_status({"code": 409, "reason": "Weird"}), errors.Conflict)
    assert StatusError.from_status({"code": 418, "message": "tea"}).code == 418


def test_retry_and_causes_are_details() -> None:
    error = errors.TooManyRequests(
        "no", retry_after_seconds=10, causes=[{"reason": "DisruptionBudget"}]
    )
    assert error.status()["details"] == {
        "causes": [{"reason": "DisruptionBudget"}],
        "retryAfterSeconds": 10,
    }
    assert error.retry_after_seconds == 10
    assert error.has_cause("DisruptionBudget")
