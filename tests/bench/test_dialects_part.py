"""What one more token of a stream costs, and how memory grows: the arithmetic, and both parts at their smallest."""

from pathlib import Path

import pytest

from bench.closed_loop import Sample
from bench.dialects_tables import Streams, dialects_tables
from bench.soak_tables import Step, growth, soak_tables
from tests.bench.test_command import bench


def sample(*, requests: int, events: int, gateway_s: float, errors: int = 0) -> Sample:
    return Sample(
        requests=requests, errors=errors, faults={}, seconds=1.0, p50_ms=1.0, p99_ms=1.0, first_p50_ms=1.0, first_p99_ms=1.0,
        events=events, output_tokens=0, cpu_s={"gateway": gateway_s, "generation": 2 * gateway_s, "client": 9.0},
        other_cores=0.0,
    )  # fmt: skip


SHORT = sample(requests=10, events=60, gateway_s=0.010)
"""1 ms of the gateway's a stream, with 6 events."""
STREAMS = Streams(few=SHORT, many=sample(requests=20, events=2120, gateway_s=0.100), tokens=(20, 420))
"""The long ones: 5 ms, with 106 events."""


def step(runs: int, gateway: float, *, seconds: float = 1.0) -> Step:
    memory = {"generation": {"RSS": 60.0, "PSS": 50.0, "anonymous": 40.0}}
    memory["gateway"] = {"RSS": 2 * gateway, "PSS": gateway, "anonymous": gateway}
    return Step(runs=runs, memory_mib=memory, seconds=seconds)


def test_what_a_stream_costs_anyhow_is_not_in_the_cost_of_its_tokens() -> None:
    assert STREAMS.us_an_event("gateway") == pytest.approx(40)
    assert STREAMS.us_a_token("gateway") == pytest.approx(10)
    assert STREAMS.us_an_event("generation") == pytest.approx(80)


def test_streams_without_more_events_have_no_cost_an_event() -> None:
    none = Streams(few=SHORT, many=sample(requests=1, events=6, gateway_s=1.0), tokens=(20, 420))
    assert none.us_an_event("gateway") == 0


def test_the_tables_have_the_cost_of_a_run_and_the_errors_of_short_and_long_streams() -> None:
    faulty = Streams(few=sample(requests=1, events=1, gateway_s=0.1, errors=2), many=STREAMS.many, tokens=(20, 420))
    whole = sample(requests=10, events=0, gateway_s=0.005)
    unary, streams = dialects_tables({"/run": [whole]}, {("/run", ", alone"): [STREAMS, faulty]})
    assert dict(zip(unary.columns, unary.rows[0], strict=True))["CPU gateway"] == "0.5"
    row = dict(zip(streams.columns, streams.rows[0], strict=True))
    assert (row["path"], row["errors"]) == ("/run, alone", "2")


def test_growth_is_told_from_where_memory_has_settled() -> None:
    steps = [step(0, 100.0), step(400, 129.0), step(500, 130.0), step(1000, 131.5)]
    assert growth(steps, "gateway", "PSS") == (500, 1.5)
    assert growth(steps, "generation", "PSS") == (500, 0.0)
    _, more = soak_tables(steps)
    assert more.rows == (("generation", "500", "0.00", "0.0"), ("gateway", "500", "1.50", "3145.7"))


def test_rates_are_of_the_runs_since_the_row_before() -> None:
    memory, _ = soak_tables([step(0, 1.0, seconds=0.0), step(400, 1.0), step(500, 1.0, seconds=0.5)])
    assert [row[2] for row in memory.rows] == ["-", "400", "200"]
    assert all(len(row) == len(memory.columns) for row in memory.rows)


@pytest.mark.e2e
@pytest.mark.slow
async def test_every_dialect_answers_and_streams_while_it_is_measured(tmp_path: Path) -> None:
    samples = (await bench(tmp_path, "--part", "dialects"))["parts"]["dialects"]["samples"]
    assert all(each["errors"] == 0 and each["requests"] > 0 for each in samples)
    alone = [each for each in samples if each["table"] == "streams" and each["path"].endswith("each token alone")]
    assert {each["tokens"] for each in alone} == {20, 400}
    assert all(each["events"] > each["requests"] for each in alone)


@pytest.mark.e2e
@pytest.mark.slow
async def test_a_soak_makes_all_its_runs_without_an_error(tmp_path: Path) -> None:
    steps = (await bench(tmp_path, "--part", "soak", "--soak-runs", "1000"))["parts"]["soak"]["samples"]
    assert steps[-1]["runs"] == 1000
    assert sum(each["errors"] for each in steps) == 0
    assert {each["way"] for each in steps[1:]} == {"/v1/flows/bench-chat:run", "/api/v1/run/bench-chat", "/v1/chat/completions"}
