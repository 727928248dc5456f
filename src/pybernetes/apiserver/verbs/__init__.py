"""The verbs on stored resources, one module per kind of work."""
