"""What the command refuses, and how it reads lengths and files; no service is asked."""

import random
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from penstock.cli.benchmark.generating_file import BYTES_MAX, LINES_MAX, read_asked
from penstock.cli.benchmark.generating_lengths import parse_lengths
from penstock.cli.benchmark.generating_options import CONCURRENCIES, GenerationBench, generation_bench
from penstock.cli.measuring import bench_commands
from penstock.errors import InvalidArgument, PenstockError


def bench(**given: Any) -> GenerationBench:
    defaults: dict[str, Any] = {
        "generation": "127.0.0.1:1", "concurrency": "", "rate": "", "find": False, "ttft_p95_ms": None, "itl_p95_ms": None,
        "expect_concurrency": None, "expect_rate": None, "think_s": 0.0, "headroom": 1.3, "prompt_tokens": "512",
        "output_tokens": "128",
    }  # fmt: skip
    return generation_bench(**defaults | given)


def drawn(text: str, count: int = 4000) -> list[int]:
    source = random.Random(7)
    lengths = parse_lengths(text, "--prompt-tokens")
    return sorted(lengths.draw(source) for _ in range(count))


def test_a_number_is_that_length_always() -> None:
    assert set(drawn("512")) == {512}


def test_uniform_lengths_reach_both_ends_and_have_their_middle_between_them() -> None:
    lengths = drawn("uniform:100:300")
    assert (lengths[0], lengths[-1]) == (100, 300)
    assert sum(lengths) / len(lengths) == pytest.approx(200, rel=0.03)


def test_lognormal_lengths_have_their_median_and_their_twentieth_where_the_docstring_says() -> None:
    lengths = drawn("lognormal:600:0.5")
    assert lengths[len(lengths) // 2] == pytest.approx(600, rel=0.05)
    assert lengths[int(0.95 * len(lengths))] == pytest.approx(1370, rel=0.05)


def test_a_lognormal_length_is_never_below_one_token() -> None:
    assert drawn("lognormal:1:3")[0] == 1


@pytest.mark.parametrize("text", ["512", "uniform:128:1024", "lognormal:600:0.5"])
def test_lengths_are_told_as_they_were_written(text: str) -> None:
    assert str(parse_lengths(text, "--prompt-tokens")) == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("many", "not a length in tokens; write 512, uniform"),
        ("0", "0 tokens; from 1 to"),
        ("-5", "-5 tokens"),
        ("9999999999", "from 1 to 1048576"),
        ("uniform:5", "not a length in tokens"),
        ("uniform:300:100", "smaller number first"),
        ("uniform:1.5:3", "not a length"),
        ("lognormal:600:9", "sigma is 9; from 0 to 3"),
        ("lognormal:600:nan", "sigma is nan"),
        ("lognormal:nan:1", "nan tokens"),
        ("zipf:1:2", "no distribution 'zipf'"),
        ("", "not a length"),
    ],
)
def test_what_is_no_length_is_refused_with_the_forms_that_are(text: str, said: str) -> None:
    with pytest.raises(InvalidArgument, match=said) as caught:
        parse_lengths(text, "--output-tokens")
    assert caught.value.message.startswith("--output-tokens")


def test_without_a_load_some_concurrencies_are_tried() -> None:
    assert bench().concurrencies == CONCURRENCIES
    assert bench(concurrency="1, 16").concurrencies == (1, 16)
    assert bench(rate="0.5,2").rates == (0.5, 2.0)


def test_a_limit_alone_means_that_the_rate_is_searched_for() -> None:
    assert bench().promise is None
    promise = bench(itl_p95_ms=50.0, expect_rate=3.0).promise
    assert promise is not None
    assert (promise.ttft_p95_ms, promise.itl_p95_ms) == (None, 50.0)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"concurrency": "1", "rate": "1"}, "--concurrency .closed loop. or --rate"),
        ({"find": True}, "--find needs the limits to keep: add --ttft-p95-ms 500"),
        ({"ttft_p95_ms": 1.0, "rate": "1"}, "leave out --concurrency and --rate"),
        ({"expect_rate": 1.0}, "sizing needs the limits .* add --ttft-p95-ms"),
        ({"ttft_p95_ms": 1.0, "expect_rate": 1.0, "expect_concurrency": 5}, "--expect-concurrency or --expect-rate"),
        ({"concurrency": "1.5"}, "must be whole numbers"),
        ({"concurrency": "x"}, "not a list of numbers such as"),
        ({"concurrency": "0"}, "above 0 and at most 4096"),
        ({"concurrency": "5000"}, "at most 4096"),
        ({"rate": "nan"}, "above 0 and at most"),
        ({"rate": ",".join(["1"] * 33)}, "has 33 numbers, at most 32"),
    ],
)
def test_options_that_do_not_go_together_are_refused_with_what_to_write(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidArgument, match=said):
        bench(**given)


@pytest.mark.parametrize(
    "arguments", [["--find"], ["--prompt-tokens", "much"], ["--rate", "1", "--concurrency", "1"], ["--plot", "plot.jpeg2000"]]
)
def test_the_command_refuses_bad_options_before_it_asks_anyone(arguments: list[str]) -> None:
    result = CliRunner().invoke(bench_commands, ["generate", "--generation", "127.0.0.1:1", *arguments])
    assert isinstance(result.exception, InvalidArgument)


def test_a_service_that_is_not_there_is_told_as_such() -> None:
    result = CliRunner().invoke(bench_commands, ["generate", "--generation", "127.0.0.1:1"])
    assert isinstance(result.exception, PenstockError)
    assert "the generation service cannot be reached" in result.exception.message


def test_a_file_has_prompts_conversations_and_lengths(tmp_path: Path) -> None:
    file = tmp_path / "asked.jsonl"
    file.write_text(
        '{"prompt": "Why?", "output_tokens": 12, "at": "12:00"}\n\n'
        '{"messages": [{"role": "user", "content": "Grüezi"}]}\n'
        '{"prompt_tokens": 812, "output_tokens": 64}\n'
    )
    raw, chat, lengths = read_asked(file)
    assert (raw.prompt, raw.output_tokens) == ("Why?", 12)
    assert (chat.messages[0].role, chat.messages[0].content, chat.output_tokens) == ("user", "Grüezi", None)
    assert (lengths.prompt_tokens, lengths.output_tokens) == (812, 64)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2: Invalid JSON"),
        ("[]", "line 2: "),
        ("{}", "exactly one of prompt, messages and prompt_tokens"),
        ('{"prompt": "a", "prompt_tokens": 3}', "exactly one of"),
        ('{"prompt_tokens": 0}', "line 2: prompt_tokens: "),
        ('{"prompt": "a", "output_tokens": 99999999}', "line 2: output_tokens: "),
        ('{"messages": [{"role": "tool", "content": ""}]}', r"line 2: messages\.0\.role: "),
    ],
)
def test_a_line_that_is_none_of_these_is_refused_with_its_number(tmp_path: Path, line: str, said: str) -> None:
    file = tmp_path / "asked.jsonl"
    file.write_text(f'{{"prompt": "a"}}\n{line}\n')
    with pytest.raises(InvalidArgument, match=said):
        read_asked(file)


def test_a_file_that_holds_nothing_or_no_text_or_too_much_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "asked.jsonl"
    file.write_text("\n")
    with pytest.raises(InvalidArgument, match=r'is empty; a line is like \{"prompt_tokens"'):
        read_asked(file)
    file.write_bytes(b"\xff\xfe{")
    with pytest.raises(InvalidArgument, match="cannot be read as lines of JSON"):
        read_asked(file)
    with file.open("wb") as large:
        large.truncate(BYTES_MAX + 1)
    with pytest.raises(InvalidArgument, match="take some of its lines"):
        read_asked(file)


def test_of_a_long_file_the_first_lines_are_taken(tmp_path: Path) -> None:
    file = tmp_path / "asked.jsonl"
    file.write_text('{"prompt_tokens": 1}\n' * (LINES_MAX + 5))
    assert len(read_asked(file)) == LINES_MAX
