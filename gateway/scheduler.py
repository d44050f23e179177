"""How a flow runs: every node starts when its inputs are ready, branches in parallel, and one failure ends the whole.

A plan is made once and never changes; a run's values live in `execute` and nowhere else. Pure nodes are run on the spot. One
effect with nothing beside it is awaited on the spot as well, so that a straight line costs no task; several become tasks, all
of which are cancelled and awaited before `execute` leaves, whether by an error or because the caller left.
"""

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.trace import Status, StatusCode

from gateway.execution import NodeFinished, NodeStarted, Run
from gateway.flow_model import Flow, Node
from gateway.nodes.spec import Effect, Inputs, Outputs, Pure, Use, Work
from penstock import semconv
from penstock.errors import Internal, PenstockError
from penstock.tracing import unrecorded

PARTIAL: Final = frozenset({"switch", "flow"})
"""Types of nodes that may leave an output without a value."""

_NO_SPAN: Final = nullcontext()


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A node ready to run. `bindings` are (own port, step, its port); `feeds` the steps that wait for it, once per edge.

    `may_skip`: it hangs on a branch that may not be taken. It is skipped where an input is missing that is not among
    `absent_ports`, or where all of those are.
    """

    node_id: str
    node_type: str
    work: Work
    bindings: tuple[tuple[str, int, str], ...] = ()
    feeds: tuple[int, ...] = ()
    may_skip: bool = False
    absent_ports: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A flow's steps in an order in which they can run. `waits_for` is how many edges arrive at each."""

    steps: tuple[Step, ...]
    waits_for: tuple[int, ...]
    tracer: trace.Tracer


def plan(flow: Flow, work: Mapping[str, Work], tracer: trace.Tracer) -> Plan:
    """The plan of a flow whose nodes do `work`, by their ids."""
    index = {node.id: position for position, node in enumerate(flow.nodes)}
    arriving: dict[str, list[tuple[str, int, str]]] = defaultdict(list)
    leaving: dict[str, list[int]] = defaultdict(list)
    for edge in flow.edges:
        arriving[edge.target].append((edge.target_port, index[edge.source], edge.source_port))
        leaving[edge.source].append(index[edge.target])
    conditional = _conditional(flow)
    steps = tuple(
        Step(
            node_id=node.id,
            node_type=node.type,
            work=work[node.id],
            bindings=tuple(arriving[node.id]),
            feeds=tuple(leaving[node.id]),
            may_skip=node.id in conditional,
            absent_ports=frozenset(port.name for port in node.ports.inputs if port.may_be_absent),
        )
        for node in flow.nodes
    )
    return Plan(steps=steps, waits_for=tuple(len(step.bindings) for step in steps), tracer=tracer)


def alone(node: Node, work: Work, tracer: trace.Tracer) -> Use:
    """A node that is run by itself, with the events, spans and errors of any other."""
    step = Step(node_id=node.id, node_type=node.type, work=work)

    async def use(inputs: Inputs, run: Run) -> Outputs:
        return await _perform(tracer, step, inputs, run)

    return use


def _conditional(flow: Flow) -> frozenset[str]:
    """The nodes that may find an input missing: those below one of PARTIAL. Nodes stand in an order in which they can run."""
    partial = {node.id for node in flow.nodes if node.type in PARTIAL}
    found: set[str] = set()
    sources: dict[str, set[str]] = defaultdict(set)
    for edge in flow.edges:
        sources[edge.target].add(edge.source)
    for node in flow.nodes:
        if sources[node.id] & (partial | found):
            found.add(node.id)
    return frozenset(found)


async def execute(plan: Plan, run: Run) -> None:
    """Runs every step; `run` then has the outputs. Raises the first error of a node, the node in its metadata."""
    progress = _Progress(plan)
    tasks: dict[asyncio.Task[Outputs], int] = {}
    try:
        while True:
            effects = await _run_pure(plan, progress, run)
            if len(effects) == 1 and not tasks:
                only = effects[0]
                progress.finish(only, await _perform(plan.tracer, plan.steps[only], progress.inputs(only), run))
                continue
            for index in effects:
                work = _perform(plan.tracer, plan.steps[index], progress.inputs(index), run)
                tasks[asyncio.create_task(work)] = index
            if not tasks:
                return
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=tasks.__getitem__):
                progress.finish(tasks.pop(task), task.result())
    finally:
        if tasks:
            await _cancel(tasks)


class _Progress:
    """What has been made so far, and which steps are ready."""

    __slots__ = ("_missing", "_steps", "_values", "ready")

    def __init__(self, plan: Plan) -> None:
        self._steps = plan.steps
        self._missing = list(plan.waits_for)
        self._values: list[Outputs] = [{}] * len(plan.steps)
        self.ready = deque(index for index, count in enumerate(plan.waits_for) if not count)

    def inputs(self, index: int) -> Inputs:
        values, step = self._values, self._steps[index]
        if step.may_skip:
            return {port: values[source][given] for port, source, given in step.bindings if given in values[source]}
        return {port: values[source][given] for port, source, given in step.bindings}

    def skips(self, index: int) -> bool:
        """Whether a step that may be is left out, because what it needs comes from a branch that was not taken."""
        step, values = self._steps[index], self._values
        missing = {port for port, source, given in step.bindings if given not in values[source]}
        return bool(missing - step.absent_ports) or (bool(step.absent_ports) and missing == step.absent_ports)

    def finish(self, index: int, outputs: Outputs) -> None:
        self._values[index] = outputs
        missing = self._missing
        for fed in self._steps[index].feeds:
            missing[fed] -= 1
            if not missing[fed]:
                self.ready.append(fed)


async def _run_pure(plan: Plan, progress: _Progress, run: Run) -> Sequence[int]:
    """Runs every pure step that is or becomes ready; the effects that are ready then."""
    effects = []
    while progress.ready:
        index = progress.ready.popleft()
        step = plan.steps[index]
        if step.may_skip and progress.skips(index):
            progress.finish(index, {})
        elif isinstance(step.work, Effect):
            effects.append(index)
        elif run.emit is None and not run.recording:  # Nobody is told of it: it need not be a coroutine.
            progress.finish(index, _apply(step, progress.inputs(index), run))
        else:
            progress.finish(index, await _perform(plan.tracer, step, progress.inputs(index), run))
    return effects


def _apply(step: Step, inputs: Inputs, run: Run) -> Outputs:
    work = step.work
    assert isinstance(work, Pure)  # noqa: S101  # The caller has looked; this tells mypy.
    try:
        return work.apply(inputs, run)
    except Exception as error:
        _place(error, step)
        raise


def _place(error: Exception, step: Step) -> None:
    """Says of an error in which node it happened."""
    if isinstance(error, PenstockError):
        error.located(node=step.node_id)
    else:
        error.add_note(f"in the node {step.node_id!r} of type {step.node_type!r}")


async def _perform(tracer: trace.Tracer, step: Step, inputs: Inputs, run: Run) -> Outputs:
    begun = time.perf_counter()
    if run.emit is not None:
        await run.emit(NodeStarted(node_id=step.node_id, node_type=step.node_type))
    try:
        with _node_span(tracer, step) if run.recording else _NO_SPAN:
            work = step.work
            outputs = await work.apply(inputs, run) if isinstance(work, Effect) else work.apply(inputs, run)
    except Exception as error:
        _place(error, step)
        raise
    if run.emit is not None:
        duration_s = time.perf_counter() - begun
        told = outputs if run.call.node_outputs else None
        await run.emit(NodeFinished(node_id=step.node_id, node_type=step.node_type, duration_s=duration_s, outputs=told))
    return outputs


def _node_span(tracer: trace.Tracer, step: Step) -> AbstractContextManager[Any]:
    attributes = {semconv.PENSTOCK_NODE_ID: step.node_id, semconv.PENSTOCK_NODE_TYPE: step.node_type}
    return traced(tracer, f"node {step.node_id}", attributes)


def traced(tracer: trace.Tracer, name: str, attributes: Mapping[str, str]) -> AbstractContextManager[trace.Span]:
    """A current span that says how what is inside it failed, with our reason and without the text of an Internal.

    Below a call that nobody records it is that call's own, which keeps nothing.
    """
    current = unrecorded()
    return _spanned(tracer, name, attributes) if current is None else nullcontext(current)


@contextmanager
def _spanned(tracer: trace.Tracer, name: str, attributes: Mapping[str, str]) -> Iterator[trace.Span]:
    with tracer.start_as_current_span(
        name, attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as span:
        try:
            yield span
        except PenstockError as error:
            message = "" if isinstance(error, Internal) else error.message
            _fail(span, error.reason, message)
            raise
        except asyncio.CancelledError:
            span.set_attribute(semconv.PENSTOCK_REASON, "CANCELLED")
            raise
        except Exception as error:
            span.record_exception(error)
            _fail(span, type(error).__name__, "")
            raise


def _fail(span: trace.Span, reason: str, message: str) -> None:
    span.set_attribute(semconv.ERROR_TYPE, reason)
    span.set_attribute(semconv.PENSTOCK_REASON, reason)
    span.set_status(Status(StatusCode.ERROR, message))


async def _cancel(tasks: Mapping[asyncio.Task[Outputs], int]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
