"""A flow made ready to run: `run` for a whole answer, `events` for a stream, and a LangChain Runnable for whoever embeds it.

The two hot paths go straight to our scheduler. LangChain's machinery (callbacks, config) is only gone through when a compiled
flow is called as a Runnable; it costs more than everything else here together.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

import orjson
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.utils import AddableDict
from opentelemetry import trace

from gateway.backends import Backends
from gateway.execution import NOTHING_SAID, Call, Emit, Event, EventBuffer, Run, RunResult, SourcesFound, Token
from gateway.flow_model import Bounds, Flow, Node
from gateway.inputs import bind
from gateway.nodes import NODE_TYPES
from gateway.nodes.spec import Body, NodeSpec, ToolUserSpec, Work
from gateway.scheduler import Plan, alone, execute, plan, traced
from gateway.values import as_json
from penstock import semconv
from penstock.deadline import remaining_s
from penstock.errors import DeadlineExceeded, FailedPrecondition

UNNAMED: Final = "unnamed"
BOUNDS: Final = Bounds(model_calls=200, tokens=2_000_000, retrievals=1000)
"""Of a gateway that sets no others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLimits:
    """`deadline_s`: longest run. `events_max`: events that wait for a slow reader of a stream before the run waits too.

    `bounds` are of what one run may take, whatever its flow says.
    """

    deadline_s: float = 300.0
    events_max: int = 64
    bounds: Bounds = BOUNDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiler:
    """Binds flows to what their nodes call. `capture_content` lets inputs and outputs stand in spans."""

    backends: Backends
    tracer: trace.Tracer
    limits: RunLimits = RunLimits()
    capture_content: bool = False

    def compile(self, flow: Flow) -> "CompiledFlow":
        """The flow, ready to run any number of times at once."""
        return CompiledFlow(flow, self)


class CompiledFlow(Runnable[dict[str, Any], dict[str, Any]]):
    """Immutable. Everything that a run changes is the run's own.

    Raises, however it is called: InvalidInputs, EmptyText, DeadlineExceeded, and what the backends raise, the node in the
    error's metadata.
    """

    def __init__(self, flow: Flow, compiler: Compiler) -> None:
        self.flow = flow
        self._plan = _planned(flow, compiler)
        self._compiler = compiler
        self._bounds = _tighter(flow.bounds, compiler.limits.bounds)
        self._order = {step.node_id: index for index, step in enumerate(self._plan.steps)}

    async def run(self, inputs: Mapping[str, Any], *, name: str = UNNAMED, call: Call = NOTHING_SAID) -> RunResult:
        """Runs the flow. `name` is what the trace calls it."""
        return await self._run(bind(self.flow.inputs, inputs), name, None, call)

    async def run_inside(self, inputs: Mapping[str, Any], run: Run) -> Mapping[str, Any]:
        """Runs the flow as a part of another one, in a `child` run of its: the outputs, as edges carry them."""
        run.inputs = bind(self.flow.inputs, inputs)
        await execute(self._plan, run)
        return run.outputs

    async def events(
        self, inputs: Mapping[str, Any], *, name: str = UNNAMED, call: Call = NOTHING_SAID
    ) -> AsyncGenerator[Event, None]:
        """Runs the flow and tells what happens; the last event is the RunResult. Closing it stops the run at once."""
        bound = bind(self.flow.inputs, inputs)
        buffer = EventBuffer(self._compiler.limits.events_max)
        task = asyncio.create_task(self._run(bound, name, buffer.put, call))
        task.add_done_callback(lambda _: buffer.close())
        try:
            while (event := await buffer.get()) is not None:
                yield event
            yield task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self, bound: Mapping[str, Any], name: str, emit: Emit | None, call: Call) -> RunResult:
        run = Run(bound, emit, call=call, bounds=self._bounds)
        attributes = {
            semconv.GEN_AI_OPERATION_NAME: "invoke_workflow",
            semconv.GEN_AI_WORKFLOW_NAME: name,
            semconv.PENSTOCK_FLOW_HASH: self.flow.content_hash,
        }
        with traced(self._compiler.tracer, f"invoke_workflow {name}", attributes) as span:
            run.recording = span.is_recording()
            await self._execute(run, name)
            if run.remembered and call.session and call.messages is None:
                await self._compiler.backends.sessions.append(call.session, run.remembered)
            if run.recording and self._compiler.capture_content:
                span.set_attribute(semconv.GEN_AI_INPUT_MESSAGES, _messages("user", run.inputs))
                span.set_attribute(semconv.GEN_AI_OUTPUT_MESSAGES, _messages("assistant", run.outputs))
            return self._result(run, span)

    async def _execute(self, run: Run, name: str) -> None:
        limit_s = min(self._bounds.wall_s or math.inf, self._compiler.limits.deadline_s)
        if remaining_s(math.inf) <= limit_s:  # Whoever serves the call ends it before.
            await execute(self._plan, run)
            return
        scope = asyncio.timeout(limit_s)
        try:
            async with scope:
                await execute(self._plan, run)
        except TimeoutError:
            if not scope.expired():
                raise
            raise DeadlineExceeded(f"the run of flow {name!r} did not finish within {limit_s:.3g} s") from None

    def _result(self, run: Run, span: trace.Span) -> RunResult:
        found = sorted(run.sources.items(), key=lambda item: self._order[item[0].partition("/")[0]])
        return RunResult(
            outputs={name: as_json(value) for name, value in run.outputs.items()},
            sources=tuple(SourcesFound(node_id=node_id, documents=documents) for node_id, documents in found),
            spent=run.meter.spent(),
            content_hash=self.flow.content_hash,
            trace_id=trace.format_trace_id(span.get_span_context().trace_id),
            session=run.call.session,
            finish_reason=run.finish_reason,
            tool_calls=tuple(run.tool_calls),
            bounded_nodes=tuple(run.bounded_nodes),
        )

    # What follows is LangChain's interface.

    async def ainvoke(
        self,
        input: dict[str, Any],  # noqa: A002  # LangChain's name.
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """The outputs by their names."""
        return await self._acall_with_config(self._outputs, input, config, **kwargs)

    def invoke(
        self,
        input: dict[str, Any],  # noqa: A002  # LangChain's name.
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """As `ainvoke`, on an event loop of its own. Raises FailedPrecondition inside a running one."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(self.ainvoke(input, config, **kwargs))
        raise FailedPrecondition("an event loop is running here: await ainvoke instead")

    async def astream(
        self,
        input: dict[str, Any],  # noqa: A002  # LangChain's name.
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[dict[str, Any]]:
        """Pieces of the outputs that add up to them: tokens of the nodes that feed an output as they come, the rest whole."""

        async def once() -> AsyncIterator[dict[str, Any]]:
            yield input

        async for chunk in self._atransform_stream_with_config(once(), self._chunks, config, **kwargs):
            yield chunk

    async def _outputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return dict((await self.run(inputs)).outputs)

    async def _chunks(self, inputs: AsyncIterator[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
        streamed = self._streamed_outputs()
        async for given in inputs:
            told: set[str] = set()
            async with aclosing(self.events(given)) as events:
                async for event in events:
                    if isinstance(event, Token) and event.node_id in streamed:
                        told |= streamed[event.node_id]
                        yield AddableDict(dict.fromkeys(sorted(streamed[event.node_id]), event.text))
                    elif isinstance(event, RunResult) and (rest := {k: v for k, v in event.outputs.items() if k not in told}):
                        yield AddableDict(rest)

    def _streamed_outputs(self) -> dict[str, set[str]]:
        """The names of the outputs that each generating node feeds directly."""
        nodes = {node.id: node for node in self.flow.nodes}
        streamed: dict[str, set[str]] = {}
        for edge in self.flow.edges:
            source, target = nodes[edge.source], nodes[edge.target]
            if source.type in {"generate", "agent"} and edge.source_port == "text" and target.type == "output":
                streamed.setdefault(source.id, set()).add(target.params.name or target.id)
        return streamed


def _planned(flow: Flow, compiler: Compiler) -> Plan:
    return plan(flow, {node.id: _work(node, compiler) for node in flow.nodes}, compiler.tracer)


def _work(node: Node, compiler: Compiler) -> Work:
    spec = NODE_TYPES[node.type]
    if isinstance(spec, NodeSpec):
        return spec.work(node.params, node.id, compiler.backends)
    if isinstance(spec, ToolUserSpec):
        tools = [(tool, alone(tool, _work(tool, compiler), compiler.tracer)) for tool in node.tools]
        return spec.work(node.params, node.id, tools, compiler.backends)
    assert node.body is not None  # noqa: S101  # Validation has made it.
    return spec.work(node.params, node.id, node.body, _body(_planned(node.body, compiler)))


def _body(inner: Plan) -> Body:
    async def run_body(inputs: Mapping[str, Any], run: Run) -> Mapping[str, Any]:
        run.inputs = inputs
        await execute(inner, run)
        return run.outputs

    return run_body


def _tighter(own: Bounds, most: Bounds) -> Bounds:
    """Of each bound the lower one."""

    def lower(first: Any, second: Any) -> Any:
        return min((each for each in (first, second) if each is not None), default=None)

    return Bounds(
        model_calls=lower(own.model_calls, most.model_calls),
        tokens=lower(own.tokens, most.tokens),
        retrievals=lower(own.retrievals, most.retrievals),
        wall_s=lower(own.wall_s, most.wall_s),
    )


def _messages(role: str, values: Mapping[str, Any]) -> str:
    """Inputs or outputs in the form in which GenAI spans carry messages: one message, a part for each value."""
    parts = [{"type": "text", "name": name, "content": as_json(value)} for name, value in values.items()]
    return orjson.dumps([{"role": role, "parts": parts}]).decode()
