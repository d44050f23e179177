import pytest
from opentelemetry.trace import NoOpTracer

from generation_svc.admission import Admission
from generation_svc.coalescing import Coalescing
from generation_svc.engine import Message, ModelInfo, Role, Sampling
from generation_svc.generation import Generation
from generation_svc.servicer import GenerationServicer, _page
from penstock.errors import InvalidArgument
from penstock.generation.v1 import generation_pb2 as pb
from tests.generation_svc.fakes import FakeEngine

CONTEXT = None
"""The servicer looks at nothing in it."""


def servicer(engine: FakeEngine) -> GenerationServicer:
    admission = Admission(running_max=2, waiting_max=2)
    rule = Coalescing(tokens_max=8, delay_max_s=0.01)
    return GenerationServicer(Generation(engine=engine, admission=admission, coalescing=rule, tracer=NoOpTracer()))


def question(**fields: object) -> dict[str, object]:
    return {"model": "models/default", "messages": [pb.Message(role=pb.ROLE_USER, content="Hi")], **fields}


async def test_generate_answers_with_text_reason_usage_and_the_models_name() -> None:
    answer = await servicer(FakeEngine()).Generate(pb.GenerateRequest(**question()), CONTEXT)
    assert answer == pb.GenerateResponse(
        text="A pipe.",
        finish_reason=pb.FINISH_REASON_STOP,
        usage=pb.Usage(input_tokens=5, output_tokens=3, cached_tokens=2),
        model="models/small",
    )


async def test_a_stream_is_deltas_and_then_done() -> None:
    stream = servicer(FakeEngine()).StreamGenerate(pb.StreamGenerateRequest(**question()), CONTEXT)
    *deltas, done = [event async for event in stream]
    assert "".join(event.delta.text for event in deltas) == "A pipe."
    assert sum(event.delta.token_count for event in deltas) == 3
    assert done.done.model == "models/small"
    assert done.done.finish_reason == pb.FINISH_REASON_STOP


async def test_the_engine_gets_what_was_given_and_none_for_what_was_not() -> None:
    engine = FakeEngine()
    messages = [pb.Message(role=pb.ROLE_SYSTEM, content="Be brief."), pb.Message(role=pb.ROLE_USER, content="Hi")]
    sampling = pb.Sampling(temperature=0.0, seed=7, stop=["\n"])
    await servicer(engine).Generate(pb.GenerateRequest(**question(messages=messages, sampling=sampling)), CONTEXT)
    (got,) = engine.requests
    assert got.messages == (Message(role=Role.SYSTEM, content="Be brief."), Message(role=Role.USER, content="Hi"))
    assert got.sampling == Sampling(temperature=0.0, seed=7, stop=("\n",))


@pytest.mark.parametrize("role", [pb.ROLE_UNSPECIFIED, 17])
async def test_a_message_without_a_known_role_is_refused_by_its_place(role: int) -> None:
    messages = [pb.Message(role=pb.ROLE_USER, content="Hi"), pb.Message(role=role, content="Ho")]
    with pytest.raises(InvalidArgument) as refused:
        await servicer(FakeEngine()).Generate(pb.GenerateRequest(**question(messages=messages)), CONTEXT)
    assert refused.value.metadata == {"field": "messages[1].role"}


async def test_models_are_listed_and_read() -> None:
    listed = await servicer(FakeEngine()).ListModels(pb.ListModelsRequest(), CONTEXT)
    model = pb.Model(name="models/small", engine="fake", context_window=100, precision="fp32")
    assert listed == pb.ListModelsResponse(models=[model])
    read = await servicer(FakeEngine()).GetModel(pb.GetModelRequest(name="models/default"), CONTEXT)
    assert read.model == model


def test_pages_go_through_every_model_once() -> None:
    models = tuple(ModelInfo(name=name, engine="fake") for name in "abcde")
    token, seen = "", []
    for _ in range(3):
        page, token = _page(models, 2, token)
        seen += [model.name for model in page]
    assert (seen, token) == (list("abcde"), "")


@pytest.mark.parametrize(("size", "token"), [(-1, ""), (1001, ""), (1, "z")])
def test_a_page_out_of_bounds_or_of_a_foreign_token_is_refused(size: int, token: str) -> None:
    with pytest.raises(InvalidArgument):
        _page((ModelInfo(name="a", engine="fake"),), size, token)
