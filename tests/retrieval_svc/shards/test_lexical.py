import math
import random
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from penstock.errors import InvalidArgument
from retrieval_svc.shards.lexical import (
    LANGUAGES,
    LexicalIndex,
    LexicalWriteFailed,
    UnusableLexicalIndex,
    analyzer,
    check_language,
)
from retrieval_svc.values import Changes, LexicalConfig, Rows, StoredChunk

ENGLISH: Final = LexicalConfig(language="en")
PLAIN: Final = LexicalConfig(language="none")


def changes(after: int, through: int, rows: dict[int, str] | None = None, removed: Sequence[int] = ()) -> Changes:
    chunks = tuple(
        StoredChunk(sequence=sequence, id=f"c{sequence}", document_id="", text=text, metadata_json="")
        for sequence, text in (rows or {}).items()
    )
    stored = Rows(chunks=chunks, vectors=np.zeros((len(chunks), 1), np.float32))
    gone = np.array(removed, np.int64)
    return Changes(after=after, through=through, stored=stored, removed=gone, removed_at=gone)


def found(index: LexicalIndex, text: str, limit: int = 10, allowed: Iterable[int] | None = None) -> list[int]:
    """What a search finds that sees everything that was applied."""
    rows = None if allowed is None else np.array(sorted(allowed), np.int64)
    sequences: list[int] = index.search(text, limit, rows, at_least=index.position).sequences.tolist()
    return sequences


@pytest.fixture
def index(tmp_path: Path) -> LexicalIndex:
    return LexicalIndex.open(tmp_path / "index", ENGLISH)


def test_words_are_found_in_other_forms_cases_and_accents(index: LexicalIndex) -> None:
    index.apply(changes(0, 3, {1: "The quick foxes", 2: "Un Café noir", 3: "un cafe\N{COMBINING ACUTE ACCENT} serre\u0301"}))
    assert found(index, "FOX") == [1]
    assert found(index, "cafe") == [2, 3]
    assert found(index, "serré") == [3]


def test_no_sign_of_a_text_is_an_operator(index: LexicalIndex) -> None:
    index.apply(changes(0, 2, {1: "red apple", 2: "green pear"}))
    for text in (
        '+red -apple "pear',
        "red AND pear",
        "text:red (pear",
        "red^9 pear~ [",
        "NOT red OR pear",
        "\\ red * pear ?",
        "red\0pear",
    ):
        assert sorted(found(index, text)) == [1, 2], text


@pytest.mark.parametrize("text", ["", " \n", "...", "the of and", "zzz", "\U0001f600", "x" * 300])
def test_a_text_without_a_word_that_is_indexed_finds_nothing(index: LexicalIndex, text: str) -> None:
    index.apply(changes(0, 2, {1: "red apple of the " + "x" * 300, 2: "\U0001f600"}))
    assert found(index, text) == []


def test_an_empty_index_finds_nothing_and_a_large_limit_finds_what_there_is(index: LexicalIndex) -> None:
    assert found(index, "red") == []
    index.apply(changes(0, 2, {1: "red", 2: "red red"}))
    assert len(found(index, "red", limit=10_000)) == 2
    assert found(index, "red", limit=0) == []


def test_scores_are_those_of_bm25(tmp_path: Path) -> None:
    texts = dict(enumerate(("a a b", "a c", "b b b c d", "e"), 1))
    index = LexicalIndex.open(tmp_path / "index", PLAIN)
    index.rebuild(texts.items(), 4)
    ranked = index.search("a b a", 10)
    # The document that holds the position counts as one without words.
    count, mean = len(texts) + 1, sum(len(text.split()) for text in texts.values()) / (len(texts) + 1)
    expected = {}
    for sequence, text in texts.items():
        words, score = text.split(), 0.0
        for word in ("a", "b", "a"):
            having = sum(word in other.split() for other in texts.values())
            inverse = math.log(1 + (count - having + 0.5) / (having + 0.5))
            often = Counter(words)[word]
            score += inverse * often * 2.2 / (often + 1.2 * (0.25 + 0.75 * len(words) / mean))
        if score:
            expected[sequence] = score
    assert dict(zip(ranked.sequences.tolist(), ranked.scores.tolist(), strict=True)) == pytest.approx(expected, rel=1e-5)


def test_equal_scores_are_in_the_order_of_their_numbers_also_where_the_limit_cuts(index: LexicalIndex) -> None:
    for commit in range(5):
        numbers = range(commit * 20, commit * 20 + 20)
        index.apply(changes(commit * 20, commit * 20 + 20, {number + 1: "same words" for number in numbers}))
        index.commit()
    assert found(index, "same", limit=30) == list(range(1, 31))
    assert found(index, "same", limit=3, allowed=range(50, 101)) == [50, 51, 52]


@pytest.mark.parametrize("share", [0.0002, 0.001, 0.01, 0.1, 0.5, 1.0])
def test_a_filter_finds_the_best_of_the_allowed_rows_at_every_selectivity(tmp_path: Path, share: float) -> None:
    chance = random.Random(7)
    words = [f"w{number}" for number in range(40)]
    index = LexicalIndex.open(tmp_path / "index", PLAIN)
    index.rebuild(((row, " ".join(chance.choices(words, k=chance.randint(1, 30)))) for row in range(1, 5001)), 5000)
    everything = index.search("w1 w2 w3", 5000)
    best = everything.sequences.tolist()
    # The same share by chance, and of the worst rows only, which is where fetching a few more than asked for fails.
    for allowed in (chance.sample(range(1, 5001), int(5000 * share)), best[-int(5000 * share) :]):
        expected = [sequence for sequence in best if sequence in set(allowed)]
        for limit in (1, 10, 100):
            assert found(index, "w1 w2 w3", limit, allowed) == expected[:limit]
    assert found(index, "w1", 10, []) == []


def test_what_was_removed_is_never_found_committed_or_not(index: LexicalIndex) -> None:
    index.apply(changes(0, 40, dict.fromkeys(range(1, 41), "fox")))
    index.commit()
    index.apply(changes(40, 78, {}, removed=range(1, 39)))
    assert index.search("fox", 5).sequences.tolist() == [39, 40]
    assert index.committed_position == 40
    index.commit()
    assert index.search("fox", 5).sequences.tolist() == [39, 40]


def test_a_search_sees_what_it_insists_on_and_may_miss_what_is_not_committed(index: LexicalIndex) -> None:
    index.apply(changes(0, 1, {1: "fox"}))
    assert index.search("fox", 5).sequences.tolist() == []
    assert index.search("fox", 5, at_least=1).sequences.tolist() == [1]


def test_what_was_not_committed_is_gone_after_a_restart_and_its_replay_doubles_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    index = LexicalIndex.open(folder, ENGLISH)
    index.apply(changes(0, 2, {1: "fox", 2: "fox"}))
    index.commit()
    index.apply(changes(2, 4, {3: "fox"}, removed=[1]))
    del index  # As a crash would leave it.
    again = LexicalIndex.open(folder, ENGLISH)
    assert again.position == 2
    assert found(again, "fox") == [1, 2]
    again.apply(changes(0, 2, {1: "fox", 2: "fox"}))
    again.apply(changes(0, 4, {2: "fox", 3: "fox"}, removed=[1]))
    assert (found(again, "fox"), again.position) == ([2, 3], 4)


def test_changes_that_leave_a_gap_are_refused(index: LexicalIndex) -> None:
    with pytest.raises(ValueError, match="gap"):
        index.apply(changes(5, 6, {6: "fox"}))


def test_a_second_writer_fails_and_stays_where_it_was(tmp_path: Path) -> None:
    first, second = (LexicalIndex.open(tmp_path / "index", ENGLISH) for _ in range(2))
    first.apply(changes(0, 1, {1: "fox"}))
    with pytest.raises(LexicalWriteFailed, match="lock"):
        second.apply(changes(0, 1, {1: "fox"}))
    assert second.position == 0
    first.close()
    reopened = LexicalIndex.open(tmp_path / "index", ENGLISH)
    reopened.apply(changes(1, 2, {2: "fox"}))
    assert found(reopened, "fox") == [1, 2]


def test_a_copy_has_the_rows_of_its_moment_and_goes_its_own_way(tmp_path: Path, index: LexicalIndex) -> None:
    index.apply(changes(0, 3, {1: "fox", 2: "fox", 3: "hen"}))
    index.commit()
    index.apply(changes(3, 4, {}, removed=[1]))
    index.copy_to(tmp_path / "copy")
    index.apply(changes(4, 5, {5: "fox"}))
    for row in range(6, 30):  # Enough commits for merges on both sides, which delete files.
        index.apply(changes(row - 1, row, {row: "hen"}))
        index.commit()
    copy = LexicalIndex.open(tmp_path / "copy", ENGLISH)
    assert (copy.position, found(copy, "fox")) == (4, [2])
    for row in range(5, 30):
        copy.apply(changes(row - 1, row, {row: "owl"}))
        copy.commit()
    copy.close()
    index.close()
    assert found(index, "fox") == [2, 5]
    assert found(index, "owl") == []
    assert len(found(LexicalIndex.open(tmp_path / "copy", ENGLISH), "owl", 100)) == 25


def test_merged_away_files_of_a_copy_are_deleted(tmp_path: Path, index: LexicalIndex) -> None:
    for row in range(1, 5):
        index.apply(changes(row - 1, row, {row: "fox"}))
        index.commit()
    index.close()
    index.copy_to(tmp_path / "copy")
    before = {file.name for file in (tmp_path / "copy").glob("*.idx")}
    copy = LexicalIndex.open(tmp_path / "copy", ENGLISH)
    for row in range(5, 40):
        copy.apply(changes(row - 1, row, {row: "fox"}))
        copy.commit()
    copy.close()
    assert not before & {file.name for file in (tmp_path / "copy").glob("*.idx")}
    assert before <= {file.name for file in (tmp_path / "index").glob("*.idx")}


def test_a_rebuilt_index_has_only_the_rows_that_it_was_given(index: LexicalIndex) -> None:
    index.apply(changes(0, 3, {1: "fox", 2: "fox", 3: "fox"}, removed=[]))
    index.commit()
    index.rebuild(iter([(2, "fox"), (7, "fox")]), 9)
    assert (found(index, "fox"), index.position, index.committed_position) == ([2, 7], 9, 9)
    index.apply(changes(9, 10, {10: "fox"}, removed=[2]))
    assert found(index, "fox") == [7, 10]


# A lost .managed.json costs only the knowledge of what may be deleted.
@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        (suffix, damage)
        for suffix in ("meta.json", ".managed.json", "penstock.json", ".idx", ".term", ".fast", ".fieldnorm", ".pos", ".store")
        for damage in ("gone", "cut", "overwritten")
        if (suffix, damage) != (".managed.json", "gone")
    ],
)
def test_a_damaged_folder_is_refused_with_one_error(tmp_path: Path, suffix: str, damage: str) -> None:
    folder = tmp_path / "index"
    index = LexicalIndex.open(folder, ENGLISH)
    index.rebuild([(1, "fox"), (2, "hen")], 2)
    index.close()
    file = next(file for file in folder.iterdir() if file.name.endswith(suffix))
    content = file.read_bytes()
    file.unlink()
    if damage != "gone":
        file.write_bytes(content[: len(content) // 2] if damage == "cut" else bytes(byte ^ 0x55 for byte in content))
    with pytest.raises(UnusableLexicalIndex, match=str(folder)):
        LexicalIndex.open(folder, ENGLISH)
    shutil.rmtree(folder)
    fresh = LexicalIndex.open(folder, ENGLISH)
    fresh.rebuild([(1, "fox")], 2)
    assert found(fresh, "fox") == [1]


def test_damage_that_a_search_meets_is_the_same_error(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    index = LexicalIndex.open(folder, PLAIN)
    index.rebuild(((row, f"fox w{row}") for row in range(1, 2001)), 2000)
    index.close()
    postings = next(folder.glob("*.idx"))
    content = postings.read_bytes()
    whole = len(content) * 9 // 10  # What follows is looked at when the index is opened.
    postings.unlink()
    postings.write_bytes(bytes(byte ^ 0xFF for byte in content[:whole]) + content[whole:])
    damaged = LexicalIndex.open(folder, PLAIN)
    with pytest.raises(UnusableLexicalIndex):
        for row in range(1, 2001):
            damaged.search(f"w{row}", 10)


def test_an_index_of_another_language_is_refused(tmp_path: Path) -> None:
    LexicalIndex.open(tmp_path / "index", ENGLISH)
    with pytest.raises(UnusableLexicalIndex, match="'en'"):
        LexicalIndex.open(tmp_path / "index", PLAIN)


@pytest.mark.parametrize("language", [*LANGUAGES, "none"])
def test_every_language_has_an_analyzer(language: str) -> None:
    check_language(language)
    assert analyzer(language).analyze("Penstock 42") != []


def test_a_language_decides_about_stems_and_stop_words() -> None:
    assert analyzer("de").analyze("Die Häuser der Stadt") == ["haus", "stadt"]
    assert analyzer("none").analyze("Die Häuser der Stadt") == ["die", "hauser", "der", "stadt"]


@pytest.mark.parametrize("language", ["", "EN", "english", "xx", "x" * 1000])
def test_an_unknown_language_is_refused_with_those_that_there_are(language: str) -> None:
    with pytest.raises(InvalidArgument, match=r"en, es, fi.*none") as raised:
        check_language(language)
    assert raised.value.metadata["field"] == "collection.lexical.language"
