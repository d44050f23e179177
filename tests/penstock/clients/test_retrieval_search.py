"""What the retrieval client can ask for beyond a text and a number: options, filters, batches, streams, administration."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from datetime import UTC, date, datetime
from typing import Any

import pytest

from penstock.clients import (
    Chunk,
    Diversity,
    Document,
    Fusion,
    Grouping,
    Index,
    Lexical,
    Reranking,
    RetrievalClient,
    Splitting,
)
from penstock.clients.filters import Filter, all_of, any_of, between, equals, exists, none_of, one_of
from penstock.errors import BackendUnavailable, CollectionNotFound, EmptyText, InvalidArgument
from penstock.retrieval.v1 import retrieval_pb2 as pb


@pytest.fixture
async def client(services: Any) -> AsyncIterator[RetrievalClient]:
    async with RetrievalClient(services.target) as opened:
        await opened.create_collection("wiki", dimension=2)
        yield opened


async def test_a_search_says_all_that_it_is_told_to(services: Any, client: RetrievalClient) -> None:
    hits = await client.search(
        "wiki",
        "tower",
        vector=[1.0, 0.0],
        top_k=7,
        mode="hybrid",
        filter=equals("lang", "en"),
        fusion=Fusion(method="reciprocal_rank", rrf_k=10),
        score_min=0.25,
        diversity=Diversity(relevance_weight=0.75),
        grouping=Grouping(hits_per_document_max=2),
        reranking=Reranking(candidates=50),
        ef_search=100,
        nprobe=4,
        exact=True,
        fields=["text", "metadata.page"],
        consistency_token="token",
        allow_partial=True,
    )
    asked = services.retrieval.requests[-1]
    assert asked == pb.SearchRequest(
        collection="collections/wiki",
        text="tower",
        vector=b"\0\0\x80?\0\0\0\0",
        top_k=7,
        mode=pb.SEARCH_MODE_HYBRID,
        filter={"equals": {"field": "lang", "value": {"string_value": "en"}}},
        fusion={"method": pb.FUSION_METHOD_RECIPROCAL_RANK, "rrf_k": 10},
        score_min=0.25,
        diversity={"relevance_weight": 0.75},
        grouping={"hits_per_document_max": 2},
        reranking={"candidates": 50},
        ef_search=100,
        nprobe=4,
        exact=True,
        fields=["text", "metadata.page"],
        consistency_token="token",
        allow_partial=True,
    )
    assert (hits.partial, hits.missing_shards) == (True, (2,))


async def test_a_hit_tells_both_sides_scores_where_they_are_known(services: Any, client: RetrievalClient) -> None:
    await client.upsert_chunks("wiki", [Chunk(id="c", text="t", vector=[1.0], allowed_principals=["user:ann"])])
    (hit,) = await client.search("wiki", "t")
    assert (hit.dense_score, hit.lexical_score) == (None, None)
    assert (hit.vector, hit.allowed_principals) == (b"\0\0\x80?", ("user:ann",))


async def test_pages_of_a_search_are_read_one_after_the_other(services: Any, client: RetrievalClient) -> None:
    pages = [hits async for hits in client.search_pages("wiki", "tower", top_k=2)]
    assert [hits.next_page_token for hits in pages] == ["second", ""]
    assert [request.page_token for request in services.retrieval.requests] == ["", "second"]


async def test_a_batch_is_one_call_with_each_searchs_own_options(services: Any, client: RetrievalClient) -> None:
    found = await client.search_batch("wiki", ["one", [1.0, 0.0], {"query": "three", "top_k": 3, "mode": "lexical"}])
    assert [hits[0].chunk_id for hits in found] == ["one", "vector", "three"]
    (asked,) = services.retrieval.requests
    assert asked.collection == "collections/wiki"
    assert asked.requests[2] == pb.SearchRequest(text="three", top_k=3, mode=pb.SEARCH_MODE_LEXICAL)


async def test_an_option_that_a_search_does_not_have_is_told_with_the_near_one(services: Any, client: RetrievalClient) -> None:
    misspelt: Any = {"topk": 3}
    searches = (client.search("wiki", "tower", **misspelt), anext(client.search_pages("wiki", "tower", **misspelt)))
    for search in searches:
        with pytest.raises(TypeError, match="a search has no option 'topk'; did you mean 'top_k'"):
            await search
    with pytest.raises(TypeError, match="a search has no option 'limit'; it has allow_partial, consistency_token, diversity"):
        await client.search("wiki", "tower", limit=3)
    with pytest.raises(TypeError, match=r"queries\[1\] has no option 'topk'; did you mean 'top_k'"):
        await client.search_batch("wiki", ["one", {"query": "two", **misspelt}])
    with pytest.raises(TypeError, match=r"queries\[0\] has no 'query'"):
        await client.search_batch("wiki", [{"top_k": 3}])
    assert services.retrieval.requests == []


async def test_an_option_that_is_none_is_left_to_the_service(services: Any, client: RetrievalClient) -> None:
    nothing: Any = dict.fromkeys(("vector", "top_k", "mode", "filter", "fusion", "fields", "exact"))
    await client.search("wiki", "tower", **nothing)
    assert services.retrieval.requests[-1] == pb.SearchRequest(collection="collections/wiki", text="tower")


async def test_a_word_that_means_nothing_is_told_with_those_that_do(client: RetrievalClient) -> None:
    async def refused(call: Awaitable[Any], field: str, message: str) -> None:
        with pytest.raises(InvalidArgument) as told:
            await call
        assert told.value.message == message
        assert told.value.metadata == {"field": field}

    wrong: Any = "denze"
    modes = "mode is 'dense', 'lexical' or 'hybrid'; not 'denze'"
    await refused(client.search("wiki", "tower", mode=wrong), "mode", modes)
    await refused(client.search_batch("wiki", [{"query": "tower", "mode": wrong}]), "mode", modes)
    methods = "fusion.method is 'convex' or 'reciprocal_rank'; not 'denze'"
    await refused(client.search("wiki", "tower", fusion=Fusion(method=wrong)), "fusion.method", methods)
    metrics = "metric is 'cosine', 'inner_product' or 'l2'; not 'denze'"
    await refused(client.create_collection("other", metric=wrong), "metric", metrics)
    kinds = "index.kind is 'auto', 'flat', 'hnsw', 'ivf_sq8' or 'ivf_pq'; not 'denze'"
    await refused(client.create_collection("other", index=Index(kind=wrong)), "index.kind", kinds)
    splitters = "splitting.splitter is 'auto', 'sentences', 'tokens' or 'markdown'; not 'denze'"
    ingesting = client.ingest("wiki", [], splitting=Splitting(splitter=wrong))
    await refused(ingesting, "splitting.splitter", splitters)
    await refused(client.embed(["a"], purpose=wrong), "purpose", "purpose is 'document' or 'query'; not 'denze'")
    await refused(client.search("wiki", "tower", mode=["dense"]), "mode", modes.replace("'denze'", "['dense']"))


@pytest.mark.parametrize(
    ("filter_", "message"),
    [
        (equals("a", True), {"equals": {"field": "a", "value": {"bool_value": True}}}),
        (equals("a", 3), {"equals": {"field": "a", "value": {"number_value": 3}}}),
        (
            one_of("a", ["x", 1]),
            {"one_of": {"field": "a", "values": [{"string_value": "x"}, {"number_value": 1}]}},
        ),
        (between("a", gte=1, lt=2.5), {"range": {"field": "a", "gte": {"number_value": 1}, "lt": {"number_value": 2.5}}}),
        (between("a", gt=date(2026, 11, 22)), {"range": {"field": "a", "gt": {"string_value": "2026-11-22"}}}),
        (
            between("a", lte=datetime(2026, 11, 22, 10, tzinfo=UTC)),
            {"range": {"field": "a", "lte": {"string_value": "2026-11-22T10:00:00+00:00"}}},
        ),
        (
            between("a", lte=datetime.fromisoformat("2026-11-22T10:00:00")),
            {"range": {"field": "a", "lte": {"string_value": "2026-11-22T10:00:00+00:00"}}},
        ),
        (exists("a.b"), {"exists": {"field": "a.b"}}),
        (any_of(), {"any_of": {}}),
        (
            exists("a") & ~exists("b") | exists("c"),
            {
                "any_of": {
                    "filters": [
                        {
                            "all_of": {
                                "filters": [{"exists": {"field": "a"}}, {"none_of": {"filters": [{"exists": {"field": "b"}}]}}]
                            }
                        },
                        {"exists": {"field": "c"}},
                    ]
                }
            },
        ),
    ],
)
def test_a_filter_says_what_its_proto_says(filter_: Filter, message: dict[str, Any]) -> None:
    assert filter_.message == pb.Filter(**message)


def test_combining_functions_and_operators_say_the_same() -> None:
    a, b = exists("a"), exists("b")
    assert (a & b, a | b, ~a) == (all_of(a, b), any_of(a, b), none_of(a))


async def test_a_stream_of_documents_tells_what_was_stored_and_what_was_not(services: Any, client: RetrievalClient) -> None:
    documents = [
        Document(id="a", text="t"),
        Document(id="bad"),
        Document(id="c", content=b"# T", content_type="text/markdown", text="t"),
    ]
    stored = await client.ingest_stream(
        "wiki", documents, splitting=Splitting(splitter="markdown", overlap_tokens=8), batch_size_max=2
    )
    assert (stored.document_count, stored.error_count, stored.consistency_token) == (2, 1, "t")
    (error,) = stored.errors
    assert (error.index, error.document_id, type(error.error)) == (1, "bad", EmptyText)
    first, *rest = services.retrieval.requests
    assert first.collection == "collections/wiki"
    assert first.splitting == pb.Splitting(splitter=pb.SPLITTER_MARKDOWN, overlap_tokens=8)
    assert [len(request.documents) for request in rest] == [2, 1]


async def test_a_stream_may_come_from_an_async_source_and_may_be_empty(services: Any, client: RetrievalClient) -> None:
    async def source() -> AsyncIterator[Document]:
        for name in "abc":
            await asyncio.sleep(0)
            yield Document(id=name, text="t")

    assert (await client.ingest_stream("wiki", source())).document_count == 3
    assert (await client.ingest_stream("wiki", [])).document_count == 0


async def test_what_the_documents_source_raises_is_raised(services: Any, client: RetrievalClient) -> None:
    async def source() -> AsyncIterator[Document]:
        yield Document(id="a", text="t")
        await asyncio.sleep(0.05)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        await client.ingest_stream("wiki", source())
    with pytest.raises(InvalidArgument, match="the metadata of document 'd'"):
        await client.ingest_stream("wiki", [Document(id="d", text="t", metadata={"when": object()})])


async def test_a_stream_raises_what_the_service_raises(client: RetrievalClient) -> None:
    with pytest.raises(CollectionNotFound):
        await client.ingest_stream("none", [Document(id="a", text="t")])
    for documents in ([], [Document(id="a", text="t")]):
        async with RetrievalClient("127.0.0.1:1") as nowhere:
            with pytest.raises(BackendUnavailable):
                await nowhere.ingest_stream("wiki", documents, timeout_s=5)


async def test_a_stream_that_is_cancelled_is_cancelled(client: RetrievalClient) -> None:
    async def for_ever() -> AsyncIterator[Document]:
        yield Document(id="a", text="t")
        await asyncio.Event().wait()

    ingesting = asyncio.create_task(client.ingest_stream("wiki", for_ever()))
    await asyncio.sleep(0.1)
    ingesting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ingesting


async def test_a_collection_says_how_it_is_indexed(services: Any, client: RetrievalClient) -> None:
    index = Index(kind="ivf_pq", ivf_lists=64, pq_bytes=48)
    made = await client.create_collection(
        "big", dimension=384, metric="l2", index=index, shard_count=4, lexical=Lexical(language="de")
    )
    assert (made.metric, made.index, made.shard_count, made.lexical) == ("l2", index, 4, Lexical(language="de"))
    plain = await client.get_collection("wiki")
    assert (plain.index, plain.lexical, plain.index_kind_in_use) == (Index(), None, "auto")


async def test_chunks_are_read_by_their_ids_and_deleted_by_a_filter(services: Any, client: RetrievalClient) -> None:
    await client.upsert_chunks("wiki", [Chunk(id="a", text="t"), Chunk(id="b", text="t")])
    assert [chunk.id for chunk in await client.batch_get_chunks("wiki", ["b", "none", "a"], fields=["text"])] == ["b", "a"]
    assert services.retrieval.requests[-1].fields == ["text"]


async def test_texts_become_vectors_and_models_are_listed(services: Any, client: RetrievalClient) -> None:
    made = await client.embed(["a", "b"], purpose="query")
    assert (len(made.vectors), made.dimension, made.model, made.token_count) == (2, 1, "minilm", 7)
    assert services.retrieval.requests[-1].purpose == pb.EMBED_PURPOSE_QUERY
    assert [model.name async for model in client.list_models(page_size=1)] == ["big", "minilm"]


async def test_shards_and_snapshots_tell_their_state(client: RetrievalClient) -> None:
    (shard,) = await client.collection_status("wiki")
    assert (shard.shard, shard.record_position - shard.position, shard.index_kind) == (1, 1, "hnsw")
    assert await client.compact_collection("wiki") == (shard,)
    (made,) = await client.create_snapshot("wiki")
    assert made.create_time == datetime.fromtimestamp(1_700_000_000, UTC)
    assert [snapshot.id async for snapshot in client.list_snapshots("wiki", page_size=1)] == ["b", "a"]
