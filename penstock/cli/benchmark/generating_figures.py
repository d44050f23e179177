"""What one window of streamed answers says: throughput, and the percentiles of three times.

    time to first token   from the sending (closed loop) or the intended moment (open loop) to the first token
    inter-token time      between two deltas, divided by the tokens of the second, which is counted once for each of them
    latency               to the end of the stream

A service gathers tokens into deltas, so what lies between the tokens of one can't be seen from outside: a pause within it is
spread over them. Latencies are those of the answers that the loop counts; throughput is what came within the window, of
whichever request, so that an answer longer than the window has its part in it.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from penstock.cli.benchmark.generating_calls import REFUSED, Exchange
from penstock.cli.benchmark.loops import Measured, percentile
from penstock.generation.v1 import generation_pb2 as pb

PERCENTS: Final[Mapping[str, float]] = {"p50": 50.0, "p95": 95.0, "p99": 99.0}
Percentiles = Mapping[str, float]
GAPS_PER_MS: Final = 100
"""Inter-token times are kept to a hundredth of a millisecond, counted: so their memory has a bound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Numbers in short."""

    count: int
    mean: float
    least: float
    p50: float
    p95: float
    most: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One window. `setting` is the concurrency or, in an open loop, the rate that was offered.

    `in_flight` is the mean number of requests under way, `fell_behind` how many more were so at the end than at the start.
    `faults` are failures other than refusals, by status, and `said` the first message of each. `service_ms` are the service's
    own times for the same answers, empty where it gives none. Of nothing a percentile is 0.
    """

    setting: float
    is_rate: bool
    seconds: float
    answers: int
    asked_per_s: float
    requests_per_s: float
    output_tokens_per_s: float
    input_tokens_per_s: float
    ttft_ms: Percentiles
    itl_ms: Percentiles
    latency_ms: Percentiles
    latency_mean_s: float
    refused: int
    refused_ms: Percentiles
    faults: Mapping[str, int]
    said: Mapping[str, str]
    in_flight: float
    fell_behind: int
    input_tokens: Spread
    output_tokens: Spread
    cached_share: float
    ended_early: int
    service_ms: Mapping[str, Percentiles]
    queued_mean_s: float
    client_cores: float

    @property
    def lost(self) -> int:
        """Requests that were refused or failed."""
        return self.refused + sum(self.faults.values())

    @property
    def lost_share(self) -> float:
        """Of all that were counted."""
        return self.lost / max(1, self.lost + self.answers)


class Recorder:
    """Sends a window's requests for a loop, and observes which of them it counts."""

    def __init__(self, exchange: Callable[[int], Awaitable[Exchange]]) -> None:
        self._exchange = exchange
        self._ended: dict[int, Exchange] = {}
        self._flow = _Flow()
        self._counted = _Counted()

    async def call(self, number: int) -> str:
        """A Call of the loop."""
        exchange = await self._exchange(number)
        self._ended[number] = exchange
        return exchange.fault

    def begins(self, starts: float, until: float) -> None:
        self._flow = _Flow(starts=starts, until=until)

    def ended(self, number: int, *, counted_from: float, is_counted: bool) -> None:
        exchange = self._ended.pop(number)
        self._flow.add(exchange)
        if is_counted:
            self._counted.add(exchange, counted_from)

    def figures(self, measured: Measured, setting: float, *, is_rate: bool) -> Figures:
        """What was observed of the window that the loop has measured."""
        counted, flow, seconds = self._counted, self._flow, measured.seconds
        return Figures(
            setting=setting,
            is_rate=is_rate,
            seconds=seconds,
            answers=len(counted.latency_ms),
            asked_per_s=flow.asked / seconds,
            requests_per_s=flow.answered / seconds,
            output_tokens_per_s=flow.output_tokens / seconds,
            input_tokens_per_s=flow.input_tokens / seconds,
            ttft_ms=_percentiles(counted.ttft_ms),
            itl_ms={name: token_percentile(counted.gaps, percent) for name, percent in PERCENTS.items()},
            latency_ms=_percentiles(counted.latency_ms),
            latency_mean_s=_mean(counted.latency_ms) / 1000,
            refused=len(counted.refused_ms),
            refused_ms=_percentiles(counted.refused_ms),
            faults=dict(counted.faults),
            said=dict(counted.said),
            in_flight=flow.busy_s / seconds,
            fell_behind=flow.at_end - flow.at_start,
            input_tokens=spread(counted.input_tokens),
            output_tokens=spread(counted.output_tokens),
            cached_share=counted.cached_tokens / max(1, sum(counted.input_tokens)),
            ended_early=counted.ended_early,
            service_ms={name: _percentiles(values) for name, values in counted.service_ms.items() if values},
            queued_mean_s=_mean(counted.service_ms["queued"]) / 1000,
            client_cores=measured.client_cores,
        )


@dataclass(slots=True, kw_only=True)
class _Flow:
    """What passes in the window, of whichever request."""

    starts: float = 0.0
    until: float = 0.0
    asked: int = 0
    answered: int = 0
    output_tokens: int = 0
    input_tokens: int = 0
    busy_s: float = 0.0
    at_start: int = 0
    at_end: int = 0

    def add(self, exchange: Exchange) -> None:
        self.asked += self._has(exchange.sent)
        self.answered += not exchange.fault and self._has(exchange.ended)
        self.output_tokens += sum(tokens for moment, tokens in exchange.arrivals if self._has(moment))
        if exchange.done is not None and exchange.arrivals and self._has(exchange.arrivals[0][0]):
            self.input_tokens += exchange.done.usage.input_tokens
        self.busy_s += max(0.0, min(exchange.ended, self.until) - max(exchange.sent, self.starts))
        self.at_start += exchange.sent < self.starts <= exchange.ended
        self.at_end += exchange.sent < self.until <= exchange.ended

    def _has(self, moment: float) -> bool:
        return self.starts <= moment < self.until


@dataclass(slots=True, kw_only=True)
class _Counted:
    """Times and tokens of the requests that the loop counts."""

    ttft_ms: list[float] = field(default_factory=list)
    latency_ms: list[float] = field(default_factory=list)
    gaps: Counter[int] = field(default_factory=Counter)
    refused_ms: list[float] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    said: dict[str, str] = field(default_factory=dict)
    input_tokens: list[int] = field(default_factory=list)
    output_tokens: list[int] = field(default_factory=list)
    cached_tokens: int = 0
    ended_early: int = 0
    service_ms: dict[str, list[float]] = field(default_factory=lambda: {"queued": [], "first token": [], "per token": []})

    def add(self, exchange: Exchange, counted_from: float) -> None:
        if exchange.fault == REFUSED:
            self.refused_ms.append(1000 * (exchange.ended - exchange.sent))
            self.said.setdefault(REFUSED, exchange.said)
        elif exchange.fault or exchange.done is None:
            self.faults[exchange.fault] += 1
            self.said.setdefault(exchange.fault, exchange.said)
        else:
            self._add_answer(exchange, exchange.done, counted_from)

    def _add_answer(self, exchange: Exchange, done: pb.StreamGenerateResponse.Done, counted_from: float) -> None:
        self.latency_ms.append(1000 * (exchange.ended - counted_from))
        if exchange.arrivals:
            self.ttft_ms.append(1000 * (exchange.arrivals[0][0] - counted_from))
        for (before, _), (moment, tokens) in zip(exchange.arrivals, exchange.arrivals[1:], strict=False):
            self.gaps[round(1000 * GAPS_PER_MS * (moment - before) / tokens)] += tokens
        self.input_tokens.append(done.usage.input_tokens)
        self.output_tokens.append(done.usage.output_tokens)
        self.cached_tokens += done.usage.cached_tokens
        self.ended_early += done.finish_reason == pb.FINISH_REASON_STOP
        if done.timings.done_s:
            self._add_timings(done.timings, done.usage.output_tokens)

    def _add_timings(self, timings: pb.Timings, tokens: int) -> None:
        self.service_ms["queued"].append(1000 * timings.queued_s)
        self.service_ms["first token"].append(1000 * timings.first_token_s)
        if tokens > 1:
            self.service_ms["per token"].append(1000 * (timings.done_s - timings.first_token_s) / (tokens - 1))


def token_percentile(gaps: Mapping[int, int], percent: float) -> float:
    """In ms, of counted gaps in units of 1 / GAPS_PER_MS: the least that so many of a hundred tokens do not exceed."""
    wanted, seen = sum(gaps.values()) * percent / 100, 0
    for gap in sorted(gaps):
        seen += gaps[gap]
        if seen >= wanted:
            return gap / GAPS_PER_MS
    return 0.0


def spread(numbers: Sequence[int]) -> Spread:
    """Of nothing everything is 0."""
    least, most = min(numbers, default=0), max(numbers, default=0)
    p50, p95 = (percentile(numbers, percent) for percent in (50, 95))
    return Spread(count=len(numbers), mean=_mean(numbers), least=least, p50=p50, p95=p95, most=most)


def _percentiles(values: Sequence[float]) -> Percentiles:
    return {name: percentile(values, percent) for name, percent in PERCENTS.items()}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
