"""An embedder that needs no model."""

import re
import zlib
from collections.abc import Sequence

import numpy as np

from retrieval_svc.ingest.chunking import Span
from retrieval_svc.values import EmbeddingModel, Matrix

DIMENSION = 64
WINDOW_TOKENS = 16


class WordEmbedder:
    """A bag of words: each word is a direction, so texts that share words are near. Tokens are words and marks."""

    def __init__(self, fingerprint: str = "words/1") -> None:
        self.model = EmbeddingModel(name="words", dimension=DIMENSION, window_tokens=WINDOW_TOKENS, fingerprint=fingerprint)
        self.passes: list[list[str]] = []

    def token_spans(self, text: str) -> list[Span]:
        return [match.span() for match in re.finditer(r"\w+|[^\w\s]", text)]

    def embed(self, texts: Sequence[str]) -> Matrix:
        assert all(len(self.token_spans(text)) <= WINDOW_TOKENS for text in texts), "a text over the window would be cut"
        self.passes.append(list(texts))
        return np.stack([self._vector(text) for text in texts])

    def _vector(self, text: str) -> Matrix:
        vector = np.full(DIMENSION, 1e-3, dtype=np.float32)
        for start, end in self.token_spans(text):
            vector[zlib.crc32(text[start:end].lower().encode()) % DIMENSION] += 1.0
        return vector / np.linalg.norm(vector)
