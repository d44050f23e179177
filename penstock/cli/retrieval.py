"""`penstock search`."""

import json

from rich.console import Console

from penstock.cli.command import api_key
from penstock.cli.rendering import print_sources
from penstock.clients import RetrievalClient


async def search_collection(collection: str, query: str, *, top_k: int, as_json: bool, retrieval: str) -> None:
    """Prints the hits of one search."""
    async with RetrievalClient(retrieval, api_key=api_key()) as client:
        hits = await client.search(collection, query, top_k=top_k)
    if as_json:
        for hit in hits:
            print(json.dumps({"chunk_id": hit.chunk_id, "document_id": hit.document_id, "score": hit.score, "text": hit.text}))
    else:
        print_sources(Console(), hits)
