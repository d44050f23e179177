"""Tantivy: the words of one shard's texts, ranked by BM25. The only module that imports it.

Each row is a document of its sequence number and its words; the texts themselves are kept elsewhere. The position that the
index has reached is a document of its own, so that it becomes durable in the same commit as what it speaks of: changes that are
replayed after a crash are recognised and skipped. BM25's parameters are tantivy's own, k1 = 1.2 and b = 0.75.
"""

import json
import shutil
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import tantivy
from numpy.typing import NDArray
from tantivy import Filter, Occur, Query, TextAnalyzer, TextAnalyzerBuilder, Tokenizer

from penstock.errors import InvalidArgument, Violation
from retrieval_svc.shards.lexical_files import link_index
from retrieval_svc.values import Changes, LexicalConfig, Ranked, Sequences

LANGUAGES: Final = {
    "ar": "arabic", "da": "danish", "de": "german", "el": "greek", "en": "english", "es": "spanish", "fi": "finnish",
    "fr": "french", "hu": "hungarian", "it": "italian", "nl": "dutch", "no": "norwegian", "pt": "portuguese",
    "ro": "romanian", "ru": "russian", "sv": "swedish", "ta": "tamil", "tr": "turkish",
}  # fmt: skip
"""Languages with a stemmer, by their codes in ISO 639-1."""
NO_LANGUAGE: Final = "none"
WITHOUT_STOP_WORDS: Final = frozenset({"ar", "el", "ro", "ta", "tr"})
"""Of those: languages for which tantivy has no list of stop words."""

WORD_BYTES_MAX: Final = 256
"""Longer words are in no index: nobody types them."""
QUERY_WORDS_MAX: Final = 1024
"""Further distinct words of a query are ignored: each is a list to walk through."""
WRITER_MEMORY_BYTES_DEFAULT: Final = 32 * 2**20
"""Tantivy's least is 15 MB."""

_FORMAT: Final = 1
_ABOUT: Final = "penstock.json"
_SPARE: Final = 16
_FETCH_FACTOR: Final = 8
_FETCH_CHEAP: Final = 1000
_TIES_MAX: Final = 10_000
_NOTHING: Final = Ranked(scores=np.empty(0, np.float32), sequences=np.empty(0, np.int64))


class UnusableLexicalIndex(Exception):
    """The folder holds no index that can be opened: damaged, unfinished, or of another language. Rebuild it."""


class LexicalWriteFailed(Exception):
    """What was applied since the last commit did not reach the disk, and `position` is that commit's again. Apply it anew."""


def check_language(language: str) -> None:
    """Raises InvalidArgument for a language that cannot be indexed."""
    if language != NO_LANGUAGE and language not in LANGUAGES:
        known = ", ".join([*LANGUAGES, NO_LANGUAGE])
        message = f"there is no analyzer for the language {language[:20]!r}; there are {known}"
        violation = Violation(message=message, field="collection.lexical.language")
        raise InvalidArgument(message, metadata={"field": violation.field}, violations=[violation])


class LexicalIndex:
    """The words of one shard. Used from one thread, and written to by one process at a time.

    Changes are searched once they are committed, which costs about 10 ms and so is left to a timer, or to the first search that
    insists on them. What was removed is never found, committed or not. A writer, with its thread and memory, is taken at the
    first change and given back by `close`.
    """

    def __init__(self, folder: Path, config: LexicalConfig, index: tantivy.Index, *, writer_memory_bytes: int) -> None:
        self._folder = folder
        self._analyzer = analyzer(config.language)
        self._index = index
        self._writer_memory_bytes = writer_memory_bytes
        self._writer: tantivy.IndexWriter | None = None
        self._removed: set[int] = set()
        index.register_tokenizer("words", self._analyzer)
        index.config_reader(reload_policy="manual")  # The other policy has a thread that watches the folder.
        index.reload()
        self._searcher = index.searcher()
        self._position = self._committed = self._stored_position()

    @classmethod
    def open(
        cls, folder: Path, config: LexicalConfig, *, writer_memory_bytes: int = WRITER_MEMORY_BYTES_DEFAULT
    ) -> "LexicalIndex":
        """Opens the index of a folder; starts one at position 0 where there is no folder, or nothing in it.

        Raises UnusableLexicalIndex.
        """
        with _unusable(folder):
            there = folder.exists() and any(folder.iterdir())
            index = _existing(folder, config) if there else _created(folder, config)
            lexical = cls(folder, config, index, writer_memory_bytes=writer_memory_bytes)
            lexical.search("penstock", 1)  # Opens every file that a search opens.
            return lexical

    @property
    def position(self) -> int:
        """Sequence number of the last change that was applied."""
        return self._position

    @property
    def committed_position(self) -> int:
        """Sequence number of the last change that is durable and that searches see."""
        return self._committed

    def apply(self, changes: Changes) -> None:
        """Takes in changes. Those that it has already are skipped. Raises LexicalWriteFailed."""
        if changes.after > self._position:
            raise ValueError(f"changes after {changes.after} leave a gap behind {self._position}")
        if changes.through <= self._position:
            return
        removed = changes.removed.tolist()
        self._removed.update(removed)
        with self._writing() as writer:
            for sequence in removed:
                writer.delete_documents_by_term("sequence", sequence)
            for chunk in changes.stored.chunks:
                if chunk.sequence > self._position:
                    writer.add_document(_document(chunk.sequence, chunk.text))
        self._position = changes.through

    def rebuild(self, rows: Iterable[tuple[int, str]], position: int) -> None:
        """Replaces everything by these rows, sequence number and text, as they are at a position, and commits."""
        with self._writing() as writer:
            writer.delete_all_documents()
            for sequence, text in rows:
                writer.add_document(_document(sequence, text))
        self._commit(position)

    def commit(self) -> None:
        """Makes what was applied durable and visible to searches. Raises LexicalWriteFailed."""
        if self._position != self._committed:
            self._commit(self._position)

    def search(self, text: str, limit: int, allowed: Sequences | None = None, *, at_least: int = 0) -> Ranked:
        """The best rows for the words of a text, rows of equal score by sequence number. Nothing in a text is an operator.

        `allowed` are the only rows that may be found, ascending; None: all. The search sees all changes up to `at_least`, which
        must have been applied. A text without an indexable word finds nothing. Raises UnusableLexicalIndex over damaged files.
        """
        if at_least > self._committed:
            self.commit()
        words = Counter(self._analyzer.analyze(_normal(text)))
        if not words or limit < 1 or not self._searcher.num_docs or (allowed is not None and not len(allowed)):
            return _NOTHING
        with _unusable(self._folder):
            return self._best(self._query(words), limit, allowed)

    def copy_to(self, folder: Path) -> None:
        """Commits, and puts into a new folder what `open` needs, as hard links: files never change once they are written."""
        self.commit()
        folder.mkdir(parents=True)
        link_index(self._folder, folder)
        shutil.copyfile(self._folder / _ABOUT, folder / _ABOUT)

    def close(self) -> None:
        """Commits, and gives back the writer's thread and memory. The next change takes them anew."""
        self.commit()
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.wait_merging_threads()

    def _commit(self, position: int) -> None:
        with self._writing() as writer:
            writer.delete_documents_by_term("position", self._committed)
            mark = tantivy.Document()
            mark.add_integer("position", position)
            writer.add_document(mark)
            writer.commit()
            self._index.reload()
        self._searcher = self._index.searcher()
        self._position = self._committed = position
        self._removed.clear()

    def _best(self, query: Query, limit: int, allowed: Sequences | None) -> Ranked:
        """Fetches more than the limit, as many more as are likely to be refused, and once more where that was too few.

        Where that would be more rows than are allowed, the allowed ones become a condition of the query, which costs about a
        microsecond for each of them.
        """
        fetch, narrowed = limit + _SPARE + len(self._removed), False
        if allowed is not None:
            fetch += 2 * limit * self._searcher.num_docs // len(allowed)
        while True:
            if allowed is not None and not narrowed and fetch > max(len(allowed), _FETCH_CHEAP):
                query, fetch, narrowed = self._narrowed(query, allowed), limit + _SPARE + len(self._removed), True
            fetch = min(fetch, self._searcher.num_docs)
            ranked, lowest = self._fetched(query, fetch, allowed)
            if lowest is None or _settled(ranked, limit, lowest, fetch):
                return Ranked(scores=ranked.scores[:limit], sequences=ranked.sequences[:limit])
            fetch *= _FETCH_FACTOR

    def _fetched(self, query: Query, fetch: int, allowed: Sequences | None) -> tuple[Ranked, float | None]:
        """The allowed rows among the best `fetch`, in order, and the lowest score that was fetched; None: there are no more."""
        hits = self._searcher.search(query, fetch, count=False).hits
        sequences = np.array(self._searcher.fast_field_values("sequence", [address for _, address in hits]), np.int64)
        scores = np.array([score for score, _ in hits], np.float32)
        more = len(hits) == fetch < self._searcher.num_docs
        lowest = float(scores[-1]) if more else None
        there = self._found_among(sequences, allowed)
        sequences, scores = sequences[there], scores[there]
        order = np.lexsort((sequences, -scores))
        return Ranked(scores=scores[order], sequences=sequences[order]), lowest

    def _found_among(self, sequences: Sequences, allowed: Sequences | None) -> NDArray[np.bool_]:
        there = np.ones(len(sequences), np.bool_)
        if self._removed:
            there &= ~np.isin(sequences, np.fromiter(self._removed, np.int64, len(self._removed)))
        if allowed is not None:
            there &= allowed[np.minimum(np.searchsorted(allowed, sequences), len(allowed) - 1)] == sequences
        return there

    def _query(self, words: Counter[str]) -> Query:
        """Any of the words; one that stands twice counts twice."""
        terms = [
            (Occur.Should, Query.boost_query(Query.term_query(self._index.schema, "text", word, "freq"), count))
            for word, count in list(words.items())[:QUERY_WORDS_MAX]
        ]
        return Query.boolean_query(terms)

    def _narrowed(self, query: Query, allowed: Sequences) -> Query:
        rows = Query.term_set_query(self._index.schema, "sequence", allowed.tolist())
        return Query.boolean_query([(Occur.Must, Query.const_score_query(rows, 0.0)), (Occur.Must, query)])

    def _stored_position(self) -> int:
        marks = [address for _, address in self._searcher.search(Query.exists_query("position"), 2, count=False).hits]
        return max((int(position or 0) for position in self._searcher.fast_field_values("position", marks)), default=0)

    @contextmanager
    def _writing(self) -> Iterator[tantivy.IndexWriter]:
        """The writer. A failure costs all that is not committed, since nobody can say how much of it was taken in."""
        try:
            if self._writer is None:
                self._writer = self._index.writer(heap_size=self._writer_memory_bytes, num_threads=1)
            yield self._writer
        except BaseException as error:
            self._abandon_writer()
            self._position = self._committed
            if not _is_failure(error):
                raise
            raise LexicalWriteFailed(f"the lexical index {self._folder} could not be written: {error}") from error

    def _abandon_writer(self) -> None:
        """Gives back the lock of a writer that failed, which would be held for as long as any error refers to the writer."""
        writer, self._writer = self._writer, None
        try:
            if writer is not None:
                writer.wait_merging_threads()
        except BaseException as error:
            if not _is_failure(error):
                raise


def analyzer(language: str) -> TextAnalyzer:
    """What makes words of a text: lower case, without stop words, stemmed, and last without accents, which stemmers look at."""
    builder = TextAnalyzerBuilder(Tokenizer.simple()).filter(Filter.remove_long(WORD_BYTES_MAX)).filter(Filter.lowercase())
    if language != NO_LANGUAGE:
        name = LANGUAGES[language]
        if language not in WITHOUT_STOP_WORDS:
            builder = builder.filter(Filter.stopword(name))
        builder = builder.filter(Filter.stemmer(name))
    return builder.filter(Filter.ascii_fold()).build()


def _settled(ranked: Ranked, limit: int, lowest: float, fetched: int) -> bool:
    """Whether rows that were not fetched cannot be among the best. Of very many equal ones, any will do."""
    if len(ranked.scores) < limit:
        return False
    return bool(ranked.scores[limit - 1] > lowest) or fetched >= limit + _TIES_MAX


def _document(sequence: int, text: str) -> tantivy.Document:
    document = tantivy.Document()
    document.add_integer("sequence", sequence)
    document.add_text("text", _normal(text))
    return document


def _normal(text: str) -> str:
    """One form for texts that look alike: an accent that is a character of its own would cut its word in two."""
    return text if text.isascii() else unicodedata.normalize("NFKC", text)


def _about(config: LexicalConfig) -> dict[str, int | str]:
    return {"format": _FORMAT, "language": config.language}


def _existing(folder: Path, config: LexicalConfig) -> tantivy.Index:
    about: dict[str, int | str] = json.loads((folder / _ABOUT).read_bytes())
    if about != _about(config):
        raise ValueError(f"it is of {about}, not {_about(config)}")
    return tantivy.Index.open(str(folder))


def _created(folder: Path, config: LexicalConfig) -> tantivy.Index:
    schema = tantivy.SchemaBuilder()
    schema.add_integer_field("sequence", indexed=True, fast=True)
    schema.add_integer_field("position", indexed=True, fast=True)
    schema.add_text_field("text", tokenizer_name="words", index_option="freq")
    folder.mkdir(parents=True, exist_ok=True)
    index = tantivy.Index(schema.build(), path=str(folder))
    # Last: a folder without it was not finished.
    (folder / _ABOUT).write_text(json.dumps(_about(config)))
    return index


@contextmanager
def _unusable(folder: Path) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        if not _is_failure(error):
            raise
        raise UnusableLexicalIndex(f"the lexical index {folder} is damaged or of another kind: {error}") from error


def _is_failure(error: BaseException) -> bool:
    """Over damaged files tantivy panics, which Python sees as an exception beside Exception; its class cannot be imported."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"
