import itertools

import numpy as np

from bench.corpus import PASSAGE_CHARACTERS, clustered_vectors, passages, prompts


def test_vectors_have_length_one_and_a_larger_collection_begins_with_the_smaller_one() -> None:
    few, many = clustered_vectors(100), clustered_vectors(300)
    assert np.allclose(np.linalg.norm(few, axis=1), 1, atol=1e-6)
    assert np.array_equal(few, many[:100])


def test_queries_are_near_the_vectors_but_none_of_them() -> None:
    nearness = clustered_vectors(64, queries=True) @ clustered_vectors(640).T
    assert float(nearness.max(axis=1).min()) > 0.3
    assert float(nearness.max()) < 0.999


def test_passages_all_have_the_same_length_however_many_there_are() -> None:
    assert {len(text) for text in passages(500)} == {PASSAGE_CHARACTERS}


def test_no_two_prompts_share_a_passage() -> None:
    found = prompts(30, skip=2)
    texts = [passage for prompt in found for passage in prompt.split("\n\n")[:2]]
    bodies = [text.split("] ", 1)[1] for text in texts]
    assert all(one != other for one, other in itertools.combinations(bodies, 2))
