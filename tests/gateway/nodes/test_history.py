"""history: what it reads of a conversation, and what it adds."""

from typing import Any

import pytest

from gateway.execution import Call, ChatMessage
from gateway.validation import examine
from penstock.errors import CollectionNotFound, FailedPrecondition, MessageTooLarge
from tests.gateway.fakes import World, document, node

CHAT = document(
    node("question", "input"),
    node("past", "history", operation="read", messages_max=4),
    node("asked", "history", operation="append", role="user"),
    node("prompt", "prompt", template="{past}|{asked}"),
    node("model", "generate"),
    node("said", "history", operation="append", role="assistant"),
    node("answer", "output"),
    edges=["past > prompt", "question > asked", "asked > prompt", "prompt > model", "model > said", "said > answer"],
)


def reading(**params: Any) -> str:
    return document(
        node("past", "history", operation="read", **params), node("text", "output"), node("turns", "output"),
        edges=["past > text", "past.messages > turns"],
    )  # fmt: skip


def turn(role: str, content: str) -> ChatMessage:
    return ChatMessage(role=role, content=content)


async def test_a_conversation_is_remembered_from_run_to_run(world: World) -> None:
    compiled = world.compile(CHAT)
    for question in ("Where?", "When?", "Why?"):
        await compiled.run({"question": question}, call=Call(session="s1"))
    first, second, third = (request.prompt for request in world.generator.requests)
    assert first == "|Where?"
    assert second == "user: Where?\nassistant: It was Denver.|When?"
    assert third == "user: Where?\nassistant: It was Denver.\nuser: When?\nassistant: It was Denver.|Why?"


async def test_nothing_is_remembered_without_a_session_or_where_the_caller_gives_the_conversation(world: World) -> None:
    compiled = world.compile(CHAT)
    await compiled.run({"question": "Where?"})
    await compiled.run({"question": "When?"}, call=Call(session="s1", messages=(turn("user", "Hi"),)))
    await compiled.run({"question": "Why?"}, call=Call(session="s1"))
    assert [request.prompt for request in world.generator.requests] == ["|Where?", "user: Hi|When?", "|Why?"]


async def test_a_run_that_fails_adds_nothing(world: World) -> None:
    async def fail(_: object) -> None:
        raise CollectionNotFound("gone")

    world.generator.before = fail
    with pytest.raises(CollectionNotFound):
        await world.compile(CHAT).run({"question": "Where?"}, call=Call(session="s1"))
    assert await world.sessions.read("s1", 10) == ()


async def test_turns_are_chosen_ordered_and_written_as_the_node_says(world: World) -> None:
    said = [turn("system", "S"), turn("user", "A"), turn("assistant", "B"), turn("user", "C")]
    await world.sessions.append("s1", said)
    call = Call(session="s1")
    names = {"user": "User", "assistant": "AI"}
    flow = reading(
        template="<{role}> {content}", separator="; ", role_names=names, newest_first=True, roles=["user", "assistant"]
    )
    result = await world.compile(flow).run({}, call=call)
    assert result.outputs["text"] == "<User> C; <AI> B; <User> A"
    assert result.outputs["turns"] == [
        {"role": "user", "content": "C"}, {"role": "assistant", "content": "B"}, {"role": "user", "content": "A"},
    ]  # fmt: skip
    assert (await world.compile(reading(messages_max=1)).run({}, call=call)).outputs["text"] == "user: C"


async def test_turns_that_were_read_can_stand_before_a_prompt(world: World) -> None:
    await world.sessions.append("s1", [turn("user", "A"), turn("assistant", "B")])
    flow = document(
        node("question", "input"), node("past", "history", operation="read"), node("model", "generate"),
        node("answer", "output"),
        edges=["question > model", "past.messages > model.messages", "model > answer"],
    )  # fmt: skip
    await world.compile(flow).run({"question": "?"}, call=Call(session="s1"))
    assert world.generator.requests[0].messages == (turn("user", "A"), turn("assistant", "B"))


async def test_a_message_and_the_messages_of_a_run_are_bounded(world: World) -> None:
    append = document(
        node("text", "input"), node("keep", "history", operation="append", role="user"), node("out", "output"),
        edges=["text > keep", "keep > out"],
    )  # fmt: skip
    with pytest.raises(MessageTooLarge):
        await world.compile(append).run({"text": "x" * (2**18 + 1)}, call=Call(session="s1"))
    inner = {
        "nodes": [node("item", "input"), node("keep", "history", operation="append", role="user"), node("text", "output")],
        "edges": [{"source": "item", "target": "keep"}, {"source": "keep", "target": "text"}],
    }
    many = document(
        node("lines", "input"), node("items", "transform", operation="split"), node("each", "map", body=inner, items_max=1000),
        node("out", "output"), edges=["lines > items", "items > each.items", "each.text > out"],
    )  # fmt: skip
    with pytest.raises(FailedPrecondition, match="more than 256 messages"):
        await world.compile(many).run({"lines": "x\n" * 256}, call=Call(session="s1"))
    assert await world.sessions.read("s1", 1000) == ()
    await world.compile(many).run({"lines": "x\n" * 255}, call=Call(session="s1"))
    assert len(await world.sessions.read("s1", 1000)) == 200, "what a session keeps"


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({}, "params.operation: is required"),
        ({"operation": "forget"}, "unknown operation"),
        ({"operation": "read", "messages_max": 0}, "params.messages_max"),
        ({"operation": "read", "template": "{name}"}, "unknown variable {name}"),
        ({"operation": "read", "roles": []}, "params.roles"),
        ({"operation": "append"}, "params.role: is required"),
        ({"operation": "append", "role": "robot"}, "params.role"),
    ],
)
def test_a_bad_parameter_is_a_fault(params: dict[str, Any], told: str) -> None:
    flow = document(node("h", "history", **params), node("o", "output"), edges=["h > o"])
    assert any(told in str(fault) for fault in examine(flow)[1])
