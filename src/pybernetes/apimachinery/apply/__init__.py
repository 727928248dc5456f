"""Server-side apply: who owns which field, and what becomes of an object when owners change it.

`FieldSet`s are sets of paths in the form that managedFields has (FieldsV1); a `Shape` says
what may be owned by itself; `ownership` holds the rules. Pure: no clock, no store.
"""

from pybernetes.apimachinery.apply.fieldset import FieldSet
from pybernetes.apimachinery.apply.ownership import (
    Claim,
    Clash,
    Managed,
    Manager,
    OwnersDisagree,
    apply,
    capped,
    changed_by,
)
from pybernetes.apimachinery.apply.shape import DuplicateItem, Shape

__all__ = [
    "Claim",
    "Clash",
    "DuplicateItem",
    "FieldSet",
    "Managed",
    "Manager",
    "OwnersDisagree",
    "Shape",
    "apply",
    "capped",
    "changed_by",
]
