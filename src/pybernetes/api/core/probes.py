"""Validation of probes and lifecycle hooks: each is exactly one kind of action."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pybernetes.api.validation import NEGATIVE
from pybernetes.apimachinery.names import http_header_errors, port_errors, port_name_errors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pybernetes.api.types.core_v1 import HTTPGetAction, Lifecycle, LifecycleHandler, Probe
    from pybernetes.apimachinery.fielderror import FieldError, Path

_WINDOWS_SIGNALS = frozenset({"SIGTERM", "SIGKILL"})
_LINUX_SIGNALS = frozenset(
    "SIG" + name
    for name in (
        *[
            "ABRT",
            "ALRM",
            "BUS",
            "CHLD",
            "CLD",
            "CONT",
            "FPE",
            "HUP",
            "ILL",
            "INT",
            "IO",
            "IOT",
            "KILL",
            "PIPE",
            "POLL",
            "PROF",
            "PWR",
            "QUIT",
        ],
        *[
            "SEGV",
            "STKFLT",
            "STOP",
            "SYS",
            "TERM",
            "TRAP",
            "TSTP",
            "TTIN",
            "TTOU",
            "URG",
            "USR1",
            "USR2",
            "VTALRM",
            "WINCH",
        ],
        *["XCPU", "XFSZ", "RTMIN", "RTMAX"],
        *(f"RTMIN+{n}" for n in range(1, 16)),
        *(f"RTMAX-{n}" for n in range(1, 15)),
    )
)


def validate_liveness(probe: Probe, path: Path) -> Iterator[FieldError]:
    yield from _validate_probe(probe, path)
    yield from _validate_one_success(probe, path)


# A startup probe, too, has done its work with the first success.
validate_startup = validate_liveness


def validate_readiness(probe: Probe, path: Path) -> Iterator[FieldError]:
    yield from _validate_probe(probe, path)
    if probe.termination_grace_period_seconds is not None:
        yield path.terminationGracePeriodSeconds.invalid(
            probe.termination_grace_period_seconds, "must not be set for readinessProbes"
        )


def _validate_one_success(probe: Probe, path: Path) -> Iterator[FieldError]:
    if probe.success_threshold != 1:
        yield path.successThreshold.invalid(probe.success_threshold or 0, "must be 1")


def _validate_probe(probe: Probe, path: Path) -> Iterator[FieldError]:
    yield from _validate_action(probe, path, 0)
    for wire_name, value in (
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ):
        if value is not None and value < 0:
            yield path.child(wire_name).invalid(value, NEGATIVE)
    grace = probe.termination_grace_period_seconds
    if grace is not None and grace <= 0:
        yield path.terminationGracePeriodSeconds.invalid(grace, "must be greater than 0")


def validate_lifecycle(
    lifecycle: Lifecycle, path: Path, *, grace_seconds: int, os: str
) -> Iterator[FieldError]:
    if lifecycle.post_start is not None:
        yield from _validate_action(lifecycle.post_start, path.postStart, grace_seconds)
    if lifecycle.pre_stop is not None:
        yield from _validate_action(lifecycle.pre_stop, path.preStop, grace_seconds)
    signal = lifecycle.stop_signal
    if not signal:
        return
    if not os:
        yield path.stopSignal.forbidden("may not be set for containers with empty `spec.os.name`")
    else:
        supported = _WINDOWS_SIGNALS if os == "windows" else _LINUX_SIGNALS
        if signal not in supported:
            yield path.stopSignal.not_supported(signal, supported)


def _validate_action(
    handler: Probe | LifecycleHandler, path: Path, grace_seconds: int
) -> Iterator[FieldError]:
    """Exactly one of exec, httpGet, tcpSocket, grpc, sleep."""
    kinds: list[tuple[str, Any]] = [
        ("exec", handler.exec),
        ("httpGet", handler.http_get),
        ("tcpSocket", handler.tcp_socket),
        ("grpc", getattr(handler, "grpc", None)),
        ("sleep", getattr(handler, "sleep", None)),
    ]
    given = [(name, action) for name, action in kinds if action is not None]
    if not given:
        yield path.required("must specify a handler type")
        return
    for name, _ in given[1:]:
        yield path.child(name).forbidden("may not specify more than 1 handler type")
    name, action = given[0]
    here = path.child(name)
    if name == "exec":
        if not action.command:
            yield here.command.required()
    elif name == "httpGet":
        yield from _validate_http_get(action, here)
    elif name == "tcpSocket" or name == "grpc":
        yield from validate_port_or_name(action.port, here.port)
    elif not 0 <= action.seconds <= grace_seconds:
        yield here.invalid(
            action.seconds,
            f"must be non-negative and less than terminationGracePeriodSeconds ({grace_seconds})",
        )


def _validate_http_get(action: HTTPGetAction, path: Path) -> Iterator[FieldError]:
    if not action.path:
        yield path.child("path").required()
    yield from validate_port_or_name(action.port, path.port)
    if action.scheme not in ("HTTP", "HTTPS"):
        yield path.scheme.not_supported(action.scheme, ("HTTP", "HTTPS"))
    for header in action.http_headers:
        for message in http_header_errors(header.name):
            yield path.httpHeaders.invalid(header.name, message)


def validate_port_or_name(port: int | str, path: Path) -> Iterator[FieldError]:
    errors = port_errors(port) if isinstance(port, int) else port_name_errors(port)
    for message in errors:
        yield path.invalid(port, message)
