"""The process in which OpenVINO GenAI runs: `python -m generation_svc.openvino_worker FD`, started by openvino_engine.

A process of its own, because ContinuousBatchingPipeline.step() keeps Python's interpreter lock for as long as it computes
(10 ms for a token, 100 ms for a piece of prompt): in one process with the event loop, every call would stand still as long.
One thread does everything: while there is work it takes what was asked, steps, and tells what came of it; without work it
sleeps on the socket. It leaves when the other end closes, also when its parent was killed.
"""

import signal
import socket
import sys
import time
from dataclasses import dataclass
from typing import Any, Never

from generation_svc.engine import FinishReason, Timings
from generation_svc.openvino_model import OpenModel, is_given_up, read
from generation_svc.openvino_wire import (
    Ask,
    Cancel,
    Ended,
    Failed,
    Open,
    Progress,
    WorkerSocket,
    decode,
    encode,
    encode_progress,
)
from generation_svc.text_stream import Detokenizer, StopMatcher
from penstock.errors import FailedPrecondition, InvalidArgument, PenstockError


def main(descriptor: int) -> int:
    # Ctrl-C and SIGTERM go to the whole group; the service drains and then closes the socket.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    end = WorkerSocket(socket.socket(fileno=descriptor))
    while not (lines := end.lines(wait=True)):
        pass  # Half a line has come.
    asked = decode(lines[0])
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
            self._tell(self._progress())

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

    def _progress(self) -> list[Progress]:
        """What the last step has brought each answer that it has brought anything."""
        came = [(answer, *read(answer.handle)) for answer in self._answers.values()]
        further = [(answer, ids, reason) for answer, ids, reason in came if ids or reason]
        texts = self._model.decode_all([answer.detokenizer.window(ids) for answer, ids, _ in further]) if further else []
        steps = [self._advanced(*each, text) for each, text in zip(further, texts, strict=True)]
        steps += [self._refused(answer) for answer, ids, reason in came if not ids and not reason]
        return [step for step in steps if step is not None]

    def _advanced(self, answer: _Answer, ids: list[int], finish_reason: FinishReason | None, text: str) -> Progress | None:
        answer.first_token_ns = answer.first_token_ns or time.time_ns()
        answer.output_tokens += len(ids)
        shown, matched_stop = answer.stops.push(answer.detokenizer.fresh(text))
        if finish_reason is None and not matched_stop:
            return _delta(answer, shown, len(ids))
        if matched_stop:
            answer.handle.stop()
            finish_reason = FinishReason.STOP
        else:
            shown += answer.stops.flush()
        del self._answers[answer.id]
        whole, tokens = "".join([*answer.held, shown]), answer.held_tokens + len(ids)
        return Progress(id=answer.id, text=whole, token_count=tokens, ended=_ended(answer, finish_reason, matched_stop))

    def _refused(self, answer: _Answer) -> Progress | None:
        if not is_given_up(answer.handle):
            return None
        del self._answers[answer.id]
        message = "the engine's cache cannot hold this request; raise PENSTOCK_GENERATION_OPENVINO_CACHE_GB"
        return Progress(id=answer.id, failed=_failed(FailedPrecondition(message)))

    def _tell(self, steps: list[Progress]) -> None:
        if steps:
            self._end.send(encode_progress(steps))


def _ended(answer: _Answer, finish_reason: FinishReason | None, matched_stop: str) -> Ended:
    times = Timings(scheduled_ns=answer.scheduled_ns, first_token_ns=answer.first_token_ns, last_token_ns=time.time_ns())
    return Ended(
        finish_reason=(finish_reason or FinishReason.STOP).value,
        matched_stop=matched_stop,
        input_tokens=answer.prompt_tokens,
        output_tokens=answer.output_tokens,
        timings=times,
    )


def _delta(answer: _Answer, text: str, token_count: int) -> Progress | None:
    if answer.streamed:
        return Progress(id=answer.id, text=text, token_count=token_count)
    answer.held.append(text)
    answer.held_tokens += token_count
    return None


def _failed(error: PenstockError) -> Failed:
    return Failed(reason=error.reason, message=error.message, metadata=error.metadata)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
