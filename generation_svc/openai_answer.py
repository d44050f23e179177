"""An OpenAI-compatible endpoint's answer, read: events of a stream, or one object. Pure, but for the clock.

Of a stream every event is read as it comes; a whole answer is one object, at a tenth of the cost of a hundred events.
"""

import time
from collections.abc import AsyncIterator
from typing import Any, Final

import orjson

from generation_svc.engine import Answer, Delta, Finished, FinishReason, GenerationRequest, Timings, TokenLogprob, Usage
from generation_svc.openai_dialect import Dialect
from generation_svc.openai_errors import error_in_stream, not_the_dialect
from generation_svc.openai_logprobs import LogprobReader
from generation_svc.sse import SseParser
from penstock.errors import BackendUnavailable, PenstockError, UnsupportedFeature

_DONE: Final = b"[DONE]"


class AnswerReader:
    """Reads choices, and gathers what the end of the answer says. Times are those at which things came here."""

    def __init__(self, request: GenerationRequest, dialect: Dialect, named: tuple[tuple[str, int], ...] = ()) -> None:
        asked = request.logprobs
        self._logprobs = None if asked is None else LogprobReader(top=asked.top, named=named)
        self._matched_stop_field = dialect.matched_stop
        self._sent_ns = time.time_ns()
        self._first_ns = self._last_ns = 0
        self._usage: Any = {}
        self._reason = ""
        self._matched_stop = ""
        self._counted = 0

    def take(self, event: Any) -> Delta | None:
        """What one event adds, None if nothing. Raises the error that it carries."""
        if error := event.get("error"):
            raise error_in_stream(error)
        try:
            return self._take(event)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise not_the_dialect() from error

    def _take(self, event: Any) -> Delta | None:
        if usage := event.get("usage"):
            self._usage = usage
        if not (choices := event.get("choices")):
            return None
        choice = choices[0]
        self._reason = str(choice.get("finish_reason") or self._reason)
        stop = choice.get(self._matched_stop_field)  # The stop text, or the number of a token that stops.
        self._matched_stop = stop if isinstance(stop, str) else self._matched_stop
        text = _text(choice)
        logprobs = self._read_logprobs(choice, text)
        count = self._count(text, logprobs, usage)
        if not text and not count:
            return None
        self._last_ns = time.time_ns()
        self._first_ns = self._first_ns or self._last_ns
        self._counted += count
        return Delta(text=text, token_count=count, logprobs=logprobs)

    def _read_logprobs(self, choice: Any, text: str) -> tuple[TokenLogprob, ...]:
        if self._logprobs is None:
            return ()
        if text and choice.get("logprobs") is None:
            raise _ignored("logprobs")
        return self._logprobs.read(choice)

    def _count(self, text: str, logprobs: tuple[TokenLogprob, ...], usage: Any) -> int:
        """Tokens of this event: what the usage that it carries adds, else its logprobs; else an event is about one token."""
        if usage:
            return max(0, (usage.get("completion_tokens") or 0) - self._counted)
        return len(logprobs) or (1 if text else 0)

    def finished(self) -> Finished:
        """The end. Raises BackendUnavailable if it was the connection that ended, or the endpoint gave up."""
        if self._reason in {"", "abort", "error"}:
            message = "the endpoint ended the answer before it was finished"
            raise BackendUnavailable(message, metadata={"service": "openai"})
        usage, now_ns = _usage(self._usage), time.time_ns()
        return Finished(
            finish_reason=FinishReason.LENGTH if self._reason == "length" else FinishReason.STOP,
            matched_stop=self._matched_stop,
            usage=usage if usage.output_tokens else Usage(output_tokens=self._counted),
            timings=Timings(
                scheduled_ns=self._sent_ns, first_token_ns=self._first_ns or now_ns, last_token_ns=self._last_ns or now_ns
            ),
        )


async def streamed(chunks: AsyncIterator[bytes], reader: AnswerReader) -> Answer:
    """The deltas of a stream, up to its [DONE], which some endpoints leave out."""
    parser = SseParser()
    async for chunk in chunks:
        for event in parser.feed(chunk):
            if event == _DONE:
                return
            if (delta := reader.take(json_object(event))) is not None:
                yield delta


def json_object(data: bytes) -> Any:
    """A JSON object. Raises BackendUnavailable for anything else."""
    try:
        parsed = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise not_the_dialect() from error
    if not isinstance(parsed, dict):
        raise not_the_dialect()
    return parsed


def _text(choice: Any) -> str:
    """Of a conversation's event, a whole conversation's answer, or a raw prompt's."""
    text = (choice.get("delta") or choice.get("message") or {}).get("content") or choice.get("text") or ""
    if not isinstance(text, str):
        raise TypeError
    return text


def _usage(usage: Any) -> Usage:
    try:
        details = usage.get("prompt_tokens_details") or {}
        return Usage(
            input_tokens=usage.get("prompt_tokens") or 0,
            output_tokens=usage.get("completion_tokens") or 0,
            cached_tokens=details.get("cached_tokens") or 0,
        )
    except AttributeError as error:
        raise not_the_dialect() from error


def _ignored(feature: str) -> PenstockError:
    message = f"the endpoint passed over {feature} without a word, so it cannot do this; leave it out, or ask another model"
    return UnsupportedFeature(message, metadata={"features": feature, "engine": "openai"})
