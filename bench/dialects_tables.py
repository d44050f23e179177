"""The dialects part's tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from bench.closed_loop import Sample
from bench.report import Round, Table, cpu_ms, middle, number

UNARY_IN_FLIGHT: Final = 8
STREAMS_IN_FLIGHT: Final = 16
_SERVERS: Final = ("gateway", "generation")


@dataclass(frozen=True, slots=True, kw_only=True)
class Streams:
    """Of one round: short streams and long ones, and how many tokens each has."""

    few: Sample
    many: Sample
    tokens: tuple[int, int]

    def us_a_token(self, group: str) -> float:
        """CPU microseconds that a token more costs."""
        few, many = self.tokens
        return self._more_us(group) / (many - few)

    def us_an_event(self, group: str) -> float:
        """And an event more, which may carry several tokens; 0 where the long streams have no more of them."""
        more = self.events(self.many) - self.events(self.few)
        return self._more_us(group) / more if more > 0 else 0.0

    def _more_us(self, group: str) -> float:
        return 1000 * (self.many.cpu_ms(group) - self.few.cpu_ms(group))

    @staticmethod
    def events(sample: Sample) -> float:
        """Of text, a stream."""
        return sample.events / max(1, sample.requests)


def dialects_tables(unary: Mapping[str, Round], streams: Mapping[tuple[str, str], Sequence[Streams]]) -> tuple[Table, ...]:
    """Both of them."""
    return _unary(unary), _streams(streams)


def _unary(unary: Mapping[str, Round]) -> Table:
    rows = [
        (
            name,
            number(middle(samples, lambda each: each.rate)),
            number(middle(samples, lambda each: each.p50_ms)),
            number(middle(samples, lambda each: each.p99_ms)),
            str(sum(each.errors for each in samples)),
            *(number(middle(samples, cpu_ms(group))) for group in _SERVERS),
            number(middle(samples, lambda each: each.other_cores), 2),
        )
        for name, samples in unary.items()
    ]
    return Table(
        title="A run over HTTP, by dialect: whole answers",
        note=f"CPU in ms a run. {UNARY_IN_FLIGHT} in flight.",
        columns=("path", "runs/s", "p50 ms", "p99 ms", "errors", "CPU gateway", "CPU generation", "other"),
        rows=tuple(rows),
    )


def _streams(streams: Mapping[tuple[str, str], Sequence[Streams]]) -> Table:
    rows = []
    for (name, stack), those in streams.items():
        rows.append(
            (
                name + stack,
                number(median(each.events(each.many) for each in those)),
                str(sum(each.few.errors + each.many.errors for each in those)),
                *(number(median(each.us_an_event(group) for each in those)) for group in _SERVERS),
                *(number(median(each.us_a_token(group) for each in those)) for group in _SERVERS),
                number(median(each.many.other_cores for each in those), 2),
            )
        )
    return Table(
        title="The same, streamed: what one more of the stream costs",
        note="CPU in microseconds: that of streams of many tokens less that of streams of few, over the difference in events "
        f"of text, or in tokens. {STREAMS_IN_FLIGHT} in flight.",
        columns=(
            "path", "events a stream", "errors", "gateway/event", "generation/event", "gateway/token", "generation/token",
            "other",
        ),
        rows=tuple(rows),
    )  # fmt: skip
