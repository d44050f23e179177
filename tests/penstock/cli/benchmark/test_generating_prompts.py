"""Requests as bytes: their lengths, what they share, and that no two are alike."""

import pytest

from penstock.cli.benchmark.generating_file import Asked, Turn
from penstock.cli.benchmark.generating_lengths import parse_lengths
from penstock.cli.benchmark.generating_prompts import (
    PROBE_WORDS,
    REQUESTS_MAX,
    Calibration,
    Plan,
    PromptMaker,
    Shape,
    calibrated,
    make_workload,
)
from penstock.errors import InvalidArgument
from penstock.generation.v1 import generation_pb2 as pb

SHAPE = Shape(model="models/m", min_tokens=True)
A_WORD_A_TOKEN = Calibration(fixed_tokens=5, tokens_per_word=1.0)


def plan(prompt_tokens: str = "uniform:50:90", output_tokens: str = "20", **more: object) -> Plan:
    lengths = {"prompt_tokens": prompt_tokens, "output_tokens": output_tokens}
    return Plan(**{name: parse_lengths(text, name) for name, text in lengths.items()}, **more)  # type: ignore[arg-type]


def read(message: bytes) -> pb.StreamGenerateRequest:
    return pb.StreamGenerateRequest.FromString(message)


def text_of(message: bytes) -> str:
    request = read(message)
    return request.prompt or request.messages[0].content


def test_words_of_a_prompt_follow_from_what_two_probes_were_counted_as() -> None:
    few, many = (8 + round(1.5 * words) for words in PROBE_WORDS)
    calibration = calibrated([few, many])
    assert calibration.tokens_per_word == pytest.approx(1.5)
    assert calibration.fixed_tokens == pytest.approx(8)
    assert calibration.words(308) == 200
    assert calibration.words(3) == 1, "a prompt has at least one"


def test_a_service_that_counts_no_tokens_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="counts 0 and 0 tokens for 10 and 210 words"):
        calibrated([0, 0])


def test_requests_have_the_words_that_their_tokens_are_and_force_the_answers_length() -> None:
    workload, shortened = make_workload(plan(prompt_tokens="60"), PromptMaker(SHAPE), A_WORD_A_TOKEN)
    request = read(workload.message(0))
    assert (len(workload), shortened) == (REQUESTS_MAX, 0)
    assert (request.model, request.sampling.max_tokens, request.sampling.min_tokens) == ("models/m", 20, 20)
    tag, *words = request.messages[0].content.split()
    assert (len(tag), tag.isdigit(), len(words)) == (8, True, 55)
    assert request.messages[0].role == pb.ROLE_USER


def test_a_model_that_can_not_be_kept_from_ending_is_asked_for_the_most_alone() -> None:
    workload, _ = make_workload(plan(), PromptMaker(Shape(model="models/m")), A_WORD_A_TOKEN)
    assert not read(workload.message(0)).sampling.HasField("min_tokens")


def test_no_two_requests_are_alike_though_all_begin_with_the_shared_words() -> None:
    maker = PromptMaker(Shape(model="models/m00000000", shared_words=30))
    workload, _ = make_workload(plan(prompt_tokens="uniform:20:90"), maker, A_WORD_A_TOKEN)
    texts = [text_of(workload.message(number)) for number in (*range(REQUESTS_MAX), *range(REQUESTS_MAX))]
    assert len({tuple(text.split()[:30]) for text in texts}) == 1
    assert len({text.split()[30] for text in texts}) == len(texts), "their own part begins with another number each"
    assert all(len(text.split()) > 31 for text in texts), "and has a word of its own, however short the prompt"


def test_the_same_seed_has_the_same_lengths_and_another_has_not() -> None:
    def lengths(seed: int) -> list[int]:
        workload, _ = make_workload(plan(seed=seed), PromptMaker(Shape(model="m", seed=seed)), A_WORD_A_TOKEN)
        return [len(text_of(workload.message(number)).split()) for number in range(20)]

    assert lengths(1) == lengths(1) != lengths(2)


def test_raw_prompts_have_no_messages() -> None:
    workload, _ = make_workload(plan(), PromptMaker(Shape(model="m", raw=True)), A_WORD_A_TOKEN)
    request = read(workload.message(0))
    assert not request.messages
    assert len(request.prompt.split()) >= 45


def test_probes_have_their_words_and_ask_for_one_token() -> None:
    probes = [read(probe) for probe in PromptMaker(SHAPE).probes()]
    assert [len(probe.messages[0].content.split()) - 1 for probe in probes] == list(PROBE_WORDS)
    assert [probe.sampling.max_tokens for probe in probes] == [1, 1]


def test_a_files_texts_are_sent_as_they_are_and_its_lengths_as_prompts() -> None:
    asked = (
        Asked(prompt="Why 00000000?", output_tokens=7),
        Asked(messages=(Turn(role="system", content="Be brief."), Turn(role="user", content="Why?"))),
        Asked(prompt_tokens=40, output_tokens=9),
    )
    workload, _ = make_workload(plan(asked=asked), PromptMaker(SHAPE), A_WORD_A_TOKEN)
    raw, chat, made, again = (read(workload.message(number)) for number in range(4))
    assert (raw.prompt, raw.sampling.max_tokens) == ("Why 00000000?", 7)
    assert [(turn.role, turn.content) for turn in chat.messages] == [(pb.ROLE_SYSTEM, "Be brief."), (pb.ROLE_USER, "Why?")]
    assert chat.sampling.max_tokens == 20, "what the options say, where the line does not"
    assert len(made.messages[0].content.split()) == 36
    assert again == raw


def test_prompts_that_do_not_fit_the_window_are_shortened_and_counted() -> None:
    workload, shortened = make_workload(plan(prompt_tokens="uniform:50:150", window=140), PromptMaker(SHAPE), A_WORD_A_TOKEN)
    longest = max(len(text_of(workload.message(number)).split()) for number in range(len(workload)))
    assert 0 < shortened < len(workload) / 2
    assert longest + 4 + 20 <= 140


def test_a_workload_that_mostly_does_not_fit_is_refused_with_the_numbers() -> None:
    with pytest.raises(
        InvalidArgument, match=r"512 of 512 prompts do not fit the model's window of 140 tokens .*--prompt-tokens"
    ):
        make_workload(plan(prompt_tokens="500", window=140), PromptMaker(SHAPE), A_WORD_A_TOKEN)
    with pytest.raises(InvalidArgument, match="do not fit"):
        make_workload(plan(prompt_tokens="10", output_tokens="140", window=140), PromptMaker(SHAPE), A_WORD_A_TOKEN)


def test_prompts_that_are_mostly_shorter_than_what_they_share_are_refused() -> None:
    maker = PromptMaker(Shape(model="m", shared_words=80))
    with pytest.raises(
        InvalidArgument, match=r"512 of 512 prompts are shorter than what is shared and the 5 tokens of the chat"
    ):
        make_workload(plan(prompt_tokens="70"), maker, A_WORD_A_TOKEN)


def test_long_prompts_are_fewer_so_that_memory_has_a_bound() -> None:
    maker = PromptMaker(SHAPE)
    workload, _ = make_workload(plan(prompt_tokens="1000000"), maker, A_WORD_A_TOKEN)
    assert 1 < len(workload) < 20
