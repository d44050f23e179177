"""penstock.generation.v1 over the core: from proto, call, to proto."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Final

from generation_svc.core import MODEL_PREFIX, Core
from generation_svc.engine import Delta, ModelInfo
from generation_svc.messages import answer_response, delta_event, done_event, request_of, usage_of
from penstock import identity
from penstock.dispatcher import CallContext
from penstock.errors import InvalidArgument
from penstock.generation.v1 import generation_pb2 as pb
from penstock.generation.v1 import generation_pb2_grpc

PAGE_SIZE_DEFAULT: Final = 100
PAGE_SIZE_MAX: Final = 1000


class GenerationServicer(generation_pb2_grpc.GenerationServiceServicer):
    def __init__(self, core: Core) -> None:
        self._core = core

    async def Generate(self, request: pb.GenerateRequest, context: CallContext) -> pb.GenerateResponse:
        model = self._core.find_model(request.model)
        answer = await self._core.whole(model, request_of(request, streamed=False))
        return answer_response(answer, MODEL_PREFIX + model.name)

    async def StreamGenerate(
        self,
        request: pb.StreamGenerateRequest,
        context: CallContext,  # The port's signature.
    ) -> AsyncIterator[pb.StreamGenerateResponse]:
        model = self._core.find_model(request.model)
        async with aclosing(self._core.stream(model, request_of(request, streamed=True))) as parts:
            async for part in parts:
                yield delta_event(part) if isinstance(part, Delta) else done_event(part, MODEL_PREFIX + model.name)

    async def ListModels(self, request: pb.ListModelsRequest, context: CallContext) -> pb.ListModelsResponse:
        page, next_token = _page(self._core.models(), request.page_size, request.page_token)
        return pb.ListModelsResponse(models=[_model(model) for model in page], next_page_token=next_token)

    async def GetModel(self, request: pb.GetModelRequest, context: CallContext) -> pb.GetModelResponse:
        return pb.GetModelResponse(model=_model(self._core.find_model(request.name)))

    async def Embed(self, request: pb.EmbedRequest, context: CallContext) -> pb.EmbedResponse:
        model = self._core.find_model(request.model)
        made = await self._core.embed(model, tuple(request.texts), identity.current().tenant)
        vectors = [pb.EmbedResponse.Vector(values=values) for values in made.vectors]
        return pb.EmbedResponse(vectors=vectors, usage=usage_of(made.usage), model=MODEL_PREFIX + model.name)

    async def Rerank(self, request: pb.RerankRequest, context: CallContext) -> pb.RerankResponse:
        model = self._core.find_model(request.model)
        made = await self._core.rerank(model, request.query, tuple(request.documents), identity.current().tenant)
        return pb.RerankResponse(scores=made.scores, usage=usage_of(made.usage), model=MODEL_PREFIX + model.name)

    async def GetLoad(self, request: pb.GetLoadRequest, context: CallContext) -> pb.GetLoadResponse:
        admission, load = self._core.admission, self._core.load()
        return pb.GetLoadResponse(
            running=admission.running,
            waiting=admission.waiting,
            running_max=admission.running_max,
            waiting_max=admission.waiting_max,
            cache_used=load.cache_used,
            prefix_queried_tokens=load.prefix_queried_tokens,
            prefix_hit_tokens=load.prefix_hit_tokens,
        )


def _model(model: ModelInfo) -> pb.Model:
    return pb.Model(
        name=MODEL_PREFIX + model.name,
        engine=model.engine,
        context_window=model.context_window,
        precision=model.precision,
        features=sorted(model.features),
        adapters=model.adapters,
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
