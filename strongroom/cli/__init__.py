"""The command line: one verb a file, which turns arguments into calls and an outcome into an exit code."""
