"""The `resonate` command, one file per subcommand."""
