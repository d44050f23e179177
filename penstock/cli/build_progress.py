"""How a build is shown: a bar a phase, and what came of it at the end."""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

PHASES: Final = {"rows": "reading and recording", "shards": "indexing", "published": "published, clearing"}


class BuildBar:
    """Called with each progress that the bulk process tells."""

    def __init__(self, collection: str, console: Console) -> None:
        columns = (
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(),
            TextColumn("{task.fields[counts]}"), TimeElapsedColumn(),
        )  # fmt: skip
        self._progress = Progress(*columns, console=console)
        self._console = console
        self._collection = collection
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def __call__(self, told: Mapping[str, Any]) -> None:
        phase = told["phase"]
        if phase not in self._tasks:
            if told["resumed"] and not self._tasks:
                self._console.print(f"[bold]going on[/] with the build of {self._collection}")
            self._tasks[phase] = self._progress.add_task(PHASES[phase], total=None, counts="")
        counts = f"{told['chunk_count']:,} chunks" + (f", {told['error_count']:,} errors" if told["error_count"] else "")
        self._progress.update(self._tasks[phase], completed=told["done"], total=told["total"] or 1, counts=counts)


def summary_table(result: Mapping[str, Any]) -> Table:
    """What came of a build."""
    table = Table(title=f"built {result['collection']}", box=box.SIMPLE_HEAD, show_header=False, title_justify="left")
    for name, value in _facts(result).items():
        table.add_row(name, value)
    for place, message in result["first_errors"]:
        table.add_row("left out", f"{place}: {message}")
    return table


def _facts(result: Mapping[str, Any]) -> dict[str, str]:
    seconds, chunks = result["seconds"], result["chunk_count"]
    facts = {
        "documents": f"{result['document_count']:,}",
        "chunks": f"{chunks:,} in {result['shard_count']} shards",
        "index": f"{', '.join(result['index_kinds']) or 'none'}, {result['size_bytes'] / 2**20:,.0f} MiB",
        "recall@10": "exact" if result["recall"] is None else f"{result['recall']:.4f} of 100 stored vectors a shard",
        "time": ", ".join(f"{PHASES[phase]} {spent:,.1f} s" for phase, spent in seconds.items()),
        "rate": f"{chunks / max(sum(seconds.values()), 1e-3):,.0f} chunks/s",
    }
    if result["error_count"]:
        facts["errors"] = f"{result['error_count']:,} records were left out; all of them are in {result['errors_file']}"
    return facts
