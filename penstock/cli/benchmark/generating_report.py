"""How streamed answers are told: a table of throughput and times, and a plot of them over the load."""

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

from rich import box
from rich.table import Table
from rich.text import Text

from penstock.cli.benchmark.generating_figures import PERCENTS, Figures, Percentiles, Spread
from penstock.cli.benchmark.generating_search import Found, Promise
from penstock.cli.benchmark.report import CLIENT_BUSY_CORES, figure_class

FEW_ANSWERS: Final = 100
"""With fewer a 95th percentile rests on less than five of them."""
SERVICE_COLUMNS: Final = {"queued": "queued", "first token": "first token", "per token": "per token after it"}


def figures_table(title: str, windows: Sequence[Figures], broken: Sequence[Sequence[str]] = ()) -> Table:
    """A row a window; with `broken`, one entry for each, whether it kept the promise."""
    is_rate = bool(windows) and windows[-1].is_rate
    columns = (
        "offered/s" if is_rate else "in flight",
        "answers/s",
        "output\ntokens/s",
        "input\ntokens/s",
        "TTFT ms\np50/p95/p99",
        "ITL ms\np50/p95/p99",
        "latency s\np50/p99",
        "refused",
        "errors",
        *(("promise",) if broken else ()),
    )
    table = _table(title, columns)
    for number, each in enumerate(windows):
        table.add_row(
            f"{each.setting:.3g}" if each.is_rate == is_rate else f"{each.setting:g} alone",
            f"{each.requests_per_s:.2f}",
            f"{each.output_tokens_per_s:,.0f}",
            f"{each.input_tokens_per_s:,.0f}",
            _cell(each.ttft_ms),
            _cell(each.itl_ms),
            f"{each.latency_ms['p50'] / 1000:.2f}/{each.latency_ms['p99'] / 1000:.2f}",
            f"{each.refused} ({each.refused_ms['p99']:.0f} ms)" if each.refused else "0",
            str(sum(each.faults.values())),
            *((", ".join(broken[number]) or "kept",) if broken else ()),
        )
    return table


def service_table(windows: Sequence[Figures]) -> Table | None:
    """The service's own times for the same answers; None where it gives none."""
    told = [each for each in windows if each.service_ms]
    if not told:
        return None
    heads = (f"{said} ms\np50/p95/p99" for said in SERVICE_COLUMNS.values())
    table = _table("By the service's own clock", ("offered/s" if told[-1].is_rate else "in flight", *heads))
    for each in told:
        cells = (_cell(each.service_ms[name]) if name in each.service_ms else "-" for name in SERVICE_COLUMNS)
        table.add_row(f"{each.setting:.3g}", *cells)
    return table


def notes(windows: Sequence[Figures]) -> list[str]:
    """What a reader of the table must know, a sentence each."""
    said = [_counting(windows), *_lengths(windows)]
    if few := min((each.answers for each in windows if each.answers < FEW_ANSWERS), default=0):
        said.append(f"With {few} answers or little more in a row, its p95 and p99 rest on very few: give a longer --seconds.")
    if any(not each.answers for each in windows):
        said.append("In some rows nothing was answered in the window: all of it failed, or --seconds is too short.")
    elif any(each.latency_mean_s > each.seconds / 2 for each in windows):
        said.append(
            "An answer takes over half of the window: give a longer --seconds, or the beginning and the end weigh much."
        )
    if any(each.client_cores > CLIENT_BUSY_CORES for each in windows):
        said.append(f"This client kept over {CLIENT_BUSY_CORES} cores busy: it may be slower than the service.")
    messages = {fault: message for each in windows for fault, message in each.said.items()}
    return said + [f"{fault}: {message}" for fault, message in messages.items()]


def _counting(windows: Sequence[Figures]) -> str:
    counted = "the moment that was drawn for it" if any(each.is_rate for each in windows) else "its sending"
    return (
        f"A request's times count from {counted}. ITL is the time between two deltas divided by the tokens of the second: "
        "within a delta that the service gathered it can't be seen. In brackets how fast 99 of 100 were refused."
    )


def _lengths(windows: Sequence[Figures]) -> list[str]:
    """Tokens as the service counted them, of the window with the most answers."""
    largest = max(windows, key=lambda each: each.answers)
    if not largest.answers:
        return []
    said = [f"Prompts had {_spread(largest.input_tokens)} tokens, answers {_spread(largest.output_tokens)}."]
    if largest.cached_share:
        said.append(f"The prefix cache had {largest.cached_share:.0%} of the prompts' tokens.")
    if share := largest.ended_early / largest.answers:
        said.append(f"{share:.0%} of the answers ended by themselves before their length was reached.")
    return said


def _spread(spread: Spread) -> str:
    if spread.least == spread.most:
        return f"{spread.most:.0f}"
    return f"{spread.least:.0f} to {spread.most:.0f} (mean {spread.mean:.0f}, p50 {spread.p50:.0f}, p95 {spread.p95:.0f})"


def found_said(found: Found, promise: Promise) -> str:
    """What the search came to, as a sentence."""
    if found.rate is None:
        lowest = min(each.figures.setting for each in found.tried)
        return (
            f"No rate that was tried keeps {promise}. The lowest was {lowest:.3g} a second; for less give a longer --seconds."
        )
    said = f"{found.rate:.3g} a second is the highest rate that was seen to keep {promise}"
    if not found.is_confirmed:
        return f"{said}; the windows ran out before it was confirmed: give more --trials."
    kept = sum(not each.broken for each in found.windows)
    said += f", in {kept} of its {len(found.windows)} windows"
    if found.broken is None:
        return f"{said}; higher ones were not tried: give more --trials."
    return f"{said}; {found.broken:.3g} broke it."


def draw_figures(path: Path, title: str, windows: Sequence[Figures], promise: Promise | None, found: float | None) -> None:
    """Output tokens a second, time to first token and inter-token time, each over the load."""
    shown = [each for each in windows if each.answers]
    figure = figure_class()(figsize=(13, 4.2), layout="constrained")
    throughput, first, between = figure.subplots(1, 3)
    _draw_line(throughput, shown, lambda each: each.output_tokens_per_s, "tokens")
    throughput.set(ylabel="output tokens a second")
    limits = (promise.ttft_p95_ms, promise.itl_p95_ms) if promise else (None, None)
    sides = ((first, "time to first token, ms", "ttft_ms", limits[0]), (between, "inter-token time, ms", "itl_ms", limits[1]))
    for axes, label, field, limit in sides:
        for name in PERCENTS:
            _draw_line(axes, shown, _percentile_of(field, name), name)
        if limit is not None:
            axes.axhline(limit, color="black", linestyle="--", linewidth=1, label=f"{limit:g} ms asked of p95")
        axes.set(ylabel=label)
    for axes in (throughput, first, between):
        axes.set_xlabel("requests offered a second" if shown and shown[-1].is_rate else "requests in flight")
        axes.set_ylim(bottom=0)
        axes.grid(visible=True, alpha=0.3)
        if found is not None:
            axes.axvline(found, color="grey", linestyle=":", label=f"{found:.3g} a second")
        axes.legend()
    figure.suptitle(title)
    figure.savefig(path)


def _percentile_of(field: str, name: str) -> Callable[[Figures], float]:
    return lambda each: float(getattr(each, field)[name])


def _draw_line(axes: Any, windows: Sequence[Figures], value: Callable[[Figures], float], label: str) -> None:
    """Through the medians of each load, with a faint point for each window."""
    loads = sorted({each.setting for each in windows})
    medians = [median(value(each) for each in windows if each.setting == load) for load in loads]
    (line,) = axes.plot(loads, medians, marker="o", label=label)
    axes.plot([each.setting for each in windows], [*map(value, windows)], "o", color=line.get_color(), alpha=0.3)


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=Text(title), box=box.SIMPLE_HEAD, title_justify="left")
    for column in columns:
        table.add_column(column, justify="left" if column == "promise" else "right", no_wrap=column != "promise")
    return table


def _cell(values: Percentiles) -> str:
    return "/".join(f"{value:,.{0 if value >= 100 else 1}f}" for value in values.values())
