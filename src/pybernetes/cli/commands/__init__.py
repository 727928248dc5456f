"""The subcommands of p8s; each module has `add_arguments(parser)` and `run(options) -> int`."""
