"""The p8s command, one module per subcommand."""
