"""The flow part's tables."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from bench.closed_loop import Sample
from bench.fake_openai import STREAM_INTERVAL_S, STREAM_TOKENS
from bench.report import Round, Table, cpu_ms, middle, number, ratio, times

Found = Mapping[tuple[str, int], Round]
_SERVERS: Final = ("gateway", "generation")


def flow_tables(
    unary: Found, streams: Found, memory: Sequence[Mapping[str, float]], idle: Mapping[str, float]
) -> tuple[Table, ...]:
    """All of them."""
    return (_unary(unary), _side_by_side(unary), _streams(streams), _memory(memory), _idle(idle))


def _unary(found: Found) -> Table:
    rows = []
    for (name, in_flight), samples in sorted(found.items(), key=lambda item: item[0][1]):
        direct = found["direct", in_flight]
        ours = name != "direct"
        rows.append(
            (
                name,
                str(in_flight),
                number(middle(samples, lambda each: each.rate)),
                number(middle(samples, _p50_ms)),
                number(middle(samples, lambda each: each.p99_ms)),
                str(sum(each.errors for each in samples)),
                *(number(middle(samples, cpu_ms(group))) if ours else "-" for group in _SERVERS),
                number(middle(samples, cpu_ms("fake"))),
                number(middle(samples, cpu_ms("client"))),
                number(middle(samples, _p50_ms) - middle(direct, _p50_ms)) if ours else "-",
                times(ratio(samples, direct, _p50_ms)) if ours else "-",
                number(middle(samples, lambda each: each.other_cores), 2),
            )
        )
    return Table(
        title="A flow of input, prompt, generate, output: whole answers",
        note="CPU in ms a request. direct: the same client asks the fake endpoint itself. other: cores busy elsewhere.",
        columns=(
            "path", "in flight", "requests/s", "p50 ms", "p99 ms", "errors", "CPU gateway", "CPU generation", "CPU fake",
            "CPU client", "added p50 ms", "p50 to direct", "other",
        ),
        rows=tuple(rows),
    )  # fmt: skip


def _side_by_side(found: Found) -> Table:
    rows = []
    for in_flight in sorted({in_flight for _, in_flight in found}):
        http, grpc = found["HTTP", in_flight], found["gRPC", in_flight]
        rows.append(
            (
                str(in_flight),
                times(ratio(http, grpc, lambda each: each.rate)),
                times(ratio(http, grpc, _p50_ms)),
                times(ratio(http, grpc, lambda each: each.p99_ms)),
                times(ratio(http, grpc, cpu_ms("gateway"))),
                times(ratio(http, grpc, cpu_ms("client"))),
            )
        )
    return Table(
        title="HTTP to gRPC",
        note="Medians of the rounds' own ratios.",
        columns=("in flight", "requests/s", "p50", "p99", "CPU gateway", "CPU client"),
        rows=tuple(rows),
    )


def _streams(found: Found) -> Table:
    rows = []
    for (name, in_flight), samples in found.items():
        ours = name != "direct"
        rows.append(
            (
                name,
                str(in_flight),
                number(middle(samples, _tokens_a_second)),
                number(middle(samples, lambda each: each.events / max(1, each.requests))),
                number(middle(samples, lambda each: each.first_p50_ms)),
                number(middle(samples, lambda each: each.first_p99_ms)),
                number(middle(samples, _p50_ms)),
                str(sum(each.errors for each in samples)),
                *(number(middle(samples, _us_a_token(group))) if ours else "-" for group in _SERVERS),
                number(middle(samples, lambda each: _us_an_event(each, "gateway"))) if ours else "-",
                number(middle(samples, lambda each: each.other_cores), 2),
            )
        )
    return Table(
        title=f"The same flow, streamed: {STREAM_TOKENS} tokens, one every {1000 * STREAM_INTERVAL_S:.0f} ms",
        note="CPU in microseconds, everything that a stream costs divided by its tokens, or by its events of text.",
        columns=(
            "path", "in flight", "tokens/s", "events a stream", "first p50 ms", "first p99 ms", "whole p50 ms", "errors",
            "CPU gateway/token", "CPU generation/token", "CPU gateway/event", "other",
        ),
        rows=tuple(rows),
    )  # fmt: skip


def _p50_ms(sample: Sample) -> float:
    return sample.p50_ms


def _tokens_a_second(sample: Sample) -> float:
    return sample.rate * STREAM_TOKENS


def _us_a_token(group: str) -> Callable[[Sample], float]:
    return lambda sample: 1000 * sample.cpu_ms(group) / STREAM_TOKENS


def _us_an_event(sample: Sample, group: str) -> float:
    return 1e6 * sample.cpu_s[group] / max(1, sample.events)


def _memory(memory: Sequence[Mapping[str, float]]) -> Table:
    before, after = memory
    rows = [(name, number(before[name]), number(after[name]), number(after[name] - before[name])) for name in before]
    return Table(
        title="Memory (RSS, MiB)",
        note="Before the first request and after the last.",
        columns=("process", "before", "after", "more"),
        rows=tuple(rows),
    )


def _idle(idle: Mapping[str, float]) -> Table:
    return Table(
        title="Cores in use while nobody asks",
        note="The noise below which nothing can be told.",
        columns=("process", "cores"),
        rows=tuple((name, f"{cores:.3f}") for name, cores in idle.items()),
    )
