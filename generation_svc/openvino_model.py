"""A model in OpenVINO GenAI, with its tokenizer and its limits. With openvino_forms the only importer of openvino_genai."""

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import openvino_genai
import orjson

from generation_svc.engine import FinishReason, answer_room
from generation_svc.gguf_header import read_header
from generation_svc.openvino_forms import Compiler, structured_output
from generation_svc.openvino_wire import Ask, Open, Opened
from generation_svc.text_stream import REPLACEMENT
from penstock.errors import EmptyText, FailedPrecondition, InvalidArgument

_WINDOW_TOKENS_IF_UNKNOWN: Final = 2048
_COUNTED_WINDOWS_MAX: Final = 16
_MIN_P_MAX: Final = 0.999999
"""OpenVINO takes no 1, which leaves the likeliest token alone, and those that are as likely."""
_FINISH_REASONS: Final = {
    openvino_genai.GenerationFinishReason.STOP: FinishReason.STOP,
    openvino_genai.GenerationFinishReason.LENGTH: FinishReason.LENGTH,
}


class OpenModel:
    """A loaded model with its tokenizer and its limits. Raises FailedPrecondition when it cannot be loaded."""

    def __init__(self, asked: Open) -> None:
        path = Path(asked.model_path)
        header = read_header(path) if path.suffix == ".gguf" else None
        self._max_tokens_default = asked.max_tokens_default
        self.pipeline = _load(asked)
        self.tokenizer = self.pipeline.get_tokenizer()
        self._decodes_batches = self._batches_are_decoded_right()
        own_window = header.context_window if header else _of_folder(path, "max_position_embeddings")
        window = self._uncut(asked.context_window or own_window or _WINDOW_TOKENS_IF_UNKNOWN)
        if asked.context_window > window or (own_window and asked.context_window > own_window):
            message = f"the context window of {asked.context_window} tokens is larger than the model's {own_window or window}"
            raise FailedPrecondition(message)
        self._vocabulary = header.vocabulary if header else _of_folder(path, "vocab_size")
        precision = header.precision if header else ""
        self.opened = Opened(context_window=window, precision=precision, takes_forms=self._vocabulary > 0)
        self._texts: dict[int, str] = {}

    def compiler(self, done: Callable[[], None]) -> Compiler | None:
        """What compiles forms beside the pipeline; None where the size of the vocabulary is not known."""
        return Compiler(self.tokenizer, self._vocabulary, done) if self._vocabulary else None

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

    def config(self, ask: Ask, max_tokens: int) -> Any:
        """OpenVINO's configuration of one request, on top of the model's own."""
        sampling, config = ask.sampling, self.pipeline.get_config()
        config.max_new_tokens = max_tokens
        config.min_new_tokens = sampling["min_tokens"] or 0
        config.logprobs = int(ask.logprobs)
        if ask.form:
            config.structured_output_config = structured_output(ask.form)
        for name in ("top_p", "top_k", "presence_penalty", "frequency_penalty", "repetition_penalty"):
            if sampling[name] is not None:
                setattr(config, name, sampling[name])
        if sampling["min_p"] is not None:
            config.min_p = min(sampling["min_p"], _MIN_P_MAX)
        if sampling["temperature"] is not None:
            config.do_sample = sampling["temperature"] > 0
            config.temperature = sampling["temperature"] or 1.0
        elif any(sampling[name] is not None for name in ("top_p", "top_k", "min_p", "seed")):
            config.do_sample = True
        # OpenVINO's own default is the same seed for everyone.
        config.rng_seed = random.getrandbits(32) if sampling["seed"] is None else sampling["seed"]
        return config

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(list(ids))
        return text

    def token_text(self, token_id: int) -> str:
        """A token's own text, with U+FFFD where it is a part of a character."""
        if token_id not in self._texts:
            self._texts[token_id] = self.tokenizer.decode([token_id], skip_special_tokens=False) or REPLACEMENT
        return self._texts[token_id]

    def cache_used(self) -> float:
        """The share of the memory for keys and values that the last step has used."""
        percent: float = self.pipeline.get_metrics().cache_usage
        return percent / 100

    def decode_all(self, windows: Sequence[Sequence[int]]) -> list[str]:
        """Many at once, which costs little more than one."""
        if self._decodes_batches:
            texts: list[str] = self.tokenizer.decode([list(ids) for ids in windows])
            return texts
        return [self.decode(ids) for ids in windows]

    def _batches_are_decoded_right(self) -> bool:
        """A batch is filled up with a padding token, which is left out of the text only where it counts as a special one."""
        ids = [int(token) for token in self.tokenizer.encode("one two three").input_ids.data[0]]
        batch: list[str] = self.tokenizer.decode([ids[:1], ids])
        return batch == [self.decode(ids[:1]), self.decode(ids)]

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


def read(handle: Any) -> tuple[list[int], list[float], FinishReason | None]:
    """The tokens that have come since the last time, their log probabilities, and why the answer ended, if it did."""
    ids: list[int] = []
    logprobs: list[float] = []
    finish_reason = None
    while handle.can_read():
        for output in handle.read().values():
            ids += output.generated_ids
            logprobs += output.generated_log_probs
            finish_reason = _FINISH_REASONS.get(output.finish_reason, finish_reason)
    return ids, logprobs, finish_reason


def is_given_up(handle: Any) -> bool:
    """Whether OpenVINO has dropped the request: without a word, when its cache can't hold it."""
    given_up: bool = handle.get_status() == openvino_genai.GenerationStatus.IGNORED
    return given_up


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


def _of_folder(path: Path, name: str) -> int:
    """A number of the model's config.json, 0 where it is not there."""
    config = path / "config.json"
    number = orjson.loads(config.read_bytes()).get(name) if config.is_file() else None
    return number if isinstance(number, int) else 0
