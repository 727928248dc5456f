"""PodTemplate: a template kept by itself; no controller of ours uses it.

Also the columns that every kind with a template shows: its containers and their images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from pybernetes.api.core.poddefaults import default_pod_template
from pybernetes.api.core.podspec import validate_pod_template
from pybernetes.api.resource import Column, Resource, Scope, Strategy
from pybernetes.api.types.core_v1 import PodTemplate
from pybernetes.apimachinery.fielderror import Path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pybernetes.api.types.core_v1 import PodSpec
    from pybernetes.apimachinery.fielderror import FieldError


def container_names(spec: PodSpec) -> str:
    return ",".join([container.name for container in spec.containers])


def container_images(spec: PodSpec) -> str:
    return ",".join([container.image for container in spec.containers])


def _default(new: PodTemplate) -> PodTemplate:
    template = default_pod_template(new.template)
    return new if template is new.template else replace(new, template=template)


def _validate(new: PodTemplate, old: PodTemplate | None) -> Iterator[FieldError]:
    yield from validate_pod_template(new.template, Path("template"))


POD_TEMPLATES = Resource(
    group="",
    version="v1",
    kind=PodTemplate,
    plural="podtemplates",
    scope=Scope.NAMESPACED,
    strategy=Strategy(
        default=_default,
        validate=_validate,
        generation_follows=("template",),
        allow_create_on_update=True,
    ),
    columns=(
        Column("Containers", lambda obj: container_names(obj.template.spec)),
        Column("Images", lambda obj: container_images(obj.template.spec)),
        Column("Pod Labels", lambda obj: obj.template.metadata.labels),
    ),
)
