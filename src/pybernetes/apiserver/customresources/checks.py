"""What a definition says that only the server can judge: patterns, paths, rules and defaults.

The rules of the kind itself (`api/apiextensions.py`) are about its form; these try out what the
server will do with it later. A schema that an update leaves alone is not judged again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pybernetes.apimachinery.fielderror import Path
from pybernetes.apimachinery.schema import UNSET, from_openapi
from pybernetes.apiserver.customresources import expressions, jsonpath
from pybernetes.apiserver.customresources.formats import PatternError, search_of
from pybernetes.apiserver.customresources.served import schema_document
from pybernetes.apiserver.customresources.values import judge_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pybernetes.api.types.apiextensions_v1 import (
        CustomResourceDefinition,
        CustomResourceDefinitionVersion,
    )
    from pybernetes.apimachinery.fielderror import FieldError

Json = Any

_NOT_CHECKED = (
    "rules in CEL (x-kubernetes-validations) are not checked here: the server has no CEL library"
    " (install pybernetes[cel])"
)


def definition_errors(
    new: CustomResourceDefinition, old: CustomResourceDefinition | None
) -> Iterator[FieldError]:
    before = {} if old is None else {version.name: version for version in old.spec.versions}
    for index, version in enumerate(new.spec.versions):
        if before.get(version.name) == version:
            continue
        path = Path("spec").versions[index]
        yield from _path_errors(version, path)
        yield from _schema_errors(schema_document(version), path.schema.openAPIV3Schema)


def definition_warnings(
    new: CustomResourceDefinition, old: CustomResourceDefinition | None
) -> Iterator[str]:
    if expressions.is_available():
        return
    if any(has_rules(schema_document(version)) for version in new.spec.versions):
        yield _NOT_CHECKED


def has_rules(document: Json) -> bool:
    """Whether a rule in CEL stands anywhere in a schema."""
    if isinstance(document, dict):
        if document.get("x-kubernetes-validations"):
            return True
        return any(map(has_rules, document.values()))
    return isinstance(document, list) and any(map(has_rules, document))


def _path_errors(version: CustomResourceDefinitionVersion, path: Path) -> Iterator[FieldError]:
    for index, column in enumerate(version.additional_printer_columns):
        if problem := _path_problem(column.json_path):
            yield path.additionalPrinterColumns[index].JSONPath.invalid(column.json_path, problem)
    for index, selectable in enumerate(version.selectable_fields):
        if problem := _path_problem(selectable.json_path):
            yield path.selectableFields[index].jsonPath.invalid(selectable.json_path, problem)


def _path_problem(text: str) -> str:
    if not text:
        return ""
    try:
        jsonpath.parse(text)
    except jsonpath.JsonPathError as error:
        return str(error)
    return ""


def _schema_errors(document: dict[str, Json], path: Path) -> Iterator[FieldError]:
    pattern = document.get("pattern")
    if pattern:
        try:
            search_of(pattern)
        except PatternError as error:
            text = f"must be a valid regular expression, but isn't: {error}"
            yield path.pattern.invalid(pattern, text)
            return
    if expressions.is_available():
        for index, said in enumerate(document.get("x-kubernetes-validations", ())):
            yield from _rule_errors(said, path.child("x-kubernetes-validations")[index])
    for name, part in document.get("properties", {}).items():
        yield from _schema_errors(part, path.child("properties").key(name))
    for name in ("items", "additionalProperties"):
        part = document.get(name)
        if isinstance(part, dict):
            yield from _schema_errors(part, path.child(name))
    if "default" in document:
        yield from _default_errors(document, path)


def _rule_errors(said: dict[str, Json], path: Path) -> Iterator[FieldError]:
    if not said.get("rule", "").strip():
        return
    try:
        expressions.compile_rule({**said, "messageExpression": ""})
    except expressions.RuleError as error:
        yield path.rule.invalid(said["rule"], f"compilation failed: {error}")
        return
    try:
        expressions.compile_rule(said)
    except expressions.RuleError as error:
        text = f"messageExpression compilation failed: {error}"
        yield path.messageExpression.invalid(said["messageExpression"], text)


def _default_errors(document: dict[str, Json], path: Path) -> Iterator[FieldError]:
    errors: list[FieldError] = []
    try:
        judge_of(from_openapi(document))(document["default"], UNSET, str(path.default), errors)
    except PatternError:
        return  # said already, where the pattern stands
    yield from errors
