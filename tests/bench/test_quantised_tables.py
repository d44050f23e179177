"""The comparison's arithmetic: everything is divided by bf16 at the same number of streams."""

from bench.closed_loop import Sample
from bench.quantised_tables import quantised_tables


def sample(*, tokens: int, seconds: float, cpu_s: float) -> Sample:
    return Sample(
        requests=1, errors=0, faults={}, seconds=seconds, p50_ms=1.0, p99_ms=1.0, first_p50_ms=50.0 * seconds, first_p99_ms=1.0,
        events=1, output_tokens=tokens, cpu_s={"service": cpu_s, "client": 9.0}, other_cores=0.0,
    )  # fmt: skip


def size(precision: str, weights_mib: float, anonymous_mib: float) -> dict[str, object]:
    memory = {"rss_mib": 2 * anonymous_mib, "anonymous_mib": anonymous_mib}
    return {"precision": precision, "weights_mib": weights_mib, "loaded": memory, "after": memory}


FOUND = {
    ("bf16", 1): [sample(tokens=100, seconds=10.0, cpu_s=10.0)],
    ("w8a8", 1): [sample(tokens=100, seconds=20.0, cpu_s=20.0)],
    ("bf16", 8): [sample(tokens=100, seconds=4.0, cpu_s=4.0)],
    ("w8a8", 8): [sample(tokens=100, seconds=2.0, cpu_s=1.0)],
}


def test_rates_first_tokens_and_cpu_are_told_beside_those_of_bf16_with_as_many_streams() -> None:
    rates, _ = quantised_tables(FOUND, [size("bf16", 200.0, 900.0), size("w8a8", 100.0, 850.0)])
    rows = [
        dict(zip(("precision", "streams", "tokens", "rate", "to", "first", "first to", "cpu", "cpu to"), row, strict=False))
        for row in rates.rows
    ]
    assert [(row["precision"], row["streams"], row["to"]) for row in rows] == [
        ("bf16", "1", "1.00 x"), ("w8a8", "1", "0.50 x"), ("bf16", "8", "1.00 x"), ("w8a8", "8", "2.00 x"),
    ]  # fmt: skip
    assert [(row["first to"], row["cpu to"]) for row in rows] == [
        ("1.00 x", "1.00 x"), ("2.00 x", "2.00 x"), ("1.00 x", "1.00 x"), ("0.50 x", "0.25 x"),
    ]  # fmt: skip


def test_memory_that_grew_is_told_as_a_negative_saving() -> None:
    _, memory = quantised_tables(FOUND, [size("bf16", 200.0, 900.0), size("w8a8", 100.0, 950.0)])
    plain, quantised = memory.rows
    assert plain[:3] == ("bf16", "200", "1.00 x")
    assert quantised[2:5] == ("0.50 x", "950", "-50")
