from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generation_svc.text_stream import Detokenizer, StopMatcher


def replacing(ids: Sequence[int]) -> str:
    """A byte tokenizer that gives U+FFFD for what is incomplete."""
    return bytes(ids).decode(errors="replace")


def ignoring(ids: Sequence[int]) -> str:
    """One that leaves it out, as OpenVINO's does."""
    return bytes(ids).decode(errors="ignore")


def push(detokenizer: Detokenizer, decode, ids: Sequence[int]) -> str:
    return detokenizer.fresh(decode(detokenizer.window(ids)))


ANY_TEXT = st.text(alphabet=st.characters(exclude_characters="\ufffd", exclude_categories=["Cs"]), max_size=120)


@pytest.mark.parametrize("decode", [replacing, ignoring])
@given(text=ANY_TEXT, sizes=st.lists(st.integers(1, 7), min_size=1, max_size=20))
def test_text_comes_out_whole_however_its_bytes_are_cut_into_tokens_and_steps(decode, text: str, sizes: list[int]) -> None:
    detokenizer, tokens, out = Detokenizer(decode), text.encode(), []
    while tokens:
        size = sizes[len(out) % len(sizes)]
        out.append(push(detokenizer, decode, tokens[:size]))
        tokens = tokens[size:]
    assert "".join(out) == text


@pytest.mark.parametrize("decode", [replacing, ignoring])
def test_nothing_comes_while_a_character_is_incomplete(decode) -> None:
    detokenizer = Detokenizer(decode)
    assert [push(detokenizer, decode, [byte]) for byte in "é😀".encode()] == ["", "é", "", "", "", "😀"]


def test_a_character_that_never_completes_is_left_out() -> None:
    detokenizer = Detokenizer(replacing)
    assert push(detokenizer, replacing, b"ok") == "ok"
    assert push(detokenizer, replacing, "😀".encode()[:3]) == ""


def pushed(stops: Sequence[str], texts: Sequence[str]) -> tuple[str, str]:
    matcher, out = StopMatcher(stops), ""
    for text in texts:
        shown, met = matcher.push(text)
        out += shown
        if met:
            return out, met
    return out + matcher.flush(), ""


def test_a_stop_string_in_pieces_never_shows() -> None:
    matcher = StopMatcher(["END"])
    assert matcher.push("the E") == ("the ", "")
    assert matcher.push("N") == ("", "")
    assert matcher.push("D of it") == ("", "END")


def test_text_that_only_began_like_a_stop_string_is_shown_when_it_goes_on_otherwise() -> None:
    assert pushed(["END"], ["EN", "ENE"]) == ("ENENE", "")


def test_the_earliest_stop_string_wins_and_of_two_at_one_place_the_longer() -> None:
    assert pushed(["c", "b"], ["abc"]) == ("a", "b")
    assert pushed(["ab", "abc"], ["xabc"]) == ("x", "abc")


@given(
    texts=st.lists(st.text(alphabet="ab", max_size=5), max_size=12),
    stops=st.lists(st.text(alphabet="ab", min_size=1, max_size=4), max_size=3),
)
def test_streamed_matching_shows_what_cutting_the_whole_text_would(texts: list[str], stops: list[str]) -> None:
    shown, met = pushed(stops, texts)
    whole = "".join(texts)
    if met:
        assert whole.startswith(shown + met)
    else:
        assert shown == whole
    assert not any(stop in shown for stop in stops)
    assert bool(met) == any(stop in whole for stop in stops)


def test_a_stop_text_may_stay_at_the_end() -> None:
    matcher = StopMatcher(("stop", "halt"), included=True)
    assert [matcher.push(text) for text in ("one s", "to", "p it")] == [("one ", ""), ("", ""), ("stop", "stop")]


def test_a_stop_text_before_the_fewest_tokens_is_passed_over_and_one_that_ends_after_them_counts() -> None:
    matcher = StopMatcher(("stop",))
    assert matcher.push("a stop b", counts=False) == ("a stop b", "")
    assert matcher.push(" st", counts=False) == (" ", "")
    assert matcher.push("op") == ("", "stop")


def test_a_short_stop_text_that_was_passed_over_does_not_count_later_because_a_longer_one_may_go_on() -> None:
    matcher = StopMatcher(("ab", "xabz"))
    assert matcher.push("xab", counts=False) == ("", "")
    assert matcher.push("c") == ("xabc", "")
