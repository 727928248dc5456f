"""AdmissionReview: the question that a webhook is asked, and what may be taken from its answer."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import msgspec
from msgspec.structs import replace

from pybernetes.api import codec
from pybernetes.api.types.meta_v1 import DeleteOptions
from pybernetes.apimachinery.errors import InternalError, Invalid, StatusError
from pybernetes.apimachinery.fielderror import Path
from pybernetes.apiserver.admission.webhooks.client import CallFailed
from pybernetes.apiserver.admission.webhooks.matching import is_namespace_itself
from pybernetes.apiserver.body import BodyKind
from pybernetes.apiserver.entry import Entry
from pybernetes.apiserver.hooks import Operation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pybernetes.apiserver.admission.webhooks.matching import Hook
    from pybernetes.apiserver.catalog import Served
    from pybernetes.apiserver.hooks import Attributes

Json = Any

_GROUP = "admission.k8s.io"
# In the order of nothing: the webhook's own order decides.
_VERSIONS = frozenset({"v1", "v1beta1"})
_BAD_REQUEST = 400


# --- versions -------------------------------------------------------------------------------------


async def converted(source: Served, target: Served, obj: Any) -> Any:
    """An object in another version of its resource; the body of a subresource stays as it is."""
    if obj is None or source is target or not isinstance(obj, source.resource.kind):
        return obj
    version = obj.metadata.resource_version
    value = source.encode(obj)
    if not source.cache.shape.fits(value):
        # It has no metadata at all, so it is refused before it could be stored.
        problem = Path("metadata").name.required("name or generateName is required")
        raise Invalid(source.kind_name, source.group, "", [problem])
    value = await target.value_of_stored(await source.stored_value(value))
    result = target.decode(Entry("", int(version) if version.isdecimal() else 0, value))
    return replace(result, metadata=replace(result.metadata, resource_version=version))


# --- the question ---------------------------------------------------------------------------------


@dataclass(slots=True)
class Question:
    """A write as one webhook sees it: through `served`, which may be another version."""

    attributes: Attributes
    served: Served
    obj: Any
    old: Any

    @classmethod
    async def of(cls, attributes: Attributes, served: Served) -> Question:
        """Raises InternalError if the object cannot be converted."""
        mine = attributes.served
        obj = await converted(mine, served, attributes.obj)
        return cls(attributes, served, obj, await converted(mine, served, attributes.old))

    @property
    def value(self) -> Json:
        """The object as plain values; None if there is none."""
        if self.attributes.operation is Operation.CONNECT:
            return _connect_options(self.attributes)
        return _value(self.served, self.obj)


def review(question: Question, hook: Hook, uid: str) -> tuple[str, bytes]:
    """The version of the review, and its bytes. Raises CallFailed if none can be had."""
    versions = hook.webhook.admission_review_versions
    version = next((v for v in versions if v in _VERSIONS), None)
    if version is None:
        raise CallFailed("webhook does not accept known AdmissionReview versions (v1, v1beta1)")
    attributes, served, mine = question.attributes, question.served, question.attributes.served
    request: dict[str, Json] = {
        "uid": uid,
        "kind": _kind(served, attributes, question.obj),
        "resource": _resource(served),
    }
    if attributes.subresource:
        request["subResource"] = attributes.subresource
    request["requestKind"] = _kind(mine, attributes, attributes.obj)
    request["requestResource"] = _resource(mine)
    if attributes.subresource:
        request["requestSubResource"] = attributes.subresource
    name = attributes.name
    namespace = name if is_namespace_itself(attributes) else attributes.namespace
    if name:
        request["name"] = name
    if namespace:
        request["namespace"] = namespace
    request["operation"] = attributes.operation.value
    request["userInfo"] = _user(attributes)
    request["object"] = question.value
    request["oldObject"] = _value(served, question.old)
    request["dryRun"] = attributes.dry_run
    request["options"] = _options(attributes)
    whole = {
        "kind": "AdmissionReview",
        "apiVersion": f"{_GROUP}/{version}",
        "request": request,
    }
    return version, msgspec.json.encode(whole)


def _value(served: Served, obj: Any) -> Json:
    if obj is None:
        return None
    return served.to_value(obj) if isinstance(obj, served.resource.kind) else codec.to_dict(obj)


def _kind(served: Served, attributes: Attributes, obj: Any) -> Json:
    group, version, kind = served.group, served.version, served.kind_name
    if attributes.operation is Operation.CONNECT:
        for sub in served.resource.info.subresources:
            if sub.name == attributes.subresource:
                group, version, kind = sub.group, sub.version, sub.kind
    elif obj is not None and not isinstance(obj, served.resource.kind):
        group, _, version = obj.api_version.rpartition("/")
        kind = obj.kind
    return {"group": group, "version": version, "kind": kind}


def _resource(served: Served) -> Json:
    return {"group": served.group, "version": served.version, "resource": served.plural}


def _user(attributes: Attributes) -> Json:
    user = attributes.user
    info: dict[str, Json] = {"username": user.name}
    if user.uid:
        info["uid"] = user.uid
    if user.groups:
        info["groups"] = list(user.groups)
    if user.extra:
        info["extra"] = {key: list(values) for key, values in user.extra.items()}
    return info


def _options(attributes: Attributes) -> Json:
    options = attributes.options
    if attributes.operation is Operation.CONNECT:
        return None
    if isinstance(options, DeleteOptions):
        head = {"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1"}
        return {**codec.to_dict(options), **head}
    if attributes.operation is Operation.DELETE:
        return {"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1"}
    kind = "CreateOptions"
    if attributes.operation is Operation.UPDATE:
        is_patch = attributes.call.info.verb == "patch"
        kind = "PatchOptions" if is_patch else "UpdateOptions"
    value: dict[str, Json] = {"kind": kind, "apiVersion": "meta.k8s.io/v1"}
    if attributes.dry_run:
        value["dryRun"] = ["All"]
    for name in ("fieldManager", "fieldValidation"):
        if said := options.get(name):
            value[name] = said
    if kind == "PatchOptions" and options.get("force"):
        value["force"] = options["force"] in ("", "1", "t", "true", "True", "TRUE")
    return value


_STREAM_FLAGS = ("stdin", "stdout", "stderr", "tty")


def _connect_options(attributes: Attributes) -> Json:
    """PodExecOptions and its kin: what the query of a connection says."""
    kind = _kind(attributes.served, attributes, None)
    query = parse_qs(attributes.call.request.query, keep_blank_values=True)
    value: dict[str, Json] = {"kind": kind["kind"], "apiVersion": kind["version"]}
    for name in _STREAM_FLAGS:
        if name in query:
            value[name] = query[name][0] in ("", "1", "t", "true", "True", "TRUE")
    if "container" in query:
        value["container"] = query["container"][0]
    if "command" in query:
        value["command"] = query["command"]
    if "ports" in query:
        ports = ",".join(query["ports"]).split(",")
        value["ports"] = [int(port) for port in ports if port.isdecimal()]
    if attributes.subresource == "proxy":
        _, _, path = attributes.call.info.path.partition("/proxy")
        value["path"] = path
    return value


# --- the answer -----------------------------------------------------------------------------------


class _Answer(msgspec.Struct, rename="camel"):
    uid: str = ""
    allowed: bool = False
    status: dict[str, Any] | None = None
    patch: str | None = None
    patch_type: str | None = None
    audit_annotations: dict[str, str] | None = None
    warnings: list[str] | None = None


class _Review(msgspec.Struct, rename="camel"):
    kind: str = ""
    api_version: str = ""
    response: _Answer | None = None


_DECODER = msgspec.json.Decoder(_Review)


@dataclass(frozen=True, slots=True)
class Judgement:
    allowed: bool
    # The Status that came along with a refusal.
    status: Mapping[str, Json] | None = None
    # JSON of a JSON patch; empty if nothing is to be changed.
    patch: bytes = b""
    annotations: Mapping[str, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()


def judgement(data: bytes, uid: str, version: str, *, mutating: bool) -> Judgement:
    """What an answer says. Raises CallFailed for one that is none."""
    try:
        whole = _DECODER.decode(data)
        answer = whole.response
        if answer is None:
            raise ValueError("webhook response was absent")
        # The elder version knew neither and is believed without.
        if version == "v1" or whole.api_version or whole.kind:
            _check_kind(whole, version)
        if version == "v1" and answer.uid != uid:
            raise ValueError(f'expected response.uid="{uid}", got "{answer.uid}"')
        patch = _patch(answer, version, mutating=mutating)
    except (ValueError, RecursionError) as error:
        raise CallFailed(f"received invalid webhook response: {error}") from None
    return Judgement(
        answer.allowed,
        answer.status,
        patch,
        answer.audit_annotations or {},
        answer.warnings or (),
    )


def _check_kind(whole: _Review, version: str) -> None:
    if whole.kind != "AdmissionReview" or whole.api_version != f"{_GROUP}/{version}":
        expected = f"{_GROUP}/{version}, Kind=AdmissionReview"
        got = f"{whole.api_version}, Kind={whole.kind}"
        raise ValueError(f"expected webhook response of {expected}, got {got}")


def _patch(answer: _Answer, version: str, *, mutating: bool) -> bytes:
    kind = answer.patch_type
    if not mutating:
        if answer.patch:
            raise ValueError("validating webhook may not return response.patch")
        if kind is not None:
            raise ValueError("validating webhook may not return response.patchType")
        return b""
    if answer.patch and kind is None:
        if version == "v1":
            raise ValueError("webhook returned response.patch but not response.patchType")
        kind = "JSONPatch"
    if not answer.patch:
        if kind is not None and version == "v1":
            raise ValueError("webhook returned response.patchType but not response.patch")
        return b""
    if not kind:
        raise ValueError('webhook returned invalid response.patchType of ""')
    if kind != "JSONPatch":
        raise ValueError(f'unsupported patch type "{kind}"')
    try:
        return base64.b64decode(answer.patch, validate=True)
    except binascii.Error:
        raise ValueError("response.patch is not base64") from None


def refusal(name: str, status: Mapping[str, Json] | None) -> StatusError:
    """The refusal of a webhook as the client sees it: never a success, always with its name."""
    said = dict(status or {})
    denied = f'admission webhook "{name}" denied the request'
    code = said.get("code")
    if not isinstance(code, int) or code < _BAD_REQUEST:
        code = _BAD_REQUEST
    reason = said.get("reason") if isinstance(said.get("reason"), str) else ""
    if message := said.get("message"):
        text = f"{denied}: {message}"
    elif reason:
        text = f"{denied}: {reason}"
    else:
        text = f"{denied} without explanation"
    details = said.get("details")
    return StatusError(
        text,
        code=code,
        reason=reason,
        details=details if isinstance(details, dict) else None,
    )


def patched_object(question: Question, value: Json) -> Any:
    """The object that a patch made, defaulted. Raises InternalError if it is no such object."""
    served, obj = question.served, question.obj
    is_whole = isinstance(obj, served.resource.kind)
    reader = served if is_whole else BodyKind(type(obj))
    if not isinstance(value, dict):
        raise InternalError("the patch of a webhook left no object")
    if (value.get("apiVersion"), value.get("kind")) != (reader.api_version, reader.kind_name):
        raise InternalError(
            f"a webhook made {value.get('apiVersion')}, Kind={value.get('kind')} of"
            f" {reader.api_version}, Kind={reader.kind_name}"
        )
    decoded = reader.read_strictly(value)
    if decoded.errors:
        raise InternalError(str(decoded.errors[0]))
    try:
        made = reader.from_value(decoded.value)
    except ValueError as error:
        raise InternalError(str(error)) from None
    return served.strategy.default(made) if is_whole else made
