"""A flow on a Penstock gateway as a LangChain runnable."""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

from langchain_core.runnables import RunnableConfig, RunnableSerializable

from penstock.clients.background import BACKGROUND
from penstock.clients.flows import Done, Penstock, RunResult, Token
from penstock.clients.langchain.connected import CONFIG, Connected
from penstock.errors import InvalidArgument


class PenstockFlow(Connected, RunnableSerializable[dict[str, Any], Any]):
    """Runs `flow` with the inputs that it is given.

    `invoke` returns the value of `output`, or a dict of all outputs where none is named. `stream` yields the text of the
    generating nodes as it is made, of `node_id` alone where that is given; a run that streams no text yields what `invoke`
    would return. Raises FlowNotFound, InvalidInputs, BackendUnavailable and what the flow's backends raise.
    """

    model_config = CONFIG
    client_class = Penstock

    target: str = "127.0.0.1:50050"
    flow: str
    output: str | None = None
    node_id: str | None = None

    def invoke(self, input: dict[str, Any], config: RunnableConfig | None = None, **_: Any) -> Any:  # noqa: A002  # LangChain's.
        return self._call_with_config(lambda inputs: BACKGROUND.run(self._run(inputs)), input, config)

    async def ainvoke(self, input: dict[str, Any], config: RunnableConfig | None = None, **_: Any) -> Any:  # noqa: A002  # LangChain's.
        return await self._acall_with_config(self._run, input, config)

    def stream(self, input: dict[str, Any], config: RunnableConfig | None = None, **_: Any) -> Iterator[Any]:  # noqa: A002  # LangChain's.
        yield from self._transform_stream_with_config(iter([input]), self._texts_of, config)

    async def astream(self, input: dict[str, Any], config: RunnableConfig | None = None, **_: Any) -> AsyncIterator[Any]:  # noqa: A002  # LangChain's.
        async with aclosing(self._atransform_stream_with_config(_once(input), self._atexts_of, config)) as texts:  # type: ignore[type-var]  # A generator, typed as an iterator.
            async for text in texts:
                yield text

    async def _run(self, inputs: dict[str, Any]) -> Any:
        client: Penstock = self._here()
        return self._returned(await client.run(self.flow, inputs, timeout_s=self.timeout_s))

    def _texts_of(self, inputs: Iterator[dict[str, Any]]) -> Iterator[Any]:
        for each in inputs:
            yield from BACKGROUND.iterate(self._texts(each))

    async def _atexts_of(self, inputs: AsyncIterator[dict[str, Any]]) -> AsyncIterator[Any]:
        async for each in inputs:
            async with aclosing(self._texts(each)) as texts:
                async for text in texts:
                    yield text

    async def _texts(self, inputs: dict[str, Any]) -> AsyncGenerator[Any, None]:
        client: Penstock = self._here()
        any_text = False
        async with aclosing(client.stream(self.flow, inputs, timeout_s=self.timeout_s)) as events:
            async for event in events:
                if isinstance(event, Token) and self.node_id in {None, event.node_id}:
                    any_text = True
                    yield event.text
                elif isinstance(event, Done) and not any_text:
                    yield self._returned(event.result)

    def _returned(self, result: RunResult) -> Any:
        if self.output is None:
            return dict(result.outputs)
        if self.output not in result.outputs:
            names = ", ".join(sorted(result.outputs))
            raise InvalidArgument(f"flow {self.flow!r} has no output {self.output!r}; it has {names}")
        return result.outputs[self.output]


async def _once(inputs: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    yield inputs
