"""apigen: writes the typed kinds and the schema tables of pybernetes from published facts.

Run it as ``python -m tools.apigen --facts DIR``. Everything it writes lives under
``src/pybernetes/api/types`` (classes and the index of kinds), ``src/pybernetes/api/tables``
(schemas) and ``src/pybernetes/apimachinery/tables`` (protobuf field numbers). Nothing there is
edited by hand: what the facts do not say (which optional fields Go holds as values, which
strings as pointers) is in ``gotypes.py``.

The same facts always give the same bytes, so that a Kubernetes upgrade is a diff to review.
"""
