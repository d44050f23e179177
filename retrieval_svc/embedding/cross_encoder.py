"""sentence-transformers' cross-encoders, which read a query and a text together."""

import logging
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from sentence_transformers import CrossEncoder
from tokenizers import Tokenizer
from transformers.utils.logging import disable_progress_bar

from penstock.errors import FailedPrecondition
from penstock.model_files import locate_model
from retrieval_svc.ingest.chunking import Span, split_to_windows
from retrieval_svc.search.reranking import Pair, PairScores

_log = logging.getLogger(__name__)

_QUERY_SHARE: Final = 2
"""A query has at most the window's half, or nothing of a text could be read beside it."""


class CrossEncoderReranker:
    """A cross-encoder in memory. Implements the port of retrieval_svc.search.reranking.

    A text that does not fit the model's window beside its query is read in windows, and its score is that of the best one: MaxP
    of Dai and Callan, "Deeper Text Understanding for IR with Contextual Neural Language Modeling" (SIGIR 2019). Only a query
    that is longer than half the window is cut.
    """

    def __init__(self, encoder: CrossEncoder, name: str, *, pass_pairs_max: int) -> None:
        self._encoder = encoder
        self._name = name
        self._pass_pairs_max = pass_pairs_max
        # A copy: the model's own is told anew at each pass how to truncate and pad.
        self._tokenizer: Tokenizer = Tokenizer.from_str(encoder.tokenizer.backend_tokenizer.to_str())
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        window = encoder.get_max_seq_length() or 0  # Whoever loaded it has seen that it has one.
        self._window_tokens = window - self._tokenizer.num_special_tokens_to_add(is_pair=True)

    @property
    def name(self) -> str:
        """The name by which requests know it."""
        return self._name

    def score(self, pairs: Sequence[Pair]) -> PairScores:
        """One score a pair, by the model's own activation."""
        windows = [list(self._windows(query, text)) for query, text in pairs]
        flat = [window for each in windows for window in each]
        scores = np.asarray(self._encoder.predict(flat, batch_size=self._pass_pairs_max, show_progress_bar=False))
        starts = np.cumsum([0, *(len(each) for each in windows[:-1])])
        best: PairScores = np.maximum.reduceat(scores, starts).astype(np.float32)
        return best

    def _windows(self, query: str, text: str) -> Iterator[Pair]:
        query_spans = self._spans(query)
        query_tokens = min(len(query_spans), self._window_tokens // _QUERY_SHARE)
        if query_tokens < len(query_spans):
            query = query[: query_spans[query_tokens][0]]
        for window, _ in split_to_windows(text, self._spans, self._window_tokens - query_tokens):
            yield query, window

    def _spans(self, text: str) -> list[Span]:
        spans: list[Span] = self._tokenizer.encode(text, add_special_tokens=False).offsets
        return spans


def load_reranker(reference: str, *, name: str, pass_pairs_max: int = 32) -> CrossEncoderReranker:
    """Loads a cross-encoder from an installed package (package:NAME/PATH), a folder or a hub.

    Raises FailedPrecondition when it is not there, cannot be read, or gives anything but one score. Takes seconds; call it off
    the event loop. It shares torch's threads, which are the process's, with the embedding model.
    """
    disable_progress_bar()  # type: ignore[no-untyped-call]  # A service's log is no place to draw in.
    path = locate_model(reference)
    try:
        encoder = CrossEncoder(path, device="cpu")
    except Exception as error:
        message = (
            f"the reranker {reference!r} cannot be loaded ({type(error).__name__}: {error}); "
            "name an installed package (package:NAME/PATH), a folder, or a model of a hub that can be reached"
        )
        raise FailedPrecondition(message) from error
    if fault := _fault(encoder):
        message = f"{reference!r} {fault}"
        raise FailedPrecondition(message)
    _log.info("loaded the reranker %s from %s", name, path)
    return CrossEncoderReranker(encoder, name, pass_pairs_max=pass_pairs_max)


def _fault(encoder: CrossEncoder) -> str:
    """Why it can't rerank; empty: it can."""
    if encoder.num_labels != 1:
        return f"gives {encoder.num_labels} numbers for a pair, so it cannot rerank: name a cross-encoder that gives one"
    architectures = (encoder.model.config.architectures if encoder.model else None) or []
    if len(encoder) == 1 and not any(name.endswith("ForSequenceClassification") for name in architectures):
        # The library would put a head on it whose weights are drawn at random.
        return f"is no cross-encoder but a {', '.join(architectures)}, whose scores would be random: name a cross-encoder"
    if encoder.get_max_seq_length() is None:
        return "does not say its window, so it cannot be used: set model_max_length in its tokenizer_config.json"
    return ""
