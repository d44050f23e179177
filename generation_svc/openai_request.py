"""What is sent to an OpenAI-compatible endpoint: a request of ours as a body in the endpoint's dialect. Pure.

A body carries no field that the dialect does not have; what cannot be said in it is refused.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from generation_svc import features
from generation_svc.engine import Feature, GenerationRequest, LogprobOptions, ModelInfo, StructuredOutput
from generation_svc.openai_dialect import SGLANG, TOP_LOGPROBS_MAX, Dialect
from penstock.errors import InvalidArgument, PromptTooLong


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """How one endpoint is asked for one model's answers."""

    dialect: Dialect
    upstream_model: str
    max_tokens_default: int
    max_tokens_field: str = "max_tokens"
    priorities: bool = False

    def check(self, request: GenerationRequest, model: ModelInfo) -> None:
        """Raises what is known without asking: PromptTooLong, UnsupportedFeature or InvalidArgument for a raw prompt."""
        _check_room(request.sampling.max_tokens or 0, model.context_window)
        if request.messages:
            return
        lacking = [feature for feature in features.asked(request) if feature in self.dialect.chat_only]
        if lacking:
            raise features.unsupported(model, *lacking)
        most = self.dialect.raw_top_logprobs_max
        if request.logprobs is not None and request.logprobs.top > most:
            message = f"logprobs.top is {request.logprobs.top}, but the endpoint gives at most {most} for a raw prompt"
            raise InvalidArgument(message, metadata={"field": "logprobs.top"})

    def model(self, request: GenerationRequest) -> str:
        """The endpoint's name of what is asked: an adapter is a model to it."""
        return request.adapter or self.upstream_model

    def body(self, request: GenerationRequest, named: tuple[int, ...] = ()) -> dict[str, Any]:
        """The body. `named` are the numbers of the tokens that logprobs name."""
        sampling = request.sampling
        body: dict[str, Any] = {"model": self.model(request), **self._what(request), **sampling.numbers()}
        if sampling.stop:
            body["stop"] = sampling.stop
        if sampling.include_stop:
            body[self.dialect.include_stop] = True
        if request.logprobs is not None:
            body |= self._logprobs(request.logprobs, chat=bool(request.messages), named=named)
        if request.structured_output is not None:
            body |= self._form(request.structured_output)
        return body | dict(self._rest(request))

    def _what(self, request: GenerationRequest) -> dict[str, Any]:
        max_tokens = request.sampling.max_tokens or self.max_tokens_default
        if not request.messages:
            return {"prompt": request.prompt, "max_tokens": max_tokens}
        return {"messages": request.turns(), self.max_tokens_field: max_tokens}

    def _logprobs(self, asked: LogprobOptions, *, chat: bool, named: tuple[int, ...]) -> dict[str, Any]:
        if chat:
            # One more than is wanted, where the chosen token takes a place: what is too much is cut off when it is read.
            top = min(asked.top + self.dialect.chosen_stands_first, TOP_LOGPROBS_MAX)
            body: dict[str, Any] = {"logprobs": True, **({"top_logprobs": top} if asked.top else {})}
        else:
            body = {"logprobs": asked.top}
        # The numbers of the chosen tokens are needed to tell which of the named ones were chosen.
        return body | ({"logprob_token_ids": named, "return_token_ids": True} if named else {})

    def _form(self, form: StructuredOutput) -> dict[str, Any]:
        match form.kind:
            case Feature.JSON_OBJECT:
                return {"response_format": {"type": "json_object"}}
            case Feature.JSON_SCHEMA:
                # strict: OpenAI takes a schema for a wish without it.
                schema = {"name": "answer", "schema": _schema(form.value), "strict": True}
                return {"response_format": {"type": "json_schema", "json_schema": schema}}
            case Feature.REGEX if self.dialect is SGLANG:
                return {"regex": form.value}
            case Feature.GRAMMAR if self.dialect is SGLANG:
                return {"ebnf": form.value}
            case Feature.CHOICE:
                return {"structured_outputs": {"choice": form.choices}}
            case kind:
                return {"structured_outputs": {kind.value: form.value}}

    def _rest(self, request: GenerationRequest) -> Iterator[tuple[str, Any]]:
        if request.cache_salt:
            # vLLM takes 128 characters, and not all of them; whose the cache is shows as well by a hash.
            yield "cache_salt", hashlib.sha256(request.cache_salt.encode()).hexdigest()
        if self.priorities and request.priority:
            yield "priority", -request.priority  # vLLM's smaller ones go first.
        if request.streamed:
            yield "stream", True
            every = {"continuous_usage_stats": True} if self.dialect.counts_each_event else {}
            yield "stream_options", {"include_usage": True, **every}


def _schema(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        message = f"the schema is not JSON: {error}"
        raise InvalidArgument(message, metadata={"field": "structured_output.json_schema"}) from error


def _check_room(max_tokens: int, window: int) -> None:
    """Only the endpoint can count its prompt's tokens; what leaves room for none is known here."""
    if window and max_tokens >= window:
        message = f"{max_tokens} tokens for the answer leave none for a prompt in the model's window of {window}"
        raise PromptTooLong(message, metadata={"max_tokens": str(max_tokens), "context_window": str(window)})
