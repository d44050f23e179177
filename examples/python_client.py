"""Ask a flow from Python, and search a collection alone. Needs `make up` running."""

import asyncio

from penstock.clients import Done, Penstock, RetrievalClient, Token

QUESTION = "What role does John Elway currently have in the Broncos franchise?"


async def main() -> None:
    async with Penstock("127.0.0.1:50050") as gateway:
        async for event in gateway.stream("rag", {"question": QUESTION}):
            match event:
                case Token(text=text):
                    print(text, end="", flush=True)
                case Done(result=result):
                    print(f"\nfrom {[source.chunk_id for source in result.sources]}, trace {result.trace_id}")

    async with RetrievalClient("127.0.0.1:50051") as retrieval:
        for hit in await retrieval.search("squad", QUESTION, top_k=3):
            print(f"{hit.score:.3f}  {hit.chunk_id}  {hit.text[:60]!r}")


asyncio.run(main())
