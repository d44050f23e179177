"""Queries for the rows of one document, against every row compared."""

from pathlib import Path

import numpy as np
import pytest

from retrieval_svc.filters import Filter, OneOf
from retrieval_svc.shards.columns import ColumnBuilder, Columns
from retrieval_svc.shards.documents import Documents, hashes_of
from retrieval_svc.shards.metrics import prepared
from retrieval_svc.shards.segment_writer import RowBlock, SegmentWriter, write_rows
from retrieval_svc.shards.shard_index import ShardIndex
from retrieval_svc.values import EVERYTHING, CollectionSpec, IndexConfig, IndexKind, Metric, StoredChunk, Visibility
from tests.retrieval_svc.shards.rows import (
    CODEC,
    DIMENSION,
    added,
    clustered,
    exact_scores,
    nothing,
    open_shard,
    query,
    removed,
    spec_of,
    stored,
)
from tests.retrieval_svc.shards.test_shard_index import checkpoint, compact, seal

COUNT = 300
DOCUMENTS = ("a", "b", "c", "", "é")
RANDOM = np.random.default_rng(3)
VECTORS = clustered(COUNT)
OF = [DOCUMENTS[number] for number in RANDOM.integers(len(DOCUMENTS), size=COUNT)]
KINDS = RANDOM.integers(2, size=COUNT).tolist()
LISTS = [("user:ann",) if each else () for each in RANDOM.integers(2, size=COUNT).tolist()]
GONE = sorted(RANDOM.choice(COUNT, 40, replace=False).tolist())
FILTERS: list[Filter | None] = [None, OneOf(field="kind", values=(1.0,))]
EYES = [EVERYTHING, Visibility(), Visibility(principals=frozenset({"user:ann"}))]


def stored_part(start: int, end: int) -> dict[str, list]:
    part = slice(start, end)
    return {
        "metadata": [f'{{"kind": {kind}}}' for kind in KINDS[part]], "principals": LISTS[part], "documents": OF[part],
    }  # fmt: skip


def apply_part(shard: ShardIndex, start: int, end: int) -> None:
    shard.apply(added(start, VECTORS[start:end], **stored_part(start, end)))


def layered(folder: Path, spec: CollectionSpec) -> ShardIndex:
    """Two segments, a frozen head and a head, some rows of each gone."""
    shard = open_shard(folder, spec)
    for start, end in ((0, 120), (120, 200)):
        apply_part(shard, start, end)
        seal(shard, folder)
    apply_part(shard, 200, 250)
    shard.freeze_head()
    apply_part(shard, 250, COUNT)
    shard.apply(removed(COUNT, [row + 1 for row in GONE]))
    return shard


def check(shard: ShardIndex, metric: Metric) -> None:
    for document in ("a", "é", "nobody's"):
        for filter_ in FILTERS:
            for eyes in EYES:
                rows = expected_rows(document, filter_, eyes)
                scores = exact_scores(VECTORS[rows], VECTORS[5], metric)
                best = rows[np.argsort(-scores, kind="stable")] + 1
                for limit in (3, COUNT):
                    asked = query(VECTORS[5], limit, document_id=document, filter=filter_, visibility=eyes, with_chunks=True)
                    [(ranked, unmet)] = shard.search([asked])
                    assert ranked.sequences.tolist() == best[:limit].tolist()
                    assert [CODEC.document_id(chunk) for chunk in ranked.chunks] == [document] * len(ranked.sequences)
                    assert unmet == ()
                allowed = shard.allowed(asked)
                assert allowed is not None
                assert allowed.sequences.tolist() == (rows + 1).tolist()


def expected_rows(document: str, filter_: Filter | None, eyes: Visibility) -> np.ndarray:
    return np.array(
        [
            row
            for row in range(COUNT)
            if OF[row] == document
            and row not in GONE
            and (filter_ is None or KINDS[row] == 1)
            and (eyes.principals is None or not LISTS[row] or eyes.principals & set(LISTS[row]))
        ],
        np.int64,
    )


@pytest.mark.parametrize("metric", list(Metric))
def test_the_rows_of_a_document_are_found_in_every_layer_and_after_merging_and_a_restart(
    tmp_path: Path, metric: Metric
) -> None:
    spec = spec_of(metric)
    shard = layered(tmp_path, spec)
    check(shard, metric)
    shard = open_shard(tmp_path, spec)
    apply_part(shard, 200, COUNT)
    shard.apply(removed(COUNT, [row + 1 for row in GONE]))
    seal(shard, tmp_path)
    check(shard, metric)
    compact(shard, tmp_path)
    assert shard.status().segment_count == 1
    check(shard, metric)
    check(open_shard(tmp_path, spec), metric)


def test_documents_and_everything_are_searched_in_one_call(tmp_path: Path) -> None:
    shard = layered(tmp_path, spec_of())
    queries = [query(VECTORS[1], 4, document_id=document) for document in ("a", "b", "", "a")]
    queries[3] = query(VECTORS[2], 4, document_id="a")
    together = [ranked.sequences.tolist() for ranked, _ in shard.search(queries)]
    assert together == [shard.search([each])[0][0].sequences.tolist() for each in queries]


def test_a_graph_is_not_asked_for_a_document(tmp_path: Path) -> None:
    count, spec = 3000, spec_of(Metric.COSINE, IndexKind.HNSW, hnsw_m=2, hnsw_ef_construction=2, hnsw_ef_search=1)
    vectors = clustered(count)
    block = RowBlock(
        sequences=np.arange(1, count + 1), vectors=vectors, payloads=[b""] * count, metadata_json=[""] * count,
        document_ids=["half" if row % 2 else "other" for row in range(count)], allowed_principals=[()] * count,
    )  # fmt: skip
    shard = open_shard(tmp_path, spec)
    shard.apply(nothing(0, count))
    checkpoint(shard, tmp_path, [write_rows(tmp_path, [block], spec)])
    for vector in clustered(20, seed=5):
        [(ranked, _)] = shard.search([query(vector, 20, document_id="half")])
        scores = exact_scores(vectors[1::2], vector, Metric.COSINE)
        assert ((ranked.sequences - 2) // 2).tolist() == np.argsort(-scores, kind="stable")[:20].tolist()


def test_segments_from_before_documents_were_noted_are_read_for_them_and_so_is_what_is_merged_of_them(tmp_path: Path) -> None:
    shard = open_shard(tmp_path)
    rows = stored(range(1, 121), VECTORS[:120], **stored_part(0, 120))
    with SegmentWriter(tmp_path, "segment-old", DIMENSION, Metric.INNER_PRODUCT) as writer:
        vectors, lengths = prepared(rows.vectors, Metric.INNER_PRODUCT)
        writer.add(rows.sequences, vectors, lengths, [CODEC.encode(chunk) for chunk in rows.chunks], None)
        entry = writer.finish(columns_of(rows.chunks), IndexConfig(kind=IndexKind.FLAT))
    assert not any("document" in file.path for file in entry.files)
    shard.apply(nothing(0, 120))
    checkpoint(shard, tmp_path, [entry])
    apply_part(shard, 120, COUNT)
    shard.apply(removed(COUNT, [row + 1 for row in GONE]))
    check(shard, Metric.INNER_PRODUCT)
    seal(shard, tmp_path)
    check(open_shard(tmp_path), Metric.INNER_PRODUCT)
    compact(shard, tmp_path)
    assert shard.status().segment_count == 1
    check(shard, Metric.INNER_PRODUCT)
    check(open_shard(tmp_path), Metric.INNER_PRODUCT)


def columns_of(chunks: tuple[StoredChunk, ...]) -> Columns:
    builder = ColumnBuilder()
    for at, chunk in enumerate(chunks):
        builder.add(at, chunk.metadata_json, chunk.allowed_principals)
    return builder.build()


def test_saved_documents_tell_the_same_as_those_in_memory(tmp_path: Path) -> None:
    hashes = hashes_of(OF)
    documents = Documents.of(hashes)
    documents.save(tmp_path)
    opened = Documents.open(tmp_path)
    assert opened is not None
    assert opened.by_row().tolist() == hashes.tolist()
    for document in (*DOCUMENTS, "nobody's"):
        rows = [row for row in range(COUNT) if OF[row] == document]
        assert documents.rows_of(document).tolist() == opened.rows_of(document).tolist() == rows
    assert Documents.open(tmp_path / "elsewhere") is None
