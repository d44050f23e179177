"""LangFlow's exports, converted to documents of ours.

    export.py     what a file says            kinds.py       what a component is, under all its names
    selection.py  which of it is the flow     rules/         what becomes of a component of each kind
    conversion.py the whole                   explanation.py the mapping, told

The Python that LangFlow embeds in every component is never run, nor even parsed: its hash says whether it is a stock
component's.
"""

from gateway.langflow.conversion import Imported, attempt, convert
from gateway.langflow.explanation import Line, explained
from gateway.langflow.export import is_export
from gateway.langflow.place import DEFAULTS, Options

__all__ = ["DEFAULTS", "Imported", "Line", "Options", "attempt", "convert", "explained", "is_export"]
