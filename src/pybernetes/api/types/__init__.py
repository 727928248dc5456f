"""The types of the API, one module per group and version; written by tools/apigen.

Import a class from its module: ``from pybernetes.api.types.core_v1 import Pod``. Nothing is
imported here, so that a process pays only for the groups it uses. Facts about kinds (plural,
scope, verbs …) are in ``_index``.
"""
