"""Methods that read probabilities or marks out of what a model says: FLARE, Search-R1, SuRe and Self-RAG."""

import math

import pytest

from gateway.backends import TokenLogprob
from tests.gateway.methods.scripted import Said, Scripted, passage

AGAIN = "Use the passages."
AHEAD = "Question: "


def said(*tokens: str, unsure: str = "", reason: str = "stop") -> Said:
    """An answer of these tokens; those of `unsure`, between bars, have a probability of 0.1, the others 0.9."""
    low = unsure.split("|")
    made = tuple(TokenLogprob(token=token, logprob=math.log(0.1 if token in low else 0.9)) for token in tokens)
    return Said(text="".join(tokens), reason=reason, tokens=made)


async def test_flare_that_is_sure_never_searches() -> None:
    world = Scripted({AHEAD: said(" Ada", " wrote", " it", ".")})
    result = await world.run("flare", question="Who?")
    assert world.order == "model"
    assert result.outputs == {"answer": "Ada wrote it.", "status": "done", "sentences": 1}


async def test_flare_searches_with_what_it_is_sure_of_and_writes_the_sentence_again() -> None:
    world = Scripted(
        {
            AGAIN: " Ada Lovelace wrote it. She made more up.",
            AHEAD: [said(" Bob", " wrote", " it", ".", " In", " 1843", ".", unsure=" Bob"), said(" In", " 1843", ".")],
        },
        {"wrote it": (passage("ada"),)},
    )
    result = await world.run("flare", question="Who?")
    assert world.order == "model search model model"
    assert world.searched == ["wrote it."]
    assert "[1] About ada." in world.prompts[1]
    assert world.prompts[1].endswith("Question: Who?\nAnswer:")
    assert world.prompts[2].endswith("Question: Who?\nAnswer: Ada Lovelace wrote it.")
    assert result.outputs == {"answer": "Ada Lovelace wrote it. In 1843.", "status": "done", "sentences": 2}


async def test_flare_judges_the_next_sentence_alone() -> None:
    first = said(" It", " is", " so", ".", " Bob", " said", ".", unsure=" Bob")
    world = Scripted({AHEAD: [first, said(" Ada", " said", ".")]})
    result = await world.run("flare", question="Who?")
    assert world.order == "model model"
    assert result.outputs["answer"] == "It is so. Ada said."


async def test_flare_that_is_sure_of_no_token_has_nothing_to_search_for() -> None:
    world = Scripted({AHEAD: said(" Bob", ".", unsure=" Bob|.")})
    result = await world.run("flare", question="Who?")
    assert (world.order, result.outputs["answer"]) == ("model", "Bob.")


async def test_flare_counts_a_probability_of_exactly_the_threshold_as_unsure() -> None:
    edge = Said(text=" Ada.", tokens=(TokenLogprob(token=" Ada", logprob=math.log(0.2)), TokenLogprob(token=".", logprob=0.0)))
    world = Scripted({AGAIN: " Ada.", AHEAD: edge})
    await world.run("flare", question="Who?")
    assert world.searched == ["."]


async def test_flare_that_says_nothing_ends() -> None:
    world = Scripted({AHEAD: said()})
    result = await world.run("flare", question="Who?")
    assert (world.order, result.outputs) == ("model", {"answer": "", "status": "done", "sentences": 1})


async def test_flare_goes_on_where_a_search_finds_nothing() -> None:
    world = Scripted({AGAIN: " Nobody knows.", AHEAD: said(" Bob", " did", ".", unsure=" Bob")}, {"": ()})
    result = await world.run("flare", question="Who?")
    assert (world.order, result.outputs["answer"]) == ("model search model", "Nobody knows.")


async def test_flare_at_its_bound_has_a_status_and_the_sentences_so_far() -> None:
    world = Scripted({AGAIN: " So it is. And more.", AHEAD: said(" It", " was", ".", " Then", unsure=" was", reason="length")})
    result = await world.run("flare", question="Who?")
    assert world.order == " ".join(["model search model"] * 5)
    assert result.outputs == {"answer": " ".join(["So it is."] * 5), "status": "bounded", "sentences": 5}
    assert result.bounded_nodes == ("writing",)


async def test_flare_ends_when_its_tokens_are_used_up() -> None:
    long = said(*[" word"] * 63, ".", " More", reason="length")
    world = Scripted({AHEAD: long})
    result = await world.run("flare", question="Who?")
    assert world.order == "model model model model"
    assert result.outputs["status"] == "bounded"


R1 = "conduct reasoning inside <think>"


async def test_search_r1_searches_where_the_model_says_and_ends_at_its_answer() -> None:
    world = Scripted(
        {R1: ["<think>Who?</think>\n<search> its designer </search> <information>made up", "<answer> Ada </answer> Bye."]},
        {"designer": (passage("ada"),)},
    )
    result = await world.run("search-r1", question="Who designed it?")
    assert world.order == "model search model"
    assert world.searched == ["its designer"]
    assert all(request.raw and request.sampling.include_stop for request in world.model.requests)
    read = "<think>Who?</think>\n<search> its designer </search>\n\n<information>\n[1] About ada.\n</information>\n\n"
    assert world.prompts[1].endswith(f"Question: Who designed it?\n{read.strip()}")
    assert result.outputs == {"answer": "Ada", "trace": f"{read}<answer> Ada </answer>", "status": "done"}


@pytest.mark.parametrize("says", ["I wonder.", "<search> </search>", "Beijing </answer>", "<search></search>", ""])
async def test_search_r1_is_told_what_was_neither_a_search_nor_an_answer(says: str) -> None:
    world = Scripted({R1: [says, "<answer>Ada</answer>"]})
    result = await world.run("search-r1", question="Who?")
    assert world.order == "model model"
    assert "My previous action is invalid." in world.prompts[1]
    assert (result.outputs["answer"], result.outputs["status"]) == ("Ada", "done")


async def test_search_r1_searches_for_the_last_query_of_several_marks() -> None:
    world = Scripted({R1: ["<search> and <search> the query </search>", "<answer>Ada</answer>"]})
    await world.run("search-r1", question="Who?")
    assert world.searched == ["the query"]


async def test_search_r1_at_its_bound_has_no_answer_but_a_status_and_searches_for_nothing_that_it_cannot_read() -> None:
    world = Scripted({R1: "<search> more </search>"}, {"": ()})
    result = await world.run("search-r1", question="Who?")
    assert world.order == "model search model search model search model search model"
    assert (result.outputs["answer"], result.outputs["status"]) == ("", "bounded")
    assert result.bounded_nodes == ("reasoning",)
    assert "<information>\n\n</information>" in str(result.outputs["trace"])


CANDIDATES = "provide two correct candidates"
SUMMARY = "act as a professional writer"
VALID = "correctly support the prediction"
BETTER = "Passage 1: {}\nPassage 2: {}"
ALONE = "based on your own knowledge"


def sure(candidates: str, valid: dict[str, str], better: dict[tuple[str, str], str]) -> Scripted:
    """A model that proposes candidates, writes of each "Sum X." and judges as it is told."""
    return Scripted(
        {
            **{f"Prediction: {name}\nPassage: Sum": says for name, says in valid.items()},
            **{BETTER.format(f"Sum {one}.", f"Sum {other}."): says for (one, other), says in better.items()},
            **{f"Prediction: {name}\nPassage:": f" Sum {name}. [DONE] trailing" for name in valid},
            CANDIDATES: candidates,
            ALONE: "Plain.",
        }
    )


async def test_sure_takes_the_candidate_whose_summary_supports_it_and_tells_more() -> None:
    world = sure(
        "(a) Ada Lovelace, (b) Bob",
        {"Ada Lovelace": "False", "Bob": "True."},
        {("Ada Lovelace", "Bob"): "Passage 2", ("Bob", "Ada Lovelace"): "Passage 1"},
    )
    result = await world.run("sure", question="Who?")
    assert world.order == "search" + " model" * 7
    assert (result.spent.model_calls, result.spent.retrievals) == (7, 1)
    assert result.outputs == {"answer": "Bob", "route": "ranked", "candidates": ["Ada Lovelace", "Bob"], "scores": [0, 2]}
    assert all("About one." in prompt for prompt in world.prompts if CANDIDATES in prompt or SUMMARY in prompt)
    assert CANDIDATES in world.prompts[0]
    assert all("Target Question: Who?" in prompt for prompt in world.prompts[5:])


async def test_sure_counts_half_for_a_comparison_that_says_neither_and_takes_the_first_of_equals() -> None:
    world = sure("(a) Ada\n(b) Bob", {"Ada": "true", "Bob": "True"}, {("Ada", "Bob"): "Both", ("Bob", "Ada"): "neither"})
    result = await world.run("sure", question="Who?")
    assert (result.outputs["answer"], result.outputs["scores"]) == ("Ada", [1.5, 1.5])


async def test_sure_with_one_candidate_compares_nothing() -> None:
    world = sure("(a) Ada, (b) Ada", {"Ada": "False"}, {})
    result = await world.run("sure", question="Who?")
    assert world.order == "search model model model"
    assert result.outputs == {"answer": "Ada", "route": "ranked", "candidates": ["Ada"], "scores": [0]}


async def test_sure_looks_at_two_candidates_of_more() -> None:
    better = {("Ada", "Bob"): "Passage 1", ("Bob", "Ada"): "Passage 2"}
    world = sure("(a) Ada, (b) Bob, (c) Cy", {"Ada": "True", "Bob": "False"}, better)
    result = await world.run("sure", question="Who?")
    assert result.outputs["candidates"] == ["Ada", "Bob"]
    assert (world.order.count("model"), result.outputs["answer"]) == (7, "Ada")


@pytest.mark.parametrize("says", ["", "I cannot tell.", "(a) , (b) \n"])
async def test_sure_without_a_candidate_is_asked_plainly(says: str) -> None:
    world = sure(says, {}, {})
    result = await world.run("sure", question="Who?")
    assert world.order == "search model model"
    assert result.outputs == {"answer": "Plain.", "route": "plain", "candidates": []}


async def test_sure_without_passages_is_asked_plainly_at_once() -> None:
    world = Scripted({ALONE: "Plain."}, {"": ()})
    result = await world.run("sure", question="Who?")
    assert (world.order, result.outputs) == ("search model", {"answer": "Plain.", "route": "plain"})


NO, YES = "[No Retrieval]", "[Retrieval]"
MARKS = ("[Relevant]", "[Fully supported]", "[Utility:5]")


def named(token: str, **shares: float) -> TokenLogprob:
    """A token beside which those of `shares` have these probabilities, as they are named in `NAMES`."""
    top = tuple(TokenLogprob(token=NAMES[name], logprob=math.log(share)) for name, share in shares.items())
    return TokenLogprob(token=token, logprob=math.log(0.5), top=top)


NAMES = {
    "yes": YES, "no": NO, "rel": "[Relevant]", "irr": "[Irrelevant]", "full": "[Fully supported]",
    "part": "[Partially supported]", "none": "[No support / Contradictory]", **{f"u{n}": f"[Utility:{n}]" for n in range(1, 6)},
}  # fmt: skip


def critique(answer: str, rel: float, full: float, part: float, useful: float) -> Said:
    tokens = (
        named("[Relevant]", rel=rel, irr=1 - rel),
        TokenLogprob(token=answer, logprob=math.log(0.5)),
        named("[Fully supported]", full=full, part=part, none=1 - full - part),
        named("[Utility:5]", u5=useful, u1=1 - useful),
    )
    return Said(text="".join(token.token for token in tokens), tokens=tokens)


def decision(wish: float) -> Said:
    return Said(text="[Retrieval]", reason="length", tokens=(named(YES, yes=wish, no=1 - wish),))


async def test_self_rag_answers_from_each_passage_and_takes_the_answer_with_the_best_marks() -> None:
    world = Scripted(
        {
            f"{YES}<paragraph>About one.": critique("Bob", 0.5, 0.5, 0.3, 0.75),
            f"{YES}<paragraph>About two.": critique("Ada.", 0.9, 0.9, 0.05, 0.5),
            "### Response:": decision(0.21),
        }
    )
    result = await world.run("self-rag", question="Who?")
    assert world.order == "model search model model"
    assert world.model.requests[0].sampling.max_tokens == 1
    assert all(request.raw and request.model == "selfrag" for request in world.model.requests)
    assert result.outputs["answer"] == "Ada."
    assert result.outputs["route"] == "passages"
    assert result.outputs["wish"] == pytest.approx(0.21)
    # The mean probability of a token 0.5, and: 0.5 + (0.5 + 0.15) + 0.5 * 0.5; 0.9 + (0.9 + 0.025) + 0.
    assert result.outputs["scores"] == pytest.approx([0.5 + 0.5 + 0.65 + 0.25, 0.5 + 0.9 + 0.925])


async def test_self_rag_answers_once_from_each_of_five_passages_and_no_more() -> None:
    found = [passage(f"p{number}") for number in range(9)]
    world = Scripted({"<paragraph>": critique("Ada", 0.9, 0.9, 0.05, 0.5), "### Response:": decision(1 - 1e-9)}, {"": found})
    result = await world.run("self-rag", question="Who?")
    assert world.order == "model search" + " model" * 5
    assert (result.spent.model_calls, len(result.outputs["scores"])) == (6, 5)


async def test_self_rag_that_wants_no_passages_does_not_search() -> None:
    world = Scripted({NO: "Ada[Utility:5]</s>", "### Response:": decision(0.2)})
    result = await world.run("self-rag", question="Who?")
    assert world.order == "model model"
    assert world.prompts[1].endswith(f"Who?\n\n### Response:\n{NO}")
    assert (result.outputs["answer"], result.outputs["route"]) == ("Ada", "alone")
    assert "scores" not in result.outputs


async def test_self_rag_that_finds_nothing_answers_alone() -> None:
    world = Scripted({NO: "Ada", "### Response:": decision(0.9)}, {"": ()})
    result = await world.run("self-rag", question="Who?")
    assert (world.order, result.outputs["answer"]) == ("model search model", "Ada")


async def test_self_rag_scores_an_answer_without_marks_by_its_words_alone() -> None:
    plain = Said(text="Bob", tokens=(TokenLogprob(token="Bob", logprob=math.log(0.8)),))
    world = Scripted(
        {f"{YES}<paragraph>About one.": plain, f"{YES}<paragraph>About two.": Said(text=""), "### Response:": decision(0.9)}
    )
    result = await world.run("self-rag", question="Who?")
    assert result.outputs["scores"] == pytest.approx([0.8, 0.0])
    assert result.outputs["answer"] == "Bob"


async def test_self_rag_without_named_tokens_does_not_search() -> None:
    world = Scripted({NO: "Ada", "### Response:": Said(text="", tokens=())})
    result = await world.run("self-rag", question="Who?")
    assert (world.order, result.outputs["wish"]) == ("model model", 0)
