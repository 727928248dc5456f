"""The documents: one of version 2 with everything, one of version 3 per group version.

Pure: from what is served to plain values. Both are written from the same paths and definitions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pybernetes.apiserver.negotiation import JSON, YAML
from pybernetes.apiserver.openapi.definitions import GVK, Definitions, Dialect
from pybernetes.apiserver.openapi.operations import definition_name, paths_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pybernetes.apiserver.catalog import Served
    from pybernetes.apiserver.openapi.definitions import Json
    from pybernetes.apiserver.openapi.descriptions import Descriptions
    from pybernetes.apiserver.openapi.operations import Operation, Parameter, Path

_TITLE = "Kubernetes"
_REASONS = {200: "OK", 201: "Created", 202: "Accepted"}
_TOKEN = {
    "type": "apiKey",
    "in": "header",
    "name": "authorization",
    "description": "Bearer token: the word Bearer, a space, and the token",
}
_STREAM = f"{JSON};stream=watch"


def group_version_path(group: str, version: str) -> str:
    """``api/v1``, ``apis/apps/v1``: how version 3 names its documents."""
    return f"apis/{group}/{version}" if group else f"api/{version}"


def document_v3(served: Iterable[Served], descriptions: Descriptions, server_version: str) -> Json:
    """Everything about the resources of one group version."""
    resources = list(served)
    definitions = Definitions(Dialect.V3, descriptions)
    paths = {}
    for resource in resources:
        for path in paths_of(resource):
            paths[path.path] = _path_v3(path, definitions)
    _add_customs(resources, definitions)
    return {
        "openapi": "3.0.0",
        "info": {"title": _TITLE, "version": server_version},
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": definitions.finish(),
            "securitySchemes": {"BearerToken": _TOKEN},
        },
    }


def document_v2(served: Iterable[Served], descriptions: Descriptions, server_version: str) -> Json:
    """Everything about everything."""
    resources = list(served)
    definitions = Definitions(Dialect.V2, descriptions)
    paths = {}
    for resource in resources:
        for path in paths_of(resource):
            paths[path.path] = _path_v2(path, definitions)
    _add_customs(resources, definitions)
    return {
        "swagger": "2.0",
        "info": {"title": _TITLE, "version": server_version},
        "paths": dict(sorted(paths.items())),
        "definitions": definitions.finish(),
        "securityDefinitions": {"BearerToken": _TOKEN},
        "security": [{"BearerToken": []}],
    }


def _add_customs(resources: Iterable[Served], definitions: Definitions) -> None:
    for served in resources:
        if not served.schema.ref:
            kind = (served.group, served.version, served.kind_name)
            definitions.add_custom(definition_name(served), served.schema, [kind])


def _head(operation: Operation) -> Json:
    """What both versions say of an operation."""
    group, version, kind = operation.kind
    return {
        "description": operation.description,
        "operationId": operation.name,
        "tags": [operation.tag],
        "x-kubernetes-action": operation.action,
        GVK: {"group": group, "kind": kind, "version": version},
    }


# --- version 3 ------------------------------------------------------------------------------------


def _path_v3(path: Path, definitions: Definitions) -> Json:
    document: Json = {}
    for operation in path.operations:
        document[operation.method] = _operation_v3(operation, definitions)
    if path.parameters:
        document["parameters"] = [_parameter_v3(parameter) for parameter in path.parameters]
    return document


def _operation_v3(operation: Operation, definitions: Definitions) -> Json:
    document = _head(operation)
    if operation.parameters:
        document["parameters"] = [_parameter_v3(parameter) for parameter in operation.parameters]
    if operation.body:
        content = {"schema": definitions.reference(operation.body)}
        document["requestBody"] = {
            "content": dict.fromkeys(operation.consumes or ("*/*",), content),
            **({"required": True} if operation.body_required else {}),
        }
    if operation.answer:
        content = {"schema": definitions.reference(operation.answer)}
        contents = dict.fromkeys(_produces(operation), content)
    elif operation.action == "get":
        contents = {"text/plain": {"schema": {"type": "string"}}}
    else:
        contents = {"*/*": {"schema": {"type": "string"}}}
    responses: Json = {}
    for code in operation.codes:
        responses[str(code)] = {"description": _REASONS[code], "content": contents}
    responses["401"] = {"description": "Unauthorized"}
    document["responses"] = responses
    return document


def _parameter_v3(parameter: Parameter) -> Json:
    document = _parameter(parameter)
    document["schema"] = {"type": parameter.type, "uniqueItems": True}
    return document


def _parameter(parameter: Parameter) -> Json:
    document: Json = {"name": parameter.name, "in": parameter.place}
    if parameter.description:
        document["description"] = parameter.description
    if parameter.place == "path":
        document["required"] = True
    return document


def _produces(operation: Operation) -> tuple[str, ...]:
    return (JSON, _STREAM, YAML) if operation.action == "list" else (JSON, YAML)


# --- version 2 ------------------------------------------------------------------------------------


def _path_v2(path: Path, definitions: Definitions) -> Json:
    document: Json = {}
    for operation in path.operations:
        document[operation.method] = _operation_v2(operation, definitions)
    if path.parameters:
        document["parameters"] = [_parameter_v2(parameter) for parameter in path.parameters]
    return document


def _operation_v2(operation: Operation, definitions: Definitions) -> Json:
    """Parameters are written out, not referred to: old clients look no further."""
    document = _head(operation)
    document["schemes"] = ["https"]
    document["consumes"] = list(operation.consumes or ("*/*",))
    parameters: list[Json] = []
    if operation.body:
        body: Json = {
            "name": "body",
            "in": "body",
            "schema": definitions.reference(operation.body),
        }
        if operation.body_required:
            body["required"] = True
        parameters.append(body)
    parameters += [_parameter_v2(parameter) for parameter in operation.parameters]
    if parameters:
        document["parameters"] = parameters
    if operation.answer:
        schema = definitions.reference(operation.answer)
        document["produces"] = list(_produces(operation))
    else:
        schema = {"type": "string"}
        document["produces"] = ["text/plain" if operation.action == "get" else "*/*"]
    responses: Json = {}
    for code in operation.codes:
        responses[str(code)] = {"description": _REASONS[code], "schema": schema}
    responses["401"] = {"description": "Unauthorized"}
    document["responses"] = responses
    return document


def _parameter_v2(parameter: Parameter) -> dict[str, Any]:
    document = _parameter(parameter)
    document |= {"type": parameter.type, "uniqueItems": True}
    return document
