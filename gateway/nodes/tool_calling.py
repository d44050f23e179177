"""How a model uses tools: it answers with JSON that says either which tool to call with what, or its answer.

    {"tool": "search", "arguments": {"query": "..."}}        {"answer": "..."}

The model is told of the tools above its prompt, and its answer is held to a JSON Schema of exactly these forms where the engine
can do that; an engine that can't is asked in words alone, and what it says is read with patience. An answer that still is
neither is asked for again, a few times.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, Final

import orjson

from gateway.backends import Answer, Finish, Form, GenerateRequest, Generator
from gateway.execution import ChatMessage, Run, Token, Tool
from gateway.faults import quoted
from gateway.values import DEPTH_MAX, as_text, bounded_join, is_deeper, is_finite
from penstock.errors import BackendUnavailable, InvalidArgument, PromptTooLong
from penstock.tool_actions import AnswerText

TRIES_MAX: Final = 3
"""Answers that are asked for until one of them says what to do."""

_READ_CHARS_MAX: Final = 2**18
_OBJECTS_TRIED_MAX: Final = 20
_NAMES: Final = ("tool", "name", "tool_name", "function")
_ARGUMENTS: Final = ("arguments", "parameters", "args", "input")


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """A call of a tool that the model asks for."""

    tool: str
    arguments: Mapping[str, Any]


Action = Use | str
"""What a model decides: to use a tool, or to give its answer."""


class Malformed(Exception):
    """An answer that is neither of the forms. Its text says to the model what is wrong with it."""


@dataclass(slots=True, kw_only=True)
class Conversation:
    """A model with tools, asked again and again. `turns` and `prompt` grow with what it says and what it is told.

    `opening` is the request without the tools, its prompt the first one. Answers go out as tokens of `node_id`.
    """

    generator: Generator
    run: Run
    node_id: str
    opening: GenerateRequest
    tools: Sequence[Tool]
    turns: list[ChatMessage] = field(init=False)
    prompt: str = field(init=False)
    _is_held: bool = field(init=False, default=True)
    _has_told: bool = field(init=False, default=False)
    _schema: str = field(init=False)
    _system: str = field(init=False)

    def __post_init__(self) -> None:
        self.turns, self.prompt = list(self.opening.messages), self.opening.prompt
        self._schema = action_schema(self.tools)
        self._system = "\n\n".join(text for text in (self.opening.system, instructions(self.tools)) if text)

    async def decide(self) -> Action:
        """What the model does next. Raises Malformed where TRIES_MAX answers did not say it."""
        told = ""
        for _ in range(TRIES_MAX):
            text = await self._asked()
            try:
                action = read_action(text, self.tools)
            except Malformed as problem:
                told = str(problem)
                self._say(text, f"That cannot be used: {told} {_FORMS}")
                continue
            if isinstance(action, str) and not self._has_told:
                await self._told(action)  # It came in another form than the one that is told while it comes.
            return action
        raise Malformed(told)

    def tell(self, use: Use, result: str) -> None:
        """What a tool gave, before the model is asked again."""
        said = orjson.dumps({"tool": use.tool, "arguments": dict(use.arguments)}).decode()
        self._say(said, f"Result of {use.tool}:\n{result}")

    async def conclude(self) -> str:
        """The model's answer without tools, in words."""
        self.run.meter.ask_model()
        prompt = f"{self.prompt}\n\nNo tool can be used any more. Give your answer now, in plain words."
        request = replace(self.opening, messages=tuple(self.turns), prompt=prompt)
        return (await self._made(request, in_json=False)).text

    def _say(self, said: str, then: str) -> None:
        self.turns += (ChatMessage(role="user", content=self.prompt), ChatMessage(role="assistant", content=said))
        self.prompt = then

    async def _asked(self) -> str:
        self.run.meter.ask_model()
        request = replace(self.opening, system=self._system, messages=tuple(self.turns), prompt=self.prompt)
        if self._is_held:
            held = replace(request, form=Form(kind="json_schema", value=self._schema))
            try:
                return (await self._made(held, in_json=True)).text
            except PromptTooLong:
                raise
            except InvalidArgument:
                # The engine holds no answer to this schema. What else could be wrong shows again at once, without it.
                self._is_held = False
        return (await self._made(request, in_json=True)).text

    async def _made(self, request: GenerateRequest, *, in_json: bool) -> Answer:
        run, self._has_told = self.run, False
        made = await (self.generator.generate(request) if run.emit is None else self._streamed(request, in_json))
        run.meter.answered(made.finish.input_tokens, made.finish.output_tokens, made.finish.cached_tokens)
        run.root.finish_reason = made.finish.reason
        return made

    async def _streamed(self, request: GenerateRequest, in_json: bool) -> Answer:
        texts: list[str] = []
        answer = AnswerText()
        finish: Finish | None = None
        async with aclosing(self.generator.stream(request)) as parts:
            async for part in parts:
                if isinstance(part, Finish):
                    finish = part
                elif part.index == 0:
                    texts.append(part.text)
                    await self._told(answer.add(part.text) if in_json else part.text)
        if finish is None:
            raise BackendUnavailable("the answer broke off: its stream ended without saying that it was done")
        return Answer(text=bounded_join(texts, ""), finish=finish)

    async def _told(self, text: str) -> None:
        if text and self.run.emit is not None:
            self._has_told = True
            await self.run.emit(Token(node_id=self.node_id, text=text))


def action_schema(tools: Sequence[Tool]) -> str:
    """The JSON Schema of what a model may do: a call of one of the tools, or its answer."""
    forms: list[dict[str, Any]] = []
    shared: dict[str, Any] = {}
    for tool in tools:
        arguments = {"type": "object", **tool.parameters}
        # References in a schema are from its top. Of two tools that give one name to different things, one keeps its own, by
        # which the whole is refused, and the model is asked in words.
        if isinstance(named := arguments.get("$defs"), dict) and all(
            shared.get(name, each) == each for name, each in named.items()
        ):
            shared |= arguments.pop("$defs")
        forms.append(_object({"tool": {"const": tool.name}, "arguments": arguments}))
    schema = {"anyOf": [*forms, _object({"answer": {"type": "string"}})]}
    return orjson.dumps(schema | ({"$defs": shared} if shared else {})).decode()


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


_FORMS: Final = (
    'Say one JSON object and nothing else: {"tool": "NAME", "arguments": {...}} to use a tool, {"answer": "TEXT"} to answer.'
)


def instructions(tools: Sequence[Tool]) -> str:
    """What a model is told of its tools."""
    lines = [
        f"- {tool.name}: {tool.description} Arguments: {orjson.dumps(dict(tool.parameters)).decode()}" for tool in tools
    ]  # fmt: skip
    return bounded_join(["You can use these tools, one at a time; you are then told its result:", *lines, _FORMS], "\n")


def read_action(text: str, tools: Sequence[Tool]) -> Action:
    """What an answer says to do. Raises Malformed.

    Read with patience: words around the object, other names of its members, and an answer that was cut short.
    """
    answer = AnswerText()
    if said := answer.add(text):
        return said
    if answer.began:
        return ""
    text = text.rpartition("</think>")[2].strip()
    if not text:
        raise Malformed("it is empty.")
    if "{" not in text:
        return text  # No engine that is held to the forms says this; one that is not means it as its answer.
    return _action(_first_object(text), tools)


def _first_object(text: str) -> dict[str, Any]:
    decoder, at = json.JSONDecoder(strict=False), -1
    for _ in range(_OBJECTS_TRIED_MAX):
        at = text.find("{", at + 1, _READ_CHARS_MAX)
        if at < 0:
            break
        try:
            value, _end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) and _is_json(value):
            return value
    raise Malformed("it is no complete JSON object.")


def _is_json(value: Any) -> bool:
    """Whether what Python reads as JSON is JSON: not nested too deep, its numbers finite, its texts of whole characters."""
    try:
        return not is_deeper(value, DEPTH_MAX) and is_finite(value) and bool(orjson.dumps(value))
    except TypeError:
        return False


def _action(value: Mapping[str, Any], tools: Sequence[Tool]) -> Action:
    wanted = next((value[name] for name in _NAMES if value.get(name)), None)
    inner: Mapping[str, Any] = value
    if isinstance(wanted, dict):  # {"function": {"name": ..., "arguments": ...}}
        inner, wanted = wanted, wanted.get("name")
    if wanted is None and "answer" in value:
        return as_text(value["answer"])
    known = [tool.name for tool in tools]
    if wanted not in known:
        raise Malformed(f"there is no tool {quoted(wanted)}; the tools are {', '.join(known)}.")
    arguments: Any = next((inner[name] for name in _ARGUMENTS if name in inner), {})
    if isinstance(arguments, str):
        try:
            arguments = orjson.loads(arguments or "{}")
        except orjson.JSONDecodeError:
            arguments = None
    if not isinstance(arguments, dict) or not _is_json(arguments):
        raise Malformed("its arguments are no JSON object.")
    return Use(tool=str(wanted), arguments=arguments)
