"""The embedded default: a GGUF or OpenVINO model on the CPU, in a worker process of its own (see openvino_worker for why).

This side never computes: it sends requests, hands on what comes back, and notices when the worker dies.
"""

import asyncio
import itertools
import logging
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import Final

from generation_svc import forms
from generation_svc import openvino_wire as wire
from generation_svc.engine import (
    Answer,
    Delta,
    Feature,
    Finished,
    FinishReason,
    GenerationRequest,
    Load,
    ModelInfo,
    StructuredOutput,
    TokenLogprob,
    Usage,
)
from penstock.errors import EngineFailed, FailedPrecondition, PenstockError, by_reason

log = logging.getLogger("generation_svc.openvino")

ENGINE: Final = "openvino"
FEATURES: Final = frozenset({
    Feature.TOP_K, Feature.MIN_P, Feature.REPETITION_PENALTY, Feature.MIN_TOKENS, Feature.INCLUDE_STOP, Feature.LOGPROBS,
})  # fmt: skip
"""OpenVINO's log probabilities are of the model's own distribution, as the contract has it, but of the chosen token alone."""
FORMS: Final = frozenset({Feature.JSON_SCHEMA, Feature.JSON_OBJECT, Feature.REGEX, Feature.CHOICE, Feature.GRAMMAR})
_ANY_OBJECT: Final = '{"type": "object", "additionalProperties": true}'
_LEAVE_S: Final = 5.0
"""Time for the worker to end the step that it is in."""


class OpenVinoEngine:
    """An Engine over a running worker. Made by `start`; `on_death(reason)` is called once if the worker dies by itself."""

    def __init__(
        self,
        *,
        process: subprocess.Popen[bytes],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        model: ModelInfo,
        on_death: Callable[[str], None],
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._model = model
        self._on_death = on_death
        self._ids = itertools.count(1)
        self._inboxes: dict[int, asyncio.Queue[wire.Progress]] = {}
        self._alive = True
        self._cache_used = 0.0
        self._listener = asyncio.create_task(self._listen())

    @classmethod
    async def start(cls, asked: wire.Open, *, served_name: str, on_death: Callable[[str], None]) -> "OpenVinoEngine":
        """Starts the worker and waits until the model is loaded. Raises FailedPrecondition when it cannot be."""
        process, end = _start_worker()
        reader, writer = await asyncio.open_unix_connection(sock=end, limit=wire.LINE_BYTES_MAX)
        try:
            writer.write(wire.encode(asked))
            opened = await _opened(process, reader)
        except BaseException:
            writer.close()
            process.kill()
            process.wait()
            raise
        model = ModelInfo(
            name=served_name,
            engine=ENGINE,
            context_window=opened.context_window,
            precision=opened.precision,
            features=FEATURES | FORMS if opened.takes_forms else FEATURES,
        )
        return cls(process=process, reader=reader, writer=writer, model=model, on_death=on_death)

    async def generate(self, request: GenerationRequest) -> Answer:
        if not self._alive:
            raise _dead()
        number, inbox = next(self._ids), asyncio.Queue[wire.Progress]()
        self._inboxes[number] = inbox
        self._writer.write(wire.encode(_ask(number, request)))
        try:
            while True:
                step = await inbox.get()
                if step.failed is not None:
                    raise _error(step.failed)
                if step.text or step.token_count:
                    yield _delta(step)
                if step.ended is not None:
                    yield _finished(step.ended)
                    return
        finally:
            # Whatever has ended by itself has left already.
            if self._inboxes.pop(number, None) is not None and self._alive:
                self._writer.write(wire.encode(wire.Cancel(id=number)))

    def models(self) -> tuple[ModelInfo, ...]:
        return (self._model,)

    def health(self) -> bool:
        return self._alive

    def load(self) -> Load:
        # What the last step used is no longer used when nothing runs, but no step says so.
        return Load(running=len(self._inboxes), waiting=0, cache_used=self._cache_used if self._inboxes else 0.0)

    async def close(self) -> None:
        self._on_death = _ignore
        self._writer.close()
        await _leave(self._process)
        await self._listener

    async def _listen(self) -> None:
        try:
            with suppress(ConnectionError):
                while line := await self._reader.readline():
                    news = wire.decode_news(line)
                    self._cache_used = news.cache_used
                    for step in news.steps:
                        self._deliver(step)
        finally:
            self._bury()

    def _bury(self) -> None:
        self._alive = False
        failed = wire.Failed(reason=EngineFailed.reason, message=_dead().message)
        for number, inbox in self._inboxes.items():
            inbox.put_nowait(wire.Progress(id=number, failed=failed))
        self._on_death(f"the openvino worker (process {self._process.pid}) has died; its last words are above")

    def _deliver(self, step: wire.Progress) -> None:
        # No inbox: the caller has left, and the worker has not yet read so.
        ended = step.ended is not None or step.failed is not None
        inbox = self._inboxes.pop(step.id, None) if ended else self._inboxes.get(step.id)
        if inbox is not None:
            inbox.put_nowait(step)


def _start_worker() -> tuple["subprocess.Popen[bytes]", socket.socket]:
    # Not asyncio's: under uvloop that forks, of which gRPC warns; Popen does not. It returns as soon as the process exists.
    ours, theirs = socket.socketpair()
    with theirs:
        command = [sys.executable, "-m", "generation_svc.openvino_worker", str(theirs.fileno())]
        return subprocess.Popen(command, pass_fds=(theirs.fileno(),)), ours  # noqa: S603  # Our own module.


async def _leave(process: "subprocess.Popen[bytes]") -> int:
    try:
        return await asyncio.to_thread(process.wait, _LEAVE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


async def _opened(process: subprocess.Popen[bytes], reader: asyncio.StreamReader) -> wire.Opened:
    line = await reader.readline()
    said = wire.decode(line) if line else None
    if isinstance(said, wire.Opened):
        return said
    if isinstance(said, wire.Failed):
        raise _error(said)
    code = await _leave(process)
    message = f"the openvino worker left with exit code {code} while it loaded the model; its last words are above"
    raise FailedPrecondition(message)


def _ask(number: int, request: GenerationRequest) -> wire.Ask:
    return wire.Ask(
        id=number,
        messages=request.turns(),
        prompt=request.prompt,
        sampling=asdict(request.sampling),
        streamed=request.streamed,
        form=_form(request.structured_output) if request.structured_output else None,
        logprobs=request.logprobs is not None,
    )


def _form(asked: StructuredOutput) -> tuple[str, str]:
    """How OpenVINO names a form, and its text."""
    if asked.kind is Feature.CHOICE:
        return "grammar", forms.choice_grammar(asked.choices)
    if asked.kind is Feature.JSON_OBJECT:
        return "json_schema", _ANY_OBJECT
    return asked.kind.value, asked.value


def _delta(step: wire.Progress) -> Delta:
    logprobs = tuple(TokenLogprob(token=text, logprob=logprob, token_id=number) for number, text, logprob in step.logprobs)
    return Delta(text=step.text, token_count=step.token_count, logprobs=logprobs)


def _finished(ended: wire.Ended) -> Finished:
    return Finished(
        finish_reason=FinishReason(ended.finish_reason),
        matched_stop=ended.matched_stop,
        usage=Usage(input_tokens=ended.input_tokens, output_tokens=ended.output_tokens),
        timings=ended.timings,
    )


def _error(failed: wire.Failed) -> PenstockError:
    return by_reason()[failed.reason](failed.message, metadata=failed.metadata)


def _dead() -> EngineFailed:
    return EngineFailed("the openvino worker has died; this process is about to leave and be restarted")


def _ignore(reason: str) -> None:
    """Closed on purpose: nobody needs to know."""
