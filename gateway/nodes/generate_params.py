"""What a generate node can be told: everything that the generation service can be asked for."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from gateway.backends import Form, LogprobOptions, Sampling
from gateway.nodes.spec import NodeParams

MODEL_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
STOP_MAX: Final = 16
STOP_BYTES_MAX: Final = 256
FORM_CHARS_MAX: Final = 65_536
REGEX_CHARS_MAX: Final = 4096
CHOICES_MAX: Final = 1000
CHOICE_BYTES_MAX: Final = 1024
NAME_BYTES_MAX: Final = 256
MESSAGES_MAX: Final = 1000
JSON_FORMS: Final = frozenset({"json_schema", "json_object"})

_STRICT: Final = ConfigDict(extra="forbid", frozen=True, strict=True)


def _of_bytes(most: int, what: str) -> AfterValidator:
    def check(text: str) -> str:
        if not 1 <= len(text.encode(errors="surrogatepass")) <= most:
            message = f"{what} has 1 to {most} bytes"
            raise ValueError(message)
        return text

    return AfterValidator(check)


def _short(text: str) -> str:
    if len(text.encode(errors="surrogatepass")) > NAME_BYTES_MAX:
        message = f"has more than {NAME_BYTES_MAX} bytes"
        raise ValueError(message)
    return text


def _schema_text(schema: Mapping[str, Any] | str) -> str:
    text = schema if isinstance(schema, str) else orjson.dumps(schema).decode()
    if len(text) > FORM_CHARS_MAX:
        message = f"the schema has {len(text)} characters; at most {FORM_CHARS_MAX}"
        raise ValueError(message)
    return text


class StructuredOutput(BaseModel):
    """A form that the answer must have: exactly one of these."""

    model_config = _STRICT

    json_schema: dict[str, Any] | str | None = Field(
        default=None, description="A JSON value that is valid by this JSON Schema, an object or its text."
    )
    json_object: bool | None = Field(default=None, description="Any JSON object. Must be true.")
    regex: Annotated[str, Field(min_length=1, max_length=REGEX_CHARS_MAX)] | None = Field(
        default=None, description="A text that this regular expression matches as a whole."
    )
    choice: (
        Annotated[list[Annotated[str, _of_bytes(CHOICE_BYTES_MAX, "a choice")]], Field(min_length=1, max_length=CHOICES_MAX)]
        | None
    ) = Field(default=None, description="One of these texts.")
    grammar: Annotated[str, Field(min_length=1, max_length=FORM_CHARS_MAX)] | None = Field(
        default=None, description='A text of this context-free grammar, in GBNF: root ::= "yes" | "no".'
    )

    @model_validator(mode="after")
    def _is_one(self) -> "StructuredOutput":
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            message = f"give exactly one of {', '.join(type(self).model_fields)}; found {', '.join(given) or 'none'}"
            raise ValueError(message)
        if self.json_object is False:
            message = "json_object must be true; leave structured_output out for an answer in any form"
            raise ValueError(message)
        if self.json_schema is not None:
            _schema_text(self.json_schema)
        return self

    def form(self) -> Form:
        """The form as the generator takes it."""
        if self.json_schema is not None:
            return Form(kind="json_schema", value=_schema_text(self.json_schema))
        if self.regex is not None:
            return Form(kind="regex", value=self.regex)
        if self.choice is not None:
            return Form(kind="choice", value=tuple(self.choice))
        if self.grammar is not None:
            return Form(kind="grammar", value=self.grammar)
        return Form(kind="json_object")


class LogprobParams(BaseModel):
    """Which logarithms of probabilities to give with each token of the answer."""

    model_config = _STRICT

    top: int = Field(default=0, ge=0, le=20, description="Of this many likeliest tokens; 0: of the chosen one alone.")
    tokens: list[Annotated[str, _of_bytes(NAME_BYTES_MAX, "a token")]] = Field(
        default=[], max_length=64, description='Of exactly these tokens, as they are written, such as " Yes" with its space.'
    )

    @model_validator(mode="after")
    def _is_one(self) -> "LogprobParams":
        if self.top and self.tokens:
            message = "give top or tokens, not both"
            raise ValueError(message)
        return self

    def options(self) -> LogprobOptions:
        """As the generator takes them."""
        return LogprobOptions(top=self.top, tokens=tuple(self.tokens))


class SamplingParams(NodeParams):
    """How tokens are chosen, when to stop, and which form the answer has: what a caller may set for one run."""

    max_tokens: int | None = Field(default=None, ge=1, le=1_000_000, description="Most tokens to generate.")
    min_tokens: int | None = Field(
        default=None, ge=0, le=1_000_000, description="Fewest tokens before the model may end the answer or a stop text counts."
    )
    temperature: float | None = Field(
        default=None, ge=0, le=2, description="Softens (above 1) or sharpens (below 1); 0 takes the likeliest token."
    )
    top_p: float | None = Field(default=None, gt=0, le=1, description="Samples from the likeliest tokens of this probability.")
    top_k: int | None = Field(default=None, ge=1, le=1_000_000, description="Samples from this many likeliest tokens.")
    min_p: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Leaves out tokens less likely than this share of the likeliest one's probability.",
    )
    seed: int | None = Field(default=None, ge=0, lt=2**63, description="Makes sampling repeatable on one engine.")
    presence_penalty: float | None = Field(default=None, ge=-2, le=2, description="Lowers the logit of tokens that occurred.")
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2, description="The same, by how often they occurred.")
    repetition_penalty: float | None = Field(
        default=None, gt=0, le=2, description="Divides (above 1) or multiplies the logits of tokens of prompt and answer."
    )
    stop: list[Annotated[str, _of_bytes(STOP_BYTES_MAX, "a stop string")]] = Field(
        default=[], max_length=STOP_MAX, description="Ends the answer before any of these texts."
    )
    include_stop: bool | None = Field(
        default=None, description="Whether the stop text that ended the answer stays at the end of it."
    )
    structured_output: StructuredOutput | None = Field(default=None, description="A form that the answer must have.")

    @model_validator(mode="after")
    def _lengths_fit(self) -> "SamplingParams":
        if self.min_tokens is not None and self.max_tokens is not None and self.min_tokens > self.max_tokens:
            message = f"min_tokens is {self.min_tokens}, more than max_tokens, {self.max_tokens}"
            raise ValueError(message)
        return self

    def sampling(self) -> Sampling:
        """As the generator takes it."""
        return Sampling(**{name: getattr(self, name) for name in _OPTIONAL}, stop=tuple(self.stop))


_OPTIONAL: Final = tuple(name for name in SamplingParams.model_fields if name not in {"stop", "structured_output"})


class GenerateParams(SamplingParams):
    """Parameters of a generate node. What is left out is the engine's default for the model."""

    model: str = Field(
        default="default",
        pattern=MODEL_PATTERN,
        description="Name of the model, without the leading models/. default is the service's first.",
    )
    system: str = Field(
        default="", description="Instructions that stand above the prompt. The input system, where connected, takes its place."
    )
    history: bool = Field(
        default=False,
        description="Puts the conversation so far (of the caller's messages, or of the session) before the prompt.",
    )
    history_max: int = Field(default=100, ge=1, le=MESSAGES_MAX, description="Most turns of the conversation: the newest.")
    raw: bool = Field(default=False, description="Gives the model the prompt as it is, without a chat template.")
    n: int = Field(default=1, ge=1, le=16, description="Answers to give. text is the first, texts has all.")
    logprobs: LogprobParams | None = Field(
        default=None, description="Gives the logarithms of the probabilities of the first answer's tokens as logprobs."
    )
    tools: Literal["none", "caller"] = Field(
        default="none",
        description="caller: the model is told of the tools that a run is given, and may answer with calls of them. For models "
        "that know the form <tool_call>.",
    )
    adapter: Annotated[str, AfterValidator(_short)] = Field(default="", description="The LoRA adapter to answer with.")
    priority: int = Field(
        default=0, ge=-100, le=100, description="Which requests of a tenant go first when some wait: larger before smaller."
    )
    cache_salt: Annotated[str, AfterValidator(_short)] = Field(
        default="", description="Keeps what the prompt leaves in the prefix cache to requests with the same text here."
    )
    caller_sampling: bool = Field(
        default=True,
        description="Whether what a caller sets for a run holds for this node. false: for a step whose answer no caller sees.",
    )
    partial_json: bool = Field(
        default=False,
        description="Whether JSON that reached its most tokens is given as far as it goes, and the node told as bounded. "
        "false: the run fails.",
    )

    @model_validator(mode="after")
    def _goes_together(self) -> "GenerateParams":
        if self.raw and (self.system or self.history):
            message = "a raw prompt stands alone: leave out system and history, or raw"
            raise ValueError(message)
        if self.tools == "caller" and (self.raw or self.n > 1 or self.structured_output is not None):
            message = "a model that may call tools answers once, in any form: leave out raw, n and structured_output"
            raise ValueError(message)
        if self.n > 1 and self.temperature == 0:
            message = f"n is {self.n} with a temperature of 0, by which all answers would be the same"
            raise ValueError(message)
        return self
