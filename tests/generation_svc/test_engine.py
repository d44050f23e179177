import pytest

from generation_svc.engine import answer_room
from penstock.errors import PromptTooLong


def room(prompt_tokens: int, max_tokens: int | None) -> int:
    return answer_room(prompt_tokens=prompt_tokens, max_tokens=max_tokens, max_tokens_default=512, window=1000)


def test_what_was_asked_for_is_given_when_it_fits_to_the_token() -> None:
    assert room(100, 900) == 900
    assert room(999, 1) == 1


def test_the_default_shrinks_to_the_room_that_is_left() -> None:
    assert room(100, None) == 512
    assert room(990, None) == 10


@pytest.mark.parametrize(("prompt_tokens", "max_tokens"), [(100, 901), (1000, None), (5000, 1)])
def test_what_does_not_fit_is_refused_with_the_numbers(prompt_tokens: int, max_tokens: int | None) -> None:
    with pytest.raises(PromptTooLong) as refused:
        room(prompt_tokens, max_tokens)
    assert refused.value.metadata["prompt_tokens"] == str(prompt_tokens)
    assert refused.value.metadata["context_window"] == "1000"
    assert str(prompt_tokens) in refused.value.message
    assert "1000" in refused.value.message
