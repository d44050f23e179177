"""sentence-transformers. The only module that imports it."""

import hashlib
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer
from transformers.utils.logging import disable_progress_bar

from penstock.errors import FailedPrecondition
from penstock.model_files import locate_model
from retrieval_svc.ingest.chunking import Span
from retrieval_svc.values import EmbeddingModel, Matrix

_log = logging.getLogger(__name__)


class SentenceTransformerEmbedder:
    """A sentence-transformers model in memory. Implements the port of retrieval_svc.embedding."""

    def __init__(self, transformer: SentenceTransformer, name: str) -> None:
        self._transformer = transformer
        # The model's own tokenizer is told anew at each pass how to truncate and pad, which other threads must not meet.
        self._tokenizer: Tokenizer = Tokenizer.from_str(transformer.tokenizer.backend_tokenizer.to_str())
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._model = _describe(transformer, self._tokenizer, name)

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
        vectors = self._transformer.encode(list(texts), batch_size=len(texts), show_progress_bar=False, convert_to_numpy=True)
        return np.ascontiguousarray(vectors, dtype=np.float32)


def load_embedder(reference: str, *, name: str, threads: int) -> SentenceTransformerEmbedder:
    """Loads a model from an installed package, a folder or a hub, and sets the threads of torch, which are the process's.

    Raises FailedPrecondition when the model is not there or cannot be read. Takes seconds; call it off the event loop.
    """
    torch.set_num_threads(threads)
    disable_progress_bar()  # type: ignore[no-untyped-call]  # A service's log is no place to draw in.
    path = locate_model(reference)
    try:
        transformer = SentenceTransformer(path, device="cpu")
    except Exception as error:
        message = (
            f"the embedding model {reference!r} cannot be loaded ({type(error).__name__}: {error}); "
            "name an installed package (package:NAME/PATH), a folder, or a model of a hub that can be reached"
        )
        raise FailedPrecondition(message) from error
    embedder = SentenceTransformerEmbedder(transformer, name)
    _log.info("loaded %s from %s: %s", name, path, embedder.model.fingerprint)
    return embedder


def _describe(transformer: SentenceTransformer, tokenizer: Tokenizer, name: str) -> EmbeddingModel:
    dimension = transformer.get_embedding_dimension()
    window = transformer.get_max_seq_length()
    if dimension is None or window is None:
        message = f"the model {name!r} does not say its dimension and its window, so it cannot be used"
        raise FailedPrecondition(message)
    return EmbeddingModel(
        name=name,
        dimension=dimension,
        window_tokens=window - tokenizer.num_special_tokens_to_add(is_pair=False),
        fingerprint=_fingerprint(transformer, tokenizer, name, window),
    )


def _fingerprint(transformer: SentenceTransformer, tokenizer: Tokenizer, name: str, window: int) -> str:
    """What makes the vectors, to read and to compare: name, precision, window, pooling, and a hash over weights and tokens.

    The hash is over the weights in memory, so that it does not matter where they came from.
    """
    digest = hashlib.sha256(tokenizer.to_str().encode())
    state = transformer.state_dict()
    for key in sorted(state):
        digest.update(key.encode())
        digest.update(state[key].detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    precision = str(transformer.dtype).removeprefix("torch.")
    steps = "+".join(_step(module) for module in list(transformer)[1:])
    return f"{name}/{precision}/{window}/{steps}/{digest.hexdigest()[:16]}"


def _step(module: Any) -> str:
    """What a module does to the tokens' vectors: a way of pooling, "normalize", or the like."""
    return str(module.get_config_dict().get("pooling_mode", type(module).__name__)).lower()
