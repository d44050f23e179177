"""From vLLM's outputs to the port's values. Runs for every token of every answer: nothing is made that is not asked for."""

import time
from collections.abc import Collection, Mapping
from typing import Any, Final

from generation_svc.engine import Delta, Finished, FinishReason, GenerationRequest, Timings, TokenLogprob, Usage
from penstock.errors import EngineFailed, InvalidArgument, PenstockError

_FINISH_REASONS: Final[Mapping[str, FinishReason]] = {
    "stop": FinishReason.STOP,
    "repetition": FinishReason.STOP,
    "length": FinishReason.LENGTH,
}


class AnswerParts:
    """One answer as it comes."""

    def __init__(self, request: GenerationRequest, *, prompt_tokens: int, named: Collection[int] = ()) -> None:
        self._request = request
        self._with_logprobs = request.logprobs is not None
        self._top_asked = request.logprobs.top if request.logprobs else 0
        self._named = frozenset(named)
        self._prompt_tokens = prompt_tokens
        self._output_tokens = 0
        self._token_ids: list[int] | None = [] if request.structured_output is not None else None

    def delta(self, completion: Any) -> Delta | None:
        """What a CompletionOutput adds, if it does."""
        token_ids = completion.token_ids
        if not (token_ids or completion.text):
            return None
        self._output_tokens += len(token_ids)
        if self._token_ids is not None:
            self._token_ids += token_ids
        if not self._with_logprobs:
            return Delta(text=completion.text, token_count=len(token_ids))
        return Delta(text=completion.text, token_count=len(token_ids), logprobs=self._token_logprobs(completion))

    @property
    def token_ids(self) -> list[int]:
        """All tokens so far, of an answer that is held to a form."""
        return self._token_ids or []

    def finished(self, output: Any) -> Finished:
        """The end, by the last RequestOutput. Raises when vLLM ended the answer for a fault."""
        completion = output.outputs[0]
        reason = _FINISH_REASONS.get(completion.finish_reason)
        if reason is None:
            raise self._fault(completion.finish_reason)
        stop = completion.stop_reason
        return Finished(
            finish_reason=reason,
            matched_stop=stop if isinstance(stop, str) else "",
            usage=Usage(
                input_tokens=self._prompt_tokens,
                output_tokens=self._output_tokens,
                cached_tokens=output.num_cached_tokens or 0,
            ),
            timings=timings(output.metrics),
        )

    def _fault(self, finish_reason: object) -> PenstockError:
        form = self._request.structured_output
        if form is not None and finish_reason == "error":
            field = f"structured_output.{form.kind}"
            message = f"{field}: vLLM could not compile this form, or hold the answer to it; make it smaller or simpler"
            return InvalidArgument(message, metadata={"field": field})
        return EngineFailed(f"vLLM ended this answer ({finish_reason}); its log says why")

    def _token_logprobs(self, completion: Any) -> tuple[TokenLogprob, ...]:
        pairs = zip(completion.token_ids, completion.logprobs or (), strict=False)
        return tuple(self._token_logprob(token_id, position) for token_id, position in pairs)

    def _token_logprob(self, token_id: int, position: Mapping[int, Any]) -> TokenLogprob:
        """`position` has the chosen token and those that were asked for, by their numbers."""
        named, top = self._named, self._top_asked
        others = [
            _value(number, found)
            for number, found in position.items()
            if (number in named if named else number != token_id or found.rank <= top)
        ]
        return _value(token_id, position[token_id], tuple(sorted(others, key=lambda other: -other.logprob)))


def _value(token_id: int, found: Any, top: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
    return TokenLogprob(token=found.decoded_token or "", logprob=found.logprob, token_id=token_id, top=top)


def timings(metrics: Any) -> Timings | None:
    """By a RequestStateStats, whose seconds are of the machine's monotonic clock."""
    if metrics is None or not metrics.scheduled_ts:
        return None
    offset_ns = time.time_ns() - time.monotonic_ns()  # Not kept: the other clock may be set while the service runs.
    scheduled, first, last = (
        int(seconds * 1e9) + offset_ns for seconds in (metrics.scheduled_ts, metrics.first_token_ts, metrics.last_token_ts)
    )
    return Timings(scheduled_ns=scheduled, first_token_ns=first, last_token_ns=last)
