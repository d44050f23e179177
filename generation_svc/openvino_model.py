"""A model in OpenVINO GenAI, with its tokenizer and its limits. The only importer of openvino_genai."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import openvino_genai
import orjson

from generation_svc.engine import FinishReason, answer_room
from generation_svc.gguf_header import read_header
from generation_svc.openvino_wire import Ask, Open, Opened
from penstock.errors import EmptyText, FailedPrecondition, InvalidArgument

_WINDOW_TOKENS_IF_UNKNOWN: Final = 2048
_COUNTED_WINDOWS_MAX: Final = 16
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


def read(handle: Any) -> tuple[list[int], FinishReason | None]:
    """The tokens that have come since the last time, and why the answer ended, if it did."""
    ids: list[int] = []
    finish_reason = None
    while handle.can_read():
        for output in handle.read().values():
            ids += output.generated_ids
            finish_reason = _FINISH_REASONS.get(output.finish_reason, finish_reason)
    return ids, finish_reason


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


def _window_of_folder(path: Path) -> int:
    config = path / "config.json"
    window = orjson.loads(config.read_bytes()).get("max_position_embeddings") if config.is_file() else None
    return window if isinstance(window, int) else 0
