"""The metrics of worker processes that share a port: whichever is asked tells those of all, each under its worker's number."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from penstock.metrics import Exposition
from penstock.seat import WorkerSeat
from penstock.transcoding import Page

_CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_PLAIN: Final = "text/plain;version=0.0.4"
_TIMEOUT_S: Final = 2.0
_SAMPLE: Final = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(\{?)(.*)")


@asynccontextmanager
async def metrics_page(exposition: Exposition | None, seat: WorkerSeat) -> AsyncIterator[Page | None]:
    """The page of this process, or of all workers where there are several; None where it is off."""
    if exposition is None:
        yield None
    elif seat.folder is None:
        yield lambda accept: asyncio.to_thread(exposition, accept)
    else:
        async with _told_to_others(exposition, seat):
            yield lambda _: _of_all(seat)


@asynccontextmanager
async def _told_to_others(exposition: Exposition, seat: WorkerSeat) -> AsyncIterator[None]:
    async def tell(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            body, _type = await asyncio.to_thread(exposition, _PLAIN)
            writer.write(body)
            await writer.drain()

    path = seat.metrics_socket(seat.index)
    path.unlink(missing_ok=True)  # Of a worker that died on this seat.
    server = await asyncio.start_unix_server(tell, path)
    try:
        yield
    finally:
        server.close()


async def _of_all(seat: WorkerSeat) -> tuple[bytes, str]:
    pages = await asyncio.gather(*(_told_by(seat, index) for index in range(seat.count)))
    return merged({index: page for index, page in enumerate(pages) if page is not None}).encode(), _CONTENT_TYPE


async def _told_by(seat: WorkerSeat, index: int) -> str | None:
    """None where the worker is away."""
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            reader, writer = await asyncio.open_unix_connection(seat.metrics_socket(index))
            with contextlib.closing(writer):
                return (await reader.read()).decode()
    except (OSError, TimeoutError):
        return None


@dataclass(slots=True)
class _Family:
    described: dict[str, str] = field(default_factory=dict)
    samples: list[str] = field(default_factory=list)


def merged(pages: Mapping[int, str]) -> str:
    """One page in Prometheus's text format of the workers' pages, every sample with its worker's number as a label."""
    families: dict[str, _Family] = {}
    for worker, page in pages.items():
        family = _Family()
        for line in page.splitlines():
            if line.startswith(("# HELP ", "# TYPE ")):
                _, kind, name, *_ = line.split(" ", 3)
                family = families.setdefault(name, _Family())
                family.described.setdefault(kind, line)
            elif line and not line.startswith("#"):
                family.samples.append(_labelled(line, worker))
    lines = (line for family in families.values() for line in (*family.described.values(), *family.samples))
    return "".join(f"{line}\n" for line in lines)


def _labelled(sample: str, worker: int) -> str:
    found = _SAMPLE.match(sample)
    if found is None:
        return sample
    name, has_labels, rest = found.groups()
    return f'{name}{{worker="{worker}"{"," if has_labels else "}"}{rest}'
