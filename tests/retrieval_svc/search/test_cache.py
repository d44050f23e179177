from retrieval_svc.search.cache import ChunkCache
from retrieval_svc.values import StoredChunk


def chunk(sequence: int, length: int = 100) -> StoredChunk:
    return StoredChunk(sequence=sequence, id="c", document_id="", text="x" * length, metadata_json="")


ROOM_FOR_THREE = 3 * 2 * chunk(0).size_bytes


def test_the_least_recently_used_goes_first() -> None:
    cache = ChunkCache(ROOM_FOR_THREE)
    for sequence in (1, 2, 3):
        cache.put((1, sequence), chunk(sequence))
    assert cache.get((1, 1)) is not None
    cache.put((1, 4), chunk(4))
    assert [cache.get((1, sequence)) is not None for sequence in (1, 2, 3, 4)] == [True, False, True, True]


def test_one_large_chunk_displaces_many_small_ones() -> None:
    cache = ChunkCache(ROOM_FOR_THREE)
    for sequence in (1, 2, 3):
        cache.put((1, sequence), chunk(sequence))
    cache.put((1, 4), chunk(4, length=600))
    assert sum(cache.get((1, sequence)) is not None for sequence in (1, 2, 3, 4)) < 4
    assert cache.get((1, 4)) is not None


def test_putting_a_chunk_again_does_not_count_twice() -> None:
    cache = ChunkCache(ROOM_FOR_THREE)
    for _ in range(10):
        cache.put((1, 1), chunk(1))
    cache.put((1, 2), chunk(2))
    assert cache.get((1, 1)) is not None


def test_a_chunk_larger_than_the_cache_is_not_kept() -> None:
    cache = ChunkCache(0)
    cache.put((1, 1), chunk(1))
    assert cache.get((1, 1)) is None


def test_collections_do_not_share_numbers() -> None:
    cache = ChunkCache(ROOM_FOR_THREE)
    cache.put((1, 7), chunk(7))
    assert cache.get((2, 7)) is None
