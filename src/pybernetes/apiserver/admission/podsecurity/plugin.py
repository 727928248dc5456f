"""PodSecurity as a plugin: refuses, warns and notes, by the labels of the namespace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pybernetes.api.types.core_v1 import Namespace
from pybernetes.apimachinery.errors import Invalid
from pybernetes.apimachinery.fielderror import Path
from pybernetes.apiserver.admission.plugin import Plugin, refused
from pybernetes.apiserver.admission.podsecurity.checks import BASELINE, RESTRICTED, violations
from pybernetes.apiserver.hooks import Operation
from pybernetes.apiserver.typed import Typed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pybernetes.api.types.core_v1 import PodSpec
    from pybernetes.apimachinery.fielderror import FieldError
    from pybernetes.apiserver.admission.world import World
    from pybernetes.apiserver.hooks import Attributes

PREFIX = "pod-security.kubernetes.io/"
ENFORCE, WARN, AUDIT = f"{PREFIX}enforce", f"{PREFIX}warn", f"{PREFIX}audit"
PRIVILEGED = "privileged"
_LEVELS = (PRIVILEGED, BASELINE, RESTRICTED)

# Where pods come from: (group, resource) of kinds with a template, and the way to its spec.
_TEMPLATES = {
    ("", "replicationcontrollers"): "spec.template.spec",
    ("apps", "deployments"): "spec.template.spec",
    ("apps", "replicasets"): "spec.template.spec",
    ("apps", "statefulsets"): "spec.template.spec",
    ("apps", "daemonsets"): "spec.template.spec",
    ("batch", "jobs"): "spec.template.spec",
    ("batch", "cronjobs"): "spec.job_template.spec.template.spec",
}


class PodSecurity(Plugin):
    def __init__(self, world: World) -> None:
        self._namespaces = Typed(world.catalog, Namespace)

    async def validate(self, attributes: Attributes) -> None:
        if attributes.operation is Operation.DELETE or attributes.obj is None:
            return
        place = (attributes.group, attributes.resource)
        if place == ("", "namespaces") and not attributes.subresource:
            self._check_labels(attributes)
        elif place == ("", "pods") and attributes.subresource in ("", "ephemeralcontainers"):
            self._judge_pod(attributes)
        elif place in _TEMPLATES and not attributes.subresource:
            labels = self._labels(attributes)
            if labels:
                spec = _at(attributes.obj, _TEMPLATES[place])
                _warn(attributes, spec, labels)

    def _labels(self, attributes: Attributes) -> Mapping[str, str]:
        namespace = self._namespaces.get(attributes.namespace)
        if namespace is None or not namespace.metadata.labels:
            return {}
        return {k: v for k, v in namespace.metadata.labels.items() if k.startswith(PREFIX)}

    def _judge_pod(self, attributes: Attributes) -> None:
        labels = self._labels(attributes)
        if not labels:
            return
        spec: PodSpec = attributes.obj.spec
        if attributes.old is not None and _same_for_us(spec, attributes.old.spec):
            return
        level = labels.get(ENFORCE, PRIVILEGED)
        if found := violations(spec, level):
            said = ", ".join(map(str, found))
            raise refused(attributes, f'violates PodSecurity "{_named(labels, ENFORCE)}": {said}')
        _warn(attributes, spec, labels)

    def _check_labels(self, attributes: Attributes) -> None:
        problems = list(label_errors(attributes.obj.metadata.labels))
        if problems:
            name = attributes.obj.metadata.name
            raise Invalid("Namespace", "", name, problems)


def label_errors(labels: Mapping[str, str]) -> Iterator[FieldError]:
    for key in (ENFORCE, AUDIT, WARN):
        value = labels.get(key)
        if value is not None and value not in _LEVELS:
            path = Path("metadata").labels.key(key)
            yield path.invalid(value, f"must be one of {', '.join(_LEVELS)}")


def _warn(attributes: Attributes, spec: Any, labels: Mapping[str, str]) -> None:
    for key in (AUDIT, WARN):
        found = violations(spec, labels.get(key, PRIVILEGED))
        if not found:
            continue
        text = f'would violate PodSecurity "{_named(labels, key)}": {", ".join(map(str, found))}'
        if key == WARN:
            attributes.call.warn(text)
        else:
            attributes.annotations[f"{PREFIX}audit-violations"] = text


def _named(labels: Mapping[str, str], key: str) -> str:
    return f"{labels[key]}:{labels.get(f'{key}-version', 'latest')}"


def _same_for_us(new: PodSpec, old: PodSpec) -> bool:
    """An update of a pod that changes nothing a check looks at: what runs may go on."""
    return (new.containers, new.init_containers, new.ephemeral_containers) == (
        old.containers,
        old.init_containers,
        old.ephemeral_containers,
    )


def _at(obj: Any, path: str) -> Any:
    for name in path.split("."):
        obj = getattr(obj, name)
    return obj
