"""Documents in either spelling: our own, and LangFlow's exports, which are converted on the way in.

What is kept of an export is the document that it becomes: neither its Python nor its secrets go any further.
"""

from dataclasses import dataclass
from typing import Any, Final

import orjson

from gateway.document import DOCUMENT_BYTES_MAX
from gateway.flow_model import Flow
from gateway.langflow import DEFAULTS, Options, attempt, explained, is_export
from gateway.langflow.naming import slug
from gateway.validation import examine as examine_ours
from gateway.validation import refusal
from penstock.errors import Violation

FLOW_NAME: Final = "langflow"


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """A document as it is kept, and the flow that it says; None where there are faults."""

    document: str
    flow: Flow | None
    faults: tuple[Violation, ...] = ()


def examine(text: str | bytes, options: Options = DEFAULTS) -> Read:
    """The flow of a document in either spelling, or all of its faults."""
    if not is_an_export(text):
        document = text if isinstance(text, str) else text.decode(errors="replace")
        return Read(document=document, **_checked(text))
    imported, faults = attempt(text, options)
    if imported is None:
        return Read(document="", flow=None, faults=faults)
    document = orjson.dumps(imported.document, option=orjson.OPT_INDENT_2).decode()
    return Read(document=document, **_checked(document))


def validate(text: str | bytes) -> Flow:
    """The flow of a document in either spelling. Raises InvalidFlow."""
    read = examine(text)
    if read.flow is None:
        raise refusal(read.faults)
    return read.flow


def import_flow(text: bytes, **chosen: Any) -> tuple[str, str, str]:
    """For the command line: the name of a LangFlow flow as ours are named, its document, and the mapping in words.

    `chosen` are Options. Raises InvalidFlow with every fault.
    """
    options = Options(**chosen)
    imported, faults = attempt(text, options)
    if imported is None:
        raise refusal(faults)
    read = examine(orjson.dumps(imported.document, option=orjson.OPT_INDENT_2), options)
    if read.flow is None:
        raise refusal(read.faults)
    return slug(imported.name) or FLOW_NAME, read.document, explained(imported.lines)


def flow_name(wanted: str, text: str) -> str:
    """The name of a flow by that of its file, which of an export is whatever LangFlow called it."""
    return slug(wanted) or FLOW_NAME if is_an_export(text) else wanted


def _checked(text: str | bytes) -> dict[str, Any]:
    flow, faults = examine_ours(text)
    return {"flow": flow, "faults": faults}


def is_an_export(text: str | bytes) -> bool:
    """Whether a document is an export. A broken one of ours is told as ours."""
    if len(text) > 4 * DOCUMENT_BYTES_MAX:
        return False
    try:
        return is_export(orjson.loads(text))
    except orjson.JSONDecodeError:
        return False
