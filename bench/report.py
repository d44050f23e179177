"""What a run came to: tables for people, for Markdown and for JSON."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from bench.closed_loop import Sample

Round = Sequence[Sample]
"""The samples of one row, one a round."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Cells are text already. The first column names the row."""

    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartResult:
    """One part: its tables, and everything that they were made from."""

    name: str
    tables: tuple[Table, ...]
    raw: tuple[dict[str, Any], ...]


def middle(samples: Round, of: Callable[[Sample], float]) -> float:
    """The median over the rounds."""
    return median(of(sample) for sample in samples)


def ratio(ours: Round, reference: Round, of: Callable[[Sample], float]) -> float:
    """The median over the rounds of ours divided by the reference that was measured beside it; 0 where that is 0."""
    return median(of(a) / of(b) if of(b) else 0.0 for a, b in zip(ours, reference, strict=True))


def cpu_ms(group: str) -> Callable[[Sample], float]:
    """CPU milliseconds a request of one group of processes."""
    return lambda sample: sample.cpu_ms(group)


def tokens_a_second(sample: Sample) -> float:
    """Tokens of answers a second."""
    return sample.output_tokens / sample.seconds


def cpu_ms_a_token(group: str) -> Callable[[Sample], float]:
    """CPU milliseconds of one group of processes for each token of the answers."""
    return lambda sample: 1000 * sample.cpu_s.get(group, 0.0) / max(1, sample.output_tokens)


def raw(samples: Round, **labels: Any) -> Iterable[dict[str, Any]]:
    """The samples as JSON, under what tells them apart."""
    return ({**labels, "round": number, **asdict(sample)} for number, sample in enumerate(samples))


def number(value: float, digits: int = 3) -> str:
    """With about so many significant digits."""
    if abs(value) < 1e-6:
        return "0"
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def times(value: float) -> str:
    """A ratio."""
    return f"{value:.2f} x" if value else "-"


def show(console: Console, result: PartResult) -> None:
    """Prints the tables."""
    for table in result.tables:
        drawn = RichTable(
            title=table.title, caption=table.note, box=box.SIMPLE_HEAD, title_justify="left", caption_justify="left"
        )
        for index, column in enumerate(table.columns):
            drawn.add_column(column, justify="right" if index else "left")
        for row in table.rows:
            drawn.add_row(*row)
        console.print(drawn)


def markdown(result: PartResult) -> str:
    """The tables in Markdown."""
    parts = []
    for table in result.tables:
        lines = [table.columns, tuple("---:" if index else "---" for index in range(len(table.columns))), *table.rows]
        body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        parts.append(f"**{table.title}**\n\n{body}\n\n{table.note}\n")
    return "\n".join(parts)
