"""What a request must be like. Each check raises the error that its fault has; all of them are pure.

The counts and lengths that the protos promise are constants here; those that an operator may choose come in from the settings.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np

from penstock.errors import DimensionMismatch, EmptyText, InvalidArgument, TopKOutOfRange, Violation
from retrieval_svc.values import Chunk, Document, IndexConfig, Matrix, Metric

DOCUMENTS_MAX: Final = 1000
CHUNKS_MAX: Final = 10_000
DIMENSION_MAX: Final = 65_536
ID_BYTES_MAX: Final = 256
CHUNK_TOKENS_MIN: Final = 16
CHUNK_ID_BYTES_MAX: Final = 512
"""Longer than a document's, because the service makes chunk ids out of those."""
METADATA_BYTES_MAX: Final = 64 * 2**10
PAGE_SIZE_MAX: Final = 1000
PAGE_SIZE_DEFAULT: Final = 100
SHARDS_MAX: Final = 1024
PRINCIPALS_MAX: Final = 256
VECTOR_LENGTH_MAX: Final = 1e18
"""The inner product of two vectors of this length still fits float32 (3.4e38)."""

_SQUARE_SURELY_FINE: Final = (1e-30, 1e35)
"""Squared lengths in single precision, rounding and all, of vectors that need no closer look."""

_INDEX_BOUNDS: Final = {
    "hnsw_m": (4, 128),
    "hnsw_ef_construction": (8, 2000),
    "hnsw_ef_search": (8, 10_000),
    "ivf_lists": (1, 65_536),
    "ivf_nprobe": (1, 65_536),
    "pq_bytes": (1, 65_536),
    "rescore_factor": (1, 100),
}
_COLLECTION_ID: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_NAME_PREFIX: Final = "collections/"


def collection_id(candidate: str) -> str:
    """The id of a collection to create."""
    if not _COLLECTION_ID.fullmatch(candidate):
        rule = "a lower-case letter, then lower-case letters, digits, hyphens and underscores, at most 63"
        raise _invalid("collection_id", f"a collection's id is {rule}; not {_shown(candidate)}")
    return candidate


def collection_name(name: str) -> str:
    """The id in a resource name. Whether the collection exists is another question."""
    prefix, _, last = name.partition("/")
    if f"{prefix}/" != _NAME_PREFIX or not last or "/" in last:
        raise _invalid("collection", f"a collection's name is {_NAME_PREFIX}ID; not {_shown(name)}")
    return last


def dimension(candidate: int) -> int:
    """The dimension of a collection whose vectors come from the caller."""
    if not 1 <= candidate <= DIMENSION_MAX:
        raise _invalid("collection.dimension", f"a dimension is from 1 to {DIMENSION_MAX}; not {candidate}")
    return candidate


def shard_count(candidate: int) -> int:
    """Over how many shards a collection's chunks are spread."""
    if not 1 <= candidate <= SHARDS_MAX:
        raise _invalid("collection.shard_count", f"a collection has from 1 to {SHARDS_MAX} shards; not {candidate}")
    return candidate


def index(config: IndexConfig) -> None:
    """How a collection's index is built and searched."""
    for name, (least, most) in _INDEX_BOUNDS.items():
        value = getattr(config, name)
        if value is not None and not least <= value <= most:
            raise _invalid(f"collection.index.{name}", f"{name} is from {least} to {most}; not {value}", limit=most)


def index_fits(config: IndexConfig, dimension: int) -> None:
    """Whether a dimension can be cut into as many parts as product quantisation wants."""
    if config.pq_bytes is not None and dimension % config.pq_bytes:
        message = f"pq_bytes must divide the dimension {dimension}; {config.pq_bytes} does not"
        raise _invalid("collection.index.pq_bytes", message)


def top_k(candidate: int, limit: int) -> int:
    """How many hits a search asks for."""
    if not 1 <= candidate <= limit:
        message = f"top_k is from 1 to {limit}; not {candidate}"
        raise TopKOutOfRange(message, metadata={"limit": str(limit)}, violations=[Violation(message=message, field="top_k")])
    return candidate


def page_size(candidate: int) -> int:
    """How many entries a page has; 0 asks for the default."""
    if not 0 <= candidate <= PAGE_SIZE_MAX:
        raise _invalid("page_size", f"a page has from 1 to {PAGE_SIZE_MAX} entries; not {candidate}", limit=PAGE_SIZE_MAX)
    return candidate or PAGE_SIZE_DEFAULT


def text(candidate: str, field: str, bytes_max: int) -> str:
    """A text to embed."""
    if not candidate or candidate.isspace():
        message = f"{field} has nothing in it; give a text that holds something other than white space"
        raise EmptyText(message, violations=[Violation(message="empty", field=field)])
    if len(candidate) > bytes_max // 4 and len(candidate.encode()) > bytes_max:
        raise _invalid(field, f"{field} is longer than {bytes_max} bytes; split it", limit=bytes_max)
    if "\0" in candidate:
        raise _invalid(field, f"{field} holds a NUL character, which not every database can store")
    return candidate


def documents(candidates: Sequence[Document]) -> None:
    """How many documents one ingestion has, and that their ids differ; what each is like is for `document`."""
    _count(len(candidates), "documents", DOCUMENTS_MAX)
    _distinct([document.id for document in candidates], "documents")


def document(candidate: Document, field: str, *, text_bytes_max: int, content_bytes_max: int) -> None:
    """One document. Its text is checked when it is there, the text in its content when that was read."""
    _id(candidate.id, f"{field}.id", ID_BYTES_MAX)
    if candidate.text and candidate.content:
        raise _invalid(f"{field}.content", f"give {field} a text or a content, not both")
    if len(candidate.content) > content_bytes_max:
        message = f"{field}.content has {len(candidate.content)} bytes, and at most {content_bytes_max} are taken; split it"
        raise _invalid(f"{field}.content", message, limit=content_bytes_max)
    if not candidate.content:
        text(candidate.text, f"{field}.text", text_bytes_max)
    _metadata(candidate.metadata_json, f"{field}.metadata")
    principals(candidate.allowed_principals, f"{field}.allowed_principals")


def chunks(candidates: Sequence[Chunk], text_bytes_max: int) -> None:
    """The chunks of one upsert, but for their vectors."""
    _count(len(candidates), "chunks", CHUNKS_MAX)
    _distinct([chunk.id for chunk in candidates], "chunks")
    for at, chunk in enumerate(candidates):
        _id(chunk.id, f"chunks[{at}].id", CHUNK_ID_BYTES_MAX)
        if chunk.document_id:
            _id(chunk.document_id, f"chunks[{at}].document_id", ID_BYTES_MAX)
        text(chunk.text, f"chunks[{at}].text", text_bytes_max)
        _metadata(chunk.metadata_json, f"chunks[{at}].metadata")
        principals(chunk.allowed_principals, f"chunks[{at}].allowed_principals")


def chunk_ids(candidates: Sequence[str]) -> None:
    """The ids of chunks to read. One that no chunk can have is a mistake; PostgreSQL would fail over a NUL in it."""
    _count(len(candidates), "chunk_ids", PAGE_SIZE_MAX)
    for at, candidate in enumerate(candidates):
        _id(candidate, f"chunk_ids[{at}]", CHUNK_ID_BYTES_MAX)


def principals(candidates: Sequence[str], field: str) -> None:
    """An access list."""
    if len(candidates) > PRINCIPALS_MAX:
        raise _invalid(
            field, f"an access list has at most {PRINCIPALS_MAX} principals; not {len(candidates)}", limit=PRINCIPALS_MAX
        )
    for at, candidate in enumerate(candidates):
        _id(candidate, f"{field}[{at}]", ID_BYTES_MAX)


def splitting(tokens_max: int, overlap_tokens: int) -> None:
    """How long chunks are, and how much each repeats of the one before it."""
    if tokens_max < CHUNK_TOKENS_MIN:
        message = f"chunk_tokens_max is at least {CHUNK_TOKENS_MIN}; not {tokens_max}"
        raise _invalid("splitting.chunk_tokens_max", message, limit=CHUNK_TOKENS_MIN)
    if not 0 <= overlap_tokens <= tokens_max // 2:
        message = f"overlap_tokens is from 0 to half of the longest chunk, {tokens_max // 2}; not {overlap_tokens}"
        raise _invalid("splitting.overlap_tokens", message, limit=tokens_max // 2)


def deletions(chunk_ids: Sequence[str], document_ids: Sequence[str], *, by_filter: bool = False) -> None:
    """The ids of one deletion, none where a filter says what goes. Naming one twice is no error: it is gone either way."""
    if not (chunk_ids or document_ids or by_filter):
        raise _invalid("chunk_ids", "give chunk_ids, document_ids or a filter: nothing was named to delete")
    for field, ids, bytes_max in (
        ("chunk_ids", chunk_ids, CHUNK_ID_BYTES_MAX),
        ("document_ids", document_ids, ID_BYTES_MAX),
    ):
        if len(ids) > CHUNKS_MAX:
            raise _invalid(field, f"at most {CHUNKS_MAX} {field} in one call; not {len(ids)}", limit=CHUNKS_MAX)
        for at, candidate in enumerate(ids):
            _id(candidate, f"{field}[{at}]", bytes_max)


def vectors(raw: Sequence[bytes], fields: Iterable[str], *, dimension: int, metric: Metric) -> Matrix:
    """The vectors of little-endian float32, one a row. `fields` says where each stands in the request.

    Raises DimensionMismatch for a wrong number of bytes; InvalidArgument for a component that is not finite, for a vector of
    length 0 under cosine, which has no direction, and for one so long that inner products overflow.
    """
    names = list(fields)
    for name, vector in zip(names, raw, strict=True):
        if len(vector) != 4 * dimension:
            message = f"{name} has {len(vector)} bytes; the collection's {dimension} float32 components take {4 * dimension}"
            metadata = {"expected_bytes": str(4 * dimension), "dimension": str(dimension)}
            raise DimensionMismatch(message, metadata=metadata, violations=[Violation(message=message, field=name)])
    matrix = np.frombuffer(b"".join(raw), dtype="<f4").reshape(len(raw), dimension).astype(np.float32, copy=False)
    _measurable(matrix, names, metric)
    return matrix


def _measurable(matrix: Matrix, names: Sequence[str], metric: Metric) -> None:
    squares = np.einsum("ij,ij->i", matrix, matrix).tolist()  # It overflows without a warning.
    if all(_SQUARE_SURELY_FINE[0] < square < _SQUARE_SURELY_FINE[1] for square in squares):  # NaN is neither.
        return
    wide = matrix.astype(np.float64)
    squared = np.einsum("ij,ij->i", wide, wide)
    for at in np.flatnonzero(~np.isfinite(squared)).tolist():
        raise _invalid(names[at], f"{names[at]} has a component that is not a finite number")
    for at in np.flatnonzero(squared > VECTOR_LENGTH_MAX**2).tolist():
        raise _invalid(names[at], f"{names[at]} is longer than {VECTOR_LENGTH_MAX:g}, so that inner products overflow")
    if metric is Metric.COSINE:
        for at in np.flatnonzero(squared == 0.0).tolist():
            raise _invalid(names[at], f"{names[at]} is all zeros, which has no direction and so no cosine")


def _count(count: int, field: str, limit: int) -> None:
    if not 1 <= count <= limit:
        raise _invalid(field, f"give from 1 to {limit} {field} in one call; not {count}", limit=limit)


def _distinct(ids: Sequence[str], field: str) -> None:
    if len(set(ids)) == len(ids):
        return
    seen: set[str] = set()
    for at, candidate in enumerate(ids):
        if candidate in seen:
            raise _invalid(f"{field}[{at}].id", f"the id {_shown(candidate)} stands twice in one request")
        seen.add(candidate)


def _id(candidate: str, field: str, bytes_max: int) -> None:
    if not candidate or not candidate.isprintable():
        raise _invalid(field, f"{field} must be of printable characters and not empty; not {_shown(candidate)}")
    if len(candidate.encode()) > bytes_max:
        raise _invalid(field, f"{field} is longer than {bytes_max} bytes", limit=bytes_max)


def _metadata(candidate: str, field: str) -> None:
    if len(candidate) > METADATA_BYTES_MAX // 4 and len(candidate.encode()) > METADATA_BYTES_MAX:
        raise _invalid(field, f"{field} is longer than {METADATA_BYTES_MAX} bytes as JSON", limit=METADATA_BYTES_MAX)


def _invalid(field: str, message: str, *, limit: int | None = None) -> InvalidArgument:
    metadata = {"field": field} | ({} if limit is None else {"limit": str(limit)})
    return InvalidArgument(message, metadata=metadata, violations=[Violation(message=message, field=field)])


def _shown(candidate: str) -> str:
    return repr(candidate if len(candidate) <= 80 else candidate[:77] + "...")
