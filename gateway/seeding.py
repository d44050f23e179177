"""Flows from a folder, kept at start: NAME.json becomes the flow NAME, and LangFlow's "My Flow.json" the flow my-flow."""

import asyncio
import logging
from pathlib import Path

from gateway.flows import Flows
from gateway.importing import flow_name
from penstock.errors import FailedPrecondition, InvalidFlow, PenstockError

log = logging.getLogger("penstock.gateway")


async def seed(flows: Flows, directory: Path) -> int:
    """Keeps every flow of `directory`, replacing those of the same name; how many there were.

    Raises FailedPrecondition that names the file, and every fault with its node.
    """
    paths = await asyncio.to_thread(_flow_files, directory)
    for path in paths:
        try:
            document = await asyncio.to_thread(_read, path)
            await flows.create(flow_name(path.stem, document), document, replace=True)
        except PenstockError as error:
            raise FailedPrecondition(f"{path}:{_explained(error)}") from error
    log.info("kept %d flows from %s", len(paths), directory)
    return len(paths)


def _flow_files(directory: Path) -> list[Path]:
    if not directory.is_dir():
        raise FailedPrecondition(f"{directory}, where flows are to be read from, is not a folder")
    return sorted(directory.glob("*.json"))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidFlow(f"cannot be read: {error}") from error


def _explained(error: PenstockError) -> str:
    if not isinstance(error, InvalidFlow) or not error.violations:
        return f" {error.message}"
    return "".join(f"\n  {fault}" for fault in error.violations)
