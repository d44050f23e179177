"""The retrieval service alone: python examples/retrieval_alone.py, with `penstock up --only retrieval` running."""

from penstock.clients import Document, RetrievalClientSync
from penstock.clients.filters import between, equals

with RetrievalClientSync("127.0.0.1:50051") as client:
    if all(collection.name != "towers" for collection in client.list_collections()):
        client.create_collection("towers")
    written = client.ingest(
        "towers",
        [
            Document(id="eiffel", text="Stephen Sauvestre drew the Eiffel Tower.", metadata={"year": 1889, "city": "Paris"}),
            Document(id="tokyo", text="Tachu Naito designed Tokyo Tower.", metadata={"year": 1958, "city": "Tokyo"}),
            Document(id="secret", text="The next tower will stand in Lyon.", allowed_principals=("group:board",)),
        ],
    )
    # The token makes a search see this write on whichever replica answers.
    hits = client.search(
        "towers",
        "Who was the designer?",
        mode="hybrid",
        top_k=3,
        filter=between("year", gte=1950) & ~equals("city", "Paris"),
        consistency_token=written.consistency_token,
    )
    for hit in hits:
        print(f"{hit.score:.3f} {hit.document_id}: {hit.text}")

with RetrievalClientSync("127.0.0.1:50051", principals=("group:board",)) as board:
    print("the board sees:", [hit.document_id for hit in board.search("towers", "Where is the next tower?", top_k=1)])
