"""The operation expression, and that it says what methods from the literature need of it."""

import math
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.values import ANYTHING, PortType
from penstock.errors import FailedPrecondition
from tests.gateway.fakes import World, document, node, passage
from tests.gateway.nodes.operations.operated import operation, result

DOCS = (passage(1, "Denver is high."), passage(2, "Boulder is near."))


def said(expression: str, type: str = "json", **inputs: Any) -> Any:  # noqa: A002  # As the parameter is called.
    return result(operation("expression", expression=expression, type=type), **inputs)


@pytest.mark.parametrize(
    ("expression", "kind", "expected"),
    [
        ("docs.filter(d, d.score > 0.7)", "documents", DOCS[:1]),
        ("[docs, docs.slice(1)]", "document_lists", (DOCS, DOCS[1:])),
        ("docs.map(d, d.text)", "list", ("Denver is high.", "Boulder is near.")),
        ("docs.map(d, d.text).join(' ')", "text", "Denver is high. Boulder is near."),
        ("max(docs.map(d, d.score))", "number", 1.0),
        ("docs.exists(d, d.text.contains('near'))", "boolean", True),
        ("{'top': docs[0].chunk_id}", "json", {"top": "c1"}),
        ("[]", "documents", ()),
        ("null", "json", None),
    ],
)
def test_an_expression_gives_a_value_of_its_type(expression: str, kind: str, expected: object) -> None:
    made = operation("expression", expression=expression, type=kind)
    inputs = {port.name: DOCS for port in made.input_ports()}
    assert made.work()(inputs) == expected
    assert made.output_type() is PortType(kind)


@pytest.mark.parametrize(
    ("expression", "kind"),
    [
        ("1", "text"),
        ("null", "text"),
        ("'1'", "number"),
        ("true", "number"),
        ("1", "boolean"),
        ("'a'", "list"),
        ("['a', 1]", "list"),
        ("{}", "documents"),
        ("['a']", "documents"),
        ("[{'chunk_id': 'a', 'document_id': 'b', 'text': 'c'}]", "documents"),
        ("[{'chunk_id': 1, 'document_id': 'b', 'text': 'c', 'score': 1}]", "documents"),
        ("[{'chunk_id': 'a', 'document_id': 'b', 'text': 'c', 'score': 1, 'metadata': []}]", "documents"),
        ("[{}]", "document_lists"),
    ],
)
def test_what_is_not_of_the_type_is_an_error(expression: str, kind: str) -> None:
    with pytest.raises(FailedPrecondition, match=f"which is not of the type {kind}"):
        said(expression, kind)


def test_what_an_expression_names_are_input_ports_that_take_anything() -> None:
    ports = operation("expression", expression="docs.filter(d, d.score > least)").input_ports()
    assert [(port.name, port.accepts, port.optional) for port in ports] == [
        ("docs", ANYTHING, False),
        ("least", ANYTHING, False),
    ]
    with pytest.raises(ValidationError, match="Syntax error at character 4"):
        operation("expression", expression="1 +")


async def test_an_expression_stands_in_a_flow(world: World) -> None:
    flow = document(
        node("q", "input"), node("docs", "retrieve", collection="squad"), node("least", "input", type="number"),
        node("good", "transform", operation="expression", type="documents", expression="docs.filter(d, d.score >= least)"),
        node("prompt", "prompt", template="{good}|{q}"), node("out", "output"),
        edges=["q > docs", "docs > good.docs", "least > good.least", "good > prompt.good", "q > prompt.q", "prompt > out"],
    )  # fmt: skip
    assert (await world.compile(flow).run({"q": "who", "least": 1})).outputs == {"out": "[1] passage 1|who"}


# What methods need.


def tokens(*pairs: tuple[str, float]) -> list[dict[str, Any]]:
    return [{"token": text, "logprob": math.log(p), "top": [{"token": text, "logprob": math.log(p)}]} for text, p in pairs]


SENTENCE = tokens(
    ("He", 0.9), (" was", 0.8), (" born", 0.7), (" in", 0.9), (" 19", 0.1), ("12", 0.15), (".", 0.9), (" Then", 0.01)
)
# Where each token ends, and of the first sentence those that begin within it: what FLARE looks at.
ENDS = "runningSum(logprobs.map(t, size(t.token)))"
WITHIN = "logprobs.slice(0, ends.filter(e, e <= size(sentence)).size())"


def test_flare_finds_the_least_probable_token_of_the_first_sentence_and_masks_it() -> None:
    text = "".join(each["token"] for each in SENTENCE)
    sentence = result(operation("regex_extract", pattern=r"(?s)^(.*?[.!?])(?:\s|$)"), text)
    assert sentence == "He was born in 1912."
    ends = said(ENDS, logprobs=SENTENCE)
    within = said(WITHIN, logprobs=SENTENCE, ends=ends, sentence=sentence)
    assert [each["token"] for each in within] == ["He", " was", " born", " in", " 19", "12", "."]
    assert said("exp(min(within.map(t, t.logprob))) < 0.2", "boolean", within=within)
    assert not said("exp(min(within.map(t, t.logprob))) < 0.05", "boolean", within=within)
    masked = said("within.map(t, exp(t.logprob) < 0.2 ? '' : t.token).join().trim()", "text", within=within)
    assert masked == "He was born in."


def test_skr_votes_over_the_labels_of_the_questions_nearest_to_this_one() -> None:
    found = tuple(
        type(each)(
            chunk_id=each.chunk_id, document_id=each.document_id, text=each.text, score=each.score, metadata={"label": label}
        )
        for each, label in zip((passage(1), passage(2), passage(3)), ("known", "unknown", "unknown"), strict=True)
    )
    labels = said("found.map(f, f.metadata.label)", "list", found=found)
    assert result(operation("vote"), labels) == "unknown"


def test_sure_compares_candidates_in_pairs_and_takes_the_best() -> None:
    answer = "(a) Denver\n(b) Boulder\n(c) Denver"
    found = result(operation("regex_extract", pattern=r"(?m)^\([a-z]\)\s*(.+)$", matches="all"), answer)
    candidates = result(operation("dedupe", type="list"), found)
    assert candidates == ("Denver", "Boulder")
    pairs = said("flatten(range(size(c)).map(i, range(size(c)).map(j, i != j, {'one': c[i], 'other': c[j]})))", c=candidates)
    assert pairs == [{"one": "Denver", "other": "Boulder"}, {"one": "Boulder", "other": "Denver"}]
    assert result(operation("format", template="Is {one} better than {other}?", separator="|"), pairs).startswith("Is Denver")
    wins = ["no", "yes"]  # What a model said of each pair.
    scores = said(
        "c.map(each, range(size(pairs)).filter(i, pairs[i].one == each && wins[i] == 'yes').size())",
        c=candidates, pairs=pairs, wins=wins,
    )  # fmt: skip
    assert scores == [0, 1]
    assert result(operation("argmax"), candidates, scores) == "Boulder"


def test_self_rag_scores_passages_by_the_probabilities_of_reflection_tokens() -> None:
    def reflected(relevant: float) -> list[dict[str, Any]]:
        top = [{"token": "[Relevant]", "logprob": math.log(relevant)}, {"token": "[Irrelevant]", "logprob": math.log(0.2)}]
        return [{"token": "[Relevant]", "logprob": math.log(relevant), "top": top}]

    of_token = "sum(logprobs[0].top.filter(t, t.token == '{}').map(t, exp(t.logprob)))"
    score = f"{of_token.format('[Relevant]')} / ({of_token.format('[Relevant]')} + {of_token.format('[Irrelevant]')})"
    scores = [said(score, "number", logprobs=reflected(relevant)) for relevant in (0.2, 0.6)]
    assert scores == [pytest.approx(0.5), pytest.approx(0.75)]
    assert result(operation("argmax"), ("first", "second"), scores) == "second"


def test_search_r1_takes_the_last_query_and_sees_whether_there_is_an_answer() -> None:
    said_so_far = "<think>?</think><search>one</search><information>x</information><search>two\nlines</search>"
    query = operation("regex_extract", pattern=r"(?s)<search>(.*?)</search>", matches="last", default="")
    assert result(query, said_so_far) == "two\nlines"
    assert result(query, "none") == ""
    assert not said("text.contains('</answer>')", "boolean", text=said_so_far)


def test_self_ask_takes_the_question_that_follows_up() -> None:
    follow = operation("regex_extract", pattern=r"(?i)follow up:[ \t]*([^\n]+)", matches="last", default="")
    assert result(follow, "Are follow up questions needed: Yes.\nFollow up: How old is he?\n") == "How old is he?"
    assert result(follow, "So the final answer is: 5") == ""
