"""`penstock ingest` and `penstock search`."""

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from penstock.cli.documents import read_documents
from penstock.cli.rendering import print_sources
from penstock.clients import Document, RetrievalClient
from penstock.errors import AlreadyExists, PenstockError

IN_FLIGHT: Final = 4
"""Requests at a time: enough that the service's embedding batches fill up, few enough that its queue stays short."""


async def ingest_paths(paths: Sequence[str], *, collection: str, batch: int, retrieval: str) -> None:
    """Ingests files with a progress bar, creating the collection when it does not exist."""
    documents = list(read_documents(paths))
    async with RetrievalClient(retrieval) as client:
        with suppress(AlreadyExists):
            await client.create_collection(collection)
        await ingest_documents(client, collection, documents, batch=batch, console=Console(stderr=True))


async def ingest_documents(
    client: RetrievalClient, collection: str, documents: Sequence[Document], *, batch: int, console: Console
) -> int:
    """Ingests documents, `batch` a request and IN_FLIGHT requests at a time. Returns the number of chunks."""
    places, chunks = asyncio.Semaphore(IN_FLIGHT), 0
    with _progress(console) as progress:
        bar = progress.add_task(f"ingesting into {collection}", total=len(documents))

        async def send(part: Sequence[Document]) -> None:
            nonlocal chunks
            async with places:
                chunks += (await client.ingest(collection, part, timeout_s=300)).chunk_count
            progress.advance(bar, len(part))

        try:
            async with asyncio.TaskGroup() as group:
                for first in range(0, len(documents), batch):
                    group.create_task(send(documents[first : first + batch]))
        except* PenstockError as failures:
            raise failures.exceptions[0] from None
    return chunks


async def search_collection(collection: str, query: str, *, top_k: int, as_json: bool, retrieval: str) -> None:
    """Prints the hits of one search."""
    async with RetrievalClient(retrieval) as client:
        hits = await client.search(collection, query, top_k=top_k)
    if as_json:
        for hit in hits:
            print(json.dumps({"chunk_id": hit.chunk_id, "document_id": hit.document_id, "score": hit.score, "text": hit.text}))
    else:
        print_sources(Console(), hits)


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console)
