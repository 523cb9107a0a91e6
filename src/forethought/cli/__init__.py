"""The command line."""

from forethought.cli.app import app, main

__all__ = ["app", "main"]
