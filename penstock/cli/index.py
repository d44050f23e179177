"""`penstock index ...`: collections built in bulk, by the retrieval service's own code in a process beside it."""

from collections.abc import Mapping
from typing import Any, Final

import click
from rich.console import Console

from penstock.cli.build_process import run_bulk
from penstock.cli.build_progress import BuildBar, summary_table
from penstock.cli.command import in_loop

METRICS: Final = ("cosine", "inner_product", "l2")
INDEX_KINDS: Final = ("auto", "flat", "hnsw", "ivf_sq8", "ivf_pq")
SPLITTERS: Final = {"auto": "by_type", "sentences": "sentences", "tokens": "tokens", "markdown": "markdown"}
_INDEX_OPTIONS: Final = (
    "hnsw_m", "hnsw_ef_construction", "hnsw_ef_search", "ivf_lists", "ivf_nprobe", "pq_bytes", "rescore_factor",
)  # fmt: skip


@click.group(name="index")
def index_commands() -> None:
    """Build collections of any size at once: all of one or nothing, beside a service that runs or is stopped."""


def _place_options(command: Any) -> Any:
    """Where the record and the files are."""
    for option in reversed((
        click.option("--data-dir", default="", help="The service's data folder. Not given: PENSTOCK_RETRIEVAL_DATA_DIR."),
        click.option("--database-url", default="", help="The record's URL. Not given: as the service is set."),
    )):  # fmt: skip
        command = option(command)
    return command


@index_commands.command()
@click.argument("paths", nargs=-1, required=True)
@click.option("--collection", required=True, help="The collection to build.")
@_place_options
@click.option(
    "--snapshot-url", default="", help="Where nodes find the shards: an fsspec URL. Not given: as the service is set."
)
@click.option("--replace", is_flag=True, help="Put it in the place of a collection of that id, at once when it is whole.")
@click.option("--fresh", is_flag=True, help="Begin anew what was broken off, instead of going on with it.")
@click.option("--shards", "shard_count", type=click.IntRange(1, 1024), help="Over how many shards it is spread.")
@click.option("--metric", default="cosine", show_default=True, type=click.Choice(METRICS), help="How nearness is measured.")
@click.option("--model", default="", help="One of the service's embedding models. Not given: its default.")
@click.option("--dimension", type=click.IntRange(min=1), help="No model: every record brings a vector of so many components.")
@click.option("--whole", is_flag=True, help="Each record is one chunk with its own id, as one with a vector is anyway.")
@click.option("--join-title", is_flag=True, help="Put a document's title before its text.")
@click.option("--splitter", default="auto", show_default=True, type=click.Choice(list(SPLITTERS)), help="What is cut at.")
@click.option("--chunk-tokens", type=click.IntRange(min=16), help="Longest chunk in tokens. Not given: as the service is set.")
@click.option("--overlap", type=click.IntRange(min=0), help="Tokens a chunk may repeat of the one before it.")
@click.option(
    "--language", default="en", show_default=True, help='Of the texts, for search by words; "none": any, "off": no words.'
)
@click.option(
    "--index-kind", default="auto", show_default=True, type=click.Choice(INDEX_KINDS), help="How vectors are searched."
)
@click.option("--hnsw-m", type=int, help="HNSW: neighbours of a vector.")
@click.option("--hnsw-ef-construction", type=int, help="HNSW: candidates while it is built.")
@click.option("--hnsw-ef-search", type=int, help="HNSW: candidates of a search.")
@click.option("--ivf-lists", type=int, help="IVF: number of lists.")
@click.option("--ivf-nprobe", type=int, help="IVF: lists that a search reads.")
@click.option("--pq-bytes", type=int, help="IVF-PQ: bytes a vector.")
@click.option("--rescore-factor", type=int, help="IVF: candidates a hit that are compared exactly.")
@click.option("--executor", default="local", show_default=True, type=click.Choice(["local", "ray"]), help="Where it is done.")
@click.option(
    "--workers", default=0, type=click.IntRange(min=0), help="Processes at a time. Not given: as many as fit the cores."
)
@click.option(
    "--errors-max", default=1000, show_default=True, type=click.IntRange(min=0), help="Bad records before it gives up."
)
@in_loop
async def build(data_dir: str, database_url: str, snapshot_url: str, **how: Any) -> None:
    """Build a collection of files, folders, globs, or URLs of an object store.

    Read are .jsonl and .ndjson, also with .gz ({"id", "text", ...} a line), .parquet, .txt, .md, .html and .pdf; a record may
    bring its vector. Of an id that comes again the first record is taken. Run the same command again after a crash or Ctrl-C,
    and it goes on where it stopped. The service sees nothing of it before it is whole. Settings of the service that are not
    given here are taken from the environment, as the service does.
    """
    places = _environment(data_dir=data_dir, database_url=database_url, snapshot_url=snapshot_url)
    console = Console(stderr=True, highlight=False)
    with BuildBar(how["collection"], console) as bar:
        result = await run_bulk({"build": _job(**how)}, places, on_progress=bar)
    Console(highlight=False).print(summary_table(result))


@index_commands.command()
@click.argument("collection")
@click.option("--shards", "shard_count", required=True, type=click.IntRange(1, 1024), help="The new number of shards.")
@_place_options
@click.option(
    "--snapshot-url", default="", help="Where nodes find the shards: an fsspec URL. Not given: as the service is set."
)
@click.option("--workers", default=0, type=click.IntRange(min=0), help="Processes at a time. Not given: as fit the cores.")
@in_loop
async def reshard(data_dir: str, database_url: str, snapshot_url: str, **job: Any) -> None:
    """Spread a collection over another number of shards.

    Stop whoever writes to it. Searches go on, and find the new collection when it is whole. Where something was written
    meanwhile, the collection stays as it is, nothing is lost, and this says so.
    """
    places = _environment(data_dir=data_dir, database_url=database_url, snapshot_url=snapshot_url)
    console = Console(stderr=True, highlight=False)
    with BuildBar(job["collection"], console) as bar:
        result = await run_bulk({"reshard": job}, places, on_progress=bar)
    Console(highlight=False).print(summary_table(result))


@index_commands.command()
@_place_options
@in_loop
async def builds(data_dir: str, database_url: str) -> None:
    """List builds that are under way or were broken off."""
    for each in await run_bulk({"list": True}, _environment(data_dir=data_dir, database_url=database_url)):
        print(f"{each['collection']:<40} {each['document_count']} documents as {each['chunk_count']} chunks")


@index_commands.command()
@click.argument("collection")
@_place_options
@in_loop
async def discard(collection: str, data_dir: str, database_url: str) -> None:
    """Remove what a build left that was broken off."""
    await run_bulk({"discard": collection}, _environment(data_dir=data_dir, database_url=database_url))
    print(f"discarded the build of {collection}")


def _environment(**places: str) -> dict[str, str]:
    return {f"PENSTOCK_RETRIEVAL_{name.upper()}": value for name, value in places.items() if value}


def _job(
    *, paths: tuple[str, ...], language: str, index_kind: str, splitter: str, chunk_tokens: int | None, overlap: int | None,
    **plain: Any,
) -> dict[str, Any]:  # fmt: skip
    """The job as the bulk process reads it. What was not given is left out, so that its own defaults hold."""
    index = {"kind": index_kind} | {name: plain.pop(name) for name in _INDEX_OPTIONS}
    splitting = {"splitter": SPLITTERS[splitter], "chunk_tokens_max": chunk_tokens, "overlap_tokens": overlap}
    lexical = {"enabled": False} if language == "off" else {"language": language}
    return {"paths": paths, "index": _given(index), "splitting": splitting, "lexical": lexical, **_given(plain)}


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
