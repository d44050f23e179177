"""`penstock eval ...` and `penstock bench ...`: how good, and how fast, a running service is.

What they import needs NumPy, which the other commands do without: it is imported when it is needed, and asked for by name.
"""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import uvloop
from rich.console import Console

from penstock.cli.command import GENERATION_OPTION, RETRIEVAL_OPTION, in_loop
from penstock.errors import FailedPrecondition, InvalidArgument

_WIDE_COLUMNS = 140
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
    _run(bench_retrieval(options, Console(highlight=False)))


@bench_commands.command(name="generate")
@GENERATION_OPTION
@click.option("--model", default="", help="The model. Not given: the service's first.")
@click.option("--concurrency", default="", help="Streams at once (closed loop), each value in turn.  [default: 1,2,4,8]")
@click.option("--rate", default="", help="Streams a second, Poisson (open loop), each value in turn, as 0.5,1,2.")
@click.option("--find", is_flag=True, help="Find the highest rate that keeps the limits. Goes without saying with one of them.")
@click.option("--ttft-p95-ms", type=click.FloatRange(0.1, 10**7), help="Limit: 95th percentile of the time to first token.")
@click.option("--itl-p95-ms", type=click.FloatRange(0.01, 10**7), help="Limit: 95th percentile of the inter-token time.")
@click.option("--expect-concurrency", type=click.IntRange(1, 10**9), help="Users to size for.")
@click.option("--expect-rate", type=click.FloatRange(0.001, 10**9), help="Requests a second to size for.")
@click.option(
    "--think", "think_s", default=0.0, show_default=True, type=click.FloatRange(0, 10**6), help="Seconds a user reads."
)
@click.option(
    "--headroom", default=1.3, show_default=True, type=click.FloatRange(1, 10), help="Replicas have so much to spare."
)
@click.option("--prompt-tokens", default="512", show_default=True, help="512, uniform:128:1024 or lognormal:600:0.5.")
@click.option("--output-tokens", default="128", show_default=True, help="The same for answers.")
@click.option("--shared-prefix-tokens", default=0, type=click.IntRange(0, 10**6), help="What all prompts begin with, of these.")
@click.option("--raw-prompt", is_flag=True, help="Send prompts as they are, without the model's chat template.")
@click.option("--file", type=_FILE, help="JSON lines: prompt, messages or prompt_tokens, and output_tokens.")
@click.option("--seconds", default=20.0, show_default=True, type=click.FloatRange(0.1, 3600), help="Length of a window.")
@click.option("--warmup", "warmup_s", default=5.0, show_default=True, type=click.FloatRange(0, 600), help="Seconds before it.")
@click.option("--trials", default=16, show_default=True, type=click.IntRange(3, 100), help="Most windows to find the rate in.")
@click.option(
    "--timeout", "timeout_s", default=300.0, show_default=True, type=click.FloatRange(0.1, 3600), help="Of a request."
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**31), help="Of lengths, words and arrivals.")
@click.option("--json", "json_file", type=_NEW_FILE, help="Write the numbers to this file.")
@click.option("--plot", "plot_file", type=_NEW_FILE, help="Plot times and throughput into this .png or .svg.")
def bench_generation_service(**given: Any) -> None:
    """Stream answers of a running generation service, and measure throughput and times, or size it.

    \b
    penstock bench generate --concurrency 1,8,32
    penstock bench generate --rate 1,2,4 --prompt-tokens lognormal:600:0.5 --shared-prefix-tokens 300
    penstock bench generate --ttft-p95-ms 500 --itl-p95-ms 50 --expect-concurrency 200 --think 20

    With a limit it searches for the highest rate of random arrivals that keeps it, then prints the settings of a replica and
    how many are needed for the expected load, with the formulas. Measure one replica, as it will run. Answers are made as long
    as asked where the model can be kept from ending them (min_tokens).
    """  # noqa: D301  # Click's mark for lines that stay as they are is that character.
    with _numpy():
        from penstock.cli.benchmark.generating import bench_generation  # noqa: PLC0415  # As said above.
        from penstock.cli.benchmark.generating_options import generation_bench  # noqa: PLC0415
    _run(bench_generation(generation_bench(**given), _wide_console()))


def _wide_console() -> Console:
    """Where nobody watches, such as in a file, lines are as long as a wide table needs."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=max(console.width, _WIDE_COLUMNS))


def _run(bench: Coroutine[Any, Any, None]) -> None:
    # uvloop's own, because the client's loop must not be what is measured.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(bench)


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
