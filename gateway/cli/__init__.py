"""The command line, thin over `gateway.app`: one module a group of commands."""
