"""`penstock eval ...` and `penstock bench ...`: how good, and how fast, a running service is.

What they import needs NumPy, which the other commands do without: it is imported when it is needed, and asked for by name.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import uvloop
from rich.console import Console

from penstock.cli.command import RETRIEVAL_OPTION, in_loop
from penstock.errors import FailedPrecondition, InvalidArgument

_WAYS = ("dense", "lexical", "hybrid, convex", "hybrid, RRF")
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_NEW_FILE = click.Path(dir_okay=False, writable=True, path_type=Path)


@click.group(name="eval")
def eval_commands() -> None:
    """Measure quality by the judgements of people."""


@eval_commands.command(name="retrieval")
@click.argument("folder", type=_FOLDER)
@click.option(
    "--retrieval", "target", envvar="PENSTOCK_RETRIEVAL", default="", help="Address of a service. Not given: starts one."
)
@click.option("--collection", default="", help="Keep the corpus in this collection, and take what is in it where it exists.")
@click.option("--keep", is_flag=True, help="Keep the collection that is made.")
@click.option("--split/--whole", default=False, show_default=True, help="Split documents as ingest does, or store each whole.")
@click.option("--qrels", default="test", show_default=True, help="Which judgements: qrels/NAME.tsv.")
@click.option("--search", "ways", multiple=True, type=click.Choice(_WAYS), help="Only this way of searching; may be repeated.")
@click.option("--ignore-identical-ids", is_flag=True, help="A document with the query's own id counts for nothing (ArguAna).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
@in_loop
async def eval_retrieval(folder: Path, ways: tuple[str, ...], **how: Any) -> None:
    """Measure how good the rankings for a FOLDER of queries with judgements are: nDCG@10, recall@10 and @100, MRR@10.

    FOLDER is in BEIR's format: corpus.jsonl, queries.jsonl, qrels/test.tsv or qrels.tsv. A document longer than the model's
    window is embedded as the mean of its windows, unless it is split.
    """
    with _numpy():
        from penstock.cli.evaluation.evaluating import EvaluationOptions, evaluate_retrieval  # noqa: PLC0415  # As said above.
    options = EvaluationOptions(folder=folder, ways=ways or _WAYS, **how)
    await evaluate_retrieval(options, Console(stderr=True, highlight=False))


@click.group(name="bench")
def bench_commands() -> None:
    """Measure speed."""


@bench_commands.command(name="retrieval")
@click.argument("collection")
@RETRIEVAL_OPTION
@click.option("--queries", type=_FILE, help="Vectors: .npy, .fvecs, or .parquet. Not given: some near those of the collection.")
@click.option("--draw", default=1000, show_default=True, type=click.IntRange(1, 100_000), help="How many of those.")
@click.option("--top-k", default=10, show_default=True, type=click.IntRange(1, 1000), help="Hits of a search.")
@click.option("--ef", "efs", default="", help="HNSW: candidates to try, as 16,32,64,128. Not given: the collection's own.")
@click.option("--nprobe", "nprobes", default="", help="IVF: lists to try, as 8,16,64.")
@click.option(
    "--in-flight", default=32, show_default=True, type=click.IntRange(1, 4096), help="Searches at once (closed loop)."
)
@click.option("--rate", default=0.0, type=click.FloatRange(0, 10**6), help="Searches a second, Poisson (open loop).")
@click.option("--seconds", default=3.0, show_default=True, type=click.FloatRange(0.1, 3600), help="Length of a round.")
@click.option("--warmup", "warmup_s", default=1.0, show_default=True, type=click.FloatRange(0, 600), help="Seconds before it.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1, 100), help="Rounds of every setting.")
@click.option("--recall-queries", default=200, show_default=True, type=click.IntRange(1, 100_000), help="Queries for recall.")
@click.option("--json", "json_file", type=_NEW_FILE, help="Write the numbers to this file.")
@click.option("--plot", "plot_file", type=_NEW_FILE, help="Plot speed over recall into this .png or .svg.")
def bench_collection(retrieval: str, efs: str, nprobes: str, queries: Path | None, **how: Any) -> None:
    """Search a COLLECTION of a running service by vectors, and measure latency, throughput and recall.

    Recall is against the same service's exact answers (exact=true). With --ef or --nprobe every value is tried, in rounds whose
    order turns. With --rate searches are sent at random moments, whatever the answers do, and their times count from there.
    """
    with _numpy():
        from penstock.cli.benchmark.searching import BenchOptions, bench_retrieval  # noqa: PLC0415  # As said above.
    if efs and nprobes:
        raise InvalidArgument("give --ef or --nprobe: an index has one of them")
    options = BenchOptions(
        target=retrieval,
        queries=queries,
        parameter="nprobe" if nprobes else "ef_search",
        settings=_numbers(nprobes or efs),
        **how,
    )
    # uvloop's own, because the client's loop must not be what is measured.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(bench_retrieval(options, Console(highlight=False)))


def _numbers(listed: str) -> tuple[int, ...]:
    """The numbers of "16,32". Raises InvalidArgument where they are none."""
    try:
        numbers = tuple(int(each) for each in listed.split(",") if each.strip())
    except ValueError as error:
        raise InvalidArgument(f"{listed!r} is not a list of whole numbers such as 16,32,64") from error
    if any(number < 1 for number in numbers):
        raise InvalidArgument(f"{listed!r} has a number below 1")
    return numbers


@contextmanager
def _numpy() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise FailedPrecondition(f"this command needs {error.name}: pip install 'penstock[measuring]'") from error
