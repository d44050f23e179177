"""A corpus as documents of the client, for programs that want all of it or nothing."""

from collections.abc import Iterator, Sequence

from penstock.clients import Document
from penstock.corpora import BadRecord, Corpus
from penstock.errors import InvalidArgument


def read_documents(paths: Sequence[str]) -> Iterator[Document]:
    """Every text of the files. Raises InvalidArgument with the file and the line of the first that is bad."""
    with Corpus.of(paths) as corpus:
        for found in corpus:
            if isinstance(found, BadRecord):
                raise InvalidArgument(f"{found.place}: {found.message}")
            yield Document(id=found.id, text=found.text, metadata=found.metadata)
