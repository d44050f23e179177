import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from penstock.retrieval.v1 import retrieval_pb2 as pb
from retrieval_svc.search.calls import SearchResult
from retrieval_svc.search_messages import search_response


@given(st.lists(st.tuples(st.text(max_size=20_000), st.floats(width=32, allow_nan=False)), max_size=5))
def test_an_answer_put_together_from_bytes_is_the_one_that_protobuf_builds(hits: list[tuple[str, float]]) -> None:
    chunks = [pb.Chunk(id="c", text=text) for text, _ in hits]
    scores = np.array([score for _, score in hits], dtype=np.float32)
    result = SearchResult(chunks=[chunk.SerializeToString() for chunk in chunks], scores=scores)
    expected = pb.SearchResponse(hits=[pb.Hit(chunk=chunk, score=score) for chunk, score in zip(chunks, scores, strict=True)])
    assert search_response(result).message() == expected


def test_a_chunk_of_two_megabytes_is_put_in_whole() -> None:
    chunk = pb.Chunk(id="c", text="x" * 2**21)
    result = SearchResult(chunks=[chunk.SerializeToString()], scores=np.array([1.5], dtype=np.float32))
    assert search_response(result).message() == pb.SearchResponse(hits=[pb.Hit(chunk=chunk, score=1.5)])


def test_scores_of_one_side_stand_only_where_a_hit_has_them() -> None:
    chunks = [pb.Chunk(id=name).SerializeToString() for name in "ab"]
    result = SearchResult(
        chunks=chunks,
        scores=np.array([2.0, 1.0], dtype=np.float32),
        dense_scores=np.array([0.5, np.nan], dtype=np.float32),
        lexical_scores=np.array([np.nan, 7.0], dtype=np.float32),
        next_page_token="more",
        missing_shards=(3,),
    )
    response = search_response(result).message()
    assert [(hit.HasField("dense_score"), hit.HasField("lexical_score")) for hit in response.hits] == [
        (True, False),
        (False, True),
    ]
    assert (response.next_page_token, response.partial, list(response.missing_shards)) == ("more", True, [3])
