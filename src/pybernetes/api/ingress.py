"""networking.k8s.io: ingresses, and the classes that say who carries them out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from pybernetes.api.resource import AGE, Column, Resource, Scope, Status, Strategy
from pybernetes.api.types.networking_v1 import Ingress, IngressClass
from pybernetes.api.validation import validate_dns_label, validate_immutable, validate_with
from pybernetes.apimachinery.fielderror import FieldError, Path
from pybernetes.apimachinery.names import (
    dns_1035_label_errors,
    dns_subdomain_errors,
    domain_prefixed_path_errors,
    ip_errors,
    parse_ip,
    path_segment_errors,
    port_errors,
    port_name_errors,
    wildcard_subdomain_errors,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pybernetes.api.types.networking_v1 import (
        HTTPIngressPath,
        IngressBackend,
        IngressClassParametersReference,
        IngressRule,
        IngressServiceBackend,
        IngressTLS,
    )

_GROUP = "networking.k8s.io"

# How a class was named before the field.
CLASS_ANNOTATION = "kubernetes.io/ingress.class"
# What would let a path mean something else than it says.
_BAD_SEQUENCES = ("//", "/./", "/../", "%2f", "%2F")
_BAD_ENDINGS = ("/..", "/.")
_MAX_CONTROLLER = 250
_NOT_A_NAME = "must be a DNS name, not an IP address"
CLUSTER, NAMESPACE = "Cluster", "Namespace"


# --- ingresses ------------------------------------------------------------------------------------


def validate_ingress(new: Ingress, old: Ingress | None) -> Iterator[FieldError]:
    spec, path = new.spec, Path("spec")
    if not spec.rules and spec.default_backend is None:
        yield path.invalid(spec.rules, "either `defaultBackend` or `rules` must be specified")
    if spec.default_backend is not None:
        yield from _validate_backend(spec.default_backend, path.defaultBackend)
    for index, rule in enumerate(spec.rules):
        yield from _validate_rule(rule, path.rules[index])
    for index, tls in enumerate(spec.tls):
        yield from _validate_tls(tls, path.tls[index])
    if spec.ingress_class_name is not None:
        yield from validate_with(
            dns_subdomain_errors, spec.ingress_class_name, path.ingressClassName
        )
    # Objects from before the field have both; they stay as they are.
    annotation = new.metadata.annotations.get(CLASS_ANNOTATION) if old is None else None
    if None not in (annotation, spec.ingress_class_name) and annotation != spec.ingress_class_name:
        here = Path("annotations").child(CLASS_ANNOTATION)
        yield here.invalid(annotation, "must match `ingressClassName` when both are specified")


def _validate_host(host: str, path: Path) -> Iterator[FieldError]:
    if "*" in host:
        yield from validate_with(wildcard_subdomain_errors, host, path)
    else:
        yield from validate_with(dns_subdomain_errors, host, path)


def _validate_tls(tls: IngressTLS, path: Path) -> Iterator[FieldError]:
    for index, host in enumerate(tls.hosts):
        yield from _validate_host(host, path.hosts[index])
    if tls.secret_name:
        yield from validate_with(dns_subdomain_errors, tls.secret_name, path.secretName)


def _validate_rule(rule: IngressRule, path: Path) -> Iterator[FieldError]:
    if rule.host:
        if parse_ip(rule.host) is not None:
            yield path.host.invalid(rule.host, _NOT_A_NAME)
        yield from _validate_host(rule.host, path.host)
    if rule.http is None:
        return
    if not rule.http.paths:
        yield path.http.paths.required()
    for index, one in enumerate(rule.http.paths):
        yield from _validate_path(one, path.http.paths[index])


def _validate_path(one: HTTPIngressPath, path: Path) -> Iterator[FieldError]:
    if not one.path_type:
        yield path.pathType.required("pathType must be specified")
        return
    text, here = one.path, path.child("path")
    is_absolute = text.startswith("/")
    if one.path_type in ("Exact", "Prefix"):
        if not is_absolute:
            yield here.invalid(text, "must be an absolute path")
        for sequence in _BAD_SEQUENCES:
            if sequence in text:
                yield here.invalid(text, f"must not contain '{sequence}'")
        for ending in _BAD_ENDINGS:
            if text.endswith(ending):
                yield here.invalid(text, f"cannot end with '{ending}'")
    elif one.path_type == "ImplementationSpecific":
        if text and not is_absolute:
            yield here.invalid(text, "must be an absolute path")
    else:
        yield path.pathType.not_supported(
            one.path_type, ["Exact", "ImplementationSpecific", "Prefix"]
        )
    yield from _validate_backend(one.backend, path.backend)


def _validate_backend(backend: IngressBackend, path: Path) -> Iterator[FieldError]:
    if backend.resource is not None and backend.service is not None:
        yield path.invalid("", "cannot set both resource and service backends")
    elif backend.resource is not None:
        reference = backend.resource
        yield from _validate_reference(
            reference.api_group, reference.kind, reference.name, path.resource
        )
    elif backend.service is not None:
        yield from _validate_service(backend.service, path)
    else:
        yield path.invalid("", "resource or service backend is required")


def _validate_service(service: IngressServiceBackend, path: Path) -> Iterator[FieldError]:
    if not service.name:
        yield path.service.name.required()
    else:
        yield from validate_with(dns_1035_label_errors, service.name, path.service.name)
    port, number = service.port, service.port.number or 0
    if port.name and number:
        yield path.invalid("", "cannot set both port name & port number")
    elif port.name:
        yield from validate_with(port_name_errors, port.name, path.service.port.name)
    elif number:
        for message in port_errors(number):
            yield path.service.port.number.invalid(number, message)
    else:
        yield path.required("port name or number is required")


def _validate_reference(
    group: str | None, kind: str, name: str, path: Path
) -> Iterator[FieldError]:
    if group is not None:
        yield from validate_with(dns_subdomain_errors, group, path.apiGroup)
    for field, value in (("kind", kind), ("name", name)):
        if not value:
            yield path.child(field).required()
        else:
            yield from validate_with(path_segment_errors, value, path.child(field))


def validate_ingress_status(new: Ingress, old: Ingress | None) -> Iterator[FieldError]:
    path = Path("status").loadBalancer.ingress
    for index, entry in enumerate(new.status.load_balancer.ingress):
        here = path[index]
        if entry.ip:
            yield from validate_with(ip_errors, entry.ip, here.ip)
        if entry.hostname:
            yield from validate_with(dns_subdomain_errors, entry.hostname, here.hostname)
            if parse_ip(entry.hostname) is not None:
                yield here.hostname.invalid(entry.hostname, _NOT_A_NAME)


def warn_of_annotation(new: Ingress, old: Ingress | None) -> Iterator[str]:
    if old is None and CLASS_ANNOTATION in new.metadata.annotations:
        yield (
            f'annotation "{CLASS_ANNOTATION}" is deprecated, please use'
            " 'spec.ingressClassName' instead"
        )


def _hosts(ingress: Ingress) -> str:
    hosts = [rule.host for rule in ingress.spec.rules if rule.host]
    if not hosts:
        return "*"
    text = ",".join(hosts[:3])
    return f"{text} + {len(hosts) - 3} more..." if len(hosts) > 3 else text


def _addresses(ingress: Ingress) -> str:
    entries = ingress.status.load_balancer.ingress
    return ",".join(sorted({entry.ip or entry.hostname for entry in entries} - {""}))


INGRESSES = Resource(
    group=_GROUP,
    version="v1",
    kind=Ingress,
    plural="ingresses",
    scope=Scope.NAMESPACED,
    strategy=Strategy(validate=validate_ingress, warn=warn_of_annotation),
    subresources=(Status(validate=validate_ingress_status),),
    columns=(
        Column("Class", lambda i: i.spec.ingress_class_name),
        Column("Hosts", _hosts),
        Column("Address", _addresses),
        Column("Ports", lambda i: "80, 443" if i.spec.tls else "80"),
        AGE,
    ),
)


# --- classes --------------------------------------------------------------------------------------


def default_class(new: IngressClass) -> IngressClass:
    parameters = new.spec.parameters
    if parameters is None or parameters.scope:
        return new
    return replace(new, spec=replace(new.spec, parameters=replace(parameters, scope=CLUSTER)))


def validate_class(new: IngressClass, old: IngressClass | None) -> Iterator[FieldError]:
    spec, path = new.spec, Path("spec")
    if len(spec.controller) > _MAX_CONTROLLER:
        yield path.controller.too_long(_MAX_CONTROLLER)
    if not spec.controller:
        yield path.controller.required()
    else:
        yield from validate_with(domain_prefixed_path_errors, spec.controller, path.controller)
    if spec.parameters is not None:
        yield from _validate_parameters(spec.parameters, path.parameters)
    if old is not None:
        yield from validate_immutable(spec.controller, old.spec.controller, path.controller)


def _validate_parameters(
    parameters: IngressClassParametersReference, path: Path
) -> Iterator[FieldError]:
    yield from _validate_reference(parameters.api_group, parameters.kind, parameters.name, path)
    scope = parameters.scope
    if not scope:
        yield path.scope.required()
    elif scope not in (CLUSTER, NAMESPACE):
        yield path.scope.not_supported(scope, [CLUSTER, NAMESPACE])
    elif scope == NAMESPACE:
        if not parameters.namespace:
            yield path.namespace.required("`parameters.scope` is set to 'Namespace'")
        else:
            yield from validate_dns_label(parameters.namespace, path.namespace)
    elif parameters.namespace:
        yield path.namespace.forbidden("`parameters.scope` is set to 'Cluster'")


def _parameters(class_: IngressClass) -> str | None:
    parameters = class_.spec.parameters
    if parameters is None:
        return None
    group = f".{parameters.api_group}" if parameters.api_group else ""
    return f"{parameters.kind}{group}/{parameters.name}"


INGRESS_CLASSES = Resource(
    group=_GROUP,
    version="v1",
    kind=IngressClass,
    plural="ingressclasses",
    scope=Scope.CLUSTER,
    strategy=Strategy(default=default_class, validate=validate_class),
    columns=(
        Column("Controller", lambda c: c.spec.controller),
        Column("Parameters", _parameters),
        AGE,
    ),
)
