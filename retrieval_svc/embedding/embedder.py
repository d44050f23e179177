"""The port of a loaded model, and what is said to it and by it."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from retrieval_svc.ingest.chunking import Span
from retrieval_svc.values import EmbeddingModel, Matrix


class Purpose(Enum):
    """What a text is to the model."""

    QUERY = "query"
    DOCUMENT = "document"


class Embedder(Protocol):
    """A model that is loaded. `embed` is called from one thread; `token_spans` from any."""

    @property
    def model(self) -> EmbeddingModel:
        """What it is."""
        ...

    def token_spans(self, text: str) -> list[Span]:
        """The spans of the text's tokens, [start, end) in characters, without special tokens. Takes a text of any length."""
        ...

    def embed(self, texts: Sequence[str]) -> Matrix:
        """One vector a text, shape (len(texts), dimension), in one pass. Every text fits the window."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """What became of one job: a vector and the number of tokens for each text, and how many texts shared its turn."""

    vectors: Matrix
    token_counts: tuple[int, ...]
    batch_size: int
