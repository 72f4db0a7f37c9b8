"""The command line: options, tables in the terminal, exit codes."""
