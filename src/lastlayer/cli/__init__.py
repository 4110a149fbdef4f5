"""The command line: parse, call, print."""

from lastlayer.cli.commands import app, main

__all__ = ["app", "main"]
