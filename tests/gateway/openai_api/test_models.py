"""Models, listed and read by OpenAI's own client."""

import openai
import pytest

from penstock.flow.v1 import flow_pb2
from tests.gateway.fakes import ECHO
from tests.gateway.openai_api.conftest import FLOWS
from tests.gateway.serving import Stack

MODELS = sorted(set(FLOWS) - {"numbers"})


async def test_flows_that_take_a_text_are_models(client: openai.AsyncOpenAI) -> None:
    listed = await client.models.list()
    assert [model.id for model in listed.data] == MODELS
    model = listed.data[MODELS.index("rag")]
    assert (model.object, model.owned_by, model.created > 1_700_000_000) == ("model", "penstock", True)
    assert model.model_extra["penstock"] == {
        "description": "",
        "inputs": [{"name": "question", "type": "text", "required": True}],
        "outputs": ["answer"],
    }


async def test_one_is_read_by_its_name(client: openai.AsyncOpenAI) -> None:
    assert (await client.models.retrieve("rag")).id == "rag"
    for other in ("none", "numbers", "a/b", "RAG"):
        with pytest.raises(openai.NotFoundError) as caught:
            await client.models.retrieve(other)
        assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


async def test_a_long_list_comes_in_pages(client: openai.AsyncOpenAI, stack: Stack) -> None:
    for number in range(3):
        await stack.flows.CreateFlow(flow_pb2.CreateFlowRequest(flow_id=f"zz-{number}", document=ECHO))
    names, after = [], None
    while True:
        query = {"limit": 4, **({"after": after} if after else {})}
        async with stack.http.get(f"{stack.url}/v1/models", params=query) as response:
            page = await response.json()
        names += [model["id"] for model in page["data"]]
        if not page["has_more"]:
            break
        after = page["last_id"]
    assert names == [*MODELS, "zz-0", "zz-1", "zz-2"]


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "after=%00", "after=A"])
async def test_a_page_that_cannot_be_is_refused(stack: Stack, query: str) -> None:
    async with stack.http.get(f"{stack.url}/v1/models?{query}") as response:
        assert (response.status, (await response.json())["error"]["type"]) == (400, "invalid_request_error")


async def test_other_verbs_are_told_which_there_are(stack: Stack) -> None:
    for path, allowed in (("/v1/models", "GET, HEAD"), ("/v1/models/rag", "GET, HEAD"), ("/v1/chat/completions", "POST")):
        async with stack.http.delete(f"{stack.url}{path}") as response:
            assert (response.status, response.headers["allow"]) == (405, allowed)
            assert (await response.json())["error"]["code"] == "method_not_allowed"
    async with stack.http.head(f"{stack.url}/v1/models") as response:
        assert (response.status, await response.read()) == (200, b"")
