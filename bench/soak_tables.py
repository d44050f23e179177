"""The dialects-soak part's tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from bench.dialects import SESSIONS
from bench.report import Table, number

IN_FLIGHT: Final = 32
SETTLED: Final = 0.5
"""Of the runs, from where on growth is told: by then every conversation has as many messages as are kept of it."""
_KINDS: Final = ("RSS", "PSS", "anonymous")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """After so many runs in all: each service's memory by kind; of those since the step before, how they were asked for."""

    runs: int
    memory_mib: Mapping[str, Mapping[str, float]]
    way: str = "-"
    seconds: float = 0.0
    errors: int = 0


def soak_tables(steps: Sequence[Step]) -> tuple[Table, ...]:
    """Both of them."""
    return _memory(steps), _growth(steps)


def growth(steps: Sequence[Step], service: str, kind: str) -> tuple[int, float]:
    """Runs from where memory has settled to the end, and by how many MiB it is more then."""
    last = steps[-1]
    settled = next(each for each in steps if each.runs >= SETTLED * last.runs)
    return last.runs - settled.runs, last.memory_mib[service][kind] - settled.memory_mib[service][kind]


def _memory(steps: Sequence[Step]) -> Table:
    services = list(steps[0].memory_mib)
    done = [0, *(after.runs - before.runs for before, after in pairwise(steps))]
    rows = [
        (
            f"{each.runs:,}",
            each.way,
            number(runs / each.seconds) if each.seconds else "-",
            str(each.errors),
            *(f"{each.memory_mib[name][kind]:.1f}" for name in services for kind in _KINDS),
        )
        for runs, each in zip(done, steps, strict=True)
    ]
    return Table(
        title=f"Memory over many runs (MiB), {IN_FLIGHT} in flight, every tenth streamed",
        note=f"anonymous is what no file holds. Way, runs/s and errors are of the runs since the row before. Runs through "
        f"LangFlow's API belong to {SESSIONS} conversations.",
        columns=("runs", "way", "runs/s", "errors", *(f"{name} {kind}" for name in services for kind in _KINDS)),
        rows=tuple(rows),
    )


def _growth(steps: Sequence[Step]) -> Table:
    rows = []
    for name in steps[0].memory_mib:
        runs, more = growth(steps, name, "PSS")
        rows.append((name, f"{runs:,}", f"{more:.2f}", f"{more * 2**20 / max(1, runs):.1f}"))
    return Table(
        title="How much more at the end",
        note=f"PSS, over the last {100 * (1 - SETTLED):.0f} % of the runs.",
        columns=("service", "runs", "MiB", "bytes a run"),
        rows=tuple(rows),
    )
