"""generate: a model's answer to a prompt."""

from collections.abc import Mapping
from contextlib import aclosing
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field

from gateway.backends import Answer, Backends, Delta, Finish, GenerateRequest, Generator, Sampling
from gateway.execution import Run, Token
from gateway.faults import Faults, checked, quoted, suggestion
from gateway.flow_model import InputPort, OutputPort, Overridable, Ports
from gateway.nodes.spec import Effect, Inputs, NodeParams, NodeSpec, Outputs, Work
from gateway.values import ACCEPTED_BY, PortType, bounded_join
from penstock.errors import BackendUnavailable, InvalidArgument, PermissionDenied

STOP_MAX: Final = 16
STOP_BYTES_MAX: Final = 256

_PORTS: Final = Ports(
    inputs=(InputPort(name="prompt", accepts=ACCEPTED_BY[PortType.TEXT]),),
    outputs=(OutputPort(name="text", type=PortType.TEXT),),
)


def _stop_string(text: str) -> str:
    if not 1 <= len(text.encode()) <= STOP_BYTES_MAX:
        message = f"a stop string has 1 to {STOP_BYTES_MAX} bytes"
        raise ValueError(message)
    return text


class GenerateParams(NodeParams):
    """Parameters of a generate node. What is left out is the engine's default for the model."""

    model: str = Field(
        default="default",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$",
        description="Name of the model, without the leading models/. default is the service's first.",
    )
    system: str = Field(default="", description="Instructions that stand above the prompt.")
    max_tokens: int | None = Field(default=None, ge=1, le=1_000_000, description="Most tokens to generate.")
    temperature: float | None = Field(
        default=None, ge=0, le=2, description="Softens (above 1) or sharpens (below 1); 0 takes the likeliest token."
    )
    top_p: float | None = Field(default=None, gt=0, le=1, description="Samples from the likeliest tokens of this probability.")
    top_k: int | None = Field(default=None, ge=1, le=1_000_000, description="Samples from this many likeliest tokens.")
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63, description="Makes sampling repeatable on one engine.")
    presence_penalty: float | None = Field(default=None, ge=-2, le=2, description="Lowers the logit of tokens that occurred.")
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2, description="The same, by how often they occurred.")
    stop: list[Annotated[str, AfterValidator(_stop_string)]] = Field(
        default=[], max_length=STOP_MAX, description="Ends the answer before any of these texts."
    )


_SAMPLING: Final = frozenset(GenerateParams.model_fields) - {"model", "system"}


def caller_sampling(given: Mapping[str, Any], allowed: Overridable) -> Mapping[str, Any]:
    """Parameters of generate nodes as a caller sets them for one run. Raises PermissionDenied, InvalidArgument."""
    if not given:
        return given
    if allowed == "none":
        raise PermissionDenied('this flow lets no caller set how its models sample; its "overrides" is "none"')
    faults = Faults()
    for name in given.keys() - _SAMPLING:
        faults.add(f"unknown parameter {quoted(name)}", field="sampling", suggestion=suggestion(name, _SAMPLING, "known"))
    params = None if faults else checked(GenerateParams, dict(given), faults, place="sampling")
    if params is None:
        told = faults.told()
        raise InvalidArgument(f"the sampling of the request cannot be used: {told[0]}", violations=told)
    return {name: getattr(params, name) for name in given}


def _ports(params: GenerateParams) -> Ports:  # noqa: ARG001  # They are always the same.
    return _PORTS


def _work(params: GenerateParams, node_id: str, backends: Backends) -> Work:
    generator, model, system, own = backends.generator, params.model, params.system, _sampling(params)

    async def answer(inputs: Inputs, run: Run) -> Outputs:
        set_by_caller = run.call.sampling
        sampling = _sampling(params.model_copy(update=set_by_caller)) if set_by_caller else own
        prompt, session = inputs["prompt"], run.call.session
        request = GenerateRequest(model=model, system=system, prompt=prompt, session=session, sampling=sampling)
        run.meter.ask_model()
        made = await (generator.generate(request) if run.emit is None else _stream(generator, request, node_id, run))
        run.meter.answered(made.finish.input_tokens, made.finish.output_tokens, made.finish.cached_tokens)
        run.root.finish_reason = made.finish.reason
        return {"text": made.text}

    return Effect(answer)


async def _stream(generator: Generator, request: GenerateRequest, node_id: str, run: Run) -> Answer:
    emit = run.emit
    assert emit is not None  # noqa: S101  # The caller has looked; this tells mypy.
    texts: list[str] = []
    finish: Finish | None = None
    async with aclosing(generator.stream(request)) as parts:
        async for part in parts:  # To the very end: a call that is left before its status counts as cancelled.
            if isinstance(part, Delta):
                texts.append(part.text)
                await emit(Token(node_id=node_id, text=part.text))
            else:
                finish = part
    if finish is None:
        raise BackendUnavailable("the answer broke off: its stream ended without saying that it was done")
    return Answer(text=bounded_join(texts, ""), finish=finish)


def _sampling(params: GenerateParams) -> Sampling:
    given = params.model_dump(exclude={"model", "system", "stop"})
    return Sampling(**given, stop=tuple(params.stop))


GENERATE: Final = NodeSpec(summary="A model's answer to a prompt.", params=GenerateParams, ports=_ports, work=_work)
