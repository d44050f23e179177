"""The example flows of methods over a model, a search and a database that do what a test says, and one record of every call."""

import asyncio
import dataclasses
import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.backends import (
    Answer,
    Delta,
    Finish,
    GenerateRequest,
    Scalar,
    Scores,
    SearchRequest,
    SqlQuery,
    Table,
    TokenLogprob,
)  # fmt: skip
from gateway.execution import NOTHING_SAID, Call, RunResult
from gateway.values import Document
from tests.gateway.fakes import FakeRetriever, World

FOLDER = Path(__file__).parents[3] / "examples/flows/methods"
METHODS = sorted(path.stem for path in FOLDER.glob("*.json"))


def written(method: str) -> str:
    """The document of a method, as it is in the examples."""
    return (FOLDER / f"{method}.json").read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What the model would say if nothing stopped it: `tokens`, where logprobs are asked for, are what `text` is made of."""

    text: str
    reason: str = "stop"
    tokens: tuple[TokenLogprob, ...] = ()


Says = str | Said
Rules = Mapping[str, Says | Sequence[Says] | Callable[[str], Says]]
"""An answer, several one after the other, or a function of the prompt, by a text that occurs in what the model is given. The
first rule that fits is taken."""


def passage(name: str, score: float = 0.5, text: str = "", **metadata: Any) -> Document:
    return Document(chunk_id=name, document_id=name, text=text or f"About {name}.", score=score, metadata=metadata)


class ScriptedModel:
    """Answers by `rules`, and stops where a request says, as an engine does. A request that no rule fits fails the test."""

    def __init__(self, rules: Rules, calls: list[tuple[str, str]]) -> None:
        self.requests: list[GenerateRequest] = []
        self._rules = {when: list(says) if isinstance(says, list | tuple) else says for when, says in rules.items()}
        self._calls = calls

    async def generate(self, request: GenerateRequest) -> Answer:
        self.requests.append(request)
        self._calls.append(("model", request.prompt))
        await asyncio.sleep(0)  # So that what runs at once does.
        said = self._answer(request)
        text, matched = _stopped(said.text, request)
        tokens = _tokens_of(text, said.tokens) if request.logprobs else ()
        reason = "stop" if matched else said.reason
        finish = Finish(reason=reason, input_tokens=10, output_tokens=5, model="scripted", matched_stop=matched)
        return Answer(text=text, finish=finish, logprobs=tokens)

    async def stream(self, request: GenerateRequest) -> AsyncGenerator[Delta | Finish, None]:
        answer = await self.generate(request)
        yield Delta(text=answer.text, logprobs=answer.logprobs)
        yield answer.finish

    def _answer(self, request: GenerateRequest) -> Said:
        given = f"{request.system}\n{request.prompt}"
        for when, says in self._rules.items():
            if when in given:
                said = _next(says, request.prompt)
                return Said(text=said) if isinstance(said, str) else said
        message = f"no rule says what to answer to: {given}"
        raise AssertionError(message)


def _next(says: Any, prompt: str) -> Says:
    """What a rule says this time: the last of several stays."""
    if isinstance(says, list):
        said: Says = says.pop(0) if len(says) > 1 else says[0]
        return said
    return says(prompt) if callable(says) else says


def _stopped(text: str, request: GenerateRequest) -> tuple[str, str]:
    """The text up to the first stop text in it, and that."""
    places = [(text.index(stop), stop) for stop in request.sampling.stop if stop in text]
    if not places:
        return text, ""
    place, stop = min(places)
    return text[: place + len(stop) * bool(request.sampling.include_stop)], stop


def _tokens_of(text: str, tokens: Sequence[TokenLogprob]) -> tuple[TokenLogprob, ...]:
    """The tokens that a text is made of, the last of them perhaps beyond its end."""
    kept: list[TokenLogprob] = []
    for token in tokens:
        if len("".join(each.token for each in kept)) >= len(text):
            break
        kept.append(token)
    return tuple(kept)


class ScriptedSearch(FakeRetriever):
    """Finds what stands in `found` under a collection or a part of a query; the passages of "" where nothing fits."""

    def __init__(self, found: Mapping[str, Sequence[Document]], calls: list[tuple[str, str]]) -> None:
        super().__init__()
        self._found = found
        self._calls = calls

    async def search(self, request: SearchRequest) -> tuple[Document, ...]:
        self._calls.append(("search", request.text or ""))
        self.searches.append(request)
        await asyncio.sleep(0)
        fits = (key for key in self._found if key and (key == request.collection or key in (request.text or "")))
        return tuple(self._found[next(fits, "")])[: request.top_k]


class ScriptedReranker:
    """Scores by how often a passage has the word "good"."""

    def __init__(self, calls: list[tuple[str, str]]) -> None:
        self._calls = calls

    async def rerank(self, model: str, query: str, documents: Sequence[str]) -> Scores:
        self._calls.append(("rerank", query))
        return Scores(scores=tuple(float(text.count("good")) for text in documents), input_tokens=7)


class ScriptedDatabase:
    """Gives the rows of which each value is that of the parameter with its name."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], calls: list[tuple[str, str]]) -> None:
        self._rows = rows
        self._calls = calls

    async def query(self, connection: str, query: SqlQuery, values: Mapping[str, Scalar], rows_max: int) -> Table:
        self._calls.append(("sql", json.dumps(values)))
        return Table(rows=tuple(row for row in self._rows if values.items() <= row.items())[:rows_max])


class Scripted(World):
    """A world with a script. `calls` are (what, with what) in the order in which they were made."""

    def __init__(
        self,
        rules: Rules | None = None,
        found: Mapping[str, Sequence[Document]] | None = None,
        rows: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        super().__init__()
        self.calls: list[tuple[str, str]] = []
        self.model = ScriptedModel(rules or {}, self.calls)
        self.search = ScriptedSearch({"": (passage("one", 0.9), passage("two", 0.8))} | dict(found or {}), self.calls)
        self.subflows.documents = {method: written(method) for method in METHODS}
        backends = dataclasses.replace(
            self.compiler.backends,
            generator=self.model,
            retriever=self.search,
            reranker=ScriptedReranker(self.calls),
            databases=ScriptedDatabase(rows, self.calls),
        )
        self.compiler = dataclasses.replace(self.compiler, backends=backends)

    async def run(self, method: str, call: Call = NOTHING_SAID, /, **inputs: Any) -> RunResult:
        """Runs a method; what it counted is what was called."""
        before = len(self.calls)
        result = await self.compile(written(method)).run(inputs, name=method, call=call)
        made = [what for what, _ in self.calls[before:]]
        assert result.spent.model_calls == made.count("model") + made.count("rerank")
        assert result.spent.retrievals == made.count("search")
        return result

    @property
    def order(self) -> str:
        """What was called, one after the other."""
        return " ".join(what for what, _ in self.calls)

    @property
    def searched(self) -> list[str]:
        """The queries, in their order."""
        return [given for what, given in self.calls if what == "search"]

    @property
    def prompts(self) -> list[str]:
        """What the model was given, in its order: the system's part, a line break, and the prompt."""
        return [f"{request.system}\n{request.prompt}".strip() for request in self.model.requests]
