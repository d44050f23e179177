"""agent: a model that uses other nodes as its tools, again and again, until it has an answer or may go on no longer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import Field, model_validator

from gateway.backends import Backends, GenerateRequest
from gateway.document import NAME_PATTERN
from gateway.execution import Run, Tool
from gateway.flow_model import InputPort, Node, OutputPort, Ports
from gateway.nodes.generate_params import MESSAGES_MAX, MODEL_PATTERN, SamplingParams
from gateway.nodes.spec import Effect, Inputs, NodeParams, Outputs, ToolDeclaration, ToolUserSpec, Use, Work
from gateway.nodes.tool_arguments import fault_of, given_to, parameters, result_text
from gateway.nodes.tool_calling import Conversation, Malformed
from gateway.nodes.tool_calling import Use as Wanted
from gateway.nodes.turns import as_turns, turns_before
from gateway.values import ACCEPTED_BY, PortType
from penstock.errors import BudgetExceeded, Cancelled, DeadlineExceeded, PenstockError

ROUNDS_MAX: Final = 64
TOOLS_MAX: Final = 32
TOOL_TYPES: Final = frozenset({
    "calculator", "embed", "flow", "history", "http", "prompt", "rerank", "retrieve", "sql", "transform",
})  # fmt: skip
"""What makes sense as a tool: what looks something up, or computes."""

_OWN: Final = ("prompt", "system", "messages")
_ENDING: Final = (BudgetExceeded, DeadlineExceeded, Cancelled)
"""What no model can do anything about; the run ends by it."""

Name = Annotated[str, Field(pattern=NAME_PATTERN)]


class ToolNode(NodeParams):
    """The node that is a tool."""

    type: str = Field(description=f"Its type: {', '.join(sorted(TOOL_TYPES))}.")
    params: dict[str, Any] = Field(default={}, description="The parameters of its type.")


class AgentTool(NodeParams):
    """A tool: a node, whose input ports are the tool's arguments."""

    name: Name = Field(description="What the model calls it.")
    description: str = Field(min_length=1, max_length=2048, description="What the model is told of it: what it does, and when.")
    node: ToolNode = Field(description="The node that is run.")
    given: list[Name] = Field(
        default=[],
        max_length=32,
        description="Inputs that are not the model's to choose: each is an input port of the agent, as a customer's number.",
    )
    arguments: dict[Name, Annotated[str, Field(max_length=1024)]] = Field(
        default={}, max_length=32, description="What the model is told of each argument."
    )


class AgentParams(SamplingParams):
    """Parameters of an agent node."""

    protected = frozenset({"tools"})

    model: str = Field(default="default", pattern=MODEL_PATTERN, description="Name of the model, without the leading models/.")
    system: str = Field(
        default="", description="Instructions that stand above the prompt. The input system, where connected, takes its place."
    )
    tools: list[AgentTool] = Field(min_length=1, max_length=TOOLS_MAX, description="What the model may use.")
    max_rounds: int = Field(
        default=8,
        ge=1,
        le=ROUNDS_MAX,
        description="Most rounds, in each of which the model uses a tool or answers. Then it must answer.",
    )
    result_chars_max: int = Field(
        default=8000,
        ge=100,
        le=100_000,
        description="Most characters of a tool's result that the model is told; the rest is cut.",
    )
    history: bool = Field(default=False, description="Puts the conversation so far before the prompt, as in a generate node.")
    history_max: int = Field(default=100, ge=1, le=MESSAGES_MAX, description="Most turns of the conversation: the newest.")
    caller_sampling: bool = Field(
        default=True, description="Whether what a caller sets for a run holds for this node, as in a generate node."
    )

    @model_validator(mode="after")
    def _tools_have_names_of_their_own(self) -> "AgentParams":
        names = [tool.name for tool in self.tools]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            message = f"two tools have the name {twice!r}"
            raise ValueError(message)
        if self.structured_output is not None:
            message = "an agent answers in words; put what its answer must be through a generate node with structured_output"
            raise ValueError(message)
        return self


def _tools(params: AgentParams) -> Sequence[ToolDeclaration]:
    return [
        ToolDeclaration(name=tool.name, type=tool.node.type, params=tool.node.params, place=f"params.tools.{index}.node")
        for index, tool in enumerate(params.tools)
    ]


def _faults(params: AgentParams, nodes: Sequence[Node]) -> Sequence[tuple[str, str]]:
    found = []
    for index, (tool, node) in enumerate(zip(params.tools, nodes, strict=True)):
        ports = {port.name: port for port in node.ports.inputs}
        place = f"tools.{index}"
        for field, names in (("given", tool.given), ("arguments", tool.arguments)):
            known = ", ".join(ports) or "none"
            found += [
                (f"{place}.{field}", f"the node has no input {name!r}; its inputs: {known}")
                for name in names
                if name not in ports
            ]
        found += [(f"{place}.given", f"{name!r} is an input of every agent") for name in tool.given if name in _OWN]
        chosen = [port for name, port in ports.items() if name not in tool.given]
        found += [(f"{place}.node", fault) for port in chosen if (fault := fault_of(port))]
    clash = next((port.name for port in _given(params, nodes) if not port.accepts), None)
    return found if clash is None else [*found, ("tools", f"the tools that are given {clash!r} take different types")]


def _given(params: AgentParams, nodes: Sequence[Node]) -> list[InputPort]:
    """The agent's input ports that go to its tools: what they have in common where several take one of the same name."""
    found: dict[str, InputPort] = {}
    for tool, node in zip(params.tools, nodes, strict=True):
        for port in node.ports.inputs:
            if port.name in tool.given:
                accepts = found[port.name].accepts & port.accepts if port.name in found else port.accepts
                found[port.name] = InputPort(name=port.name, accepts=accepts)
    return list(found.values())


def _ports(params: AgentParams, nodes: Sequence[Node]) -> Ports:
    text = ACCEPTED_BY[PortType.TEXT]
    return Ports(
        inputs=(
            InputPort(name="prompt", accepts=text),
            InputPort(name="system", accepts=text, optional=True),
            InputPort(name="messages", accepts=frozenset({PortType.JSON}), optional=True),
            *_given(params, nodes),
        ),
        outputs=(
            OutputPort(name="text", type=PortType.TEXT, is_main=True),
            OutputPort(name="steps", type=PortType.JSON),
            OutputPort(name="status", type=PortType.TEXT),
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Agent:
    """A node made ready."""

    node_id: str
    params: AgentParams
    backends: Backends
    told: tuple[Tool, ...]
    uses: Mapping[str, tuple[AgentTool, Node, Use]]

    async def answer(self, inputs: Inputs, run: Run) -> Outputs:
        talk = Conversation(
            generator=self.backends.generator,
            run=run,
            node_id=self.node_id,
            opening=await self._opening(inputs, run),
            tools=self.told,
        )
        steps: list[dict[str, Any]] = []
        status = "bounded"
        try:
            for _ in range(self.params.max_rounds):
                action = await talk.decide()
                if isinstance(action, str):
                    return {"text": action, "steps": steps, "status": "done"}
                steps.append(await self._used(action, inputs, run))
                talk.tell(action, steps[-1]["result"])
        except Malformed:
            status = "malformed"
        run.bounded(self.node_id)
        return {"text": await talk.conclude(), "steps": steps, "status": status}

    async def _opening(self, inputs: Inputs, run: Run) -> GenerateRequest:
        params = self.params
        if run.call.sampling and params.caller_sampling:
            params = params.model_copy(update=run.call.sampling)
        turns = await turns_before(run, self.backends.sessions, params.history_max) if params.history else ()
        return GenerateRequest(
            model=params.model,
            prompt=inputs["prompt"],
            system=inputs.get("system", params.system),
            messages=turns + (as_turns(inputs["messages"], MESSAGES_MAX) if "messages" in inputs else ()),
            session=run.call.session,
            sampling=params.sampling(),
        )

    async def _used(self, wanted: Wanted, inputs: Inputs, run: Run) -> dict[str, Any]:
        """A step: what the tool was asked and what it gave. What goes wrong in it is a result, which the model may act on."""
        tool, node, use = self.uses[wanted.tool]
        step = {"tool": wanted.tool, "arguments": dict(wanted.arguments)}
        given = {name: inputs[name] for name in tool.given}
        try:
            chosen = given_to([port for port in node.ports.inputs if port.name not in given], wanted.arguments)
            result = result_text(node.type, await use({**chosen, **given}, run.child(self.node_id, run.inputs)))
        except _ENDING:
            raise
        except PenstockError as error:
            return step | {"result": self._cut(f"It failed: {error.message}"), "failed": True}
        return step | {"result": self._cut(result), "failed": False}

    def _cut(self, text: str) -> str:
        most = self.params.result_chars_max
        return text if len(text) <= most else f"{text[:most]} [cut: {most} of {len(text)} characters]"


def _work(params: AgentParams, node_id: str, tools: Sequence[tuple[Node, Use]], backends: Backends) -> Work:
    declared = list(zip(params.tools, tools, strict=True))
    told = tuple(
        Tool(name=tool.name, description=tool.description, parameters=parameters(node, tool.given, tool.arguments))
        for tool, (node, _) in declared
    )
    uses = {tool.name: (tool, node, use) for tool, (node, use) in declared}
    return Effect(_Agent(node_id=node_id, params=params, backends=backends, told=told, uses=uses).answer)


AGENT: Final = ToolUserSpec(
    summary="A model that uses other nodes as its tools, and at most so often.",
    params=AgentParams,
    tool_types=TOOL_TYPES,
    tools=_tools,
    faults=_faults,
    ports=_ports,
    work=_work,
)
