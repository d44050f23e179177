from itertools import islice

import numpy as np
import pytest

from bench.closed_loop import Sample
from bench.corpus import PASSAGE_CHARACTERS, clustered_blocks, clustered_vectors
from bench.ingest_part import groups
from bench.retrieval_part import WAYS, Row, chunks_of, requests, share
from bench.retrieval_tables import search_table
from penstock.retrieval.v1 import retrieval_pb2 as pb


def test_recall_is_the_share_of_all_exact_hits_that_was_found() -> None:
    assert share([{"a", "b"}, {"c", "d"}], [{"a", "b"}, {"d", "x"}]) == 0.75


def test_a_request_holds_one_query_or_a_batch_of_them() -> None:
    queries = clustered_vectors(70, queries=True)
    single = [pb.SearchRequest.FromString(each) for each in requests(queries, "c", 1, ef=32)]
    batched = [pb.SearchBatchRequest.FromString(each) for each in requests(queries, "c", 32)]
    assert (len(single), [len(each.requests) for each in batched]) == (70, [32, 32]), "batches are whole"
    assert (single[0].ef_search, batched[0].requests[0].HasField("ef_search")) == (32, False)
    assert single[33].vector == batched[1].requests[1].vector == queries[33].tobytes()


def test_chunks_are_the_vectors_in_their_order_with_texts_of_one_length() -> None:
    chunks = list(islice(chunks_of(20_500), 20_300, 20_400))
    assert [chunk.id for chunk in chunks[:2]] == ["c20300", "c20301"]
    assert {len(chunk.text) for chunk in chunks} == {PASSAGE_CHARACTERS}
    assert chunks[0].vector == clustered_vectors(20_500)[20_300].tobytes()


def test_blocks_are_the_vectors_in_pieces() -> None:
    assert np.array_equal(np.concatenate(list(clustered_blocks(10_050))), clustered_vectors(10_050))


def test_groups_hold_everything_once() -> None:
    assert list(groups(range(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]


def sample(cpu_s: float) -> Sample:
    zeros = dict.fromkeys(("p50_ms", "p99_ms", "first_p50_ms", "first_p99_ms", "other_cores"), 0.0)
    counts = dict.fromkeys(("errors", "events", "output_tokens"), 0)
    return Sample(requests=1000, faults={}, seconds=2.0, cpu_s={"retrieval": cpu_s}, **zeros, **counts)


def test_a_batchs_cost_is_told_for_each_of_its_queries_and_beside_its_own_round() -> None:
    single, batch = WAYS[0], WAYS[2]
    rows = [
        Row(ef=64, way=way, recall=1.0, faiss_recall=1.0, service=[sample(0.4), sample(6.4)], alone_us=[200.0, 400.0],
            batched_us=[100.0, 100.0])
        for way in (single, batch)
    ]  # fmt: skip
    assert rows[0].service_us == pytest.approx([400, 6400])
    assert rows[1].service_us == pytest.approx([12.5, 200])
    cells = dict(zip(search_table(rows, 100).columns, search_table(rows, 100).rows[1], strict=True))
    assert cells["to batched"] == "1.06 x", "the median of 0.125 and 2, each to its round's own reference"
    assert cells["queries/s"] == "16,000"
