"""`penstock`: the group of commands, and how each failure is told."""

import sys
from typing import Any

import click
from rich.console import Console

import penstock
from penstock.cli.command import GATEWAY_OPTION, RETRIEVAL_OPTION, in_loop
from penstock.cli.demo import run_demo, run_up
from penstock.cli.flows import SESSION_OPTION, ask_flow, flow_commands
from penstock.cli.index import index_commands
from penstock.cli.ingest import SPLITTERS, IngestOptions, ingest_corpus
from penstock.cli.keys import key_commands
from penstock.cli.local import MODULES
from penstock.cli.measuring import bench_commands, eval_commands
from penstock.cli.models import model_commands
from penstock.cli.retrieval import search_collection
from penstock.cli.settings_table import settings_markdown
from penstock.errors import PenstockError


def main() -> None:
    """Runs a command. Exits 1 with one clear message when it fails, 130 on Ctrl-C."""
    try:
        penstock_command(standalone_mode=False)
    except PenstockError as error:
        tell(error)
        sys.exit(1)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        sys.exit(130)


def tell(error: PenstockError) -> None:
    """Prints an error for a person: what is wrong, each fault with its place, and the reason to look up."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(f"[bold red]error[/] {error.reason}: ", end="")
    console.print(error.message, markup=False)
    for violation in error.violations:
        console.print(f"  - {violation}", markup=False)
    if error.metadata:
        console.print("  " + ", ".join(f"{key}={value}" for key, value in error.metadata.items()), markup=False, style="dim")


@click.group(name="penstock", context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(penstock.__version__)
@click.option("--api-key", envvar="PENSTOCK_API_KEY", default="", help="Shown to services that ask for one [PENSTOCK_API_KEY].")
def penstock_command(api_key: str) -> None:  # Commands ask for it by penstock.cli.command.api_key.
    """Run retrieval-augmented flows: three services, gRPC and HTTP, one trace."""


@penstock_command.command()
@click.option("--data-dir", default=".penstock", show_default=True, help="Where state, logs and indexes are kept.")
@click.option("--examples", default="examples", show_default=True, help="The example corpus and flows; empty for none.")
@click.option("--only", multiple=True, type=click.Choice(tuple(MODULES)), help="Start this service; may be repeated.")
@in_loop
async def up(data_dir: str, examples: str, only: tuple[str, ...]) -> None:
    """Start the three services, or some of them, on loopback and keep them running until Ctrl-C."""
    await run_up(data_dir, examples, only)


@penstock_command.command()
@click.option("--data-dir", default=".penstock", show_default=True, help="Where state, logs and indexes are kept.")
@click.option("--examples", default="examples", show_default=True, help="The example corpus and flows.")
@click.option("--question", default="", help="Ask this instead of the example's question.")
@in_loop
async def demo(data_dir: str, examples: str, question: str) -> None:
    """Start everything, ingest the example corpus, answer a question over gRPC and over HTTP, show the trace, stop."""
    await run_demo(data_dir, examples, question)


@penstock_command.command()
@click.argument("question")
@click.option("--flow", default="rag", show_default=True, help="The flow that answers; its one required input is the question.")
@SESSION_OPTION
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object instead of streaming it.")
@GATEWAY_OPTION
@in_loop
async def ask(question: str, flow: str, session: str, as_json: bool, gateway: str) -> None:
    """Ask a flow a question; the answer streams, the sources follow."""
    await ask_flow(question, flow=flow, session=session, as_json=as_json, gateway=gateway)


@penstock_command.command()
@click.argument("paths", nargs=-1, required=True)
@click.option("--collection", required=True, help="The collection; it is created when it does not exist.")
@click.option("--batch", default=64, show_default=True, type=click.IntRange(1, 1000), help="Documents that are sent together.")
@click.option("--splitter", default="auto", show_default=True, type=click.Choice(list(SPLITTERS)), help="What is cut at.")
@click.option("--chunk-tokens", type=click.IntRange(min=16), help="Longest chunk in tokens. Not given: as the service is set.")
@click.option("--overlap", type=click.IntRange(min=0), help="Tokens a chunk may repeat of the one before it.")
@click.option("--join-title", is_flag=True, help="Put a document's title before its text.")
@click.option("--state", default="", help="The journal that a broken run goes on from. Not given: beside the data.")
@RETRIEVAL_OPTION
@in_loop
async def ingest(paths: tuple[str, ...], collection: str, retrieval: str, **how: Any) -> None:
    """Ingest documents: files, folders, globs, or URLs of an object store.

    Read are .jsonl and .ndjson, also with .gz ({"id", "text", ...} a line), .parquet, .txt, .md, .html and .pdf. Run the same
    command again after a crash or Ctrl-C, and it goes on where it stopped. Exits 1 when some documents could not be ingested.
    """
    options = IngestOptions(paths=paths, collection=collection, target=retrieval, **how)
    await ingest_corpus(options, Console(stderr=True, highlight=False))


@penstock_command.command()
@click.argument("collection")
@click.argument("query")
@click.option("--top-k", default=5, show_default=True, help="Most hits to return.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a hit.")
@RETRIEVAL_OPTION
@in_loop
async def search(collection: str, query: str, top_k: int, as_json: bool, retrieval: str) -> None:
    """Find the chunks of a collection that are nearest to a text."""
    await search_collection(collection, query, top_k=top_k, as_json=as_json, retrieval=retrieval)


@penstock_command.command()
def settings() -> None:
    """Print every setting of every service, with its default and its bounds, as Markdown."""
    print(settings_markdown())


penstock_command.add_command(bench_commands)
penstock_command.add_command(eval_commands)
penstock_command.add_command(flow_commands)
penstock_command.add_command(index_commands)
penstock_command.add_command(key_commands)
penstock_command.add_command(model_commands)
