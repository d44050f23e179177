"""Many questions at once to one compiled flow: each has its own answer, whichever branches and rounds it takes."""

import asyncio

import pytest

from tests.gateway.methods.scripted import Rules, Scripted, passage, written

MANY = 64


def asked(prompt: str) -> str:
    """The question of a prompt, which is after the examples in it."""
    return prompt.rpartition("Question: ")[2].partition("\n")[0]


def think(prompt: str) -> str:
    question, _, thoughts = prompt.rpartition("Question: ")[2].partition("\nThought:")
    return f"So the answer is: {question}" if thoughts.strip() else f"First {question}."


def follow(prompt: str) -> str:
    question = asked(prompt)
    return f" So.\nSo the final answer is: {question}" if "First" in prompt else f" Yes.\nFollow up: First {question}?"


def reason(prompt: str) -> str:
    question = asked(prompt)
    return f"<answer>{question}</answer>" if "</information>\n\n" in prompt else f"<search>{question}</search>"


GROUNDED = "based on the given document"
ALONE = "based on your own knowledge"
RULES: dict[str, Rules] = {
    "standard-rag": {GROUNDED: asked},
    "iter-retgen": {GROUNDED: asked},
    "skr": {GROUNDED: asked, ALONE: asked},
    "adaptive-rag": {
        "How much has to be looked up": lambda prompt: "ABC"[int(asked(prompt).split()[1]) % 3],
        ALONE: asked,
        GROUNDED: asked,
        "one thought": think,
    },
    "ircot": {"one thought": think},
    "self-ask": {"follow up questions": follow},
    "search-r1": {"conduct reasoning": reason},
}


@pytest.mark.parametrize("method", RULES)
async def test_each_of_many_questions_at_once_has_its_own_answer(method: str) -> None:
    world = Scripted(RULES[method], {"odd": (passage("known", judgement="ir_worse"),)})
    compiled = world.compile(written(method))
    questions = [f"{'odd' if number % 2 else 'even'} {number}" for number in range(MANY)]
    results = await asyncio.gather(*(compiled.run({"question": question}) for question in questions))
    assert [result.outputs["answer"] for result in results] == questions
    if method == "skr":
        assert [result.outputs["route"] for result in results] == ["search", "alone"] * (MANY // 2)
    if method == "adaptive-rag":
        routes = ["none", "simple", "several"] * MANY
        assert [result.outputs["route"] for result in results] == routes[:MANY]
    first = world.calls[0][0]
    assert [what for what, _ in world.calls[:MANY]] == [first] * MANY  # Not one question after the other.
