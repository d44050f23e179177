"""The node types. A new one is a module here and a line in NODE_TYPES."""

from typing import Final

from gateway.nodes.agent import AGENT
from gateway.nodes.calculator import CALCULATOR
from gateway.nodes.embed import EMBED
from gateway.nodes.flow import FLOW
from gateway.nodes.generate import GENERATE
from gateway.nodes.history import HISTORY
from gateway.nodes.http_request import HTTP
from gateway.nodes.input import INPUT
from gateway.nodes.join import JOIN
from gateway.nodes.loop import LOOP
from gateway.nodes.map import MAP
from gateway.nodes.output import OUTPUT
from gateway.nodes.prompt import PROMPT
from gateway.nodes.rerank import RERANK
from gateway.nodes.retrieve import RETRIEVE
from gateway.nodes.spec import Spec
from gateway.nodes.sql import SQL
from gateway.nodes.switch import SWITCH
from gateway.nodes.transform import TRANSFORM

NODE_TYPES: Final[dict[str, Spec]] = {
    "input": INPUT,
    "prompt": PROMPT,
    "retrieve": RETRIEVE,
    "rerank": RERANK,
    "embed": EMBED,
    "generate": GENERATE,
    "history": HISTORY,
    "transform": TRANSFORM,
    "sql": SQL,
    "http": HTTP,
    "calculator": CALCULATOR,
    "agent": AGENT,
    "switch": SWITCH,
    "join": JOIN,
    "map": MAP,
    "loop": LOOP,
    "flow": FLOW,
    "output": OUTPUT,
}
