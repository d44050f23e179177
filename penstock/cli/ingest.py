"""`penstock ingest`: a corpus into a collection, with a progress bar, resumable."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from penstock.cli.command import api_key
from penstock.cli.journal import Journal, journal_path
from penstock.cli.sink import Outcome, ServiceSink
from penstock.cli.upload import ERRORS_SHOWN, ErrorList, Upload
from penstock.clients import RetrievalClient
from penstock.corpora import Corpus, ReadingOptions
from penstock.corpora.files import find_files
from penstock.errors import AlreadyExists, InvalidArgument
from penstock.retrieval.v1 import retrieval_pb2 as pb

SPLITTERS: Final = {
    "auto": pb.SPLITTER_UNSPECIFIED,
    "sentences": pb.SPLITTER_SENTENCES,
    "tokens": pb.SPLITTER_TOKENS,
    "markdown": pb.SPLITTER_MARKDOWN,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestOptions:
    """What to ingest, where to, and how. Where `state` is empty, the journal lies beside the data."""

    paths: tuple[str, ...]
    collection: str
    target: str
    batch: int = 64
    splitter: str = "auto"
    chunk_tokens: int | None = None
    overlap: int | None = None
    join_title: bool = False
    state: str = ""

    @property
    def splitting(self) -> pb.Splitting:
        """How the service is to split."""
        return pb.Splitting(splitter=SPLITTERS[self.splitter], chunk_tokens_max=self.chunk_tokens, overlap_tokens=self.overlap)


async def ingest_corpus(options: IngestOptions, console: Console) -> Outcome:
    """Ingests files, creating the collection when it does not exist; goes on where a run before it was broken off.

    Raises InvalidArgument with the first errors when some documents could not be stored: all others are.
    """
    files = find_files(options.paths)
    path = Path(options.state) if options.state else journal_path(options.paths, options.collection, options.target)
    journal = Journal(path, collection=options.collection, target=options.target)
    if await _created(options):
        journal.forget()
    passed = journal.passed(files)
    journal.save()
    if any(passed.values()):
        console.print(f"[bold]going on[/] after {sum(passed.values())} documents that {path} says are stored")
    errors = ErrorList(path=path.with_suffix(".errors.txt"))
    with Corpus(files, options=ReadingOptions(join_title=options.join_title), passed=passed) as corpus:
        async with ServiceSink(
            options.target, api_key=api_key(), collection=options.collection, splitting=options.splitting
        ) as sink:
            upload = Upload(corpus, sink, journal, errors, batch_max=options.batch)
            with _bar(corpus, upload, options.collection, console) as bar:
                await upload.run(bar)
    journal.finish()
    _tell(upload.total, errors, console)
    return upload.total


async def _created(options: IngestOptions) -> bool:
    """Whether the collection is new."""
    async with RetrievalClient(options.target, api_key=api_key()) as client:
        try:
            await client.create_collection(options.collection)
        except AlreadyExists:
            return False
    return True


def _tell(total: Outcome, errors: ErrorList, console: Console) -> None:
    console.print(
        f"[bold]ingested[/] {total.document_count} documents as {total.chunk_count} chunks; "
        f"{total.unchanged_count} unchanged, {errors.count} errors"
    )
    if errors.count:
        rest = f"; all of them are in {errors.path}" if errors.count > ERRORS_SHOWN else ""
        message = f"{errors.count} documents were not ingested; mend them and run it again{rest}"
        raise InvalidArgument(message, violations=errors.first)


@contextmanager
def _bar(corpus: Corpus, upload: Upload, collection: str, console: Console) -> "Iterator[_Bar]":
    columns = (
        TextColumn("{task.description}"), BarColumn(bar_width=20), TaskProgressColumn(),
        TextColumn("{task.fields[documents]} documents, {task.fields[rate]:.0f}/s"), TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(f"ingesting into {collection}", total=corpus.bytes_total or None, documents=0, rate=0.0)
        yield _Bar(progress=progress, task=task, corpus=corpus, upload=upload)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bar:
    """Called whenever something has moved on."""

    progress: Progress
    task: TaskID
    corpus: Corpus
    upload: Upload

    def __call__(self) -> None:
        documents = self.upload.total.document_count
        elapsed = self.progress.tasks[0].elapsed or 0.0
        rate = documents / elapsed if elapsed else 0.0
        self.progress.update(self.task, completed=self.corpus.bytes_read, documents=documents, rate=rate)
