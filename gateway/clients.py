"""The backends over gRPC. With their messages (generation_messages, retrieval_messages) the only place that knows those protos.

Errors of the services pass through with their reason and message; `service` is added to their metadata here, the node by the
scheduler.
"""

from collections.abc import AsyncGenerator, Sequence
from typing import Final

import grpc

from gateway.backends import Answer, Delta, Finish, GenerateRequest, Purpose, Scores, SearchRequest, Vectors
from gateway.generation_messages import answer, delta, finish, written
from gateway.replicas.replica import ReportedLoad
from gateway.retrieval_messages import document, embed_message, search_message, unpacked, vectors
from gateway.values import Document
from penstock.channel import rpc_errors
from penstock.deadline import remaining_s
from penstock.generation.v1 import generation_pb2, generation_pb2_grpc
from penstock.retrieval.v1 import retrieval_pb2_grpc
from penstock.wire import from_status

RETRIEVAL: Final = "retrieval"
GENERATION: Final = "generation"
LOAD_TIMEOUT_S: Final = 0.5
"""Time for a replica to say what it works on."""


class GrpcRetriever:
    """The Retriever over a channel. One search takes at most `timeout_s`, and no more than the caller has left."""

    def __init__(self, channel: grpc.aio.Channel, *, timeout_s: float) -> None:
        self._stub = retrieval_pb2_grpc.RetrievalServiceStub(channel)  # type: ignore[no-untyped-call]  # Generated.
        self._timeout_s = timeout_s

    async def search(self, request: SearchRequest) -> tuple[Document, ...]:
        with rpc_errors(RETRIEVAL):
            response = await self._stub.Search(search_message(request), timeout=remaining_s(self._timeout_s))
        return tuple(map(document, response.hits))

    async def embed(self, model: str, texts: Sequence[str], purpose: Purpose) -> Vectors:
        with rpc_errors(RETRIEVAL):
            response = await self._stub.Embed(embed_message(model, texts, purpose), timeout=remaining_s(self._timeout_s))
        return vectors(response)


class GrpcGenerator:
    """One replica over its channel, which it closes. An answer takes at most `timeout_s`, and what the caller has left."""

    def __init__(self, channel: grpc.aio.Channel, *, timeout_s: float) -> None:
        self._channel = channel
        self._stub = generation_pb2_grpc.GenerationServiceStub(channel)  # type: ignore[no-untyped-call]  # Generated.
        self._timeout_s = timeout_s

    async def generate(self, request: GenerateRequest) -> Answer:
        message = written(request, generation_pb2.GenerateRequest())
        with rpc_errors(GENERATION):
            response = await self._stub.Generate(message, timeout=remaining_s(self._timeout_s))
        return answer(response)

    async def stream(self, request: GenerateRequest) -> AsyncGenerator[Delta | Finish, None]:
        message = written(request, generation_pb2.StreamGenerateRequest())
        with rpc_errors(GENERATION):
            call = self._stub.StreamGenerate(message, timeout=remaining_s(self._timeout_s))
            try:
                async for response in call:
                    kind = response.WhichOneof("event")
                    if kind == "delta":
                        yield delta(response.delta)
                    elif kind == "done":
                        yield finish(response.done)
                    elif kind == "error":
                        raise from_status(response.error).located(service=GENERATION)
            finally:
                call.cancel()  # Does nothing to a call that has ended.

    async def embed(self, model: str, texts: Sequence[str]) -> Vectors:
        message = generation_pb2.EmbedRequest(model=f"models/{model}", texts=texts)
        with rpc_errors(GENERATION):
            response = await self._stub.Embed(message, timeout=remaining_s(self._timeout_s))
        made = tuple(unpacked(vector.values) for vector in response.vectors)
        return Vectors(vectors=made, input_tokens=response.usage.input_tokens)

    async def rerank(self, model: str, query: str, documents: Sequence[str]) -> Scores:
        message = generation_pb2.RerankRequest(model=f"models/{model}", query=query, documents=documents)
        with rpc_errors(GENERATION):
            response = await self._stub.Rerank(message, timeout=remaining_s(self._timeout_s))
        return Scores(scores=tuple(response.scores), input_tokens=response.usage.input_tokens)

    async def load(self) -> ReportedLoad:
        """What the replica works on."""
        with rpc_errors(GENERATION):
            load = await self._stub.GetLoad(generation_pb2.GetLoadRequest(), timeout=LOAD_TIMEOUT_S)
        return ReportedLoad(
            running=load.running, waiting=load.waiting, running_max=load.running_max, waiting_max=load.waiting_max
        )

    async def readiness(self) -> AsyncGenerator[bool, None]:
        """The channel's own word: it watches the replica's health, and is ready only while that is SERVING."""
        state = self._channel.get_state(try_to_connect=True)
        while state is not grpc.ChannelConnectivity.SHUTDOWN:
            yield state is grpc.ChannelConnectivity.READY
            await self._channel.wait_for_state_change(state)
            state = self._channel.get_state(try_to_connect=True)

    async def close(self, grace_s: float | None = None) -> None:
        """Closes the channel once the calls in flight have ended, or are cancelled after `grace_s` (None: at once)."""
        await self._channel.close(grace_s)
