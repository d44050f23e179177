"""A run of a flow for a caller of OpenAI's API, asked for through the dispatcher, so that keys and limits hold here too."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from contextvars import Context, copy_context
from typing import Any, Final
from weakref import WeakKeyDictionary

import orjson

from gateway.compiler import CompiledFlow
from gateway.execution import ChatMessage
from gateway.flows import Flows
from gateway.openai_api.asking import Asked, run_fields
from gateway.openai_api.flow_as_model import FlowAsModel, as_model
from gateway.structs import from_struct
from penstock.dispatcher import LateRequest
from penstock.encoded import message_of
from penstock.flow.v1 import flow_pb2
from penstock.tool_actions import read_action
from penstock.transcoding.dialect import DialectCall
from penstock.transcoding.exchange import inner_cancellation
from penstock.wire import from_status

RUN: Final = "/penstock.flow.v1.RunService/RunFlow"
STREAM: Final = "/penstock.flow.v1.RunService/StreamFlow"

Before = Callable[[], Awaitable[Sequence[ChatMessage]]]


class FlowsAsModels:
    """How each compiled flow is talked to, found out once."""

    def __init__(self, flows: Flows) -> None:
        self._flows = flows
        self._known: WeakKeyDictionary[CompiledFlow, FlowAsModel] = WeakKeyDictionary()

    async def get(self, flow_id: str) -> FlowAsModel:
        """Raises FlowNotFound."""
        compiled = await self._flows.compiled(flow_id)
        found = self._known.get(compiled)
        if found is None:
            found = self._known[compiled] = as_model(compiled.flow)
        return found


class AskedRun:
    """A run that is asked for. `flow`, `before` and `context` are known once it has begun: they are found out behind the
    interceptors, `context` being that in which the caller's identity is known.
    """

    __slots__ = ("_asked", "_before", "_models", "before", "context", "flow")

    def __init__(self, models: FlowsAsModels, asked: Asked, before: Before | None = None) -> None:
        self._models = models
        self._asked = asked
        self._before = before
        self.before: Sequence[ChatMessage] = ()
        self.flow: FlowAsModel
        self.context: Context

    async def whole(self, call: DialectCall) -> flow_pb2.RunFlowResponse:
        """Runs to the end."""

        async def make() -> flow_pb2.RunFlowRequest:
            return flow_pb2.RunFlowRequest(**await self._fields())

        response: flow_pb2.RunFlowResponse = await call.unary(RUN, LateRequest(make))
        return response

    async def heard(self, call: DialectCall) -> AsyncGenerator[str | flow_pb2.RunFlowResponse, None]:
        """Runs and tells the tokens that make the answer as they come, and at the end the response.

        Of several nodes that might speak, on branches of which one is taken, the first that does is heard.
        """

        async def make() -> flow_pb2.StreamFlowRequest:
            return flow_pb2.StreamFlowRequest(**await self._fields())

        speaking = ""
        with inner_cancellation():
            events = call.stream(STREAM, LateRequest(make))
            async with aclosing(events) as happened:  # type: ignore[type-var]  # A generator, typed as an iterator.
                async for event in happened:
                    response = message_of(event)
                    kind = response.WhichOneof("event")
                    if kind == "token":
                        node = response.token.node_id
                        if self.hears(node) and speaking in {"", node}:
                            speaking = node
                            yield response.token.text
                    elif kind == "done":
                        yield response.done
                    elif kind == "error":
                        raise from_status(response.error)

    async def _fields(self) -> dict[str, Any]:
        self.flow = await self._models.get(self._asked.model)
        if self._before is not None:
            self.before = await self._before()
            self.context = copy_context()
        return run_fields(self._asked, self.flow, self.before)

    def hears(self, node: str) -> bool:
        """Whether a node's tokens are the answer's. Those of a call that had to be made are none."""
        return node in self.flow.streamed and not self._asked.must_call

    def answer(self, response: flow_pb2.RunFlowResponse) -> "Answer":
        """What a run that has ended answers."""
        outputs = from_struct(response.outputs)
        chosen = next((name for name in self.flow.answers if name in outputs), None)
        value = "" if chosen is None else outputs.pop(chosen)
        text = value if isinstance(value, str) else orjson.dumps(value).decode()
        calls = [(call.name, call.arguments or "{}") for call in response.tool_calls]
        if self._asked.must_call:
            action = read_action(text)
            text, calls = action.text, [(call.tool, orjson.dumps(call.arguments).decode()) for call in action.calls]
        return Answer(response, text, outputs, calls[: 1 if self._asked.one_call_at_most else None])


class Answer:
    """What a run comes to for a caller of OpenAI's API: a text, the flow's other outputs, and calls of tools, each a name and
    the text of its arguments.
    """

    __slots__ = ("calls", "finish_reason", "outputs", "response", "text")

    def __init__(
        self,
        response: flow_pb2.RunFlowResponse,
        text: str,
        others: Mapping[str, Any],
        calls: Sequence[tuple[str, str]],
    ) -> None:
        self.response = response
        self.text = text
        self.outputs = others
        self.calls = calls
        self.finish_reason = "tool_calls" if calls else response.finish_reason or "stop"

    def extension(self) -> dict[str, Any]:
        """What stands under "penstock": sources, the flow's other outputs, and what runs can be found and told apart by."""
        response = self.response
        return {
            "sources": [_source(each) for each in response.sources],
            "outputs": self.outputs,
            "bounded_nodes": list(response.bounded_nodes),
            "session": response.session,
            "trace_id": response.trace_id,
            "content_hash": response.content_hash,
        }


def _source(source: flow_pb2.Source) -> Mapping[str, Any]:
    return {
        "chunk_id": source.chunk_id,
        "document_id": source.document_id,
        "text": source.text,
        "score": source.score,
        "metadata": from_struct(source.metadata),
        "node_id": source.node_id,
    }
