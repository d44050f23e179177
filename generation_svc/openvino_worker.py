"""The process in which OpenVINO GenAI runs: `python -m generation_svc.openvino_worker FD`, started by openvino_engine.

A process of its own, because ContinuousBatchingPipeline.step() keeps Python's interpreter lock for as long as it computes
(10 ms for a token, 100 ms for a piece of prompt): in one process with the event loop, every call would stand still as long.
One thread does everything: while there is work it takes what was asked, steps, and tells what came of it; without work it
sleeps on the socket. It leaves when the other end closes, also when its parent was killed.
"""

import random
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Never

import openvino_genai
import orjson

from generation_svc.engine import FinishReason, Timings, answer_room
from generation_svc.gguf_header import read_header
from generation_svc.openvino_wire import (
    Ask,
    Cancel,
    Ended,
    Failed,
    Open,
    Opened,
    Progress,
    WorkerSocket,
    decode,
    encode,
    encode_progress,
)
from generation_svc.text_stream import Detokenizer, StopMatcher
from penstock.errors import EmptyText, FailedPrecondition, InvalidArgument, PenstockError

_WINDOW_TOKENS_IF_UNKNOWN: Final = 2048
_COUNTED_WINDOWS_MAX: Final = 16
_FINISH_REASONS: Final = {
    openvino_genai.GenerationFinishReason.STOP: FinishReason.STOP,
    openvino_genai.GenerationFinishReason.LENGTH: FinishReason.LENGTH,
}


def main(descriptor: int) -> int:
    # Ctrl-C and SIGTERM go to the whole group; the service drains and then closes the socket.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    end = WorkerSocket(socket.socket(fileno=descriptor))
    asked = decode(end.lines(wait=True)[0])
    if not isinstance(asked, Open):
        message = f"the first line must be Open, was {asked}"
        raise TypeError(message)
    try:
        model = OpenModel(asked)
    except PenstockError as error:
        end.send(encode(_failed(error)))
        return 1
    end.send(encode(model.opened))
    try:
        Worker(model, end).run()
    except EOFError:
        return 0


class OpenModel:
    """A loaded model with its tokenizer and its limits. Raises FailedPrecondition when it cannot be loaded."""

    def __init__(self, asked: Open) -> None:
        path = Path(asked.model_path)
        header = read_header(path) if path.suffix == ".gguf" else None
        self._max_tokens_default = asked.max_tokens_default
        self.pipeline = _load(asked)
        self.tokenizer = self.pipeline.get_tokenizer()
        own_window = header.context_window if header else _window_of_folder(path)
        window = self._uncut(asked.context_window or own_window or _WINDOW_TOKENS_IF_UNKNOWN)
        if asked.context_window > window or (own_window and asked.context_window > own_window):
            message = f"the context window of {asked.context_window} tokens is larger than the model's {own_window or window}"
            raise FailedPrecondition(message)
        self.opened = Opened(context_window=window, precision=header.precision if header else "")

    def prompt(self, ask: Ask) -> tuple[Any, int]:
        """The prompt's tokens as a tensor [1, tokens], and how many may follow it.

        Raises PromptTooLong, EmptyText, FailedPrecondition or InvalidArgument.
        """
        text = self._text(ask)
        # The tokenizer cuts at its own limit without a word, so what may be too long is counted in pieces before.
        if len(text) > self.opened.context_window:
            self._room(ask, self._count(text))
        ids = self.tokenizer.encode(text, add_special_tokens=not ask.messages).input_ids
        if ids.shape[1] == 0:
            raise EmptyText("the prompt has no tokens")
        return ids, self._room(ask, ids.shape[1])

    def config(self, sampling: dict[str, Any], max_tokens: int) -> Any:
        """OpenVINO's configuration of one request, on top of the model's own."""
        config = self.pipeline.get_config()
        config.max_new_tokens = max_tokens
        for name in ("top_p", "top_k", "presence_penalty", "frequency_penalty"):
            if sampling[name] is not None:
                setattr(config, name, sampling[name])
        if sampling["temperature"] is not None:
            config.do_sample = sampling["temperature"] > 0
            config.temperature = sampling["temperature"] or 1.0
        elif any(sampling[name] is not None for name in ("top_p", "top_k", "seed")):
            config.do_sample = True
        # OpenVINO's own default is the same seed for everyone.
        config.rng_seed = random.getrandbits(32) if sampling["seed"] is None else sampling["seed"]
        return config

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(list(ids))
        return text

    def _text(self, ask: Ask) -> str:
        if not ask.messages:
            return ask.prompt
        if not self.tokenizer.chat_template:
            raise FailedPrecondition("the model has no chat template; give a prompt instead of messages")
        try:
            text: str = self.tokenizer.apply_chat_template(ask.messages, add_generation_prompt=True)
        except RuntimeError as error:
            message = f"the model's chat template does not take these messages: {error}"
            raise InvalidArgument(message, metadata={"field": "messages"}) from error
        return text

    def _room(self, ask: Ask, prompt_tokens: int) -> int:
        return answer_room(
            prompt_tokens=prompt_tokens,
            max_tokens=ask.sampling["max_tokens"],
            max_tokens_default=self._max_tokens_default,
            window=self.opened.context_window,
        )

    def _count(self, text: str) -> int:
        """Tokens of a text of any length, or of its beginning once that is far over the window."""
        tokens = 0
        for piece in _pieces(text):
            tokens += int(self.tokenizer.encode(piece, add_special_tokens=False).input_ids.shape[1])
            if tokens > _COUNTED_WINDOWS_MAX * self.opened.context_window:
                break
        return tokens

    def _uncut(self, window: int) -> int:
        """The window, or the tokenizer's own limit where that is smaller: longer prompts would be cut without a word."""
        tokens: int = self.tokenizer.encode("a b " * window).input_ids.shape[1]
        return min(window, tokens)


@dataclass(slots=True, kw_only=True)
class _Answer:
    """A request that the pipeline works on."""

    id: int
    handle: Any
    prompt_tokens: int
    detokenizer: Detokenizer
    stops: StopMatcher
    streamed: bool
    scheduled_ns: int
    held: list[str]
    held_tokens: int = 0
    output_tokens: int = 0
    first_token_ns: int = 0


class Worker:
    """Steps the pipeline for whatever was asked."""

    def __init__(self, model: OpenModel, end: WorkerSocket) -> None:
        self._model = model
        self._end = end
        self._answers: dict[int, _Answer] = {}

    def run(self) -> Never:
        """Until the other end closes: EOFError. Whatever else it raises has ended the engine."""
        pipeline = self._model.pipeline
        while True:
            # A cancelled request's memory is free only after one more step.
            busy = bool(self._answers) or pipeline.has_non_finished_requests()
            for line in self._end.lines(wait=not busy):
                self._obey(decode(line))
            if pipeline.has_non_finished_requests():
                pipeline.step()
            self._tell([progress for answer in [*self._answers.values()] if (progress := self._progress(answer))])

    def _obey(self, said: object) -> None:
        if isinstance(said, Cancel):
            if answer := self._answers.pop(said.id, None):
                answer.handle.cancel()
        elif isinstance(said, Ask):
            try:
                self._answers[said.id] = self._begin(said)
            except PenstockError as error:
                self._tell([Progress(id=said.id, failed=_failed(error))])
            except (RuntimeError, TypeError, ValueError) as error:  # What the binding raises for what it does not take.
                self._tell([Progress(id=said.id, failed=_failed(InvalidArgument(f"OpenVINO refuses the request: {error}")))])

    def _begin(self, ask: Ask) -> _Answer:
        ids, max_tokens = self._model.prompt(ask)
        handle = self._model.pipeline.add_request(ask.id, ids, self._model.config(ask.sampling, max_tokens))
        return _Answer(
            id=ask.id,
            handle=handle,
            prompt_tokens=ids.shape[1],
            detokenizer=Detokenizer(self._model.decode),
            stops=StopMatcher(ask.sampling["stop"]),
            streamed=ask.streamed,
            scheduled_ns=time.time_ns(),
            held=[],
        )

    def _progress(self, answer: _Answer) -> Progress | None:
        """What the last step has brought this answer."""
        ids, finish_reason = _read(answer.handle)
        if not ids and finish_reason is None:
            return self._refused(answer)
        answer.first_token_ns = answer.first_token_ns or time.time_ns()
        answer.output_tokens += len(ids)
        text, matched_stop = answer.stops.push(answer.detokenizer.push(ids))
        if finish_reason is None and not matched_stop:
            return _delta(answer, text, len(ids))
        if matched_stop:
            answer.handle.stop()
        else:
            text += answer.stops.flush()
        del self._answers[answer.id]
        ended = Ended(
            finish_reason=(FinishReason.STOP if matched_stop else finish_reason or FinishReason.STOP).value,
            matched_stop=matched_stop,
            input_tokens=answer.prompt_tokens,
            output_tokens=answer.output_tokens,
            timings=Timings(
                scheduled_ns=answer.scheduled_ns, first_token_ns=answer.first_token_ns, last_token_ns=time.time_ns()
            ),
        )
        whole, tokens = "".join([*answer.held, text]), answer.held_tokens + len(ids)
        return Progress(id=answer.id, text=whole, token_count=tokens, ended=ended)

    def _refused(self, answer: _Answer) -> Progress | None:
        """OpenVINO gives up, without saying so, on a request that its cache cannot hold."""
        if answer.handle.get_status() != openvino_genai.GenerationStatus.IGNORED:
            return None
        del self._answers[answer.id]
        message = "the engine's cache cannot hold this request; raise PENSTOCK_GENERATION_OPENVINO_CACHE_GB"
        return Progress(id=answer.id, failed=_failed(FailedPrecondition(message)))

    def _tell(self, steps: list[Progress]) -> None:
        if steps:
            self._end.send(encode_progress(steps))


def _delta(answer: _Answer, text: str, token_count: int) -> Progress | None:
    if answer.streamed:
        return Progress(id=answer.id, text=text, token_count=token_count)
    answer.held.append(text)
    answer.held_tokens += token_count
    return None


def _read(handle: Any) -> tuple[list[int], FinishReason | None]:
    ids: list[int] = []
    finish_reason = None
    while handle.can_read():
        for output in handle.read().values():
            ids += output.generated_ids
            finish_reason = _FINISH_REASONS.get(output.finish_reason, finish_reason)
    return ids, finish_reason


def _load(asked: Open) -> Any:
    scheduler = openvino_genai.SchedulerConfig()
    scheduler.cache_size = asked.cache_gb
    scheduler.max_num_seqs = asked.sequences_max
    scheduler.max_num_batched_tokens = asked.batched_tokens_max
    scheduler.enable_prefix_caching = asked.prefix_caching
    properties = {"INFERENCE_NUM_THREADS": asked.threads} if asked.threads else {}
    try:
        return openvino_genai.ContinuousBatchingPipeline(asked.model_path, scheduler, asked.device, properties, {}, {})
    except RuntimeError as error:
        message = f"OpenVINO cannot load {asked.model_path} on {asked.device}: {error}"
        raise FailedPrecondition(message) from error


def _pieces(text: str, characters: int = 4096) -> Iterator[str]:
    """The text in pieces that no tokenizer cuts, parted before spaces, where tokens part too."""
    start = 0
    while start < len(text):
        space = text.find(" ", start + characters, start + 2 * characters)
        end = space if space > 0 else start + 2 * characters
        yield text[start:end]
        start = end


def _window_of_folder(path: Path) -> int:
    config = path / "config.json"
    window = orjson.loads(config.read_bytes()).get("max_position_embeddings") if config.is_file() else None
    return window if isinstance(window, int) else 0


def _failed(error: PenstockError) -> Failed:
    return Failed(reason=error.reason, message=error.message, metadata=error.metadata)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
