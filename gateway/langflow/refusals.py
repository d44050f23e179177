"""What is said of a component that cannot be mapped: what it is, and what could stand in its place."""

import re
from collections.abc import Iterable
from typing import Final

from gateway.langflow.export import Component
from gateway.langflow.stock import is_stock

REPLACE: Final = "use the stock component, or put its work into nodes of ours"

_INSTEAD: Final[tuple[tuple[str, str], ...]] = (
    (r"python|code|function|lambda|smart ?(function|transform)", "a transform node with an expression: no code is run here"),
    (r"search|serp|tavily|duckduckgo|wiki|arxiv|yahoo|yfinance|exa|bing|news|rss", "an http node with the search's own API"),
    (r"url|scrap|crawl|firecrawl|agentql|apify|youtube|spider|web", "an http node with an allowed host, or `penstock ingest`"),
    (r"api|http|request|composio|gmail|slack|notion|confluence|home ?assistant", "an http node with an allowed host"),
    (r"mcp", "an agent with tools of our own nodes"),
    (r"rerank", "a rerank node"),
    (r"retriev|vector|index|graph ?rag", "a retrieve node with a collection of ours"),
    (
        r"load|reader|docling|unstructured|directory|csv|json|git|drive|s3|video|ingest",
        "`penstock ingest`, or an input of the flow",
    ),
    (r"save|write|upload", "the flow's output, which whoever runs it can keep"),
    (r"memory|chat ?history", "a history node with the gateway's sessions"),
    (r"router", "a generate node with a choice, and a switch node"),
    (r"agent|crew|task", "an agent node, or an Agent component of LangFlow"),
    (r"chain", "a prompt node and a generate node"),
    (r"guardrail", "a generate node with a choice, and a switch node"),
    (r"id ?generator|env", "an input of the flow, which whoever runs it gives"),
    (r"data|table|operations", "a transform node with an expression"),
    (r"human", "two flows, with the person between them"),
)


def unknown(component: Component) -> tuple[str, str]:
    """The message and the suggestion for a component of no known kind."""
    stock = (
        "a component of LangFlow that has no counterpart here"
        if is_stock(component.code_hash)
        else "not a component of LangFlow"
    )
    return f"{named(component)} is {stock}", instead(component)


def unmapped_tool(component: Component, known: Iterable[str]) -> tuple[str, str]:
    """The message and the suggestion for a component that an agent cannot be given."""
    return f"{named(component)} is no tool that our agents can have", f"tools: {', '.join(known)}; or {instead(component)}"


def edited(component: Component) -> tuple[str, str]:
    """The message and the suggestion for a component whose code is not a stock one's."""
    return f"{named(component)} has code of its own, which is never run here", f"{REPLACE}: {instead(component)}"


def named(component: Component) -> str:
    """A component as messages name it."""
    shown = component.display_name if component.display_name.lower() != component.type.lower() else ""
    return f"{component.type!r} ({shown})" if shown else repr(component.type)


def instead(component: Component) -> str:
    """What could stand in a component's place."""
    names = f"{component.type} {component.display_name}".lower()
    return next((hint for pattern, hint in _INSTEAD if re.search(pattern, names)), "such as docs/flow-reference.md lists")
