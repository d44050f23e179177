"""The transcoder between a fake dispatcher and a fake ASGI server, and protos compiled as a test needs them."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import distribution
from importlib.resources import files
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_tools import protoc

from penstock.errors import PenstockError
from penstock.flow.v1 import flow_pb2  # noqa: F401  # Imported for its descriptors.
from penstock.generation.v1 import generation_pb2  # noqa: F401
from penstock.retrieval.v1 import retrieval_pb2  # noqa: F401
from penstock.transcoding import Transcoder

SERVICES = (
    "penstock.flow.v1.FlowService",
    "penstock.flow.v1.RunService",
    "penstock.retrieval.v1.RetrievalService",
)
GENERATION = ("penstock.generation.v1.GenerationService",)  # Apart: its /v1/models is retrieval's path too.
ROOT = Path(__file__).parents[3]
BODY_LIMIT = 100_000


class FakeDispatcher:
    """Answers by method name with what a test has put into `answers`: a message, an error, or a function of the request."""

    def __init__(self):
        self.answers = {}
        self.calls = []
        self.dialects = []

    @property
    def request(self):
        """What the last call was given."""
        return self.calls[-1][1]

    async def unary(self, method, request, context):
        answer = self._answer(method, request, context)
        return await answer if asyncio.iscoroutine(answer) else answer

    def stream(self, method, request, context):
        return self._answer(method, request, context)

    def _answer(self, method, request, context):
        self.calls.append((method, request, context))
        if isinstance(request, PenstockError):
            raise request
        answer = self.answers[method.rpartition("/")[2]]
        if isinstance(answer, Exception):
            raise answer
        return answer(request) if callable(answer) else answer


@dataclass
class Answer:
    """What the app sent."""

    events: list = field(default_factory=list)

    @property
    def status(self):
        return self.events[0]["status"]

    @property
    def headers(self):
        return {name.decode(): value.decode() for name, value in self.events[0]["headers"]}

    @property
    def body(self):
        return b"".join(event.get("body", b"") for event in self.events[1:])

    @property
    def complete(self):
        return not self.events[-1].get("more_body", False)

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def error(self):
        return self.json["error"]

    @property
    def reason(self):
        return next(detail["reason"] for detail in self.error["details"] if "reason" in detail)

    @property
    def metadata(self):
        return next(detail.get("metadata", {}) for detail in self.error["details"] if "reason" in detail)

    @property
    def sse(self):
        """(event, data) of each server-sent event; comments as (":", text)."""
        return [_event(block) for block in self.body.decode().split("\n\n") if block]


def _event(block):
    if block.startswith(":"):
        return ":", block[1:].strip()
    name, data = block.split("\n")
    return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))


class AsgiClient:
    """Drives an ASGI app as a server would. After the body, receive() blocks until the client leaves."""

    def __init__(self, app):
        self.app = app
        self.left = asyncio.Event()
        self.answer = Answer()

    async def call(self, method, target, body=b"", *, headers: Mapping[str, str] | None = None, chunks=None):
        path, _, query = target.partition("?")
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        pieces = list(chunks or [body])
        answer = self.answer = Answer()
        done = asyncio.Event()

        async def receive():
            if pieces:
                return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}
            waits = [asyncio.ensure_future(event.wait()) for event in (self.left, done)]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
            return {"type": "http.disconnect"}

        async def send(event):
            answer.events.append(event)
            await asyncio.sleep(0)

        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in (headers or {}).items()],
        }
        try:
            await self.app(scope, receive, send)
        finally:
            done.set()
        return answer


@pytest.fixture
def dispatcher():
    return FakeDispatcher()


@pytest.fixture
def transcoder(dispatcher):
    """Makes a Transcoder of Penstock's own services, with what a test wants otherwise."""

    def make(**changes):
        arguments = {"message_bytes_max": BODY_LIMIT, "ready": lambda: True, **changes}
        return Transcoder(arguments.pop("services", SERVICES), dispatcher, **arguments)

    return make


@pytest.fixture
def client(transcoder):
    return AsgiClient(transcoder())


@pytest.fixture
def generation_client(transcoder):
    return AsgiClient(transcoder(services=GENERATION))


@pytest.fixture
def connect():
    """Puts a client before an app."""
    return AsgiClient


@pytest.fixture(scope="session")
def compile_proto(tmp_path_factory):
    """Compiles a proto's text into a descriptor pool of its own."""

    def compile_text(text):
        folder = tmp_path_factory.mktemp("protos")
        (folder / "tested.proto").write_text(text)
        includes = [folder, ROOT / "protos", files("grpc_tools") / "_proto"]
        includes.append(distribution("googleapis-common-protos").locate_file(""))
        paths = [f"--proto_path={path}" for path in includes]
        arguments = ["protoc", *paths, "--include_imports", f"--descriptor_set_out={folder / 'set'}", "tested.proto"]
        assert protoc.main(arguments) == 0
        pool = DescriptorPool()
        for file in FileDescriptorSet.FromString((folder / "set").read_bytes()).file:
            pool.Add(file)
        return pool

    return compile_text


@pytest.fixture(scope="session")
def library(compile_proto):
    """The pool of library.proto."""
    return compile_proto((Path(__file__).parent / "library.proto").read_text())


@pytest.fixture
def library_client(transcoder, library):
    return AsgiClient(transcoder(services=("library.v1.Library",), pool=library))


@pytest.fixture(scope="session")
def library_message(library):
    """The class of one of library.proto's messages."""
    return lambda name: GetMessageClass(library.FindMessageTypeByName(f"library.v1.{name}"))
