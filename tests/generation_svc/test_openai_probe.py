"""What the engine finds out of an endpoint before it serves."""

import time
from typing import Any

import pytest
from aiohttp import web

from generation_svc.engine import Feature, ModelInfo
from generation_svc.openai_dialect import OPENAI, SGLANG, VLLM
from generation_svc.openai_engine import OpenAiEngine
from penstock.errors import BackendUnavailable, FailedPrecondition, ModelNotFound
from tests.generation_svc.openai_endpoint import ANSWER, answering, endpoint_settings, engine_over, in_turn, sse

STRUCTURED = {Feature.REGEX, Feature.CHOICE, Feature.GRAMMAR}


def listing(*cards: dict[str, Any]):
    return answering(200, {"object": "list", "data": cards})


def describing(*fields: str, paths: tuple[str, ...] = ()):
    """An OpenAPI description in which both requests have these fields."""
    schema = {"properties": {name: {} for name in fields}}
    schemas = {"ChatCompletionRequest": schema, "CompletionRequest": schema}
    return answering(200, {"paths": {path: {} for path in paths}, "components": {"schemas": schemas}})


async def model_of(*cards: dict[str, Any], openapi: Any = None, **settings: Any) -> ModelInfo:
    root = {} if openapi is None else {"/openapi.json": openapi}
    async with engine_over(sse(*ANSWER), listing(*cards), root, **settings) as engine:
        (model,) = engine.models()
        return model


async def test_the_window_is_the_one_that_the_endpoint_lists() -> None:
    models = answering(200, {"data": [{"id": "upstream", "max_model_len": 2048}]})
    async with engine_over(sse(*ANSWER), models) as engine:
        assert engine.models()[0].context_window == 2048
        assert engine.models()[0].name == "smollm2-135m-instruct"


async def test_a_model_that_the_endpoint_does_not_list_is_an_error_at_start() -> None:
    models = answering(200, {"data": [{"id": "other"}, {"id": "another"}]})
    with pytest.raises(ModelNotFound, match="other, another"):
        async with engine_over(sse(*ANSWER), models):
            pass


async def test_a_refused_key_is_an_error_at_start() -> None:
    with pytest.raises(FailedPrecondition, match="OPENAI_API_KEY"):
        async with engine_over(sse(*ANSWER), answering(401, {"error": {"message": "no"}})):
            pass


async def test_an_endpoint_that_comes_late_is_waited_for() -> None:
    answers = iter([answering(503, "starting"), answering(200, {"data": []})])

    async def models(request: web.Request) -> web.Response:
        return await next(answers)(request)

    async with engine_over(sse(*ANSWER), models) as engine:
        assert engine.health()


async def test_an_endpoint_that_never_comes_is_an_error_that_names_the_setting() -> None:
    began = time.monotonic()
    with pytest.raises(BackendUnavailable, match="OPENAI_BASE_URL"):
        await OpenAiEngine.start(endpoint_settings("http://127.0.0.1:9/v1", openai_ready_timeout_s=0.2))
    assert time.monotonic() - began < 5


async def test_whoever_does_not_say_is_taken_for_openais_own_api() -> None:
    for owner in ("openai", "library", None):
        assert (await model_of({"id": "upstream", "owned_by": owner})).features == frozenset(OPENAI.needs)


async def test_a_vllm_server_can_do_what_it_describes_and_no_more() -> None:
    known = {name for needed in VLLM.needs.values() for name in needed if not name.startswith("/")}
    card = {"id": "upstream", "owned_by": "vllm"}
    whole = await model_of(card, openapi=describing(*known, paths=("/tokenize",)))
    assert whole.features == frozenset(VLLM.needs)
    without_tokenizer = await model_of(card, openapi=describing(*known))
    assert whole.features - without_tokenizer.features == {Feature.NAMED_LOGPROBS}
    older = await model_of(card, openapi=describing(*known - {"structured_outputs", "cache_salt"}, paths=("/tokenize",)))
    assert whole.features - older.features == {*STRUCTURED, Feature.CACHE_SALT}


@pytest.mark.parametrize("openapi", [None, answering(403, "no"), answering(200, "<html>"), answering(200, {"components": 7})])
async def test_a_vllm_server_that_does_not_describe_itself_is_taken_for_an_old_one_unless_it_was_set(openapi: Any) -> None:
    card = {"id": "upstream", "owned_by": "vllm"}
    found = await model_of(card, openapi=openapi)
    assert found.features == frozenset(VLLM.needs) - VLLM.recent
    assert {Feature.TOP_K, Feature.JSON_SCHEMA} <= found.features
    by_hand = await model_of(card, openapi=openapi, openai_dialect="vllm")
    assert by_hand.features == frozenset(VLLM.needs)


async def test_sglang_is_known_by_its_name_and_a_dialect_that_was_set_stands() -> None:
    assert (await model_of({"id": "upstream", "owned_by": "sglang"})).features == frozenset(SGLANG.needs) - SGLANG.recent
    plain = await model_of({"id": "upstream", "owned_by": "vllm"}, openai_dialect="openai")
    assert plain.features == frozenset(OPENAI.needs)


async def test_the_models_whose_parent_is_ours_are_its_adapters() -> None:
    model = await model_of(
        {"id": "upstream", "root": "/models/x"},
        {"id": "alias", "root": "/models/x"},
        {"id": "legal", "root": "/loras/legal", "parent": "upstream"},
        {"id": "polite", "root": "/loras/polite", "parent": "alias"},
        {"id": "strange", "root": "/loras/strange", "parent": "other"},
    )
    assert model.adapters == ("legal", "polite")
    assert Feature.ADAPTER in model.features


async def test_adapters_may_be_set_where_they_are_not_listed() -> None:
    model = await model_of({"id": "upstream"}, openai_adapters=("tuned", "tuned"))
    assert model.adapters == ("tuned",)
    assert Feature.ADAPTER in model.features
    assert Feature.ADAPTER not in (await model_of({"id": "upstream"})).features


async def test_priorities_are_refused_at_start_for_an_endpoint_that_has_none() -> None:
    with pytest.raises(FailedPrecondition, match="OPENAI_PRIORITIES"):
        await model_of({"id": "upstream"}, openai_priorities=True)


async def test_the_time_that_the_endpoint_asks_for_is_waited_at_start_too() -> None:
    models = in_turn(answering(503, "starting", {"Retry-After": "0.8"}), listing({"id": "upstream"}))
    async with engine_over(sse(*ANSWER), models):
        first, second = models.asked
    assert second - first >= 0.8
