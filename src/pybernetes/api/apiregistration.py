"""apiregistration.k8s.io: which server answers for a group and version.

Without a service it is this server itself; such objects are made by the server and are always
available.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from pybernetes.api.conditions import condition_of
from pybernetes.api.resource import AGE, Column, Resource, Scope, Status, Strategy
from pybernetes.api.types.apiregistration_v1 import APIService
from pybernetes.api.validation import validate_with
from pybernetes.apimachinery.fielderror import FieldError, Path
from pybernetes.apimachinery.names import (
    dns_1035_label_errors,
    dns_subdomain_errors,
    path_segment_errors,
    port_errors,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_DEFAULT_PORT = 443


def default_service(new: APIService) -> APIService:
    service = new.spec.service
    if service is None or service.port is not None:
        return new
    return replace(new, spec=replace(new.spec, service=replace(service, port=_DEFAULT_PORT)))


def validate_service(new: APIService, old: APIService | None) -> Iterator[FieldError]:
    spec, path = new.spec, Path("spec")
    name = f"{spec.version}.{spec.group}"
    if old is None and new.metadata.name != name:
        yield Path("metadata").name.invalid(
            new.metadata.name, f'must be `spec.version+"."+spec.group`: "{name}"'
        )
    if spec.group:
        yield from validate_with(dns_subdomain_errors, spec.group, path.group)
    elif spec.version != "v1":
        yield path.group.required("only v1 may have an empty group and it better be legacy kube")
    yield from validate_with(dns_1035_label_errors, spec.version, path.version)
    if not 0 < spec.group_priority_minimum <= 20000:
        yield path.groupPriorityMinimum.invalid(
            spec.group_priority_minimum, "must be positive and less than 20000"
        )
    if not 0 < spec.version_priority <= 1000:
        yield path.versionPriority.invalid(
            spec.version_priority, "must be positive and less than 1000"
        )
    if spec.service is None:
        if spec.ca_bundle:
            yield path.caBundle.invalid(
                f"{len(spec.ca_bundle)} bytes", "local APIServices may not have a caBundle"
            )
        if spec.insecure_skip_tls_verify:
            yield path.insecureSkipTLSVerify.invalid(
                True, "local APIServices may not have insecureSkipTLSVerify"
            )
        return
    if not spec.service.namespace:
        yield path.service.namespace.required()
    if not spec.service.name:
        yield path.service.name.required()
    if errors := port_errors(spec.service.port or 0):
        yield path.service.port.invalid(
            spec.service.port, f"port is not valid: {', '.join(errors)}"
        )
    if spec.insecure_skip_tls_verify and spec.ca_bundle:
        yield path.insecureSkipTLSVerify.invalid(True, "may not be true if caBundle is present")


def validate_service_status(new: APIService, old: APIService | None) -> Iterator[FieldError]:
    for index, condition in enumerate(new.status.conditions):
        if condition.status not in ("True", "False", "Unknown"):
            yield (
                Path("status")
                .conditions[index]
                .status.not_supported(condition.status, ["True", "False", "Unknown"])
            )


def _server(registration: APIService) -> str:
    service = registration.spec.service
    return "Local" if service is None else f"{service.namespace}/{service.name}"


def _available(registration: APIService) -> str:
    condition = condition_of(registration.status.conditions, "Available")
    if condition is None:
        return "Unknown"
    if condition.status == "True" or not condition.reason:
        return condition.status
    return f"{condition.status} ({condition.reason})"


API_SERVICES = Resource(
    group="apiregistration.k8s.io",
    version="v1",
    kind=APIService,
    plural="apiservices",
    scope=Scope.CLUSTER,
    strategy=Strategy(
        default=default_service,
        validate=validate_service,
        name_errors=path_segment_errors,
        generation_follows=(),
    ),
    subresources=(Status(validate=validate_service_status),),
    columns=(Column("Service", _server), Column("Available", _available), AGE),
)

APIREGISTRATION_RESOURCES: tuple[Resource[Any], ...] = (API_SERVICES,)
