"""The three kinds of patch, on plain JSON values: JSON patch, merge patch, strategic merge.

Input is never changed; the result may share parts with it.

JSON patch (RFC 6902) is the `jsonpatch` library's work. Merge patch (RFC 7386) is ten
lines. A strategic merge patch knows from the schema which lists are sets or have a key, and
speaks to the merger through directives:

    $patch: replace | delete          on a map, or on an element of a list with a merge key
    $deleteFromPrimitiveList/<field>  takes values out of a list of scalars
    $setElementOrder/<field>          says in which order the merged list shall be
    $retainKeys                       clears every other field of a map (of a union)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jsonpatch

if TYPE_CHECKING:
    from pybernetes.apimachinery.schema import Schema

MAX_JSON_PATCH_OPERATIONS = 10_000

PATCH = "$patch"
RETAIN_KEYS = "$retainKeys"
DELETE_FROM = "$deleteFromPrimitiveList"
SET_ORDER = "$setElementOrder"
REPLACE, DELETE, MERGE = "replace", "delete", "merge"


class PatchError(ValueError):
    """The patch is understood, but cannot be applied to this object (HTTP 422)."""


class MalformedPatch(PatchError):
    """This is no patch of the kind it claims to be (HTTP 400)."""


class TooManyOperations(PatchError):
    """More operations than we are willing to carry out (HTTP 413)."""


# --- JSON patch ---------------------------------------------------------------------------


def json_patch(document: Any, operations: Any) -> Any:
    """Apply a list of operations. Raises PatchError; nothing is applied then."""
    if not isinstance(operations, list) or not all(isinstance(op, dict) for op in operations):
        raise MalformedPatch("json: cannot unmarshal the body into a list of operations")
    if len(operations) > MAX_JSON_PATCH_OPERATIONS:
        raise TooManyOperations(
            "The allowed maximum operations in a JSON patch is "
            f"{MAX_JSON_PATCH_OPERATIONS}, got {len(operations)}"
        )
    try:
        # The library changes its operations while it reads them.
        return jsonpatch.JsonPatch([dict(op) for op in operations]).apply(document)
    except jsonpatch.JsonPatchTestFailed as error:
        path = next((op.get("path") for op in operations if op.get("op") == "test"), "")
        raise PatchError(f"testing value {path} failed: {error}") from None
    except jsonpatch.InvalidJsonPatch as error:
        raise MalformedPatch(str(error)) from None
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException) as error:
        raise PatchError(str(error)) from None
    except (TypeError, AttributeError, KeyError, IndexError) as error:
        # The library does not foresee paths that go through scalars.
        raise PatchError(f"operation does not apply: {error}") from None


# --- merge patch --------------------------------------------------------------------------


def merge_patch(document: Any, patch: Any) -> Any:
    """Objects are merged, null takes away, everything else replaces."""
    if not isinstance(patch, dict):
        return patch
    result = dict(document) if isinstance(document, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            result[key] = merge_patch(result.get(key), value)
        else:
            result[key] = value
    return result


# --- strategic merge patch ----------------------------------------------------------------


def strategic_merge_patch(
    document: Mapping[str, Any], patch: Mapping[str, Any], schema: Schema | None
) -> dict[str, Any]:
    """Merge as the schema of the document says. Raises PatchError."""
    return _merge_map(document, patch, schema)


def _merge_map(
    original: Mapping[str, Any], patch: Mapping[str, Any], schema: Schema | None
) -> dict[str, Any]:
    if PATCH in patch:
        return _directed_map(patch)
    merged, rest = dict(original), dict(patch)
    _retain_keys(merged, rest)
    _set_orders(merged, rest, schema)
    for key, value in rest.items():
        if key.startswith(DELETE_FROM):
            field = _field_of(key, DELETE_FROM, "invalid patch format of primitive list")
            if isinstance(merged.get(field), list):
                unwanted = _list_of(value, "invalid patch format of primitive list")
                merged[field] = [item for item in merged[field] if item not in unwanted]
        elif value is None:
            merged.pop(key, None)
        else:
            _merge_field(merged, key, value, None if schema is None else schema.child(key))
    return merged


def _merge_field(merged: dict[str, Any], key: str, value: Any, schema: Schema | None) -> None:
    current = merged.get(key)
    strategy = () if schema is None else schema.patch_strategy
    if isinstance(value, dict) and isinstance(current, dict):
        if REPLACE in strategy:
            merged[key] = _plain(value)
        else:
            merged[key] = _merge_map(current, value, schema)
    elif isinstance(value, list) and isinstance(current, list) and MERGE in strategy:
        merged[key] = _merge_list(current, value, schema)
    else:
        # There is nothing to merge with: the patch itself, without what only the merger reads.
        merged[key] = _plain(value)


def _directed_map(patch: Mapping[str, Any]) -> dict[str, Any]:
    directive = patch[PATCH]
    if directive == REPLACE:
        return {key: _plain(value) for key, value in patch.items() if key != PATCH}
    if directive == DELETE:
        return {}
    raise PatchError(f"unknown patch type: {directive} in {dict(patch)}")


def _retain_keys(merged: dict[str, Any], patch: dict[str, Any]) -> None:
    if RETAIN_KEYS not in patch:
        return
    problem = "invalid patch format of retainKeys"
    retained = _list_of(patch.pop(RETAIN_KEYS), problem)
    for key, value in patch.items():
        # A directive is judged by itself; null takes away and so contradicts nothing.
        if value is None or key.startswith((DELETE_FROM, SET_ORDER)):
            continue
        if key not in retained:
            raise MalformedPatch(problem)
    for key in merged.keys() - retained:
        del merged[key]


def _set_orders(merged: dict[str, Any], patch: dict[str, Any], schema: Schema | None) -> None:
    """Merge the lists for which the patch gives an order, and put them into it."""
    problem = "invalid patch format of setElementOrder list"
    for key in [key for key in patch if key.startswith(SET_ORDER)]:
        order = _list_of(patch.pop(key), problem)
        field = _field_of(key, SET_ORDER, problem)
        node = None if schema is None else schema.child(field)
        original, change = merged.get(field), patch.get(field)
        if (original is None and change is None) or (field in patch and change is None):
            continue
        identity = _identity(node, order)
        if change is not None:
            _check_order(_list_of(change, problem), order, identity)
            del patch[field]
        if change is None:
            result = _list_of(original, problem)
        elif original is None:
            result = _plain(change)
        elif node is not None and MERGE in node.patch_strategy:
            result = _merge_list(_list_of(original, problem), change, node)
        else:
            result = _plain(change)
        merged[field] = _ordered(result, order, original or [], identity)


Identity = Callable[[Any], Any]


def _identity(schema: Schema | None, items: Sequence[Any]) -> Identity:
    """What makes two elements of a list the same one."""
    merge_key = "" if schema is None else schema.patch_merge_key
    if not merge_key or not any(isinstance(item, dict) for item in items):
        return _scalar_identity
    return lambda item: _key_value(item, merge_key)


def _scalar_identity(item: Any) -> Any:
    # Python takes True for 1 and 1.0 for 1; JSON does not.
    return (type(item), item) if not isinstance(item, dict | list) else repr(item)


def _key_value(item: Any, merge_key: str) -> Any:
    if not isinstance(item, dict) or merge_key not in item:
        raise PatchError(f"map: {item} does not contain declared merge key: {merge_key}")
    return _scalar_identity(item[merge_key])


def _check_order(change: Sequence[Any], order: Sequence[Any], identity: Identity) -> None:
    """The patch's own elements must occur in the order list, in the same order."""
    places = iter([identity(item) for item in order])
    for item in change:
        if isinstance(item, dict) and PATCH in item:
            continue
        wanted = identity(item)
        if not any(place == wanted for place in places):
            raise PatchError(
                f"The order in patch list:\n{list(change)}\n"
                f" doesn't match {SET_ORDER} list:\n{list(order)}\n"
            )


def _merge_list(original: Sequence[Any], patch: Sequence[Any], schema: Schema | None) -> list[Any]:
    if any(isinstance(item, list) for item in (*original, *patch)):
        raise PatchError("lists of lists are not supported")
    if not any(isinstance(item, dict) for item in (*original, *patch)):
        both = list({_scalar_identity(item): item for item in (*original, *patch)}.values())
        return _ordered(both, patch, original, _scalar_identity)
    merge_key = "" if schema is None else schema.patch_merge_key
    if not merge_key:
        raise PatchError("cannot merge lists without merge key")

    def identity(item: Any) -> Any:
        return _key_value(item, merge_key)

    kept, changes = _directed_list(original, patch, identity)
    items = None if schema is None else schema.items
    merged = list(kept)
    for change in changes:
        wanted = identity(change)
        for index, item in enumerate(merged):
            if identity(item) == wanted:
                merged[index] = _merge_map(item, change, items)
                break
        else:
            merged.append(_plain(change))
    return _ordered(merged, changes, kept, identity)


def _directed_list(
    original: Sequence[Any], patch: Sequence[Any], identity: Identity
) -> tuple[list[Any], list[Any]]:
    """Carry out the directives of a list: what is left of it, and what is to be merged."""
    changes: list[Any] = []
    deleted: list[Any] = []
    replace = False
    for item in patch:
        directive = item.get(PATCH) if isinstance(item, dict) else None
        if directive is None:
            changes.append(item)
        elif directive == DELETE:
            deleted.append(identity(item))
        elif directive == REPLACE:
            replace = True
        elif directive == MERGE:
            raise PatchError("merging lists cannot yet be specified in the patch")
        else:
            raise PatchError(f"unknown patch type: {directive} in {item}")
    if replace:
        # The list becomes exactly the other elements of the patch.
        return [_plain(change) for change in changes], []
    if not deleted:
        return list(original), changes
    return [item for item in original if identity(item) not in deleted], changes


def _ordered(
    merged: Sequence[Any],
    patch_order: Sequence[Any],
    server_order: Sequence[Any],
    identity: Identity,
) -> list[Any]:
    """Elements the patch names in its order, the others between them where they were.

    An element only the server knows goes before one of the patch if it stood before it on
    the server; otherwise the patch's comes first. This is upstream's merge of two sorted
    lists, kept exactly because clients compute their patches for it.
    """
    wanted = {identity(item): place for place, item in reversed(list(enumerate(patch_order)))}
    places = {identity(item): place for place, item in reversed(list(enumerate(server_order)))}
    named = sorted(
        (item for item in merged if identity(item) in wanted),
        key=lambda item: wanted[identity(item)],
    )
    others = [item for item in merged if identity(item) not in wanted]
    result: list[Any] = []
    left, right = 0, 0
    while left < len(others) and right < len(named):
        server = places.get(identity(others[left]))
        other = places.get(identity(named[right]))
        if server is not None and other is not None and server < other:
            result.append(others[left])
            left += 1
        else:
            result.append(named[right])
            right += 1
    return result + others[left:] + named[right:]


def _plain(value: Any) -> Any:
    """A value of a patch that met nothing to merge with: directives and nulls drop out."""
    if isinstance(value, list):
        return [
            _plain(item)
            for item in value
            if not (isinstance(item, dict) and item.get(PATCH) in (DELETE, REPLACE))
        ]
    if not isinstance(value, dict):
        return value
    if value.get(PATCH) == DELETE:
        return {}
    return {
        key: _plain(item)
        for key, item in value.items()
        if item is not None
        and key not in (PATCH, RETAIN_KEYS)
        and not key.startswith((DELETE_FROM + "/", SET_ORDER + "/"))
    }


def _field_of(key: str, directive: str, problem: str) -> str:
    prefix, slash, field = key.partition("/")
    if prefix != directive or not slash or not field:
        raise MalformedPatch(problem)
    return field


def _list_of(value: Any, problem: str) -> list[Any]:
    if not isinstance(value, list):
        raise MalformedPatch(problem)
    return value
