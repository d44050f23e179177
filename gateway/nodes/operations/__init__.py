"""The closed set of operations that a transform node can do: pure, typed, and bounded in time and size."""

from typing import Final

from gateway.nodes.operations.base import Operation as Operation
from gateway.nodes.operations.computed import Computed
from gateway.nodes.operations.documents import Dedupe, FirstDocuments, FormatDocuments, Merge
from gateway.nodes.operations.json_values import Format, Get, ParseJson, ToText
from gateway.nodes.operations.lists import ArgMax, Join, Select, Vote
from gateway.nodes.operations.regexes import RegexExtract, RegexReplace, RegexSplit, RegexTest
from gateway.nodes.operations.texts import Lower, Replace, Split, Strip, TruncateChars, TruncateTokens, Upper

OPERATIONS: Final[dict[str, type[Operation]]] = {
    "upper": Upper,
    "lower": Lower,
    "strip": Strip,
    "replace": Replace,
    "truncate_chars": TruncateChars,
    "truncate_tokens": TruncateTokens,
    "regex_test": RegexTest,
    "regex_extract": RegexExtract,
    "regex_replace": RegexReplace,
    "regex_split": RegexSplit,
    "split": Split,
    "join": Join,
    "select": Select,
    "vote": Vote,
    "argmax": ArgMax,
    "format_documents": FormatDocuments,
    "first_documents": FirstDocuments,
    "dedupe": Dedupe,
    "merge": Merge,
    "parse_json": ParseJson,
    "get": Get,
    "format": Format,
    "to_text": ToText,
    "expression": Computed,
}
