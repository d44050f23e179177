"""The dialects of OpenAI's API, and what can be asked for in each. Pure.

Servers of this API pass over fields that they do not know without a word, so that what a caller asked for would be ignored
silently. Hence a feature counts only where its fields are known to be understood: by OpenAI's own reference, or by the
endpoint's description of itself (openapi.json), which vLLM and SGLang publish.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from generation_svc.engine import Feature

TOP_LOGPROBS_MAX: Final = 20
_CHAT_REQUEST: Final = "ChatCompletionRequest"
_RAW_REQUEST: Final = "CompletionRequest"
# Chat has two fields, of which raw prompts have the first as a number.
_CHAT_ALONE: Final = frozenset({"top_logprobs"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How one kind of server is spoken to.

    `needs` has, for each feature, the fields (or the path) that the endpoint must know. `recent` are features whose fields
    older versions pass over: without the endpoint's own description they count only if the dialect was set by hand.
    `chat_only` can't be asked for with a raw prompt. `matched_stop` is where a choice names the stop text that ended it.
    `chosen_stands_first` says that in a conversation the chosen token takes one of the likeliest tokens' places; one more is
    asked for then, but of the 20 that servers give at most, the last may be missing.
    """

    name: str
    needs: Mapping[Feature, tuple[str, ...]]
    recent: frozenset[Feature] = frozenset()
    chat_only: frozenset[Feature] = frozenset()
    raw_top_logprobs_max: int = TOP_LOGPROBS_MAX
    chosen_stands_first: bool = True
    include_stop: str = ""
    matched_stop: str = "stop_reason"
    describes_itself: bool = True
    counts_each_event: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """The fields and paths that an endpoint says it has."""

    chat: frozenset[str]
    raw: frozenset[str]
    paths: frozenset[str] = field(default=frozenset())

    def has(self, needed: tuple[str, ...]) -> bool:
        """Whether it has all of them, for conversations and for raw prompts."""
        return all(self._has(name) for name in needed)

    def _has(self, name: str) -> bool:
        if name.startswith("/"):
            return name in self.paths
        return name in self.chat and (name in self.raw or name in _CHAT_ALONE)


_COMMON: Final = {
    Feature.LOGPROBS: ("logprobs",),
    Feature.TOP_LOGPROBS: ("logprobs", "top_logprobs"),
    Feature.JSON_SCHEMA: ("response_format",),
    Feature.JSON_OBJECT: ("response_format",),
}
_LOCAL: Final = {
    **_COMMON,
    Feature.TOP_K: ("top_k",),
    Feature.MIN_P: ("min_p",),
    Feature.REPETITION_PENALTY: ("repetition_penalty",),
    Feature.MIN_TOKENS: ("min_tokens",),
    Feature.CACHE_SALT: ("cache_salt",),
}

# https://platform.openai.com/docs/api-reference. Its raw prompts are an older API, with fewer fields.
OPENAI: Final = Dialect(
    name="openai",
    needs=_COMMON,
    chat_only=frozenset({Feature.JSON_SCHEMA, Feature.JSON_OBJECT}),
    raw_top_logprobs_max=5,
    chosen_stands_first=False,
    describes_itself=False,
    counts_each_event=False,
)

# vllm/entrypoints/openai/*/protocol.py of vLLM 0.32. structured_outputs was called guided_* before 0.12.
VLLM: Final = Dialect(
    name="vllm",
    needs={
        **_LOCAL,
        Feature.INCLUDE_STOP: ("include_stop_str_in_output",),
        Feature.NAMED_LOGPROBS: ("logprobs", "logprob_token_ids", "return_token_ids", "/tokenize"),
        Feature.REGEX: ("structured_outputs",),
        Feature.CHOICE: ("structured_outputs",),
        Feature.GRAMMAR: ("structured_outputs",),
    },
    recent=frozenset({Feature.REGEX, Feature.CHOICE, Feature.GRAMMAR, Feature.NAMED_LOGPROBS, Feature.CACHE_SALT}),
    include_stop="include_stop_str_in_output",
)

# By SGLang's python/sglang/srt/entrypoints/openai/protocol.py; never tried against one. It asks for adapters in another way.
SGLANG: Final = Dialect(
    name="sglang",
    needs={
        **_LOCAL,
        Feature.INCLUDE_STOP: ("no_stop_trim",),
        Feature.REGEX: ("regex",),
        Feature.GRAMMAR: ("ebnf",),
    },
    recent=frozenset({Feature.CACHE_SALT}),
    include_stop="no_stop_trim",
    matched_stop="matched_stop",
)

DIALECTS: Final = {dialect.name: dialect for dialect in (OPENAI, VLLM, SGLANG)}


def dialect_of(setting: str, owner: object) -> Dialect:
    """The dialect that was set, or that of the server whose name stands as the owner of its models."""
    return DIALECTS.get(setting) or DIALECTS.get(str(owner), OPENAI)


def described(openapi: Any) -> Described | None:
    """What an OpenAPI description says of the two requests; None where it describes something else."""
    try:
        schemas = openapi["components"]["schemas"]
        chat, raw = (frozenset(schemas[name]["properties"]) for name in (_CHAT_REQUEST, _RAW_REQUEST))
        return Described(chat=chat, raw=raw, paths=frozenset(openapi.get("paths", ())))
    except (KeyError, TypeError, AttributeError):
        return None


def features_of(dialect: Dialect, said: Described | None, *, by_hand: bool) -> frozenset[Feature]:
    """What may be asked of an endpoint: what it says itself, else what the dialect has had for long, or was set by hand."""
    if said is not None:
        return frozenset(feature for feature, needed in dialect.needs.items() if said.has(needed))
    return frozenset(dialect.needs) - (frozenset() if by_hand else dialect.recent)
