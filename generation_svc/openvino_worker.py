"""The process in which OpenVINO GenAI runs: `python -m generation_svc.openvino_worker FD`, started by openvino_engine.

A process of its own, because ContinuousBatchingPipeline.step() keeps Python's interpreter lock for as long as it computes
(10 ms for a token, 100 ms for a piece of prompt): in one process with the event loop, every call would stand still as long.
One thread does everything but compile forms: while there is work it takes what was asked, steps, and tells what came of it;
without work it sleeps on the socket. It leaves when the other end closes, also when its parent was killed.
"""

import signal
import socket
import sys
import time
from collections import deque
from dataclasses import dataclass
from typing import Any, Final, Never

from generation_svc.engine import FinishReason, Timings
from generation_svc.openvino_forms import Compiler, Form
from generation_svc.openvino_model import OpenModel, is_given_up, read
from generation_svc.openvino_wire import (
    Ask,
    Cancel,
    Ended,
    Failed,
    News,
    Open,
    Progress,
    WorkerSocket,
    decode,
    encode,
    encode_news,
)
from generation_svc.text_stream import Detokenizer, StopMatcher
from penstock.errors import FailedPrecondition, InvalidArgument, Overloaded, PenstockError

_COMPILE_S_MAX: Final = 30.0
"""What forms.faults lets through takes less than that, on a processor that has time."""


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
    ask: Ask
    scheduled_ns: int
    held: list[Progress]
    output_tokens: int = 0
    first_token_ns: int = 0


class Worker:
    """Steps the pipeline for whatever was asked."""

    def __init__(self, model: OpenModel, end: WorkerSocket) -> None:
        self._model = model
        self._end = end
        self._answers: dict[int, _Answer] = {}
        self._compiler = model.compiler(end.wake)
        self._with_forms: deque[Ask] = deque()
        self._settling = False

    def run(self) -> Never:
        """Until the other end closes: EOFError. Whatever else it raises has ended the engine."""
        pipeline = self._model.pipeline
        while True:
            # A cancelled request's memory is free only after one more step.
            busy = bool(self._answers) or pipeline.has_non_finished_requests() or self._has_turn()
            for line in self._end.lines(wait=not busy):
                self._obey(decode(line))
            self._take_turns()
            if pipeline.has_non_finished_requests():
                pipeline.step()
            self._settling = False
            self._tell(self._progress())

    def _obey(self, said: object) -> None:
        if isinstance(said, Cancel):
            self._with_forms = deque(ask for ask in self._with_forms if ask.id != said.id)
            if answer := self._answers.pop(said.id, None):
                answer.handle.cancel()
                self._settling = True
        elif isinstance(said, Ask) and said.form:
            self._with_forms.append(said)
        elif isinstance(said, Ask):
            self._begin_or_refuse(said)

    def _has_turn(self) -> bool:
        return bool(self._with_forms) and not (self._compiler and self._compiler.is_busy)

    def _take_turns(self) -> None:
        """Gets on with requests that have a form, one at a time: see openvino_forms for why."""
        compiler = self._compiler
        if compiler is None:
            self._refuse_forms(FailedPrecondition("the size of the model's vocabulary is not known, which forms need"))
            return
        if compiler.is_busy:
            self._take_result(compiler)
        while self._with_forms and not compiler.is_busy and not self._has_fresh_form():
            ask = self._with_forms[0]
            if ask.form and not compiler.knows(ask.form):
                compiler.begin(ask.form)
            else:
                self._begin_or_refuse(self._with_forms.popleft())

    def _take_result(self, compiler: Compiler) -> None:
        form, fault = compiler.asked, compiler.result()
        if fault:
            self._refuse_forms(InvalidArgument(f"OpenVINO refuses the form of the answer: {fault}"), form)
        elif fault is None and compiler.busy_s > _COMPILE_S_MAX:
            message = f"the form of the answer takes longer than {_COMPILE_S_MAX:g} s to compile; make it simpler"
            self._refuse_forms(InvalidArgument(message), form)
            self._refuse_forms(Overloaded("another form of an answer takes long to compile; try again, or without a form"))

    def _has_fresh_form(self) -> bool:
        return self._settling or any(answer.ask.form and not answer.output_tokens for answer in self._answers.values())

    def _refuse_forms(self, error: PenstockError, form: Form | None = None) -> None:
        refused = [ask for ask in self._with_forms if form in {None, ask.form}]
        self._with_forms = deque(ask for ask in self._with_forms if ask not in refused)
        self._tell([Progress(id=ask.id, failed=_failed(error)) for ask in refused])

    def _begin_or_refuse(self, ask: Ask) -> None:
        try:
            self._answers[ask.id] = self._begin(ask)
        except PenstockError as error:
            self._tell([Progress(id=ask.id, failed=_failed(error))])
        except (RuntimeError, TypeError, ValueError) as error:  # What the binding raises for what it does not take.
            self._tell([Progress(id=ask.id, failed=_failed(InvalidArgument(f"OpenVINO refuses the request: {error}")))])

    def _begin(self, ask: Ask) -> _Answer:
        ids, max_tokens = self._model.prompt(ask)
        return _Answer(
            id=ask.id,
            handle=self._model.pipeline.add_request(ask.id, ids, self._model.config(ask, max_tokens)),
            prompt_tokens=ids.shape[1],
            detokenizer=Detokenizer(self._model.decode),
            stops=StopMatcher(ask.sampling["stop"], included=ask.sampling["include_stop"]),
            ask=ask,
            scheduled_ns=time.time_ns(),
            held=[],
        )

    def _progress(self) -> list[Progress]:
        """What the last step has brought each answer that it has brought anything."""
        came = [(answer, *read(answer.handle)) for answer in self._answers.values()]
        further = [each for each in came if each[1] or each[3]]
        texts = self._model.decode_all([answer.detokenizer.window(ids) for answer, ids, _, _ in further]) if further else []
        steps = [self._advanced(*each, text) for each, text in zip(further, texts, strict=True)]
        steps += [self._refused(answer) for answer, ids, _, reason in came if not ids and not reason]
        return [step for step in steps if step is not None]

    def _advanced(
        self, answer: _Answer, ids: list[int], logprobs: list[float], finish_reason: FinishReason | None, text: str
    ) -> Progress | None:
        answer.first_token_ns = answer.first_token_ns or time.time_ns()
        answer.output_tokens += len(ids)
        counts = answer.output_tokens > (answer.ask.sampling["min_tokens"] or 0)
        shown, matched_stop = answer.stops.push(answer.detokenizer.fresh(text), counts=counts)
        tokens = self._logprobs(ids, logprobs) if answer.ask.logprobs else []
        if finish_reason is None and not matched_stop:
            return _delta(answer, Progress(id=answer.id, text=shown, token_count=len(ids), logprobs=tokens))
        if matched_stop:
            answer.handle.stop()
            finish_reason = FinishReason.STOP
        else:
            shown += answer.stops.flush()
        del self._answers[answer.id]
        parts = [*answer.held, Progress(id=answer.id, text=shown, token_count=len(ids), logprobs=tokens)]
        return Progress(
            id=answer.id,
            text="".join(part.text for part in parts),
            token_count=sum(part.token_count for part in parts),
            logprobs=[each for part in parts for each in part.logprobs],
            ended=_ended(answer, finish_reason, matched_stop),
        )

    def _logprobs(self, ids: list[int], logprobs: list[float]) -> list[tuple[int, str, float]]:
        return [(token, self._model.token_text(token), logprob) for token, logprob in zip(ids, logprobs, strict=True)]

    def _refused(self, answer: _Answer) -> Progress | None:
        if not is_given_up(answer.handle):
            return None
        del self._answers[answer.id]
        message = "the engine's cache cannot hold this request; raise PENSTOCK_GENERATION_OPENVINO_CACHE_GB"
        return Progress(id=answer.id, failed=_failed(FailedPrecondition(message)))

    def _tell(self, steps: list[Progress]) -> None:
        if steps:
            self._end.send(encode_news(News(steps=steps, cache_used=self._model.cache_used())))


def _ended(answer: _Answer, finish_reason: FinishReason | None, matched_stop: str) -> Ended:
    times = Timings(scheduled_ns=answer.scheduled_ns, first_token_ns=answer.first_token_ns, last_token_ns=time.time_ns())
    return Ended(
        finish_reason=(finish_reason or FinishReason.STOP).value,
        matched_stop=matched_stop,
        input_tokens=answer.prompt_tokens,
        output_tokens=answer.output_tokens,
        timings=times,
    )


def _delta(answer: _Answer, step: Progress) -> Progress | None:
    if answer.ask.streamed:
        return step
    answer.held.append(step)
    return None


def _failed(error: PenstockError) -> Failed:
    return Failed(reason=error.reason, message=error.message, metadata=error.metadata)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
