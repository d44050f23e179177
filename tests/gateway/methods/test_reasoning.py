"""Methods in rounds that reason in words: Iter-RetGen, IRCoT and Self-Ask."""

import re

import pytest

from gateway.execution import NodeStarted
from penstock.errors import BudgetExceeded
from tests.gateway.methods.scripted import Scripted, passage, written

GROUNDED = "based on the given document"
THOUGHT = "one thought"
FOLLOW_UP = "follow up questions and intermediate answers"


async def test_iter_retgen_searches_with_the_answer_before() -> None:
    world = Scripted({GROUNDED: ["Ada", "Ada Lovelace", "Lovelace"]}, {"Ada": (passage("ada"),)})
    result = await world.run("iter-retgen", question="Who?")
    assert world.order == "search model search model search model"
    assert world.searched == ["Who?", "Who? Ada", "Who? Ada Lovelace"]
    assert all(request.prompt == "Question: Who?" for request in world.model.requests)
    assert ["[1] About ada." in request.system for request in world.model.requests] == [False, True, True]
    assert result.outputs == {"answer": "Lovelace"}
    assert result.bounded_nodes == ()


async def test_iter_retgen_goes_on_where_a_round_finds_and_says_nothing() -> None:
    world = Scripted({GROUNDED: ["", "", "Ada"]}, {"": ()})
    assert (await world.run("iter-retgen", question="Who?")).outputs == {"answer": "Ada"}
    assert world.searched == ["Who?", "Who?", "Who?"]


async def test_ircot_searches_for_each_thought_and_ends_at_the_answer() -> None:
    first, second = "The Lauter flows into the Itz.", "The Itz flows into the Main."
    world = Scripted(
        {
            THOUGHT: [
                f" {first} And so on. So the answer is: no.",
                f"{second}\nQuestion: another",
                "So the answer is: the Main.\nQ",
            ]
        },
        {"": (passage("a", 0.5), passage("b", 0.4)), "Lauter": (passage("b", 0.9),), "Itz flows": (passage("c", 0.1),)},
    )
    result = await world.run("ircot", question="Where does it end?")
    assert world.order == "search model search model search model"
    assert world.searched == ["Where does it end?", first, second]
    thoughts = [prompt.rpartition("Question: Where does it end?\nThought:")[2].strip() for prompt in world.prompts]
    assert thoughts == ["", first, f"{first} {second}"]
    # A passage keeps its best score, and the best stand first.
    shown = [re.findall(r"\[\d\] About (.)\.", prompt) for prompt in world.prompts]
    assert shown == [["a", "b"], ["b", "a"], ["b", "a", "c"]]
    assert result.outputs == {
        "answer": "the Main",
        "thoughts": f"{first} {second} So the answer is: the Main.",
        "status": "done",
    }


async def test_ircot_that_answers_at_once_searches_once() -> None:
    world = Scripted({THOUGHT: "So the answer is: St. Louis."})
    result = await world.run("ircot", question="Which town?")
    assert world.order == "search model"
    assert result.outputs["answer"] == "St. Louis"


async def test_ircot_at_its_bound_searches_no_more_than_it_reads_and_a_last_call_answers() -> None:
    world = Scripted({GROUNDED: "Perhaps Ada.", THOUGHT: [f"Thought {letter}." for letter in "abcdef"]})
    result = await world.run("ircot", question="Who?")
    assert world.order == "search" + " model search" * 4 + " model model"
    assert result.outputs["status"] == "bounded"
    assert result.bounded_nodes == ("thinking",)
    assert result.outputs["answer"] == "Perhaps Ada."
    assert result.outputs["thoughts"] == "Thought a. Thought b. Thought c. Thought d. Thought e."
    assert world.model.requests[-1].prompt.endswith("Thought d. Thought e.\nSo the answer is:")
    assert "About one." in world.model.requests[-1].system


async def test_ircot_that_thinks_nothing_ends_instead_of_asking_the_same_again() -> None:
    world = Scripted({THOUGHT: " \n", GROUNDED: "Ada."})
    result = await world.run("ircot", question="Who?")
    assert world.order == "search model model"
    assert result.outputs == {"answer": "Ada.", "thoughts": "", "status": "done"}


async def test_ircot_without_passages_goes_on_and_keeps_what_a_later_search_finds() -> None:
    world = Scripted({THOUGHT: ["It is Ada.", "So the answer is: Ada"]}, {"": (), "It is Ada": (passage("ada"),)})
    result = await world.run("ircot", question="Who?")
    assert "About ada." not in world.prompts[0]
    assert "About ada." in world.prompts[1]
    assert result.outputs["answer"] == "Ada"


async def test_ircot_shows_at_most_fifteen_passages() -> None:
    found = {letter: [passage(f"{letter}{number}", 0.5) for number in range(5)] for letter in "ABCDE"}
    world = Scripted({THOUGHT: ["A.a.", "B.b.", "C.c.", "D.d.", "So the answer is: x"]}, found)
    await world.run("ircot", question="Who?")
    assert [prompt.count("About") for prompt in world.prompts] == [2, 7, 12, 15, 15]


async def test_self_ask_searches_for_each_follow_up_and_reads_it_with_what_was_found() -> None:
    world = Scripted(
        {
            FOLLOW_UP: [
                " Yes.\nFollow up: Who designed it?\nIntermediate answer: Made up by the model.",
                " Ada designed it.\nFollow up: When was Ada born?\nIntermediate answer: again",
                " In 1815.\nSo the final answer is: 1815\n#\nContext: [1] more",
            ]
        },
        {"designed": (passage("design"),), "Ada born": (passage("birth"),)},
    )
    result = await world.run("self-ask", question="When was its designer born?")
    assert world.order == "search model search model search model"
    assert world.searched == ["When was its designer born?", "Who designed it?", "When was Ada born?"]
    assert all(request.sampling.stop == ("Intermediate answer:", "\n#", "\nQuestion:") for request in world.model.requests)
    shown = [prompt.rpartition("Context: ")[2].partition("\nQuestion")[0] for prompt in world.prompts]
    assert shown == ["[1] About one.\n\n[2] About two.", "[1] About design.", "[1] About birth."]
    assert world.prompts[2].endswith(
        "needed here: Yes.\nFollow up: Who designed it?\nIntermediate answer: Ada designed it.\n"
        "Follow up: When was Ada born?\nIntermediate answer:"
    )
    assert result.outputs["answer"] == "1815"
    assert result.outputs["status"] == "done"
    assert "Made up" not in str(result.outputs["trace"])


async def test_self_ask_without_a_follow_up_answers_at_once() -> None:
    world = Scripted({FOLLOW_UP: " No.\nSo the final answer is: Ada"})
    result = await world.run("self-ask", question="Who?")
    assert world.order == "search model"
    assert result.outputs == {"answer": "Ada", "trace": " No.\nSo the final answer is: Ada", "status": "done"}


async def test_self_ask_that_neither_asks_nor_answers_is_asked_for_its_answer() -> None:
    world = Scripted({FOLLOW_UP: [" No.\nIt is well known.", " Ada\nQuestion: more"]})
    result = await world.run("self-ask", question="Who?")
    assert world.order == "search model model"
    assert world.prompts[1].endswith("needed here: No.\nIt is well known.\nSo the final answer is:")
    assert (result.outputs["answer"], result.outputs["status"]) == ("Ada", "done")


async def test_self_ask_at_its_bound_is_asked_for_its_answer_and_the_status_says_so() -> None:
    asks = [f" So.\nFollow up: Question {number}?\nIntermediate answer:" for number in range(5)]
    world = Scripted({FOLLOW_UP: [*asks, " Ada"]})
    result = await world.run("self-ask", question="Who?")
    assert world.order == "search" + " model search" * 4 + " model model"
    assert world.searched == ["Who?", *(f"Question {number}?" for number in range(4))]
    assert (result.outputs["answer"], result.outputs["status"]) == ("Ada", "bounded")
    assert result.bounded_nodes == ("asking",)


async def test_self_ask_goes_on_where_a_search_finds_nothing() -> None:
    world = Scripted({FOLLOW_UP: [" Yes.\nFollow up: Who?", " Unknown.\nSo the final answer is: unknown"]}, {"": ()})
    result = await world.run("self-ask", question="Who was it?")
    assert "Context: \nQuestion: Who was it?" in world.prompts[1]
    assert result.outputs["answer"] == "unknown"


@pytest.mark.parametrize("method", ["ircot", "self-ask", "iter-retgen"])
async def test_a_tighter_budget_ends_a_method_before_the_call_that_would_break_it(method: str) -> None:
    rules = {THOUGHT: "It is so.", FOLLOW_UP: " So.\nFollow up: What?", GROUNDED: "Ada"}
    world = Scripted(rules)
    bound = written(method)
    calls = '"model_calls": 3' if method == "iter-retgen" else '"model_calls": 6'
    assert calls in bound
    with pytest.raises(BudgetExceeded):
        await world.compile(bound.replace(calls, '"model_calls": 2')).run({"question": "Who?"})
    assert len(world.model.requests) == 2


async def test_rounds_are_told_to_a_stream_as_they_begin() -> None:
    world = Scripted({THOUGHT: ["It is so.", "So the answer is: Ada"]})
    events = world.compile(written("ircot")).events({"question": "Who?"})
    started = [event.node_id async for event in events if isinstance(event, NodeStarted)]
    assert started.count("thinking/model") == 2
    assert started.count("thinking/found") == 1
    assert "reader" not in started
