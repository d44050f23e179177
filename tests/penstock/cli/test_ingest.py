"""`penstock ingest` against a real gRPC server: what arrives, what is told, and what happens when either side dies."""

import asyncio
import io
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import orjson
import pytest
from rich.console import Console

from penstock.cli.ingest import IngestOptions, ingest_corpus
from penstock.cli.journal import Journal, journal_path
from penstock.clients.structs import from_struct
from penstock.corpora.files import find_files
from penstock.errors import FailedPrecondition, InvalidArgument
from penstock.retrieval.v1 import retrieval_pb2 as pb
from penstock.retrieval.v1 import retrieval_pb2_grpc
from penstock.wire import to_status

PENSTOCK = Path(sys.executable).parent / "penstock"


class Service(retrieval_pb2_grpc.RetrievalServiceServicer):
    """Keeps documents by id; refuses those whose text is "bad"; breaks off or dawdles as it is told."""

    def __init__(self) -> None:
        self.exists = False
        self.documents: dict[str, pb.Document] = {}
        self.chunks: dict[str, pb.Chunk] = {}
        self.calls: list[list[pb.IngestStreamRequest]] = []
        self.failures = 0
        self.pause_s = 0.0
        self.documents_max = 10**6
        self.target = ""
        self.most_under_way = self.under_way = 0

    async def CreateCollection(self, request: Any, context: Any) -> pb.CreateCollectionResponse:
        if self.exists:
            await context.abort(grpc.StatusCode.ALREADY_EXISTS, "it exists")
        self.exists = True
        return pb.CreateCollectionResponse(collection=request.collection)

    async def IngestStream(self, requests: Any, context: Any) -> pb.IngestStreamResponse:
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            messages = [message async for message in requests]
            await asyncio.sleep(self.pause_s)
            if self.failures:
                self.failures -= 1
                await context.abort(grpc.StatusCode.UNAVAILABLE, "restarting")
            if len(self.documents) >= self.documents_max:
                await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "the disk is full")
            self.calls.append(messages)
            return self._stored([document for message in messages for document in message.documents])
        finally:
            self.under_way -= 1

    def _stored(self, documents: list[pb.Document]) -> pb.IngestStreamResponse:
        response = pb.IngestStreamResponse()
        for index, document in enumerate(documents):
            if document.text == "bad":
                error = to_status(InvalidArgument("it is bad"))
                response.errors.append(pb.ItemError(index=index, document_id=document.id, error=error))
            elif self.documents.get(document.id) == document:
                response.unchanged_count += 1
            else:
                self.documents[document.id] = document
                response.document_count += 1
                response.chunk_count += 2
        response.error_count = len(response.errors)
        return response

    async def UpsertChunks(self, request: Any, context: Any) -> pb.UpsertChunksResponse:
        if any(len(chunk.vector) != 8 for chunk in request.chunks):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a vector of another dimension")
        self.chunks |= {chunk.id: chunk for chunk in request.chunks}
        return pb.UpsertChunksResponse(chunk_count=len(request.chunks))


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    servicer, server = Service(), grpc.aio.server()
    retrieval_pb2_grpc.add_RetrievalServiceServicer_to_server(servicer, server)
    servicer.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    yield servicer
    await server.stop(None)


def corpus(folder: Path, count: int, text: str = "text") -> Path:
    file = folder / "corpus.jsonl"
    file.write_text("".join(f'{{"id": "d{number}", "text": "{text} {number}"}}\n' for number in range(count)))
    return file


def options(service: Any, *paths: Path, **more: Any) -> IngestOptions:
    return IngestOptions(paths=tuple(map(str, paths)), collection="wiki", target=service.target, **more)


def silent() -> Console:
    return Console(file=io.StringIO())


def said(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return " ".join(console.file.getvalue().split())


async def test_everything_arrives_once_and_the_journal_goes(service: Any, tmp_path: Path) -> None:
    console, service.pause_s = silent(), 0.02
    total = await ingest_corpus(options(service, corpus(tmp_path, 300), batch=50), console)
    assert (total.document_count, total.chunk_count, len(service.documents)) == (300, 600, 300)
    assert "ingested 300 documents as 600 chunks; 0 unchanged, 0 errors" in said(console)
    assert service.calls[0][0].collection == "collections/wiki"
    assert 1 < service.most_under_way <= 4
    assert [path.name for path in tmp_path.iterdir()] == ["corpus.jsonl"]
    again = await ingest_corpus(options(service, tmp_path / "corpus.jsonl"), silent())
    assert (again.document_count, again.unchanged_count) == (0, 300)


async def test_how_documents_are_split_is_said_in_the_first_message(service: Any, tmp_path: Path) -> None:
    await ingest_corpus(options(service, corpus(tmp_path, 250), batch=250, splitter="tokens", overlap=0), silent())
    [messages] = service.calls
    assert messages[0].splitting == pb.Splitting(splitter=pb.SPLITTER_TOKENS, overlap_tokens=0)
    assert [len(message.documents) for message in messages] == [100, 100, 50]
    assert not messages[1].collection


async def test_files_go_as_their_bytes_with_their_type(service: Any, tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.4")
    (tmp_path / "b.md").write_text("# Top")
    await ingest_corpus(options(service, tmp_path), silent())
    pdf, markdown = (service.documents[str(tmp_path / name)] for name in ("a.pdf", "b.md"))
    assert (pdf.content, pdf.content_type) == (b"%PDF-1.4", "application/pdf")
    assert (markdown.text, markdown.content_type, from_struct(markdown.metadata)["path"]) == (
        "# Top",
        "text/markdown",
        str(tmp_path / "b.md"),
    )


async def test_errors_of_both_sides_are_told_by_file_and_line_and_the_rest_is_in(service: Any, tmp_path: Path) -> None:
    file = corpus(tmp_path, 3)
    with file.open("a") as out:
        out.write('{"id": "x", "text"\n{"id": "y", "text": "bad"}\n{"id": "z", "text": "fine"}\n')
    with pytest.raises(InvalidArgument, match="2 documents were not ingested") as caught:
        await ingest_corpus(options(service, file), silent())
    assert sorted(map(str, caught.value.violations)) == [
        f"{file}:4: it is not JSON: unexpected end of data (character 19)",
        f"{file}:5: it is bad",
    ]
    assert set(service.documents) == {"d0", "d1", "d2", "z"}


async def test_more_errors_than_are_shown_are_all_in_a_file(service: Any, tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text("".join(f'{{"id": "d{number}", "text": "bad"}}\n' for number in range(100)))
    with pytest.raises(InvalidArgument) as caught:
        await ingest_corpus(options(service, file, state=str(tmp_path / "state.json")), silent())
    assert len(caught.value.violations) == 20
    listed = (tmp_path / "state.errors.txt").read_text().splitlines()
    assert sorted(listed) == sorted(f"{file}:{number}: it is bad" for number in range(1, 101))
    assert str(tmp_path / "state.errors.txt") in caught.value.message


async def test_documents_with_vectors_become_chunks_and_a_bad_one_is_found(service: Any, tmp_path: Path) -> None:
    rows = [{"id": f"v{number}", "text": "t", "vector": [1, number] if number != 5 else [1]} for number in range(9)]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(map(orjson.dumps, [*rows, {"id": "d", "text": "t"}])))
    with pytest.raises(InvalidArgument) as caught:
        await ingest_corpus(options(service, tmp_path / "a.jsonl"), silent())
    assert [str(each) for each in caught.value.violations] == [f"{tmp_path}/a.jsonl:6: a vector of another dimension"]
    assert set(service.chunks) == {f"v{number}" for number in range(9) if number != 5}
    assert set(service.documents) == {"d"}


async def test_a_service_that_restarts_is_waited_for(service: Any, tmp_path: Path) -> None:
    service.failures = 6
    total = await ingest_corpus(options(service, corpus(tmp_path, 10)), silent())
    assert total.document_count == 10


async def test_a_failure_leaves_a_journal_that_the_next_run_goes_on_from(service: Any, tmp_path: Path) -> None:
    file = corpus(tmp_path, 400)
    service.documents_max = 100
    with pytest.raises(FailedPrecondition, match="full"):
        await ingest_corpus(options(service, file, batch=20), silent())
    journal = journal_path([str(file)], "wiki", service.target)
    stored = orjson.loads(journal.read_bytes())["files"][str(file)]["stored"]
    assert 0 < stored <= len(service.documents) < 400
    assert all(f"d{number}" in service.documents for number in range(stored))
    service.documents_max = 1000
    service.calls.clear()
    console = silent()
    await ingest_corpus(options(service, file, batch=20), console)
    sent = sum(len(message.documents) for messages in service.calls for message in messages)
    assert (sent, len(service.documents)) == (400 - stored, 400)
    assert f"going on after {stored} documents" in said(console)
    assert not journal.exists()


async def started(service: Any, *arguments: str) -> asyncio.subprocess.Process:
    command = (PENSTOCK, "ingest", *arguments, "--collection", "wiki", "--retrieval", service.target, "--batch", "10")
    return await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)


async def broken_off(service: Any, file: Path, number: signal.Signals) -> tuple[int | None, int]:
    """The exit code of a run that got a signal in the middle, and how many documents its journal says are stored."""
    service.exists, service.pause_s = True, 0.1
    process = await started(service, str(file))
    journal = journal_path([str(file)], "wiki", service.target)
    while len(service.documents) < 150 or b'"stored": 0' in journal.read_bytes():
        await asyncio.sleep(0.02)
    process.send_signal(number)
    await process.communicate()
    return process.returncode, orjson.loads(journal.read_bytes())["files"][str(file)]["stored"]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
async def test_a_run_that_is_killed_or_broken_off_is_gone_on_with(
    service: Any, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    file = corpus(tmp_path, 1000)
    returned, stored = await broken_off(service, file, number)
    assert returned == code
    assert 0 < stored < 1000
    assert all(f"d{each}" in service.documents for each in range(stored))
    service.pause_s = 0.0
    service.calls.clear()
    second = await started(service, str(file))
    _, stderr = await second.communicate()
    assert second.returncode == 0, stderr
    assert len(service.documents) == 1000
    assert sum(len(message.documents) for messages in service.calls for message in messages) == 1000 - stored


async def test_errors_end_in_exit_code_1(service: Any, tmp_path: Path) -> None:
    process = await started(service, str(corpus(tmp_path, 1)), str(tmp_path / "none.jsonl"))
    _, stderr = await process.communicate()
    assert (process.returncode, b"no such file" in stderr) == (1, True)
    (tmp_path / "corpus.jsonl").write_text("{")
    process = await started(service, str(tmp_path))
    _, stderr = await process.communicate()
    assert (process.returncode, b"corpus.jsonl:1" in stderr, b"Traceback" in stderr) == (1, True, False)


def journal_at(folder: Path, service: Any, file: Path, stored: int) -> Path:
    path = folder / "state.json"
    journal = Journal(path, collection="wiki", target=service.target)
    journal.passed(find_files([str(file)]))
    journal.advance({str(file): stored})
    journal.save()
    return path


async def test_a_file_that_changed_is_read_from_its_beginning(service: Any, tmp_path: Path) -> None:
    service.exists = True
    state = journal_at(tmp_path, service, corpus(tmp_path, 10), stored=8)
    await ingest_corpus(options(service, corpus(tmp_path, 10, "other"), state=str(state)), silent())
    assert len(service.documents) == 10


async def test_a_collection_that_is_new_gets_everything_whatever_the_journal_says(service: Any, tmp_path: Path) -> None:
    file = corpus(tmp_path, 10)
    state = journal_at(tmp_path, service, file, stored=8)
    await ingest_corpus(options(service, file, state=str(state)), silent())
    assert len(service.documents) == 10


async def test_a_journal_of_another_collection_is_not_gone_on_from(service: Any, tmp_path: Path) -> None:
    service.exists = True
    file = corpus(tmp_path, 10)
    state = journal_at(tmp_path, service, file, stored=8)
    other = IngestOptions(paths=(str(file),), collection="other", target=service.target, state=str(state))
    await ingest_corpus(other, silent())
    assert len(service.documents) == 10


@pytest.mark.parametrize("content", ["{", "[]", '{"collection": "wiki"}', "\0"])
async def test_a_journal_that_is_none_is_told_and_kept(service: Any, tmp_path: Path, content: str) -> None:
    (tmp_path / "state.json").write_text(content)
    with pytest.raises(InvalidArgument, match="not the journal"):
        await ingest_corpus(options(service, corpus(tmp_path, 1), state=str(tmp_path / "state.json")), silent())
    assert (tmp_path / "state.json").read_text() == content


async def test_a_journal_that_cannot_be_written_is_told_before_anything_is_sent(service: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="--state"):
        await ingest_corpus(options(service, corpus(tmp_path, 1), state=str(tmp_path / "none/state.json")), silent())
    assert service.documents == {}


def test_the_journal_lies_beside_the_data_and_is_of_one_ingestion(tmp_path: Path) -> None:
    file = corpus(tmp_path, 1)
    assert journal_path([str(file)], "wiki", "a").parent == tmp_path
    assert journal_path([str(tmp_path)], "collections/wiki", "a").parent == tmp_path
    assert journal_path([str(tmp_path / "no*/*.txt")], "wiki", "a").parent == tmp_path
    assert journal_path(["s3://bucket"], "wiki", "a").parent == Path()
    assert len({journal_path([str(file)], name, target) for name in ("wiki", "other") for target in ("a", "b")}) == 4
