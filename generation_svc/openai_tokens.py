"""The numbers of tokens that a request names by their text, asked of a vLLM server, which has the tokenizer."""

from collections import OrderedDict
from typing import Final

from generation_svc.openai_http import Endpoint
from penstock.errors import InvalidArgument

_KNOWN_MAX: Final = 4096


class NamedTokens:
    """Texts that are one token each. Those that were asked for last are remembered."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._url = endpoint.root_url / "tokenize"
        self._known: OrderedDict[tuple[str, str], int] = OrderedDict()

    async def numbers(self, model: str, texts: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
        """Each text with its number. Raises InvalidArgument for one that is not one token."""
        return tuple([(text, await self._number(model, text)) for text in dict.fromkeys(texts)])

    async def _number(self, model: str, text: str) -> int:
        key = (model, text)
        if key not in self._known:
            self._known[key] = await self._ask(model, text)
        self._known.move_to_end(key)
        if len(self._known) > _KNOWN_MAX:
            self._known.popitem(last=False)
        return self._known[key]

    async def _ask(self, model: str, text: str) -> int:
        answer = await self._endpoint.call(self._url, {"model": model, "prompt": text, "add_special_tokens": False})
        numbers = answer.get("tokens")
        if not isinstance(numbers, list) or len(numbers) != 1:
            count = len(numbers) if isinstance(numbers, list) else "no"
            message = f"logprobs.tokens has {text!r}, which is {count} tokens of the model; each must be exactly one"
            raise InvalidArgument(message, metadata={"field": "logprobs.tokens", "token": text})
        return int(numbers[0])
