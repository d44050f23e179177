"""penstock.generation.v1 over the core: from proto, call, to proto."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Final

from generation_svc.engine import (
    Finished,
    FinishReason,
    GenerationRequest,
    Message,
    ModelInfo,
    Role,
    Sampling,
    Usage,
)
from generation_svc.generation import MODEL_PREFIX, Generation
from penstock.dispatcher import CallContext
from penstock.errors import InvalidArgument
from penstock.generation.v1 import generation_pb2 as pb
from penstock.generation.v1 import generation_pb2_grpc

PAGE_SIZE_DEFAULT: Final = 100
PAGE_SIZE_MAX: Final = 1000

_ROLES: Final = {pb.ROLE_SYSTEM: Role.SYSTEM, pb.ROLE_USER: Role.USER, pb.ROLE_ASSISTANT: Role.ASSISTANT}
_FINISH_REASONS: Final = {FinishReason.STOP: pb.FINISH_REASON_STOP, FinishReason.LENGTH: pb.FINISH_REASON_LENGTH}
_OPTIONAL_SAMPLING: Final = (
    "max_tokens", "temperature", "top_p", "top_k", "seed", "presence_penalty", "frequency_penalty",
)  # fmt: skip


class GenerationServicer(generation_pb2_grpc.GenerationServiceServicer):
    def __init__(self, generation: Generation) -> None:
        self._generation = generation

    async def Generate(self, request: pb.GenerateRequest, context: CallContext) -> pb.GenerateResponse:
        model = self._generation.find_model(request.model)
        answer = await self._generation.whole(model, _request(request))
        return pb.GenerateResponse(
            text=answer.text,
            finish_reason=_FINISH_REASONS[answer.finished.finish_reason],
            matched_stop=answer.finished.matched_stop,
            usage=_usage(answer.finished.usage),
            model=MODEL_PREFIX + model.name,
        )

    async def StreamGenerate(
        self,
        request: pb.StreamGenerateRequest,
        context: CallContext,  # The port's signature.
    ) -> AsyncIterator[pb.StreamGenerateResponse]:
        model = self._generation.find_model(request.model)
        async with aclosing(self._generation.stream(model, _request(request))) as parts:
            async for part in parts:
                if isinstance(part, Finished):
                    yield pb.StreamGenerateResponse(done=_done(part, model))
                else:
                    delta = pb.StreamGenerateResponse.Delta(text=part.text, token_count=part.token_count)
                    yield pb.StreamGenerateResponse(delta=delta)

    async def ListModels(self, request: pb.ListModelsRequest, context: CallContext) -> pb.ListModelsResponse:
        page, next_token = _page(self._generation.models(), request.page_size, request.page_token)
        return pb.ListModelsResponse(models=[_model(model) for model in page], next_page_token=next_token)

    async def GetModel(self, request: pb.GetModelRequest, context: CallContext) -> pb.GetModelResponse:
        return pb.GetModelResponse(model=_model(self._generation.find_model(request.name)))


def _request(request: pb.GenerateRequest | pb.StreamGenerateRequest) -> GenerationRequest:
    return GenerationRequest(
        messages=tuple(_message(index, message) for index, message in enumerate(request.messages)),
        prompt=request.prompt,
        sampling=_sampling(request.sampling),
    )


def _message(index: int, message: pb.Message) -> Message:
    role = _ROLES.get(message.role)
    if role is None:
        field = f"messages[{index}].role"
        fault = f"{field} is {message.role}, must be ROLE_SYSTEM, ROLE_USER or ROLE_ASSISTANT"
        raise InvalidArgument(fault, metadata={"field": field})
    return Message(role=role, content=message.content)


def _sampling(sampling: pb.Sampling) -> Sampling:
    given = {name: getattr(sampling, name) for name in _OPTIONAL_SAMPLING if sampling.HasField(name)}
    return Sampling(**given, stop=tuple(sampling.stop))


def _done(finished: Finished, model: ModelInfo) -> pb.StreamGenerateResponse.Done:
    return pb.StreamGenerateResponse.Done(
        finish_reason=_FINISH_REASONS[finished.finish_reason],
        matched_stop=finished.matched_stop,
        usage=_usage(finished.usage),
        model=MODEL_PREFIX + model.name,
    )


def _usage(usage: Usage) -> pb.Usage:
    return pb.Usage(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens, cached_tokens=usage.cached_tokens)


def _model(model: ModelInfo) -> pb.Model:
    return pb.Model(
        name=MODEL_PREFIX + model.name,
        engine=model.engine,
        context_window=model.context_window,
        precision=model.precision,
    )


def _page(models: tuple[ModelInfo, ...], size: int, token: str) -> tuple[tuple[ModelInfo, ...], str]:
    if not 0 <= size <= PAGE_SIZE_MAX:
        message = f"page_size is {size}, must be 1 to {PAGE_SIZE_MAX}, or 0 for {PAGE_SIZE_DEFAULT}"
        raise InvalidArgument(message, metadata={"field": "page_size"})
    names = [model.name for model in models]
    if token and token not in names:
        raise InvalidArgument("page_token is not one that this service gave", metadata={"field": "page_token"})
    start = names.index(token) if token else 0
    end = start + (size or PAGE_SIZE_DEFAULT)
    return models[start:end], names[end] if end < len(names) else ""
