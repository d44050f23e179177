import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.replicas import prefixes
from gateway.replicas.prefixes import BRANCHES_MIN, CHUNK_CHARACTERS, CHUNKS_MAX, Branches, Prefix, PrefixTable, weight

CHUNKS = [letter * CHUNK_CHARACTERS for letter in "abc"]
TEXTS = st.lists(st.sampled_from(CHUNKS), max_size=8).map("".join)


def test_prompts_share_links_as_far_as_they_share_text() -> None:
    shared = "x" * 3 * CHUNK_CHARACTERS
    one, two = Prefix(shared + "a" * 1000).chain, Prefix(shared + "b" * 1000).chain
    assert one[:3] == two[:3]
    assert not set(one[3:]) & set(two)


def test_callers_and_models_that_share_no_cache_share_no_links_and_no_key() -> None:
    one, two = Prefix("x" * 1000, known_to="acme"), Prefix("x" * 1000, known_to="other")
    assert not set(one.chain) & set(two.chain)
    sessions = [Prefix("", known_to=tenant, session="s1").key(0) for tenant in ("acme", "other")]
    assert sessions[0] != sessions[1]


def test_a_long_prompt_costs_no_more_than_its_beginning() -> None:
    assert len(Prefix("x" * 10_000_000).chain) == CHUNKS_MAX


def test_a_short_prompt_without_a_session_has_nothing_to_share() -> None:
    assert not Prefix("x" * (CHUNK_CHARACTERS - 1)).tells
    assert Prefix("x", session="s1").tells


def test_the_key_of_a_prompt_is_the_same_in_every_process() -> None:
    code = "from gateway.replicas.prefixes import Prefix; print(Prefix('x' * 600).key(1).hex())"
    keys = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout for _ in range(2)}
    assert keys == {Prefix("x" * 600).key(1).hex() + "\n"}


def test_text_that_is_no_unicode_is_hashed_all_the_same() -> None:
    assert Prefix("\ud800" * 600).key(0)


@given(st.lists(TEXTS, max_size=30), TEXTS, st.integers(1, 20))
def test_a_bounded_table_finds_what_a_search_link_by_link_finds(sent: list[str], prompt: str, links_max: int) -> None:
    table = PrefixTable()
    for text in sent:
        table.add(Prefix(text).chain, links_max)
    chain = Prefix(prompt).chain
    known = [link in table._links for link in chain]
    assert table.matched(chain) == (known.index(False) if False in known else len(chain))
    assert len(table) <= links_max


def test_what_many_prompts_go_on_from_is_shared_by_them_and_what_few_do_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    branches, flow = Branches(), "i" * 3 * CHUNK_CHARACTERS
    chains = [Prefix(flow + f"{number:4}" * 200).chain for number in range(2 * BRANCHES_MIN)]
    for chain in chains[: BRANCHES_MIN - 1]:
        branches.add(chain, 3)
        branches.add(chain, len(chain))
    assert branches.shared(chains[0], 6) == 0
    branches.add(chains[-1], 3)
    assert branches.shared(chains[0], 6) == 3
    assert branches.shared(chains[0], 2) == 0
    monkeypatch.setattr(prefixes, "BRANCHES_KEPT", 4)
    for chain in chains:
        branches.add(chain, 5)
    assert len(branches) <= 4


@given(st.binary(min_size=8, max_size=8))
def test_the_weights_of_a_key_differ_between_replicas(key: bytes) -> None:
    assert len({weight(f"10.0.0.{number}:50052".encode(), key) for number in range(50)}) == 50
