"""apiextensions.k8s.io: definitions of custom resources, as objects.

Here a definition is only judged and kept. That its names are accepted, and that its objects are
served, is the server's doing, and said in the status.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from pybernetes.api.conditions import has_condition
from pybernetes.api.customschema import validate_schema
from pybernetes.api.resource import Resource, Scope, Status, Strategy
from pybernetes.api.types.apiextensions_v1 import (
    CustomResourceConversion,
    CustomResourceDefinition,
)
from pybernetes.api.validation import validate_immutable, validate_one_of
from pybernetes.api.webhooks import default_client, validate_client
from pybernetes.apimachinery.fielderror import FieldError, Path
from pybernetes.apimachinery.names import dns_1035_label_errors, dns_subdomain_errors

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pybernetes.api.types.apiextensions_v1 import (
        CustomResourceColumnDefinition,
        CustomResourceDefinitionNames,
        CustomResourceDefinitionSpec,
        CustomResourceDefinitionVersion,
        CustomResourceSubresources,
    )

GROUP = "apiextensions.k8s.io"

APPROVAL_ANNOTATION = "api-approved.kubernetes.io"
_PROTECTED_DOMAINS = ("k8s.io", "kubernetes.io")
_APPROVAL_TEXT = f'protected groups must have approval annotation "{APPROVAL_ANNOTATION}"'
_APPROVAL_PAGE = "see https://github.com/kubernetes/enhancements/pull/1111"

_COLUMN_TYPES = ("boolean", "date", "integer", "number", "string")
_COLUMN_FORMATS = ("byte", "date", "date-time", "double", "float", "int32", "int64", "password")


# --- defaults -------------------------------------------------------------------------------------


def default_definition(new: CustomResourceDefinition) -> CustomResourceDefinition:
    spec, names = new.spec, new.spec.names
    names = replace(
        names,
        singular=names.singular or names.kind.lower(),
        list_kind=names.list_kind or (f"{names.kind}List" if names.kind else ""),
    )
    conversion = spec.conversion or CustomResourceConversion(strategy="None")
    webhook = conversion.webhook
    if webhook is not None and webhook.client_config is not None:
        webhook = replace(webhook, client_config=default_client(webhook.client_config))
        conversion = replace(conversion, webhook=webhook)
    spec = replace(spec, names=names, conversion=conversion)
    return new if spec == new.spec else replace(new, spec=spec)


def _with_stored_version(new: CustomResourceDefinition) -> CustomResourceDefinition:
    """The storage version is one that objects may be stored in."""
    stored = new.status.stored_versions
    missing = tuple(v.name for v in new.spec.versions if v.storage and v.name not in stored)
    if not missing:
        return new
    return replace(new, status=replace(new.status, stored_versions=(*stored, *missing)))


def prepare_update(
    new: CustomResourceDefinition, old: CustomResourceDefinition
) -> CustomResourceDefinition:
    return _with_stored_version(new)


# --- validation -----------------------------------------------------------------------------------


def validate_definition(
    new: CustomResourceDefinition, old: CustomResourceDefinition | None
) -> Iterator[FieldError]:
    spec, path = new.spec, Path("spec")
    if old is None and new.metadata.name != f"{spec.names.plural}.{spec.group}":
        yield Path("metadata").name.invalid(
            new.metadata.name, 'must be spec.names.plural+"."+spec.group'
        )
    yield from _validate_spec(spec, path)
    if old is not None:
        if has_condition(old.status.conditions, "Established"):
            yield from validate_immutable(spec.scope, old.spec.scope, path.scope)
            yield from validate_immutable(
                spec.names.kind, old.spec.names.kind, path.names.child("kind")
            )
        yield from validate_immutable(spec.group, old.spec.group, path.group)
        yield from validate_immutable(spec.names.plural, old.spec.names.plural, path.names.plural)
    yield from _validate_stored_versions(new)
    yield from _validate_approval(new, old)


def validate_definition_status(
    new: CustomResourceDefinition, old: CustomResourceDefinition | None
) -> Iterator[FieldError]:
    yield from _validate_names(new.status.accepted_names, Path("status").acceptedNames)
    yield from _validate_stored_versions(new)


def _validate_spec(spec: CustomResourceDefinitionSpec, path: Path) -> Iterator[FieldError]:
    if not spec.group:
        yield path.group.required()
    elif errors := dns_subdomain_errors(spec.group):
        yield path.group.invalid(spec.group, ",".join(errors))
    elif "." not in spec.group:
        yield path.group.invalid(spec.group, "should be a domain with at least one dot")
    yield from validate_one_of(spec.scope, ("Cluster", "Namespaced"), path.scope)
    if spec.preserve_unknown_fields:
        yield path.preserveUnknownFields.invalid(
            True,
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in"
            " spec.versions[*].schema instead",
        )
    for index, version in enumerate(spec.versions):
        yield from _validate_version(version, path.versions[index])
    names = [version.name for version in spec.versions]
    if len(set(names)) != len(names):
        yield path.versions.invalid(names, "must contain unique version names")
    if sum(version.storage for version in spec.versions) != 1:
        yield path.versions.invalid(
            names, "must have exactly one version marked as storage version"
        )
    for field, name in (
        ("plural", spec.names.plural),
        ("singular", spec.names.singular),
        ("kind", spec.names.kind),
        ("listKind", spec.names.list_kind),
    ):
        if not name:
            yield path.names.child(field).required()
    yield from _validate_names(spec.names, path.names)
    yield from _validate_conversion(spec.conversion, path.conversion)


def _validate_names(names: CustomResourceDefinitionNames, path: Path) -> Iterator[FieldError]:
    for field, name in (("plural", names.plural), ("singular", names.singular)):
        if name and (errors := dns_1035_label_errors(name)):
            yield path.child(field).invalid(name, ",".join(errors))
    for field, name in (("kind", names.kind), ("listKind", names.list_kind)):
        if name and (errors := dns_1035_label_errors(name.lower())):
            yield path.child(field).invalid(
                name, f"may have mixed case, but should otherwise match: {','.join(errors)}"
            )
    yield from _validate_labels(names.short_names, path.shortNames)
    if names.kind and names.kind == names.list_kind:
        yield path.listKind.invalid(names.list_kind, "kind and listKind may not be the same")
    yield from _validate_labels(names.categories, path.categories)


def _validate_labels(names: Sequence[str], path: Path) -> Iterator[FieldError]:
    for index, name in enumerate(names):
        if errors := dns_1035_label_errors(name):
            yield path[index].invalid(name, ",".join(errors))


def _validate_version(version: CustomResourceDefinitionVersion, path: Path) -> Iterator[FieldError]:
    if errors := dns_1035_label_errors(version.name):
        yield path.name.invalid(version.name, ",".join(errors))
    if version.deprecation_warning and not version.deprecated:
        yield path.deprecationWarning.invalid(
            version.deprecation_warning, "can only be set for deprecated versions"
        )
    schema = None if version.schema is None else version.schema.open_api_v3_schema
    if schema is None:
        yield path.schema.openAPIV3Schema.required("schemas are required")
    else:
        yield from validate_schema(schema, path.schema.openAPIV3Schema)
    yield from _validate_subresources(version.subresources, path.subresources)
    for index, column in enumerate(version.additional_printer_columns):
        yield from _validate_column(column, path.additionalPrinterColumns[index])


def _validate_subresources(
    subresources: CustomResourceSubresources | None, path: Path
) -> Iterator[FieldError]:
    scale = None if subresources is None else subresources.scale
    if scale is None:
        return
    for field, value, part in (
        ("specReplicasPath", scale.spec_replicas_path, ".spec"),
        ("statusReplicasPath", scale.status_replicas_path, ".status"),
    ):
        here = path.scale.child(field)
        if not value:
            yield here.required()
        elif not value.startswith(f"{part}."):
            yield here.invalid(value, f"should be a json path under {part}")
    selector = scale.label_selector_path
    if selector and not selector.startswith((".spec.", ".status.")):
        yield path.scale.labelSelectorPath.invalid(
            selector, "should be a json path under either .status or .spec"
        )


def _validate_column(column: CustomResourceColumnDefinition, path: Path) -> Iterator[FieldError]:
    if not column.name:
        yield path.name.required()
    text = f"must be one of {','.join(_COLUMN_TYPES)}"
    if not column.type:
        yield path.type.required(text)
    elif column.type not in _COLUMN_TYPES:
        yield path.type.invalid(column.type, text)
    if column.format and column.format not in _COLUMN_FORMATS:
        yield path.format.invalid(column.format, f"must be one of {','.join(_COLUMN_FORMATS)}")
    if not column.json_path:
        yield path.JSONPath.required()


def _validate_conversion(
    conversion: CustomResourceConversion | None, path: Path
) -> Iterator[FieldError]:
    if conversion is None:
        return
    yield from validate_one_of(conversion.strategy, ("None", "Webhook"), path.strategy)
    webhook = conversion.webhook
    if conversion.strategy != "Webhook":
        if webhook is not None:
            yield path.webhookClientConfig.forbidden(
                "should not be set when strategy is not set to Webhook"
            )
    elif webhook is None or webhook.client_config is None:
        yield path.webhookClientConfig.required("required when strategy is set to Webhook")
    else:
        yield from validate_client(webhook.client_config, path.webhookClientConfig)
        if not webhook.conversion_review_versions:
            yield path.conversionReviewVersions.required("must specify one of v1, v1beta1")


def _validate_stored_versions(new: CustomResourceDefinition) -> Iterator[FieldError]:
    stored, path = new.status.stored_versions, Path("status").storedVersions
    if not stored:
        yield path.invalid(stored, "must have at least one stored version")
        return
    names = {version.name for version in new.spec.versions}
    for index, name in enumerate(stored):
        if name not in names:
            yield path[index].invalid(
                name,
                f"missing from spec.versions; {name} was previously a storage version, and must"
                " remain in spec.versions until a storage migration ensures no data remains"
                f" persisted in {name} and removes {name} from status.storedVersions",
            )
    for version in new.spec.versions:
        if version.storage and version.name not in stored:
            yield path.invalid(stored, f"must have the storage version {version.name}")


def _validate_approval(
    new: CustomResourceDefinition, old: CustomResourceDefinition | None
) -> Iterator[FieldError]:
    """Groups of Kubernetes itself say where their API was reviewed."""
    group = new.spec.group
    if not any(group == name or group.endswith(f".{name}") for name in _PROTECTED_DOMAINS):
        return
    value = new.metadata.annotations.get(APPROVAL_ANNOTATION, "")
    if old is not None and value == old.metadata.annotations.get(APPROVAL_ANNOTATION, ""):
        return
    path = Path("metadata").annotations.key(APPROVAL_ANNOTATION)
    if not value:
        yield path.required(f"{_APPROVAL_TEXT}, {_APPROVAL_PAGE}")
    elif not value.startswith(("unapproved", "https://", "http://")):
        yield path.invalid(
            value,
            f'{_APPROVAL_TEXT} with either a URL or a reason starting with "unapproved",'
            f" {_APPROVAL_PAGE}",
        )


CUSTOM_RESOURCE_DEFINITIONS = Resource(
    group=GROUP,
    version="v1",
    kind=CustomResourceDefinition,
    plural="customresourcedefinitions",
    scope=Scope.CLUSTER,
    strategy=Strategy(
        default=default_definition,
        prepare_create=_with_stored_version,
        prepare_update=prepare_update,
        validate=validate_definition,
    ),
    subresources=(Status(validate=validate_definition_status),),
)

APIEXTENSIONS_RESOURCES: tuple[Resource[Any], ...] = (CUSTOM_RESOURCE_DEFINITIONS,)
