"""Compiling forms of answers beside the pipeline's work, and never in it.

OpenVINO compiles a form in the pipeline's step, where it holds up every stream, and a form that it refuses there leaves the
pipeline broken for good. So each form first goes through a pipeline of its own, in a thread of its own: a model that computes
nothing, over the same tokenizer, which is what OpenVINO keeps compiled forms with. If that fails nothing is broken, and if it
succeeds the step finds the form compiled.

OpenVINO does not guard its list of forms against two threads. Whoever uses a Compiler therefore has a request with a form in
the pipeline, between its beginning and its first token, or a form being compiled, but never both.
"""

import re
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import openvino
import openvino_genai
from openvino import opset13 as operations

Form = tuple[str, str]
"""How OpenVINO names the kind of a form, and its text."""

_SOURCE_LINE: Final = re.compile(r"^.*\.(?:cc|cpp|hpp):\d+:\s*", re.DOTALL)
_KEPT_MAX: Final = 256
"""Compiled forms that are kept. OpenVINO has no bound of its own; one takes 0.1 to 30 MB."""


class Compiler:
    """Compiles one form at a time, `asked`. `done` is called, in another thread, when there is a result."""

    def __init__(self, tokenizer: Any, vocabulary: int, done: Callable[[], None]) -> None:
        self._tokenizer = tokenizer
        self._pipeline = _pipeline_of_nothing(tokenizer, vocabulary)
        self._other = _pipeline_of_nothing(tokenizer, vocabulary + 1)
        self._done = done
        self._compiled: set[Form] = set()
        self.asked: Form | None = None
        self._since = 0.0
        self._results: list[str] = []
        self._wanted = threading.Semaphore(0)
        # A daemon: a form that compiles without an end must not keep the process from leaving.
        threading.Thread(target=self._work, daemon=True, name="forms").start()

    def knows(self, form: Form) -> bool:
        """Whether it has compiled it."""
        return form in self._compiled

    def begin(self, form: Form) -> None:
        """Begins to compile; nothing else may be under way."""
        if len(self._compiled) >= _KEPT_MAX:
            self._forget()
        self.asked, self._since = form, time.monotonic()
        self._wanted.release()

    @property
    def is_busy(self) -> bool:
        """Whether a form is being compiled, or its result has not been taken."""
        return self.asked is not None

    @property
    def busy_s(self) -> float:
        """For how long it has been."""
        return time.monotonic() - self._since if self.asked else 0.0

    def result(self) -> str | None:
        """What is wrong with the form that was compiled last, empty if nothing is; None while there is no result."""
        if not self._results:
            return None
        fault, form = self._results.pop(), self.asked
        self.asked = None
        if not fault and form:
            self._compiled.add(form)
        return fault

    def _work(self) -> None:
        while True:
            self._wanted.acquire()
            if self.asked is not None:
                self._results.append(self._tried(self.asked))
                self._done()

    def _tried(self, form: Form) -> str:
        config = self._config()
        config.structured_output_config = structured_output(form)
        try:
            self._pipeline.generate(_one_token(), config)
        except RuntimeError as error:
            return _SOURCE_LINE.sub("", str(error)).strip() or "it gives no reason"
        return ""

    def _forget(self) -> None:
        """OpenVINO drops what it has compiled when a model with another vocabulary asks its tokenizer for it."""
        self._compiled.clear()
        for pipeline in (self._other, self._pipeline):
            pipeline.generate(_one_token(), self._config())

    def _config(self) -> Any:
        config = openvino_genai.GenerationConfig()
        config.set_eos_token_id(self._tokenizer.get_eos_token_id())
        config.max_new_tokens = 1
        return config


def structured_output(form: Form) -> Any:
    """OpenVINO's configuration of a form."""
    config = openvino_genai.StructuredOutputConfig()
    kind, text = form
    setattr(config, kind, text)
    return config


def _one_token() -> Any:
    return openvino.Tensor(np.zeros((1, 1), np.int64))


def _pipeline_of_nothing(tokenizer: Any, vocabulary: int) -> Any:
    """A language model to whom all tokens are alike."""
    inputs = [
        operations.parameter([-1, -1], np.int64, name="input_ids"),
        operations.parameter([-1, -1], np.int64, name="attention_mask"),
        operations.parameter([-1, -1], np.int64, name="position_ids"),
        operations.parameter([-1], np.int32, name="beam_idx"),
    ]
    for each in inputs:
        each.output(0).set_names({each.get_friendly_name()})
    places = operations.unsqueeze(operations.convert(inputs[0], "f32"), operations.constant(np.array(-1)))
    logits = operations.multiply(places, operations.constant(np.zeros((1, 1, vocabulary), np.float32)))
    logits.output(0).set_names({"logits"})
    model = openvino.Model([operations.result(logits)], inputs, "nothing")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "openvino_model.xml"
        openvino.save_model(model, path)
        weights = openvino.Tensor(np.fromfile(path.with_suffix(".bin"), np.uint8))
        return openvino_genai.LLMPipeline(path.read_text(), weights, tokenizer, "CPU", ATTENTION_BACKEND="SDPA")
