"""Messages of the protocols spoken with runtimes; the *_pb2 modules are written by tools/protogen."""
