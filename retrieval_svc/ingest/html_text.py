"""The text of an HTML document, by selectolax (lexbor), which repairs what is malformed as browsers do.

Runs in the reading process: lexbor takes quadratic time for deep nesting, minutes for a megabyte of "<div>".
"""

import codecs
import re
from typing import Final

from selectolax.lexbor import LexborHTMLParser, LexborNode

from retrieval_svc.ingest.text_codecs import text_codec

_DROPPED: Final = frozenset(
    ("audio", "button", "canvas", "datalist", "dialog", "embed", "iframe", "input", "map", "math", "menu", "nav", "noscript",
     "object", "script", "select", "style", "svg", "template", "textarea", "video")
)  # fmt: skip
"""Elements that hold no prose: code, navigation, controls, pictures."""
_LINES: Final = frozenset(
    ("address", "br", "caption", "dd", "div", "dt", "figcaption", "legend", "li", "option", "summary", "tr")
)
"""Elements that begin and end a line."""
_PARAGRAPHS: Final = frozenset(
    ("article", "aside", "blockquote", "body", "details", "dl", "fieldset", "figure", "footer", "form", "h1", "h2", "h3", "h4",
     "h5", "h6", "header", "hr", "main", "ol", "p", "pre", "section", "table", "ul")
)  # fmt: skip
"""Elements that stand apart by an empty line."""
_CELLS: Final = frozenset(("td", "th"))
_STRENGTH: Final = {"": 0, " ": 1, "\t": 2, "\n": 3, "\n\n": 4}
_HEADINGS: Final = {f"h{level}": level for level in range(1, 7)}

_PRESCAN_BYTES: Final = 4096
_CHARSET: Final = re.compile(
    rb"""<(?:meta|\?xml)\b[^>]{0,500}?\b(?:charset|encoding)\s*=\s*["']?\s*([\w.:-]{1,40})""", re.IGNORECASE
)
_SPACE: Final = re.compile(r"[ \t\n\r\f]+")


def decode_html(content: bytes, charset: str) -> str:
    """The document as text: by its byte order mark, the transport's charset, its own declaration, else UTF-8.

    What cannot be decoded becomes U+FFFD, as in a browser.
    """
    marks = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
    marked = next((name for mark, name in marks if content.startswith(mark)), "")
    declared = _CHARSET.search(content[:_PRESCAN_BYTES])
    for label in (marked, charset, declared[1].decode("ascii", "replace") if declared else ""):
        if label and (codec := text_codec(label)):
            return content.decode(codec, "replace")
    return content.decode("utf-8", "replace")


def html_text(html: str, *, mark_headings: bool = False) -> tuple[str, str]:
    """Text and title. Blocks are lines or paragraphs, cells stand behind tabs; headings are marked as Markdown's on request."""
    tree = LexborHTMLParser(html)
    title = tree.css_first("head > title")
    lines = _Lines()
    if tree.body is not None:
        _walk(tree.body, lines, mark_headings=mark_headings)
    return lines.text(), _SPACE.sub(" ", title.text()).strip() if title is not None else ""


class _Lines:
    """Puts text together: white space is folded, but for what is preformatted."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._pending = ""
        self.preformatted = 0

    def add(self, text: str) -> None:
        if self.preformatted:
            self._flush()
            self._parts.append(text)
            return
        folded = _SPACE.sub(" ", text)
        if folded.startswith(" "):
            self.separate(" ")
        if words := folded.strip(" "):
            self._flush()
            self._parts.append(words)
            if folded.endswith(" "):
                self.separate(" ")

    def separate(self, separator: str) -> None:
        """Asks for a separator before what comes next; the strongest that was asked for wins."""
        if _STRENGTH[separator] > _STRENGTH[self._pending]:
            self._pending = separator

    def text(self) -> str:
        return "".join(self._parts).strip()

    def _flush(self) -> None:
        if self._parts:
            self._parts.append(self._pending)
        self._pending = ""


def _walk(body: LexborNode, lines: _Lines, *, mark_headings: bool) -> None:
    """Goes through the tree in the order of the document, by a loop: a document may nest deeper than any stack."""
    node, last = body, body.mem_id
    while True:
        child = _enter(node, lines, mark_headings=mark_headings)
        if child is not None:
            node = child
            continue
        while node.mem_id == last or node.next is None:
            if node.mem_id == last or node.parent is None:
                return
            _leave(node, lines)
            node = node.parent
        _leave(node, lines)
        node = node.next


def _enter(node: LexborNode, lines: _Lines, *, mark_headings: bool) -> LexborNode | None:
    """Takes in what begins here; the first child to go on with."""
    if node.is_text_node:
        lines.add(node.text_content or "")
        return None
    tag = node.tag or ""
    if not node.is_element_node or tag in _DROPPED or "hidden" in node.attributes:
        return None
    lines.separate(_separator(tag))
    if tag == "pre":
        lines.preformatted += 1
    if mark_headings and tag in _HEADINGS and node.text().strip():
        lines.add("#" * _HEADINGS[tag] + " ")
    return node.child


def _leave(node: LexborNode, lines: _Lines) -> None:
    tag = node.tag or ""
    if not node.is_element_node or tag in _DROPPED:
        return
    if tag == "pre" and "hidden" not in node.attributes:
        lines.preformatted -= 1
    lines.separate(_separator(tag))


def _separator(tag: str) -> str:
    if tag in _PARAGRAPHS:
        return "\n\n"
    return "\n" if tag in _LINES else "\t" if tag in _CELLS else ""
