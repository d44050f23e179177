"""What nodes can ask for, asked of the real services: searches of every mode, vectors, forms, logprobs, conversations."""

import json
from typing import Any

import pytest
import pytest_asyncio

from penstock.clients import Document, Lexical, Penstock, RetrievalClient
from penstock.errors import UnsupportedFeature
from tests.e2e.conftest import Stack
from tests.gateway.fakes import document, node

pytestmark = [pytest.mark.e2e, pytest.mark.model, pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]

TOWNS = (
    ("denver", "Denver is a city in Colorado.", "en", 1858),
    ("rome", "Rome is the capital of Italy.", "en", -753),
    ("roma", "Roma è la capitale d'Italia.", "it", -753),
    ("oslo", "Oslo is the capital of Norway.", "en", 1040),
)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gateway(stack: Stack) -> Any:
    documents = [Document(id=name, text=text, metadata={"lang": lang, "since": since}) for name, text, lang, since in TOWNS]
    async with RetrievalClient(stack.retrieval) as retrieval:
        await retrieval.create_collection("towns", lexical=Lexical(enabled=True))
        await retrieval.ingest("towns", documents)
    async with Penstock(stack.gateway) as client:
        yield client


async def ran(gateway: Penstock, flow: str, inputs: dict[str, Any], **options: Any) -> dict[str, Any]:
    await gateway.create_flow("tried", flow, replace=True)
    return dict((await gateway.run("tried", inputs, **options)).outputs)


async def towns(gateway: Penstock, **params: Any) -> list[str]:
    flow = document(
        node("query", "input"), node("docs", "retrieve", collection="towns", **params), node("found", "output"),
        edges=["query > docs", "docs > found"],
    )  # fmt: skip
    return [each["document_id"] for each in (await ran(gateway, flow, {"query": "the capital of Italy"}))["found"]]


async def test_searches_of_every_mode_and_filter(gateway: Penstock) -> None:
    assert (await towns(gateway, top_k=1)) == ["rome"]
    assert (await towns(gateway, top_k=2, mode="lexical")) == ["rome", "oslo"]
    hybrid = await towns(gateway, mode="hybrid", fusion={"method": "reciprocal_rank"}, diversity={}, hits_per_document_max=1)
    assert hybrid[0] == "rome"
    assert (await towns(gateway, filter={"equals": {"field": "lang", "value": "it"}})) == ["roma"]
    young = {"all_of": [{"range": {"field": "since", "gt": 0}}, {"none_of": [{"one_of": {"field": "lang", "values": ["it"]}}]}]}
    assert sorted(await towns(gateway, filter=young, exact=True)) == ["denver", "oslo"]
    assert (await towns(gateway, score_min=0.99)) == []


async def test_a_vector_that_was_made_finds_what_its_text_does(gateway: Penstock) -> None:
    flow = document(
        node("query", "input"), node("made", "embed"), node("lang", "input"),
        node("docs", "retrieve", collection="towns", search_by="vector", top_k=1,
             filter={"equals": {"field": "lang", "value": {"input": "lang"}}}),
        node("found", "output"), node("vector", "output"),
        edges=["query > made", "made > docs.vector", "lang > docs.lang", "docs > found", "made > vector"],
    )  # fmt: skip
    for lang, expected in (("en", "rome"), ("it", "roma")):
        outputs = await ran(gateway, flow, {"query": "the capital of Italy", "lang": lang})
        (found,) = outputs["found"]
        assert (found["document_id"], found["metadata"]["since"], len(outputs["vector"])) == (expected, -753, 384)


def asking(*ports: str, **params: Any) -> str:
    return document(
        node("question", "input"), node("model", "generate", temperature=0, **params),
        *(node(port, "output") for port in ports),
        edges=["question > model", *(f"model.{port} > {port}" for port in ports)],
    )  # fmt: skip


async def test_answers_have_the_form_that_was_asked_for(gateway: Penstock) -> None:
    question = {"question": "Is Rome in Italy?"}
    choice = asking("text", max_tokens=8, structured_output={"choice": ["yes", "no"]})
    assert (await ran(gateway, choice, question))["text"] in {"yes", "no"}
    schema = {
        "type": "object", "properties": {"answer": {"type": "boolean"}}, "required": ["answer"], "additionalProperties": False,
    }  # fmt: skip
    parsed = await ran(gateway, asking("json", "text", max_tokens=32, structured_output={"json_schema": schema}), question)
    assert isinstance(parsed["json"]["answer"], bool)
    assert json.loads(parsed["text"]) == parsed["json"]
    assert (await ran(gateway, asking("text", max_tokens=8, structured_output={"regex": "[0-9]{3}"}), question))[
        "text"
    ].isdigit()
    sampling = {"structured_output": {"grammar": 'root ::= "maybe"'}}
    assert (await ran(gateway, asking("text", max_tokens=8), question, sampling=sampling))["text"] == "maybe"


async def test_logprobs_come_with_each_token_and_a_stop_text_is_told(gateway: Penstock) -> None:
    flow = asking(
        "text", "logprobs", "finish_reason", "matched_stop", max_tokens=24, logprobs={}, stop=["."], include_stop=True
    )
    outputs = await ran(gateway, flow, {"question": "Say one sentence about Rome."})
    assert "".join(each["token"] for each in outputs["logprobs"]).startswith(outputs["text"].rstrip(".")[:10])
    assert all(each["logprob"] <= 0 for each in outputs["logprobs"])
    if outputs["finish_reason"] == "stop" and outputs["text"].endswith("."):
        assert outputs["matched_stop"] == "."


async def test_what_the_engine_cannot_do_is_told_with_the_node(gateway: Penstock) -> None:
    with pytest.raises(UnsupportedFeature) as caught:
        await ran(gateway, asking("text", adapter="poet"), {"question": "x"})
    assert caught.value.metadata["node"] == "model"
    flow = document(
        node("q", "input"), node("docs", "retrieve", collection="towns"), node("best", "rerank"), node("out", "output"),
        edges=["q > docs", "q > best.query", "docs > best", "best > out"],
    )  # fmt: skip
    with pytest.raises(UnsupportedFeature, match="rerank"):
        await ran(gateway, flow, {"q": "x"})


async def test_a_conversation_goes_on_and_a_raw_prompt_is_continued(gateway: Penstock) -> None:
    flow = document(
        node("question", "input"), node("asked", "history", operation="append", role="user"),
        node("model", "generate", history=True, temperature=0, max_tokens=16), node("past", "history", operation="read"),
        node("said", "history", operation="append", role="assistant"), node("answer", "output"), node("before", "output"),
        edges=["question > asked", "asked > model", "model > said", "said > answer", "past > before"],
    )  # fmt: skip
    await gateway.create_flow("talk", flow)
    first, second = [await gateway.run("talk", {"question": f"I am number {number}."}, session="t") for number in (1, 2)]
    assert first.outputs["before"] == ""
    assert second.outputs["before"] == f"user: I am number 1.\nassistant: {first.outputs['answer']}"
    assert second.usage.input_tokens > first.usage.input_tokens + 8, "the model was given the turns before"
    assert (await ran(gateway, asking("text", raw=True, max_tokens=4), {"question": "one, two, three,"}))["text"].strip()
