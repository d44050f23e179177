"""The node types. A new one is a module here and a line in NODE_TYPES."""

from typing import Any, Final

from gateway.nodes.generate import GENERATE
from gateway.nodes.input import INPUT
from gateway.nodes.output import OUTPUT
from gateway.nodes.prompt import PROMPT
from gateway.nodes.retrieve import RETRIEVE
from gateway.nodes.spec import NodeSpec
from gateway.nodes.transform import TRANSFORM

NODE_TYPES: Final[dict[str, NodeSpec[Any]]] = {
    "input": INPUT,
    "prompt": PROMPT,
    "retrieve": RETRIEVE,
    "generate": GENERATE,
    "transform": TRANSFORM,
    "output": OUTPUT,
}
