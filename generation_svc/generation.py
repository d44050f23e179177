"""The service's core: what stands between a caller and an engine.

    check -> resolve the model -> admit -> engine -> coalesce

Each step is a room of its own; this one puts them in order, under one span. The caller's deadline and departure arrive as a
cancellation, which closes the engine's iterator and so frees its slot.
"""

from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Final

from opentelemetry.trace import Tracer

from generation_svc.admission import Admission
from generation_svc.answer_span import AnswerSpan
from generation_svc.coalescing import Coalescing, coalesce
from generation_svc.engine import Answer, Engine, Finished, GenerationRequest, ModelInfo
from generation_svc.validation import check
from penstock.errors import EngineFailed, Internal, InvalidArgument, ModelNotFound

MODEL_PREFIX: Final = "models/"
DEFAULT_MODEL: Final = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeAnswer:
    """An answer that was waited for."""

    text: str
    finished: Finished


class Generation:
    """Answers requests with one engine. Raises PenstockError only, and asyncio's CancelledError."""

    def __init__(
        self, *, engine: Engine, admission: Admission, coalescing: Coalescing, tracer: Tracer, capture_content: bool = False
    ) -> None:
        self._engine = engine
        self._admission = admission
        self._coalescing = coalescing
        self._tracer = tracer
        self._capture_content = capture_content

    def models(self) -> tuple[ModelInfo, ...]:
        """What is served; the first is "models/default"."""
        return self._engine.models()

    def find_model(self, name: str) -> ModelInfo:
        """The model of a resource name. Raises InvalidArgument for what is no such name, ModelNotFound for no such model."""
        short = name.removeprefix(MODEL_PREFIX)
        if short == name or not short or "/" in short:
            message = f'model is {name!r}, must be "models/" and a name, such as "models/{DEFAULT_MODEL}"'
            raise InvalidArgument(message, metadata={"field": "model"})
        served = self._engine.models()
        if short == DEFAULT_MODEL:
            return served[0]
        for model in served:
            if model.name == short:
                return model
        names = ", ".join(f"{MODEL_PREFIX}{model.name}" for model in served)
        message = f"no model {name!r} is served here; there is {names}"
        raise ModelNotFound(message, metadata={"model": name, "served": names})

    async def whole(self, model: ModelInfo, request: GenerationRequest) -> WholeAnswer:
        """An answer, when it is complete."""
        texts: list[str] = []
        finished: Finished | None = None
        async with aclosing(self._answer(model, replace(request, streamed=False))) as parts:
            async for part in parts:
                if isinstance(part, Finished):
                    finished = part
                else:
                    texts.append(part.text)
        if finished is None:
            raise Internal("an engine ended an answer without saying that it had finished")
        return WholeAnswer(text="".join(texts), finished=finished)

    async def stream(self, model: ModelInfo, request: GenerationRequest) -> Answer:
        """An answer as it is made: deltas, coalesced, and at last Finished."""
        async with aclosing(coalesce(self._answer(model, request), self._coalescing)) as parts:
            async for part in parts:
                yield part

    async def _answer(self, model: ModelInfo, request: GenerationRequest) -> Answer:
        check(request)
        with AnswerSpan.around(self._tracer, request, model, capture_content=self._capture_content) as span:
            if not self._engine.health():
                raise EngineFailed("the engine has died; this process is about to leave and be restarted")
            async with self._admission.slot():
                span.admitted()
                traced = replace(request, trace_headers=span.trace_headers())
                async with aclosing(self._engine.generate(traced)) as parts:
                    async for part in parts:
                        span.saw(part)
                        yield part
