"""`penstock eval ...` and `penstock bench ...`: how good, and how fast, a running service is.

What they import needs NumPy, which the other commands do without: it is imported when it is needed, and asked for by name.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from penstock.cli.command import in_loop
from penstock.errors import FailedPrecondition

_WAYS = ("dense", "lexical", "hybrid, convex", "hybrid, RRF")
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


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


@contextmanager
def _numpy() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise FailedPrecondition(f"this command needs {error.name}: pip install 'penstock[measuring]'") from error
