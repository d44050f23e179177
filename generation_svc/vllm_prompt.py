"""From messages or a raw prompt to the model's tokens: its chat template, its tokenizer, its window."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from generation_svc.engine import GenerationRequest
from penstock.errors import FailedPrecondition, InvalidArgument, PromptTooLong

_CHARACTERS_PER_TOKEN: Final = 16
"""Far above what any text has that people write (3 to 5); of a text that is longer than a window of these the beginning is
tokenized first."""
_CUT_TOKENS: Final = 16
"""More than a cut within a word adds."""


class Prompts:
    """A model's tokenizer in a thread of its own, because it takes milliseconds and must not be used by two at once."""

    def __init__(self, tokenizer: Any, *, window: int) -> None:
        self._tokenizer = tokenizer
        self._window = window
        self._longest_token_characters = max(len(token) for token in tokenizer.get_vocab())
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tokenizer")

    async def tokens(self, request: GenerationRequest) -> list[int]:
        """Raises PromptTooLong, InvalidArgument for what the chat template refuses, FailedPrecondition without a template."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._tokens, request)

    async def named(self, texts: tuple[str, ...]) -> list[int]:
        """The tokens that are written like this. Raises InvalidArgument for a text that is none, or more than one."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._named, texts)

    def close(self) -> None:
        self._thread.shutdown(wait=False)

    def _tokens(self, request: GenerationRequest) -> list[int]:
        if not request.messages:
            return self._encoded(request.prompt, with_specials=True)
        return self._encoded(self._in_template(request), with_specials=False)  # The template has them.

    def _in_template(self, request: GenerationRequest) -> str:
        if not self._tokenizer.chat_template:
            raise FailedPrecondition("the model has no chat template; give a prompt instead of messages")
        try:
            return str(self._tokenizer.apply_chat_template(request.turns(), tokenize=False, add_generation_prompt=True))
        except Exception as error:  # The template is the model's own program and raises what it likes.
            message = f"the model's chat template does not take these messages: {error}"
            raise InvalidArgument(message, metadata={"field": "messages"}) from error

    def _encoded(self, text: str, *, with_specials: bool) -> list[int]:
        self._check_length(text)
        try:
            return list(self._tokenizer.encode(text, add_special_tokens=with_specials))
        except (TypeError, UnicodeError) as error:  # What the tokenizer says of half of a surrogate pair.
            raise InvalidArgument("the prompt is not valid Unicode", metadata={"field": "prompt"}) from error

    def _check_length(self, text: str) -> None:
        """A text far over the window would be tokenized for seconds or minutes, while others wait, only to be refused."""
        if len(text) > self._window * self._longest_token_characters:
            raise self._too_long(len(text) // self._longest_token_characters, "at least")
        characters = self._window * _CHARACTERS_PER_TOKEN
        if len(text) <= characters:
            return
        found = len(self._tokenizer.encode(text[:characters], add_special_tokens=False))
        if found > self._window + _CUT_TOKENS:
            raise self._too_long(found * len(text) // characters, "by its beginning about")

    def _too_long(self, tokens: int, how: str) -> PromptTooLong:
        message = f"the prompt has {how} {tokens} tokens, but the model's window holds {self._window}; shorten it"
        numbers = {"prompt_tokens": str(tokens), "max_tokens": "0", "context_window": str(self._window)}
        return PromptTooLong(message, metadata=numbers)

    def _named(self, texts: tuple[str, ...]) -> list[int]:
        return [self._named_one(index, text) for index, text in enumerate(texts)]

    def _named_one(self, index: int, text: str) -> int:
        tokens = self._tokenizer.encode(text, add_special_tokens=False)
        if len(tokens) == 1:
            return int(tokens[0])
        # Tokenizers that put a space before every text know it by its raw spelling only.
        token = self._tokenizer.convert_tokens_to_ids(text)
        if token is None or token == self._tokenizer.unk_token_id:
            field = f"logprobs.tokens[{index}]"
            message = f"{field} is {text!r}, which is {len(tokens)} tokens of the model's vocabulary, must be one"
            raise InvalidArgument(message, metadata={"field": field})
        return int(token)
