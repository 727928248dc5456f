"""Every built-in kind: types, defaults, validation, columns."""
