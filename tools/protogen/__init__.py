"""Writes .proto files from tables of field numbers, and the Python modules from them."""
