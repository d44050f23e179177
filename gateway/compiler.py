"""A flow made ready to run: `run` for a whole answer, `events` for a stream. As a LangChain Runnable: see runnable.py."""

import asyncio
import math
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson
from opentelemetry import trace

from gateway.backends import Backends
from gateway.execution import NOTHING_SAID, Call, Emit, Event, EventBuffer, Run, RunResult, SourcesFound
from gateway.flow_model import Bounds, Flow, Node
from gateway.inputs import bind
from gateway.nodes import NODE_TYPES
from gateway.nodes.spec import Body, NodeSpec, ToolUserSpec, Work
from gateway.scheduler import Plan, alone, execute, plan, traced
from gateway.values import as_json
from penstock import semconv
from penstock.deadline import remaining_s
from penstock.errors import DeadlineExceeded

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


class CompiledFlow:
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
    async def run_body(run: Run) -> Mapping[str, Any]:
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
