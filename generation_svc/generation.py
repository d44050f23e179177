"""The service's core: what stands between a caller and an engine.

    check -> resolve the model -> admit -> engine (several times for several answers) -> coalesce

Each step is a room of its own; this one puts them in order, under one span. The caller's deadline and departure arrive as a
cancellation, which closes the engine's iterator and so frees its slot.
"""

import hashlib
from contextlib import aclosing
from dataclasses import replace

from opentelemetry.trace import Tracer

from generation_svc import features
from generation_svc.admission import Admission
from generation_svc.answer_span import AnswerSpan
from generation_svc.coalescing import Coalescing, coalesce
from generation_svc.core import Core, Text, WholeAnswer
from generation_svc.engine import Answer, Engine, Feature, Finished, GenerationRequest, ModelInfo
from generation_svc.metrics import GenerationMetrics
from generation_svc.several import several
from generation_svc.validation import check
from generation_svc.watch import Watch
from penstock.errors import Internal


class Generation(Core):
    """Answers requests with one engine. Raises PenstockError only, and asyncio's CancelledError."""

    def __init__(
        self,
        *,
        engine: Engine,
        admission: Admission,
        coalescing: Coalescing,
        tracer: Tracer,
        metrics: GenerationMetrics,
        capture_content: bool = False,
        cache_per_tenant: bool = True,
    ) -> None:
        super().__init__(engine, admission)
        self._engine = engine
        # That it generates goes without saying for an engine of this kind; callers are told.
        self._models = tuple(replace(model, features=model.features | {Feature.GENERATE}) for model in engine.models())
        self._coalescing = coalescing
        self._tracer = tracer
        self._metrics = metrics
        self._capture_content = capture_content
        self._cache_per_tenant = cache_per_tenant

    def models(self) -> tuple[ModelInfo, ...]:
        return self._models

    async def whole(self, model: ModelInfo, request: GenerationRequest) -> WholeAnswer:
        """The answers, when they are complete."""
        texts = tuple(Text() for _ in range(max(1, request.n)))
        finished: Finished | None = None
        asked = replace(request, streamed=False) if request.streamed else request
        async with aclosing(self._answer(model, asked)) as parts:
            async for part in parts:
                if isinstance(part, Finished):
                    finished = part
                else:
                    texts[part.index].pieces.append(part.text)
                    texts[part.index].logprobs += part.logprobs
        if finished is None:
            raise Internal("an engine ended an answer without saying that it had finished")
        return WholeAnswer(texts=texts, finished=finished)

    async def stream(self, model: ModelInfo, request: GenerationRequest) -> Answer:
        """The answers as they are made: deltas, coalesced, and at last Finished."""
        async with aclosing(coalesce(self._answer(model, request), self._coalescing)) as parts:
            async for part in parts:
                yield part

    async def _answer(self, model: ModelInfo, request: GenerationRequest) -> Answer:
        watch = Watch()
        span = AnswerSpan(self._tracer, request, model, capture_content=self._capture_content)
        failure: BaseException | None = None
        try:
            async with aclosing(self._admitted(model, request, watch, span)) as parts:
                async for part in parts:
                    watch.saw(part)
                    span.saw(part)
                    yield replace(part, timings=watch.timings()) if isinstance(part, Finished) else part
        except BaseException as error:
            failure = error
            raise
        finally:
            span.end(watch, failure)
            self._metrics.ended(model, watch, failure)

    async def _admitted(self, model: ModelInfo, request: GenerationRequest, watch: Watch, span: AnswerSpan) -> Answer:
        check(request)
        features.check(request, model)
        self.check_alive()
        async with self.admission.slot(tenant=request.tenant, priority=request.priority, slots=request.n):
            watch.admitted()
            asked = replace(request, trace_headers=span.trace_headers(), cache_salt=self._salt(model, request))
            generate = self._engine.generate
            async with aclosing(generate(asked) if request.n == 1 else several(generate, asked)) as parts:
                async for part in parts:
                    yield part

    def _salt(self, model: ModelInfo, request: GenerationRequest) -> str:
        """What keeps a tenant's prompts apart in the prefix cache: a shared one tells by its speed what others have asked."""
        tenant = request.tenant if self._cache_per_tenant and Feature.CACHE_SALT in model.features else ""
        if not tenant and not request.cache_salt:
            return ""
        return hashlib.sha256(f"{tenant}\0{request.cache_salt}".encode()).hexdigest()
