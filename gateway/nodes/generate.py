"""generate: a model's answer to a prompt."""

from collections import defaultdict
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson
import pydantic_core

from gateway.backends import (
    Answer,
    Backends,
    Delta,
    Finish,
    Form,
    GenerateRequest,
    Generator,
    Sampling,
    Sessions,
    TokenLogprob,
)
from gateway.execution import ChatMessage, Run, Token, Tool, ToolCall
from gateway.faults import Faults, checked, quoted, suggestion
from gateway.flow_model import InputPort, OutputPort, Overridable, Ports
from gateway.nodes import calling
from gateway.nodes.generate_params import JSON_FORMS, MESSAGES_MAX, GenerateParams, SamplingParams
from gateway.nodes.spec import Effect, Inputs, NodeSpec, Outputs, Work
from gateway.nodes.turns import as_turns, turns_before
from gateway.values import ACCEPTED_BY, DEPTH_MAX, PortType, bounded_join, is_deeper
from penstock.errors import BackendUnavailable, FailedPrecondition, InvalidArgument, PermissionDenied

_PROMPT: Final = InputPort(name="prompt", accepts=ACCEPTED_BY[PortType.TEXT])
_AROUND: Final = (
    InputPort(name="system", accepts=ACCEPTED_BY[PortType.TEXT], optional=True),
    InputPort(name="messages", accepts=frozenset({PortType.JSON}), optional=True),
)
_GIVEN: Final = (
    OutputPort(name="text", type=PortType.TEXT, is_main=True),
    OutputPort(name="finish_reason", type=PortType.TEXT),
    OutputPort(name="matched_stop", type=PortType.TEXT),
    OutputPort(name="texts", type=PortType.LIST),
)
_LOGPROBS: Final = OutputPort(name="logprobs", type=PortType.JSON)
_JSON: Final = OutputPort(name="json", type=PortType.JSON)
_CALLS: Final = OutputPort(name="tool_calls", type=PortType.JSON)


def caller_sampling(given: Mapping[str, Any], allowed: Overridable) -> Mapping[str, Any]:
    """Parameters of generate nodes as a caller sets them for one run. Raises PermissionDenied, InvalidArgument."""
    if not given:
        return given
    if allowed == "none":
        raise PermissionDenied('this flow lets no caller set how its models sample; its "overrides" is "none"')
    faults, known = Faults(), SamplingParams.model_fields
    for name in given.keys() - known.keys():
        faults.add(f"unknown parameter {quoted(name)}", field="sampling", suggestion=suggestion(name, known, "known"))
    params = None if faults else checked(SamplingParams, dict(given), faults, place="sampling")
    if params is None:
        told = faults.told()
        raise InvalidArgument(f"the sampling of the request cannot be used: {told[0]}", violations=told)
    return {name: getattr(params, name) for name in given}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asking:
    """A node made ready: the request that all of its runs begin with, and what is looked up for each."""

    node_id: str
    params: GenerateParams
    own: GenerateRequest
    generator: Generator
    sessions: Sessions

    async def answer(self, inputs: Inputs, run: Run) -> Outputs:
        tools = run.call.tools if self.params.tools == "caller" else ()
        request = await self._request(inputs, run, tools)
        run.meter.ask_model()
        made = await (self.generator.generate(request) if run.emit is None else self._stream(request, run, tools))
        finish = made.finish
        run.meter.answered(finish.input_tokens, finish.output_tokens, finish.cached_tokens)
        calls: tuple[ToolCall, ...] = ()
        if tools:
            made, calls = _with_calls(made, tools)
            run.tool_calls.extend(calls)
        run.root.finish_reason = made.finish.reason
        if self.params.partial_json and made.finish.reason == "length":
            run.bounded(self.node_id)
        return self._outputs(made, calls)

    async def _request(self, inputs: Inputs, run: Run, tools: tuple[Tool, ...]) -> GenerateRequest:
        own, call = self.own, run.call
        sampling, form = self._chosen(call.sampling) if call.sampling else (own.sampling, own.form)
        system = inputs.get("system", own.system)
        if tools:
            if form is not None:
                raise InvalidArgument("an answer in a form cannot call tools: give structured_output or tools, not both")
            system = f"{system}\n\n{calling.told(tools)}".lstrip()
        return GenerateRequest(
            model=own.model,
            prompt=inputs["prompt"],
            system=system,
            messages=await self._turns(inputs, run),
            raw=own.raw,
            session=call.session,
            sampling=sampling,
            n=own.n,
            logprobs=own.logprobs,
            form=form,
            adapter=own.adapter,
            priority=own.priority,
            cache_salt=own.cache_salt,
        )

    def _chosen(self, set_by_caller: Mapping[str, Any]) -> tuple[Sampling, Form | None]:
        """A form that is the node's own stays: what comes after the node counts on it."""
        if not self.params.caller_sampling:
            return self.own.sampling, self.own.form
        params = self.params.model_copy(update=set_by_caller)
        form = self.own.form or (params.structured_output.form() if params.structured_output else None)
        return params.sampling(), form

    async def _turns(self, inputs: Inputs, run: Run) -> tuple[ChatMessage, ...]:
        turns = await turns_before(run, self.sessions, self.params.history_max) if self.params.history else ()
        return turns + as_turns(inputs["messages"], MESSAGES_MAX) if "messages" in inputs else turns

    async def _stream(self, request: GenerateRequest, run: Run, tools: tuple[Tool, ...]) -> Answer:
        emit = run.emit
        assert emit is not None  # noqa: S101  # The caller has looked; this tells mypy.
        made, holdback = _Made(), calling.Holdback() if tools else None
        async with aclosing(self.generator.stream(request)) as parts:
            async for part in parts:  # To the very end: a call that is left before its status counts as cancelled.
                made.add(part)
                if isinstance(part, Delta) and part.index == 0:
                    text = part.text if holdback is None else holdback.let_through(part.text)
                    if text:
                        await emit(Token(node_id=self.node_id, text=text))
        answer = made.answer()
        if holdback is not None and (rest := calling.found(answer.text, tools).text[holdback.passed :]):
            await emit(Token(node_id=self.node_id, text=rest))
        return answer

    def _outputs(self, made: Answer, calls: tuple[ToolCall, ...]) -> Outputs:
        params, finish = self.params, made.finish
        outputs: dict[str, Any] = {
            "text": made.text,
            "finish_reason": finish.reason,
            "matched_stop": finish.matched_stop,
            "texts": (made.text, *(each.text for each in made.alternatives)),
        }
        if params.logprobs is not None:
            outputs["logprobs"] = [_token(each) for each in made.logprobs]
        if params.tools == "caller":
            outputs["tool_calls"] = [{"name": call.name, "arguments": orjson.loads(call.arguments)} for call in calls]
        if _gives_json(params):
            outputs["json"] = _parsed(made, partial=self.params.partial_json)
        return outputs


class _Made:
    """An answer and its alternatives as they come, in pieces."""

    __slots__ = ("_finish", "_logprobs", "_texts")

    def __init__(self) -> None:
        self._texts: dict[int, list[str]] = defaultdict(list)
        self._logprobs: dict[int, list[TokenLogprob]] = defaultdict(list)
        self._finish: Finish | None = None

    def add(self, part: Delta | Finish) -> None:
        if isinstance(part, Finish):
            self._finish = part
            return
        self._texts[part.index].append(part.text)
        if part.logprobs:
            self._logprobs[part.index] += part.logprobs

    def answer(self) -> Answer:
        """The whole. Raises BackendUnavailable where its end did not come."""
        finish = self._finish
        if finish is None:
            raise BackendUnavailable("the answer broke off: its stream ended without saying that it was done")
        alternatives = tuple(
            replace(each, text=self._text(index), logprobs=tuple(self._logprobs[index]))
            for index, each in enumerate(finish.alternatives, start=1)
        )
        return Answer(text=self._text(0), finish=finish, logprobs=tuple(self._logprobs[0]), alternatives=alternatives)

    def _text(self, index: int) -> str:
        return bounded_join(self._texts[index], "")


def _with_calls(made: Answer, tools: tuple[Tool, ...]) -> tuple[Answer, tuple[ToolCall, ...]]:
    """An answer without the calls in its text, and those calls."""
    found = calling.found(made.text, tools)
    if not found.calls:
        return made, ()
    return replace(made, text=found.text, finish=replace(made.finish, reason="tool_calls")), found.calls


def _ports(params: GenerateParams) -> Ports:
    asked = ((_LOGPROBS, params.logprobs is not None), (_JSON, _gives_json(params)), (_CALLS, params.tools == "caller"))
    return Ports(
        inputs=(_PROMPT,) if params.raw else (_PROMPT, *_AROUND),
        outputs=_GIVEN + tuple(port for port, is_given in asked if is_given),
    )


def _gives_json(params: GenerateParams) -> bool:
    return params.structured_output is not None and params.structured_output.form().kind in JSON_FORMS


def _work(params: GenerateParams, node_id: str, backends: Backends) -> Work:
    own = GenerateRequest(
        model=params.model,
        prompt="",
        system=params.system,
        raw=params.raw,
        sampling=params.sampling(),
        n=params.n,
        logprobs=params.logprobs.options() if params.logprobs else None,
        form=params.structured_output.form() if params.structured_output else None,
        adapter=params.adapter,
        priority=params.priority,
        cache_salt=params.cache_salt,
    )
    asking = _Asking(node_id=node_id, params=params, own=own, generator=backends.generator, sessions=backends.sessions)
    return Effect(asking.answer)


def _parsed(made: Answer, *, partial: bool) -> Any:
    try:
        value = _begun(made.text) if partial and made.finish.reason == "length" else orjson.loads(made.text)
    except ValueError as error:
        if made.finish.reason == "length":
            raise FailedPrecondition(
                "the answer reached its most tokens before its JSON was complete; raise max_tokens, or ask for less"
            ) from error
        raise FailedPrecondition(f"the model's answer is not the JSON that was asked for ({error})") from error
    if is_deeper(value, DEPTH_MAX):
        raise FailedPrecondition(f"the model's JSON is nested more than {DEPTH_MAX} deep")
    return value


def _begun(text: str) -> Any:
    """JSON that broke off, without what may be the half of a number. Raises ValueError where there is nothing of it."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        whole = text.rstrip("+-.0123456789eE")
        return pydantic_core.from_json(whole, allow_inf_nan=False, allow_partial="trailing-strings")


def _token(token: TokenLogprob) -> dict[str, Any]:
    return {
        "token": token.token,
        "logprob": token.logprob,
        "token_id": token.token_id,
        "top": [{"token": each.token, "logprob": each.logprob, "token_id": each.token_id} for each in token.top],
    }


GENERATE: Final = NodeSpec(summary="A model's answer to a prompt.", params=GenerateParams, ports=_ports, work=_work)
