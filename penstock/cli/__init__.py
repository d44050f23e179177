"""The command line. Each command is a few lines over the published clients; nothing here imports a service."""

from penstock.cli.main import main

__all__ = ["main"]
