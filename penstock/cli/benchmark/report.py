"""How searches are told: speed beside recall, as a table and as a plot."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich import box
from rich.table import Table

from penstock.cli.benchmark.loops import PERCENTS
from penstock.clients import Collection
from penstock.errors import FailedPrecondition, InvalidArgument

if TYPE_CHECKING:
    from penstock.cli.benchmark.searching import BenchOptions, SettingResult

CLIENT_BUSY_CORES: Final = 0.9
PICTURES: Final = (".png", ".svg", ".pdf")
_NAMES: Final = {"ef_search": "ef", "nprobe": "nprobe"}


def table_of(results: Sequence["SettingResult"], collection: Collection, options: "BenchOptions") -> Table:
    """A row a setting."""
    asked = f"{options.rate:g} a second, open loop" if options.rate else f"{options.in_flight} in flight, closed loop"
    shards = f"{collection.shard_count} shards" if collection.shard_count > 1 else "one shard"
    table = Table(
        title=f"{collection.name}: {collection.chunk_count:,} chunks x {collection.dimension}, "
        f"{collection.index_kind_in_use}, {shards}; {asked}",
        caption=_note(results, options),
        box=box.SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
    )
    columns = (_NAMES[options.parameter], f"recall@{options.top_k}", "QPS", *(f"{name} ms" for name in PERCENTS), "errors")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for result in results:
        table.add_row(
            str(result.setting or "own"),
            f"{result.recall:.4f}",
            f"{result.rate:,.0f}",
            *(f"{value:.2f}" for value in result.latency_ms.values()),
            str(result.errors),
        )
    return table


def _note(results: Sequence["SettingResult"], options: "BenchOptions") -> str:
    counted = "from the moment that was drawn for it" if options.rate else "from its sending"
    note = f"Median of {options.rounds} rounds of {options.seconds:g} s; an answer's time counts {counted}."
    if any(result.client_cores > CLIENT_BUSY_CORES for result in results):
        note += f" This client kept over {CLIENT_BUSY_CORES} cores busy: it may be slower than the server."
    return note


def check_plot(path: Path) -> None:
    """Raises InvalidArgument where the file's ending names no kind of picture, FailedPrecondition where none can be drawn."""
    if path.suffix not in PICTURES:
        raise InvalidArgument(f"{path}: a plot is written to {', '.join(PICTURES)}")
    figure_class()


def draw_plot(path: Path, results: Sequence["SettingResult"], options: "BenchOptions") -> None:
    """Queries a second, and the 99th percentile, each over recall."""
    figure = figure_class()(figsize=(10, 4.5), layout="constrained")
    sides = (
        ("queries a second", [result.rate for result in results]),
        ("p99, ms", [result.latency_ms["p99"] for result in results]),
    )
    for axes, (label, values) in zip(figure.subplots(1, 2), sides, strict=True):
        axes.plot([result.recall for result in results], values, marker="o")
        axes.set(xlabel=f"recall@{options.top_k}", ylabel=label)
        axes.margins(x=0.12)
        axes.set_ylim(0, 1.15 * max(values) or 1)
        axes.grid(visible=True, alpha=0.3)
        for result, value in zip(results, values, strict=True):
            said = f"{_NAMES[options.parameter]} {result.setting or 'own'}"
            axes.annotate(said, (result.recall, value), textcoords="offset points", xytext=(6, 6))
    asked = f"{options.rate:g} a second" if options.rate else f"{options.in_flight} in flight"
    figure.suptitle(f"{options.collection}, {asked}")
    figure.savefig(path)


def figure_class() -> Any:
    """Matplotlib's Figure, which draws without a screen. Raises FailedPrecondition where it is not installed."""
    try:
        return importlib.import_module("matplotlib.figure").Figure
    except ImportError as error:
        raise FailedPrecondition("a plot needs matplotlib: pip install 'penstock[measuring]'") from error
