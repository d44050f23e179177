"""Telling that a service is ready, and where: in the log, and in a file for whoever started it."""

import json
import logging
from pathlib import Path

import penstock

log = logging.getLogger("penstock.server")


def announce(service: str, file: Path | None, grpc: str, http: str) -> None:
    """Says that `service` is ready at its addresses; an empty one is off."""
    log.info("%s %s is ready: grpc %s, http %s", service, penstock.__version__, grpc, http or "off")
    if file is not None:
        _write_whole(file, json.dumps({"service": service, "grpc": grpc, "http": http}))


def _write_whole(path: Path, text: str) -> None:
    """Writes a file so that whoever waits for it never reads half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(text)
    partial.replace(path)
