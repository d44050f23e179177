import pytest
from opentelemetry.metrics import NoOpMeter
from opentelemetry.trace import NoOpTracer

from generation_svc.admission import Admission
from generation_svc.coalescing import Coalescing
from generation_svc.engine import Feature, LogprobOptions, Message, ModelInfo, Role, Sampling, StructuredOutput
from generation_svc.generation import Generation
from generation_svc.metrics import GenerationMetrics
from generation_svc.servicer import GenerationServicer, _page
from penstock.errors import InvalidArgument
from penstock.generation.v1 import generation_pb2 as pb
from penstock.histograms import Histograms
from tests.generation_svc.fakes import GENERATING, FakeEngine

CONTEXT = None
"""The servicer looks at nothing in it."""


def servicer(engine: FakeEngine) -> GenerationServicer:
    admission = Admission(running_max=2, waiting_max=2)
    rule, metrics = Coalescing(tokens_max=8, delay_max_s=0.01), GenerationMetrics(NoOpMeter("test"), Histograms())
    core = Generation(engine=engine, admission=admission, coalescing=rule, tracer=NoOpTracer(), metrics=metrics)
    return GenerationServicer(core)


def question(**fields: object) -> dict[str, object]:
    return {"model": "models/default", "messages": [pb.Message(role=pb.ROLE_USER, content="Hi")], **fields}


async def test_generate_answers_with_text_reason_usage_and_the_models_name() -> None:
    answer = await servicer(FakeEngine()).Generate(pb.GenerateRequest(**question()), CONTEXT)
    assert answer.timings.done_s >= answer.timings.first_token_s >= answer.timings.queued_s > 0
    answer.ClearField("timings")
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


async def test_the_engine_gets_the_whole_request() -> None:
    engine = FakeEngine()
    asked = pb.GenerateRequest(
        **question(),
        sampling=pb.Sampling(min_p=0.1, repetition_penalty=1.2, min_tokens=2, max_tokens=9, include_stop=True),
        logprobs=pb.LogprobOptions(tokens=[" Yes", " No"]),
        structured_output=pb.StructuredOutput(choice=pb.StructuredOutput.Choice(texts=["yes", "no"])),
        adapter="legal",
        priority=-3,
        cache_salt="mine",
    )
    answer = await servicer(engine).Generate(asked, CONTEXT)
    (got,) = engine.requests
    assert (got.sampling.min_p, got.sampling.repetition_penalty) == (pytest.approx(0.1), pytest.approx(1.2))
    assert (got.sampling.min_tokens, got.sampling.include_stop) == (2, True)
    assert got.logprobs == LogprobOptions(tokens=(" Yes", " No"))
    assert got.structured_output == StructuredOutput(kind=Feature.CHOICE, choices=("yes", "no"))
    assert (got.adapter, got.priority, len(got.cache_salt)) == ("legal", -3, 64)
    assert [each.token for each in answer.logprobs] == ["A ", "pipe", "."]


@pytest.mark.parametrize(
    ("form", "kind", "value"),
    [
        (pb.StructuredOutput(json_schema='{"type": "object"}'), Feature.JSON_SCHEMA, '{"type": "object"}'),
        (pb.StructuredOutput(json_object=True), Feature.JSON_OBJECT, ""),
        (pb.StructuredOutput(regex="[0-9]+"), Feature.REGEX, "[0-9]+"),
        (pb.StructuredOutput(grammar='root ::= "yes"'), Feature.GRAMMAR, 'root ::= "yes"'),
    ],
)
async def test_each_form_of_an_answer_reaches_the_engine(form: pb.StructuredOutput, kind: Feature, value: str) -> None:
    engine = FakeEngine()
    await servicer(engine).Generate(pb.GenerateRequest(**question(), structured_output=form), CONTEXT)
    assert engine.requests[0].structured_output == StructuredOutput(kind=kind, value=value)


@pytest.mark.parametrize("form", [pb.StructuredOutput(), pb.StructuredOutput(json_object=False)])
async def test_a_form_that_says_nothing_is_refused(form: pb.StructuredOutput) -> None:
    with pytest.raises(InvalidArgument, match="holds no form"):
        await servicer(FakeEngine()).Generate(pb.GenerateRequest(**question(), structured_output=form), CONTEXT)


async def test_several_answers_are_the_first_and_alternatives() -> None:
    asked = pb.GenerateRequest(**question(), n=2, logprobs=pb.LogprobOptions())
    answer = await servicer(FakeEngine()).Generate(asked, CONTEXT)
    (other,) = answer.alternatives
    assert (answer.text, other.text, other.index) == ("A pipe.", "A pipe.", 1)
    assert (len(other.logprobs), other.finish_reason) == (3, pb.FINISH_REASON_STOP)
    stream = servicer(FakeEngine()).StreamGenerate(pb.StreamGenerateRequest(**question(), n=2), CONTEXT)
    *deltas, done = [event async for event in stream]
    assert {event.delta.index for event in deltas} == {0, 1}
    assert [each.index for each in done.done.alternatives] == [1]


async def test_the_load_is_that_of_the_queue_and_of_the_engine() -> None:
    load = await servicer(FakeEngine()).GetLoad(pb.GetLoadRequest(), CONTEXT)
    assert (load.running, load.waiting, load.running_max, load.waiting_max) == (0, 0, 2, 2)
    assert not load.HasField("cache_used")


async def test_models_are_listed_and_read() -> None:
    listed = await servicer(FakeEngine()).ListModels(pb.ListModelsRequest(), CONTEXT)
    model = pb.Model(
        name="models/small",
        engine="fake",
        context_window=100,
        precision="fp32",
        features=sorted(GENERATING),
        adapters=["legal", "support"],
    )
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
