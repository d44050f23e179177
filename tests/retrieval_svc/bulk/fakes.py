"""A model of eight components, corpora, steps that misbehave, and builds over all of them. Workers import this module."""

import os
import re
import signal
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from penstock.errors import InvalidArgument
from retrieval_svc.bulk.build import BulkBuild, Surroundings
from retrieval_svc.bulk.executing import Executor, Item, Result, Step
from retrieval_svc.bulk.job import BuildJob, Progress, Summary
from retrieval_svc.bulk.preparing import ModelSource, PreparingLimits
from retrieval_svc.embedding.embedder import Embedder
from retrieval_svc.ingest.splitting import Splitting
from retrieval_svc.record.store import SqlStore
from retrieval_svc.values import EmbeddingModel, Matrix, Metric

DIMENSION = 8
MODEL = EmbeddingModel(name="words", dimension=DIMENSION, window_tokens=16, fingerprint="words-1")


class HashedWords:
    """Implements the embedder's port: a text's vector is drawn from its hash."""

    model = MODEL

    def token_spans(self, text: str) -> list[tuple[int, int]]:
        return [match.span() for match in re.finditer(r"\w+", text)]

    def embed(self, texts: Sequence[str]) -> Matrix:
        return np.stack([vector_of(text) for text in texts])


@dataclass(frozen=True)
class HashedWordsSource:
    """Implements the port of a build's model source."""

    def load(self) -> Embedder:
        return HashedWords()


def vector_of(text: str) -> Matrix:
    seed = int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")
    vector: Matrix = np.random.default_rng(seed).standard_normal(DIMENSION).astype(np.float32)
    return vector


class InlineExecutor:
    """Implements the executor's port in this process."""

    def map(self, step: Step[Item, Result], items: Iterable[Item]) -> Generator[Result, None, None]:
        with step.open() as work:
            for item in items:
                yield work(item)

    def stop(self) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class SquareStep:
    """Squares numbers. `fatal` kills its worker as often as the file `tally` has fewer than `deaths` lines."""

    fatal: int = -99
    deaths: int = 0
    tally: Path = Path()
    pause_s: float = 0.0

    @contextmanager
    def open(self) -> Iterator[Callable[[int], tuple[int, int]]]:
        yield self._square

    def _square(self, number: int) -> tuple[int, int]:
        time.sleep(self.pause_s)
        if number == self.fatal and (not self.tally.exists() or len(self.tally.read_text().splitlines()) < self.deaths):
            with self.tally.open("a") as tally:
                tally.write("died\n")
            os.kill(os.getpid(), signal.SIGKILL)
        if number == -1:
            raise InvalidArgument("it is negative", metadata={"number": "-1"})
        if number == -2:
            raise ValueError("a defect")
        return number * number, os.getpid()


@dataclass(frozen=True)
class LargeStep:
    """Gives back as much as it gets."""

    @contextmanager
    def open(self) -> Iterator[Callable[[bytes], bytes]]:
        yield lambda item: item


def write_lines(path: Path, records: Sequence[Any]) -> Path:
    """Records as JSON lines; what is no dictionary is written as it is."""
    lines = [orjson.dumps(each).decode() if isinstance(each, dict) else each for each in records]
    path.write_text("\n".join(lines) + "\n")
    return path


def with_vectors(count: int, *, first: int = 0, word: str = "row") -> list[dict[str, Any]]:
    return [
        {"id": f"c{at}", "text": f"{word} {at} of many", "group": f"g{at % 3}", "vector": vector_of(f"{word} {at}").tolist()}
        for at in range(first, first + count)
    ]


def surroundings(folder: Path, database_url: str, **changed: Any) -> Surroundings:
    plain: dict[str, Any] = {
        "folder": folder,
        "database_url": database_url,
        "snapshot_url": "",
        "keep_files": True,
        "cores": 1,
        "workers": 1,
        "lexical_memory_bytes": 15 * 2**20,
        "shard_count": 1,
        "splitting": Splitting(chunk_tokens_max=16, overlap_tokens=0),
        "limits": PreparingLimits(
            chunk_text_bytes_max=2**20,
            document_text_bytes_max=2**20,
            document_content_bytes_max=2**20,
            extraction_timeout_s=30,
            extraction_memory_bytes=512 * 2**20,
            pass_tokens_max=512,
        ),
    }
    return Surroundings(**(plain | changed))


async def build(
    store: SqlStore,
    around: Surroundings,
    *paths: Path,
    source: ModelSource | None = None,
    executor: Executor | None = None,
    told: list[Progress] | None = None,
    **job: Any,
) -> Summary:
    """Runs a build. Without a source, of records with vectors."""
    plain: dict[str, Any] = {"collection": "docs", "metric": Metric.INNER_PRODUCT}
    plain |= {} if source else {"dimension": DIMENSION}
    wanted = BuildJob(paths=tuple(map(str, paths)), **(plain | job))
    around.work(wanted.collection).mkdir(parents=True, exist_ok=True)
    used = executor or InlineExecutor()
    run = BulkBuild(
        job=wanted,
        store=store,
        executor=used,
        source=source,
        surroundings=around,
        report=(told if told is not None else []).append,
    )
    try:
        return await run.run()
    finally:
        used.close()
