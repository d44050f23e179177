"""Which flows there are: keeping them, and finding the compiled one of a name.

A name is looked up in the store at most once every `refresh_s`; in between, a run costs no query. A flow that another replica
replaced is therefore served for at most that long; one that this process replaced, never.
"""

import asyncio
import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Protocol, TypeVar

import orjson

from gateway import importing
from gateway.compiler import CompiledFlow, Compiler
from gateway.execution import Run
from gateway.flow_cache import FlowCache, SingleFlight
from gateway.flow_model import Flow, FlowInput
from gateway.origin import NATIVE, Provenance, alias, provenance
from gateway.overriding import overridden
from gateway.validation import examine, refusal
from penstock.errors import FlowNotFound, InvalidArgument, Violation

FLOW_ID: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}")
PAGE_SIZE_MAX: Final = 1000
PAGE_SIZE: Final = 100

K = TypeVar("K")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFlow:
    """A flow as it is kept. `inputs` are (name, type, required); `document` is the writer's own text, `description` its own."""

    flow_id: str
    content_hash: str
    document: str
    create_time: datetime
    inputs: tuple[tuple[str, str, bool], ...]
    outputs: tuple[str, ...]
    description: str = ""
    origin: Provenance = NATIVE

    @property
    def aliases(self) -> tuple[str, ...]:
        """Other names under which it is found: the id and the name that an imported flow had where it comes from."""
        return tuple(dict.fromkeys(name for name in (self.origin.id, self.origin.endpoint_name) if name))


class FlowStore(Protocol):
    """Keeps flows durably: what `put` has returned survives a crash."""

    async def put(self, flow: StoredFlow, *, replace: bool) -> StoredFlow:
        """Keeps a flow, and gives what is then kept: the older one where its content hash is the same.

        Raises AlreadyExists when another document is under the id and `replace` is false.
        """
        ...

    async def get(self, flow_id: str) -> StoredFlow | None:
        """The flow of this id."""
        ...

    async def page(self, after: str, limit: int) -> tuple[StoredFlow, ...]:
        """At most `limit` flows whose ids come after `after`, in the order of their ids, without their documents."""
        ...

    async def delete(self, flow_id: str) -> bool:
        """Whether there was one."""
        ...

    async def resolve(self, alias: str) -> str | None:
        """The id of the flow that has this alias; of several that flow's which had it first."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowPage:
    """Some of the flows, and the id after which the next page begins; empty where there is none."""

    flows: tuple[StoredFlow, ...]
    next_after: str


class Flows:
    """The flows of a gateway. Flow ids are a lower-case letter, then lower-case letters, digits, - and _, at most 63."""

    def __init__(self, *, store: FlowStore, cache: FlowCache, compiler: Compiler, refresh_s: float, names_max: int) -> None:
        self._store = store
        self._cache = cache
        self._compiler = compiler
        self._refresh_s = refresh_s
        self._names_max = names_max
        self._current: OrderedDict[str, tuple[float, CompiledFlow]] = OrderedDict()
        self._finding: SingleFlight[CompiledFlow] = SingleFlight()
        self._aliases: OrderedDict[str, tuple[float, str]] = OrderedDict()
        self._writes = 0

    async def create(self, flow_id: str, document: str, *, replace: bool = False) -> StoredFlow:
        """Validates, compiles and keeps a flow. Raises InvalidFlow, AlreadyExists, InvalidArgument for a bad id.

        Of an export of LangFlow, the document that it becomes is kept.
        """
        _check_id(flow_id)
        read = await asyncio.to_thread(importing.examine, document)
        if read.flow is None:
            raise refusal(read.faults)
        compiled = self._compiler.compile(read.flow)
        kept = await self._store.put(_stored(flow_id, read.document, compiled.flow), replace=replace)
        self._wrote()
        self._cache.put(compiled.flow.content_hash, compiled)
        self._remember(flow_id, compiled)
        return kept

    async def get(self, flow_id: str) -> StoredFlow:
        """A flow with its document. Raises FlowNotFound."""
        kept = await self._store.get(flow_id) if FLOW_ID.fullmatch(flow_id) else None
        if kept is None:
            raise _not_found(flow_id)
        return kept

    async def page(self, page_size: int, after: str) -> FlowPage:
        """At most `page_size` flows (0: PAGE_SIZE). Raises InvalidArgument when the size is out of range."""
        if not 0 <= page_size <= PAGE_SIZE_MAX:
            raise InvalidArgument(f"page_size must be from 1 to {PAGE_SIZE_MAX}, or 0 for {PAGE_SIZE}; it is {page_size}")
        limit = page_size or PAGE_SIZE
        flows = await self._store.page(after, limit + 1)
        more = len(flows) > limit
        return FlowPage(flows=flows[:limit], next_after=flows[limit - 1].flow_id if more else "")

    async def delete(self, flow_id: str) -> None:
        """Forgets a flow; runs that have begun go on. Raises FlowNotFound."""
        existed = FLOW_ID.fullmatch(flow_id) is not None and await self._store.delete(flow_id)
        self._wrote()
        self._current.pop(flow_id, None)
        if not existed:
            raise _not_found(flow_id)

    async def check(self, document: str) -> tuple[Flow | None, tuple[Violation, ...]]:
        """The flow that a document says, or all of its faults. Keeps nothing."""
        read = await asyncio.to_thread(importing.examine, document)
        return read.flow, read.faults

    async def run(self, flow_id: str, inputs: Mapping[str, Any], run: Run) -> Mapping[str, Any]:
        """Runs a flow as a part of another one (backends.Subflows). Raises FlowNotFound."""
        compiled = await self.compiled(flow_id)
        return await compiled.run_inside(inputs, run)

    async def varied(self, flow_id: str, overrides: Mapping[str, Any]) -> CompiledFlow:
        """The flow of this id with some parameters set otherwise (overriding.py). Raises FlowNotFound, InvalidArgument."""
        compiled = await self.compiled(flow_id)
        if not overrides:
            return compiled
        written = orjson.dumps(overrides, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
        key = hashlib.sha256(compiled.flow.content_hash.encode() + written).hexdigest()

        async def vary() -> CompiledFlow:
            return self._compiler.compile(overridden(compiled.flow, overrides))

        return await self._cache.get(key, vary)

    async def resolve(self, name: str) -> str:
        """The id of the flow that has this id or, failing that, this alias. Raises FlowNotFound."""
        known = self.known(name)
        if known is not None:
            return known
        with suppress(FlowNotFound):
            await self.compiled(name)
            return name
        searched = alias(name)
        flow_id = await self._store.resolve(searched) if searched else None
        if flow_id is None:
            raise _not_found(name)
        remember(self._aliases, name, (time.monotonic() + self._refresh_s, flow_id), self._names_max)
        return flow_id

    def known(self, name: str) -> str | None:
        """What `resolve` answers, where that costs no query now."""
        now = time.monotonic()
        flow = self._current.get(name)
        if flow is not None and now < flow[0]:
            return name
        found = self._aliases.get(name)
        return found[1] if found is not None and now < found[0] else None

    async def compiled(self, flow_id: str) -> CompiledFlow:
        """The flow of this id, ready to run. Raises FlowNotFound."""
        found = self._current.get(flow_id)
        if found is not None and time.monotonic() < found[0]:
            return found[1]
        # Nobody who comes after a write shares a search that began before it.
        return await self._finding.do(f"{flow_id}@{self._writes}", lambda: self._find(flow_id))

    async def _find(self, flow_id: str) -> CompiledFlow:
        writes = self._writes
        kept = await self.get(flow_id)
        compiled = await self._cache.get(kept.content_hash, lambda: self._compile(kept))
        if writes == self._writes:
            self._remember(flow_id, compiled)
        return compiled

    async def _compile(self, kept: StoredFlow) -> CompiledFlow:
        flow, faults = await asyncio.to_thread(examine, kept.document)
        if flow is None:  # Kept by a version of the gateway whose language was another.
            raise refusal(faults).located(flow=kept.flow_id)
        return self._compiler.compile(flow)

    def _wrote(self) -> None:
        self._writes += 1
        self._aliases.clear()

    def _remember(self, flow_id: str, compiled: CompiledFlow) -> None:
        remember(self._current, flow_id, (time.monotonic() + self._refresh_s, compiled), self._names_max)


class LateSubflows:
    """The Subflows port of a compiler whose flows are made after it."""

    flows: Flows

    async def run(self, flow_id: str, inputs: Mapping[str, Any], run: Run) -> Mapping[str, Any]:
        return await self.flows.run(flow_id, inputs, run)


def remember(known: OrderedDict[K, T], key: K, value: T, most: int) -> None:
    """Keeps a value as the newest of at most `most`."""
    known[key] = value
    known.move_to_end(key)
    while len(known) > most:
        known.popitem(last=False)


def interface(inputs: tuple[FlowInput, ...]) -> tuple[tuple[str, str, bool], ...]:
    """What of a flow's inputs is told to callers."""
    return tuple((each.name, each.type.value, each.required) for each in inputs)


def _stored(flow_id: str, document: str, flow: Flow) -> StoredFlow:
    return StoredFlow(
        flow_id=flow_id,
        content_hash=flow.content_hash,
        document=document,
        create_time=datetime.now(UTC),
        inputs=interface(flow.inputs),
        outputs=flow.outputs,
        description=flow.description,
        origin=provenance(flow.origin),
    )


def _check_id(flow_id: str) -> None:
    if not FLOW_ID.fullmatch(flow_id):
        raise InvalidArgument(
            f"{flow_id[:80]!r} is not a flow id: a lower-case letter, then lower-case letters, digits, - and _, at most 63",
            violations=[Violation(field="flow_id", message="not a flow id", suggestion="such as 'rag' or 'support-bot_2'")],
        )


def _not_found(flow_id: str) -> FlowNotFound:
    shown = flow_id[:80]
    return FlowNotFound(f"there is no flow {shown!r}; ListFlows has those that there are", metadata={"flow": shown})
