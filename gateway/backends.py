"""The ports through which nodes reach what is outside of their flow: clients.py has two of them over gRPC, tests have fakes."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from gateway.execution import ChatMessage, Run
from gateway.values import Document
from penstock.errors import FlowMisconfigured


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are chosen and when to stop. None: the engine's default for the model."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    min_tokens: int | None = None
    include_stop: bool | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A form that an answer must have. `value` is the text of the schema, regular expression or grammar, or the choices."""

    kind: Literal["json_schema", "json_object", "regex", "choice", "grammar"]
    value: str | tuple[str, ...] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogprobOptions:
    """Which logarithms of probabilities to answer for each token: of the `top` likeliest, or of exactly these `tokens`."""

    top: int = 0
    tokens: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprob:
    """A token of an answer. `token_id` is -1 where the engine does not say; `top` are the tokens asked for in its place."""

    token: str
    logprob: float
    token_id: int = -1
    top: tuple["TokenLogprob", ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateRequest:
    """One question to a model. `model` is its name alone, such as "default"; an empty `system` is none.

    `messages` are the turns between the system's and the prompt. `raw` gives the model the prompt as it is, without a chat
    template. `n` answers share the prompt's work. `session` names a conversation whose prompts begin alike, so that they are
    answered where its beginning is cached; it is not sent. Empty: none, and the prompt itself tells.
    """

    model: str
    prompt: str
    system: str = ""
    messages: tuple[ChatMessage, ...] = ()
    raw: bool = False
    session: str = ""
    sampling: Sampling = field(default_factory=Sampling)
    n: int = 1
    logprobs: LogprobOptions | None = None
    form: Form | None = None
    adapter: str = ""
    priority: int = 0
    cache_salt: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """More of an answer: of the one with the number `index`, with its tokens where logprobs were asked for."""

    text: str
    index: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """How an answer ended. Tokens are counted by the model's own tokenizer; `reason` is "stop" or "length".

    `cached_tokens` are those of the input that the engine found in its prefix cache; `matched_stop` is the stop text that ended
    the answer, empty where none did. `alternatives` say how the others of a stream ended, whose deltas had their texts.
    """

    reason: str
    input_tokens: int
    output_tokens: int
    model: str
    cached_tokens: int = 0
    matched_stop: str = ""
    alternatives: tuple["Alternative", ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """Another answer to the same request."""

    text: str
    reason: str
    matched_stop: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole answer."""

    text: str
    finish: Finish
    logprobs: tuple[TokenLogprob, ...] = ()
    alternatives: tuple[Alternative, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fusion:
    """How a hybrid search makes one ranking of two. None: the service's default."""

    method: Literal["convex", "reciprocal_rank"] = "convex"
    dense_weight: float | None = None
    rrf_k: int | None = None
    candidates: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Diversity:
    """Asks for passages that differ from one another. None: the service's default."""

    relevance_weight: float | None = None
    candidates: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reranking:
    """Asks the retrieval service to rerank. An empty model is its only one."""

    model: str = ""
    candidates: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRequest:
    """One search, by a text, a vector, or both. `collection` is its name alone; None: the service's default.

    `filter` is in the flow language's spelling, every value in its place: {"equals": {"field": "lang", "value": "en"}}.
    """

    collection: str
    text: str | None = None
    vector: tuple[float, ...] | None = None
    top_k: int = 4
    mode: Literal["dense", "lexical", "hybrid"] = "dense"
    filter: Mapping[str, Any] | None = None
    fusion: Fusion | None = None
    score_min: float | None = None
    diversity: Diversity | None = None
    hits_per_document_max: int | None = None
    reranking: Reranking | None = None
    ef_search: int | None = None
    nprobe: int | None = None
    exact: bool = False
    fields: tuple[str, ...] = ()


Purpose = Literal["query", "document"]
"""What a text is to a model that treats questions and passages differently."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vectors:
    """A vector for each text, in their order."""

    vectors: tuple[tuple[float, ...], ...]
    input_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """A score for each document, in their order; the larger, the better."""

    scores: tuple[float, ...]
    input_tokens: int


class Retriever(Protocol):
    """Finds passages, and embeds texts as it does for its collections."""

    async def search(self, request: SearchRequest) -> tuple[Document, ...]:
        """The best `top_k` passages, best first; fewer where there are fewer.

        Raises what the service raises (CollectionNotFound, EmptyText, TopKOutOfRange ...), and BackendUnavailable.
        """
        ...

    async def embed(self, model: str, texts: Sequence[str], purpose: Purpose) -> Vectors:
        """The vectors of 1 to 1000 texts; an empty `model` is the service's default. Raises as `search` does."""
        ...


class Embedder(Protocol):
    """Embeds texts with a model of the generation service."""

    async def embed(self, model: str, texts: Sequence[str]) -> Vectors:
        """The vectors of 1 to 256 texts. Raises what the service raises (UnsupportedFeature ...), and BackendUnavailable."""
        ...


class Reranker(Protocol):
    """Scores documents with a model of the generation service that reads query and document together."""

    async def rerank(self, model: str, query: str, documents: Sequence[str]) -> Scores:
        """The scores of 1 to 256 documents. Raises as `Embedder.embed` does."""
        ...


class Generator(Protocol):
    """Answers prompts. Leaving either call, by cancellation or by closing the iterator, stops the model's work."""

    async def generate(self, request: GenerateRequest) -> Answer:
        """The whole answer. Raises what the service raises (ModelNotFound, PromptTooLong ...), and BackendUnavailable."""
        ...

    def stream(self, request: GenerateRequest) -> AsyncGenerator[Delta | Finish, None]:
        """The answer as it is made: deltas, then one Finish. The caller reads it to its end or closes it.

        Raises as `generate` does.
        """
        ...


class Sessions(Protocol):
    """Keeps conversations for a time, by the names of their sessions. Those of one tenant are not another's."""

    async def read(self, session: str, messages_max: int) -> tuple[ChatMessage, ...]:
        """The newest messages, oldest first; none where nothing is kept. Raises BackendUnavailable."""
        ...

    async def append(self, session: str, messages: Sequence[ChatMessage]) -> None:
        """Adds messages, all or none. Raises BackendUnavailable."""
        ...

    async def forget(self, session: str) -> None:
        """Forgets a session's messages. Raises BackendUnavailable."""
        ...


class Subflows(Protocol):
    """The flows of the gateway, for a node that runs another one."""

    async def run(self, flow_id: str, inputs: Mapping[str, Any], run: Run) -> Mapping[str, Any]:
        """Runs a flow in `run`, a child of the calling one; its outputs as edges carry them. Raises FlowNotFound."""
        ...


Scalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SqlQuery:
    """A query that reads: pieces of SQL as the flow's writer wrote them, with a parameter between each and the next."""

    pieces: tuple[str, ...]
    parameters: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """What a query gave: rows of JSON values by their columns. `is_whole` is false where a bound left rows out."""

    rows: tuple[Mapping[str, Any], ...]
    is_whole: bool = True


class Databases(Protocol):
    """Databases of others, by names that the operator gives them. They are read and never changed."""

    async def query(self, connection: str, query: SqlQuery, values: Mapping[str, Scalar], rows_max: int) -> Table:
        """The first `rows_max` rows. `values` are bound by the database; they are never a part of the SQL.

        Raises FlowMisconfigured for a connection that is not declared and a query that the database refuses, InvalidArgument
        for a value that does not fit, FailedPrecondition where it takes too long, BackendUnavailable.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WebRequest:
    """A request to an HTTP server of others. `timeout_s` None: the gateway's own."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WebAnswer:
    """An answer with any status, its body read as text."""

    status: int
    text: str
    headers: Mapping[str, str] = field(default_factory=dict)


class Web(Protocol):
    """HTTP servers of others: those that the operator allows."""

    async def send(self, request: WebRequest) -> WebAnswer:
        """The server's answer, whatever its status; a redirection is not followed.

        Raises PermissionDenied for a host or an address that is not allowed, MessageTooLarge, BackendUnavailable.
        """
        ...

    def secret(self, name: str) -> str:
        """What the operator keeps under this name. Raises FlowMisconfigured where there is nothing."""
        ...


class Variables(Protocol):
    """What flows may read and do not hold."""

    def value(self, name: str) -> str:
        """What the operator has set under this name. Raises FlowMisconfigured where there is nothing."""
        ...


class _NoVariables:
    def value(self, name: str) -> str:
        raise FlowMisconfigured(f"there is no variable {name!r}", metadata={"variable": name})


@dataclass(frozen=True, slots=True, kw_only=True)
class Backends:
    """Everything outside of a flow that its nodes may call."""

    retriever: Retriever
    generator: Generator
    embedder: Embedder
    reranker: Reranker
    sessions: Sessions
    subflows: Subflows
    databases: Databases
    web: Web
    variables: Variables = field(default_factory=_NoVariables)
