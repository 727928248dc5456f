"""The downward API: what a container may learn of its pod, as text."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import TYPE_CHECKING

from pybernetes.apimachinery.quantity import parse_quantity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pybernetes.api.types.core_v1 import Pod, ResourceFieldSelector
    from pybernetes.kubelet.pod_state import AnyContainer

_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['(.*)'\]", re.DOTALL)


class FieldProblem(Exception):
    """There is no such field to read."""


def field_value(pod: Pod, path: str, *, ips: tuple[str, ...], host_ips: tuple[str, ...]) -> str:
    """The field as text; maps as lines of `key="value"`. Raises FieldProblem."""
    meta, spec = pod.metadata, pod.spec
    if (match := _SUBSCRIPT.fullmatch(path)) is not None:
        values = meta.labels if match[1] == "labels" else meta.annotations
        return values.get(match[2], "")
    plain = {
        "metadata.name": meta.name,
        "metadata.namespace": meta.namespace,
        "metadata.uid": meta.uid,
        "spec.nodeName": spec.node_name,
        "spec.serviceAccountName": spec.service_account_name,
        "status.podIP": ips[0] if ips else "",
        "status.podIPs": ",".join(ips),
        "status.hostIP": host_ips[0] if host_ips else "",
        "status.hostIPs": ",".join(host_ips),
    }
    if path in plain:
        return plain[path]
    if path == "metadata.labels":
        return _lines(meta.labels)
    if path == "metadata.annotations":
        return _lines(meta.annotations)
    raise FieldProblem(f"unsupported fieldPath: {path}")


def _lines(values: Mapping[str, str]) -> str:
    return "\n".join(f"{key}={_quoted(values[key])}" for key in sorted(values))


def _quoted(text: str) -> str:
    """As Go's %q for what labels and annotations usually hold."""
    escapes = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    return '"' + "".join(escapes.get(char, char) for char in text) + '"'


def resource_value(
    container: AnyContainer, selector: ResourceFieldSelector, allocatable: Mapping[str, str]
) -> str:
    """In units of the divisor, rounded up; without a limit, what the node has to give."""
    kind, _, name = selector.resource.partition(".")
    resources = container.resources
    if kind == "limits":
        text = resources.limits.get(name) or allocatable.get(name, "0")
    elif kind == "requests":
        text = resources.requests.get(name) or resources.limits.get(name, "0")
    else:
        raise FieldProblem(f"unsupported resource: {selector.resource}")
    divisor = Fraction(parse_quantity(selector.divisor or "1")) or Fraction(1)
    quotient = Fraction(parse_quantity(text)) / divisor
    return str(-(-quotient.numerator // quotient.denominator))
