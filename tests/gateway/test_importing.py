"""Exports wherever documents are taken: kept converted, with neither code nor secrets."""

import json
from pathlib import Path

import pytest

from gateway import importing
from gateway.flow_cache import FlowCache
from gateway.flows import Flows
from gateway.seeding import seed
from penstock.errors import FailedPrecondition, InvalidFlow
from tests.gateway.fakes import CHAT, MemoryFlowStore, World
from tests.gateway.langflow.written import component, export_of, written

LINKS = ["ChatInput-a.message > OpenAIModel-m.input_value", "OpenAIModel-m.text_output > ChatOutput-z.input_value"]
SECRET = "sk-very-secret"


def chat(**fields: object) -> str:
    key = {"type": "str", "value": SECRET, "password": True}
    model = component("OpenAIModel-m", api_key=key, openai_api_base="https://user:pw@example.com", **fields)
    return json.dumps(written(component("ChatInput-a"), model, component("ChatOutput-z"), links=LINKS))


@pytest.fixture
def flows(world: World) -> Flows:
    return Flows(store=MemoryFlowStore(), cache=FlowCache(8), compiler=world.compiler, refresh_s=1, names_max=8)


async def test_an_export_is_kept_as_the_document_that_it_becomes(flows: Flows) -> None:
    kept = await flows.create("chat", chat())
    assert json.loads(kept.document)["origin"]["format"] == "langflow"
    assert SECRET not in kept.document
    assert "pw@example" not in kept.document
    result = await (await flows.compiled("chat")).run({"input_value": "Hi"})
    assert result.outputs == {"message": "It was Denver."}
    again = await flows.create("chat", chat())
    assert again.content_hash == kept.content_hash


async def test_of_a_real_export_no_code_is_kept(flows: Flows) -> None:
    kept = await flows.create("basic", json.dumps(export_of("1.13.0-basic-prompting")))
    assert "import" not in kept.document
    assert "def " not in kept.document


async def test_the_faults_of_an_export_are_those_of_its_components(flows: Flows) -> None:
    flow, faults = await flows.check(chat(temperature=9))
    assert (flow, [fault.node_id for fault in faults]) == (None, ["OpenAIModel-m"])
    with pytest.raises(InvalidFlow, match="OpenAIModel-m"):
        await flows.create("chat", chat(temperature=9))


async def test_a_folder_of_flows_may_hold_exports_by_the_names_that_langflow_gives_them(flows: Flows, tmp_path: Path) -> None:
    (tmp_path / "My Chat (1).json").write_text(chat())
    (tmp_path / "ours.json").write_text(CHAT)
    assert await seed(flows, tmp_path) == 2
    assert {flow.flow_id for flow in (await flows.page(0, "")).flows} == {"my-chat-1", "ours"}
    (tmp_path / "Bad.json").write_text(chat(temperature=9))
    with pytest.raises(FailedPrecondition, match=r"Bad\.json:\n  node 'OpenAIModel-m' temperature"):
        await seed(flows, tmp_path)


def test_a_document_of_ours_is_taken_as_it_is() -> None:
    assert importing.examine(CHAT).document == CHAT
    assert importing.validate(CHAT).inputs[0].name == "question"
    assert importing.examine('{"nodes": 1}').faults


def test_an_import_has_a_name_a_document_and_the_mapping_in_words() -> None:
    text = json.dumps(export_of("1.13.0-basic-prompting")).encode()
    name, document, explanation = importing.import_flow(text, model="small", collection=None)
    assert name == "basic-prompting"
    assert '"model": "small"' in document
    assert "LanguageModelComponent-FLeYF (Language Model) -> LanguageModelComponent-FLeYF (generate)" in explanation
    with pytest.raises(InvalidFlow, match="not a LangFlow export"):
        importing.import_flow(CHAT.encode())
