"""Names: from the names of the API (``clusterIPs``) to those of Python (``cluster_ips``), and back.

The way back must not guess: every attribute whose wire name is not its plain camel case is listed
in a table that apigen writes beside the classes, and a name that would be ambiguous is an error.
"""

from __future__ import annotations

import keyword
import re

# Words the annotations of the generated classes use; an attribute of that name would hide them.
_HIDDEN = frozenset({"bool", "int", "str", "float", "dict", "tuple"})

# Acronyms that no rule can split.
_SPECIAL = {"openAPIV3Schema": "open_api_v3_schema", "$schema": "schema_"}

_GROUP_ALIASES = {
    "io.k8s.apimachinery.pkg.apis.meta": "meta",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions": "apiextensions",
    "io.k8s.kube-aggregator.pkg.apis.apiregistration": "apiregistration",
}


def attribute_of(wire: str) -> str:
    """The snake_case attribute for a field of the API."""
    if wire in _SPECIAL:
        return _SPECIAL[wire]
    name = wire.replace("$", "").replace("-", "_")
    # Plural acronyms are one word: podIPs, nonResourceURLs.
    name = re.sub(r"([A-Z]{2,})s(?=$|[A-Z])", lambda found: found[1].capitalize() + "s", name)
    name = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", name)
    name = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower()
    return name + "_" if keyword.iskeyword(name) or name in _HIDDEN else name


def camel(attribute: str) -> str:
    """The wire name an attribute has when no exception is listed for it."""
    first, *rest = attribute.rstrip("_").split("_")
    return first + "".join(word[:1].upper() + word[1:] for word in rest)


def module_of(definition: str) -> str:
    """``io.k8s.api.core.v1.Pod`` lives in module ``core_v1``."""
    package = definition.rpartition(".")[0]
    group, _, version = package.rpartition(".")
    if group in _GROUP_ALIASES:
        return f"{_GROUP_ALIASES[group]}_{version}"
    if group.startswith("io.k8s.api."):
        return f"{group.removeprefix('io.k8s.api.')}_{version}"
    if package == "io.k8s.apimachinery.pkg.version":
        return "version"
    raise ValueError(f"no module is known for definition {definition}")


def class_of(definition: str) -> str:
    return definition.rpartition(".")[2]


def definition_of(message: str) -> str:
    """The definition a protobuf message stands for: the package is turned round."""
    package, _, name = message.rpartition(".")
    return f"{package.replace('k8s.io.', 'io.k8s.', 1).replace('_', '-')}.{name}"
