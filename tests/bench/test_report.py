import pytest

from bench.closed_loop import Sample
from bench.report import PartResult, Table, markdown, middle, number, ratio, times


def sample(p50_ms: float) -> Sample:
    return Sample(
        requests=10,
        errors=0,
        faults={},
        seconds=2.0,
        p50_ms=p50_ms,
        p99_ms=0,
        first_p50_ms=0,
        first_p99_ms=0,
        events=0,
        output_tokens=0,
        cpu_s={"gateway": 0.02, "client": 0.01},
        other_cores=0,
    )


def test_a_ratio_is_the_median_of_the_rounds_own_ratios_and_not_of_the_medians() -> None:
    ours, reference = [sample(2), sample(30), sample(9)], [sample(1), sample(10), sample(9)]
    assert ratio(ours, reference, lambda each: each.p50_ms) == 2
    assert middle(ours, lambda each: each.p50_ms) == 9


def test_a_sample_knows_its_rate_and_its_cpu_time_a_request() -> None:
    assert sample(1).rate == 5
    assert sample(1).cpu_ms("gateway") == pytest.approx(2)
    assert sample(1).cpu_ms("gateway", "client") == pytest.approx(3)


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.01234, "0.0123"), (1.5, "1.5"), (123.4, "123"), (12345.6, "12,346"), (-171.2, "-171")]
)
def test_numbers_have_about_three_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_a_ratio_to_nothing_is_no_number() -> None:
    assert (times(0), times(1.234)) == ("-", "1.23 x")


def test_tables_are_written_in_markdown() -> None:
    table = Table(title="T", note="N.", columns=("a", "b"), rows=(("x", "1"),))
    text = markdown(PartResult(name="p", tables=(table,), raw=()))
    assert text == "**T**\n\n| a | b |\n| --- | ---: |\n| x | 1 |\n\nN.\n"
