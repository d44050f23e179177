"""A compiled flow as a LangChain Runnable, for programs that embed one in a chain.

A module of its own, because importing LangChain takes as long as everything else that a gateway imports.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.utils import AddableDict

from gateway.compiler import CompiledFlow
from gateway.execution import RunResult, Token
from penstock.errors import FailedPrecondition


class FlowRunnable(Runnable[dict[str, Any], dict[str, Any]]):
    """Takes a run's inputs, gives its outputs, both by their names. Raises what the flow raises."""

    def __init__(self, compiled: CompiledFlow) -> None:
        self._compiled = compiled

    async def ainvoke(
        self,
        input: dict[str, Any],  # noqa: A002  # LangChain's name.
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """The outputs by their names."""
        return await self._acall_with_config(self._outputs, input, config, **kwargs)

    def invoke(
        self,
        input: dict[str, Any],  # noqa: A002  # LangChain's name.
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """As `ainvoke`, on an event loop of its own. Raises FailedPrecondition inside a running one."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(self.ainvoke(input, config, **kwargs))
        raise FailedPrecondition("an event loop is running here: await ainvoke instead")

    async def astream(
        self,
        input: dict[str, Any],  # noqa: A002  # LangChain's name.
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[dict[str, Any]]:
        """Pieces of the outputs that add up to them: tokens of the nodes that feed an output as they come, the rest whole."""

        async def once() -> AsyncIterator[dict[str, Any]]:
            yield input

        async for chunk in self._atransform_stream_with_config(once(), self._chunks, config, **kwargs):
            yield chunk

    async def _outputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return dict((await self._compiled.run(inputs)).outputs)

    async def _chunks(self, inputs: AsyncIterator[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
        streamed = self._streamed_outputs()
        async for given in inputs:
            told: set[str] = set()
            async with aclosing(self._compiled.events(given)) as events:
                async for event in events:
                    if isinstance(event, Token) and event.node_id in streamed:
                        told |= streamed[event.node_id]
                        yield AddableDict(dict.fromkeys(sorted(streamed[event.node_id]), event.text))
                    elif isinstance(event, RunResult) and (rest := {k: v for k, v in event.outputs.items() if k not in told}):
                        yield AddableDict(rest)

    def _streamed_outputs(self) -> dict[str, set[str]]:
        """The names of the outputs that each generating node feeds directly."""
        nodes = {node.id: node for node in self._compiled.flow.nodes}
        streamed: dict[str, set[str]] = {}
        for edge in self._compiled.flow.edges:
            source, target = nodes[edge.source], nodes[edge.target]
            if source.type in {"generate", "agent"} and edge.source_port == "text" and target.type == "output":
                streamed.setdefault(source.id, set()).add(target.params.name or target.id)
        return streamed
