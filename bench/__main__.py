"""`python -m bench`: measure, print the tables, keep the numbers where asked."""

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import click
import orjson
from rich.console import Console

from bench import (
    affinity_part,
    bulk_part,
    cluster_part,
    dialects_part,
    embedding_part,
    events_part,
    flow_part,
    ingest_part,
    langflow_part,
    large_part,
    machine,
    overload_part,
    peers_part,
    quantised_part,
    retrieval_part,
    search_part,
    serving_part,
    soak_part,
    tokens_part,
)
from bench.plan import PLANS, Plan
from bench.report import PartResult, markdown, show
from bench.rounds import Tell

PARTS: Final[Mapping[str, Callable[[Plan, Path, Tell], Awaitable[PartResult]]]] = {
    flow_part.NAME: flow_part.measure,
    search_part.NAME: search_part.measure,
    tokens_part.NAME: tokens_part.measure,
    serving_part.NAME: serving_part.measure,
    overload_part.NAME: overload_part.measure,
    embedding_part.NAME: embedding_part.measure,
    retrieval_part.NAME: retrieval_part.measure,
    ingest_part.NAME: ingest_part.measure,
    cluster_part.NAME: cluster_part.measure,
    peers_part.NAME: peers_part.measure,
    large_part.NAME: large_part.measure,
    bulk_part.NAME: bulk_part.measure,
    quantised_part.NAME: quantised_part.measure,
    affinity_part.NAME: affinity_part.measure,
    events_part.NAME: events_part.measure,
    langflow_part.NAME: langflow_part.measure,
    dialects_part.NAME: dialects_part.measure,
    soak_part.NAME: soak_part.measure,
}

BY_DEFAULT: Final = (flow_part.NAME, search_part.NAME, tokens_part.NAME)
"""The others take long, need PostgreSQL or vLLM, or install what they compare."""

_WIDTH_OF_FILES: Final = 180


@click.command()
@click.option(
    "--part", "parts", type=click.Choice(list(PARTS)), multiple=True, help="Only this part; may be given several times."
)
@click.option("--quick", is_flag=True, help="One short round of less: about a minute, to see that it works.")
@click.option("--rounds", type=click.IntRange(1, 100), help="Rounds whose median is quoted.")
@click.option("--seconds", type=click.FloatRange(0.1, 600), help="Length of a measured window.")
@click.option("--in-flight", multiple=True, type=click.IntRange(1, 256), help="Requests at once in the flow part; repeatable.")
@click.option("--chunks", multiple=True, type=click.IntRange(64, 5_000_000), help="Sizes of the search part's collections.")
@click.option(
    "--corpus", "corpora", multiple=True, type=click.Path(exists=True, file_okay=False), help="Judged corpora, embedding part."
)
@click.option("--graph-size", type=click.IntRange(100, 5_000_000), help="Chunks of the parts retrieval, ingest and peers.")
@click.option("--large-size", type=click.IntRange(1000, 50_000_000), help="Chunks of the parts large and bulk.")
@click.option("--precision", type=click.Choice(("bf16", "w8a8", "fp8")), help="Of the model of the part serving.")
@click.option("--model", type=click.Choice(("small", "8b")), help="Of that part: 8b has random weights and wants a GPU.")
@click.option("--gpu", is_flag=True, help="That part runs on a GPU: vLLM's defaults for one.")
@click.option("--peer-dir", type=click.Path(file_okay=False), help="Where the part langflow keeps its peers (2 GB).")
@click.option("--soak-runs", type=click.IntRange(1000, 10_000_000), help="Runs of the part soak.")
@click.option("--cache", type=click.Path(file_okay=False), help="Keep what takes long to build here, for the next run.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write every sample to this file.")
@click.option("--markdown", "markdown_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the tables to it.")
def main(
    *,
    parts: Sequence[str],
    quick: bool,
    rounds: int | None,
    seconds: float | None,
    in_flight: Sequence[int],
    chunks: Sequence[int],
    corpora: Sequence[str],
    graph_size: int | None,
    large_size: int | None,
    precision: str | None,
    model: str | None,
    gpu: bool,
    peer_dir: str | None,
    soak_runs: int | None,
    cache: str | None,
    json_file: Path | None,
    markdown_file: Path | None,
) -> None:
    """Measures what Penstock adds to what it stands on, side by side, and prints tables."""
    asked: dict[str, Any] = {
        "rounds": rounds,
        "seconds": seconds,
        "in_flight": tuple(sorted(in_flight)),
        "collection_sizes": tuple(sorted(chunks)),
        "corpora": tuple(corpora),
        "graph_size": graph_size,
        "large_size": large_size,
        "precision": precision,
        "model": model,
        "gpu": gpu,
        "peer_dir": peer_dir and str(Path(peer_dir).absolute()),
        "soak_runs": soak_runs,
        "cache": cache and str(Path(cache).absolute()),
    }
    plan = replace(PLANS["quick" if quick else "full"], **{name: value for name, value in asked.items() if value})
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDTH_OF_FILES)
    began, described = time.monotonic(), machine.describe()
    for name, value in described.items():
        console.print(f"{name:<20} {value}", highlight=False)
    results = asyncio.run(_measure(plan, parts or BY_DEFAULT, console))
    console.print(f"took {time.monotonic() - began:.0f} s")
    if json_file:
        json_file.write_bytes(_json(plan, described, results))
    if markdown_file:
        markdown_file.write_text("\n".join(markdown(result) for result in results))


async def _measure(plan: Plan, parts: Sequence[str], console: Console) -> list[PartResult]:
    results = []
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        for name in parts:
            with console.status(name) as status:
                result = await PARTS[name](plan, Path(folder) / name, status.update)
            show(console, result)
            results.append(result)
    return results


def _json(plan: Plan, described: Mapping[str, str], results: Sequence[PartResult]) -> bytes:
    kept: dict[str, Any] = {
        "machine": dict(described),
        "plan": asdict(plan),
        "parts": {
            result.name: {"samples": result.raw, "tables": [asdict(table) for table in result.tables]} for result in results
        },
    }
    return orjson.dumps(kept, option=orjson.OPT_INDENT_2)


if __name__ == "__main__":
    main()
