"""An embedder over a prepared model: our own tokenizer, and whatever runs the graph."""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from retrieval_svc.embedding.preparing import TOKENIZER, Prepared
from retrieval_svc.ingest.chunking import Span
from retrieval_svc.values import EmbeddingModel, Matrix

TokenMatrix = NDArray[np.int64]
Run = Callable[[TokenMatrix, TokenMatrix], Matrix]
"""(token ids, attention mask), both of shape (texts, tokens), to one vector a text. Called from one thread at a time."""


class PreparedEmbedder:
    """Implements the Embedder port over a prepared model."""

    def __init__(self, prepared: Prepared, run: Run, *, name: str) -> None:
        described = prepared.description
        self._run: Final = run
        self._pad_id = described.pad_id
        self._tokenizer: Tokenizer = Tokenizer.from_file(str(prepared.folder / TOKENIZER))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._window = described.window
        self._model = EmbeddingModel(
            name=name,
            dimension=described.dimension,
            window_tokens=described.window_tokens,
            fingerprint=f"{name}/{prepared.recipe}/{described.window}/{described.steps}/{prepared.digest[:16]}",
            backend=prepared.recipe.rpartition("-")[0].replace("-", " "),
        )

    @property
    def model(self) -> EmbeddingModel:
        """What is loaded."""
        return self._model

    def token_spans(self, text: str) -> list[Span]:
        """The spans of the text's tokens."""
        spans: list[Span] = self._tokenizer.encode(text, add_special_tokens=False).offsets
        return spans

    def embed(self, texts: Sequence[str]) -> Matrix:
        """One vector a text."""
        rows = [encoding.ids[: self._window] for encoding in self._tokenizer.encode_batch_fast(list(texts))]
        longest = max(map(len, rows))
        ids = np.full((len(rows), longest), self._pad_id, dtype=np.int64)
        mask = np.zeros((len(rows), longest), dtype=np.int64)
        for at, row in enumerate(rows):
            ids[at, : len(row)] = row
            mask[at, : len(row)] = 1
        return self._run(ids, mask)
