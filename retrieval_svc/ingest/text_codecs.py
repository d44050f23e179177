"""Which character sets a document may name."""

import codecs
import re
from typing import Final

_CODEC: Final = re.compile(
    r"utf-8(-sig)?|utf-16(-[bl]e)?|cp\d+|iso8859-\d+|koi8-[ru]|mac-\w+|gb\w+|big5\w*|shift_jis\w*|euc_\w+|iso2022_\w+|tis-620|johab"
)


def text_codec(label: str) -> str:
    """Python's codec for the name of a character set; empty where there is none that a document may ask for.

    Latin-1 and ASCII are read as Windows-1252, which is what documents mean by them (WHATWG Encoding).
    """
    try:
        name = codecs.lookup(label.strip()).name
    except (LookupError, ValueError):
        return ""
    if name in {"iso8859-1", "ascii"}:
        return "cp1252"
    return name if _CODEC.fullmatch(name) else ""
