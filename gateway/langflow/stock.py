"""Which code is a stock component's. LangFlow puts a component's Python into every flow; edited, it is another program.

stock_hashes.json has, for every component of LangFlow's releases, the hashes of all its sources; bench/langflow_stock.py makes
it from the published wheels. Code is never read here, only compared.
"""

from collections import defaultdict
from functools import cache
from importlib.resources import files

import orjson

from gateway.langflow.kinds import KINDS, simple


@cache
def _names() -> dict[str, frozenset[str]]:
    """The components whose code has a hash."""
    written: dict[str, str] = orjson.loads(files("gateway.langflow").joinpath("stock_hashes.json").read_bytes())
    names: defaultdict[str, set[str]] = defaultdict(set)
    for name, hashes in written.items():
        for each in hashes.split():
            names[each].add(name)
    return {each: frozenset(found) for each, found in names.items()}


def is_stock(code_hash: str) -> bool:
    """Whether any release has a component with this code."""
    return code_hash in _names()


def is_stock_of(code_hash: str, kind: str) -> bool:
    """Whether the code is that of a component of this kind, in any release."""
    return any(KINDS.get(simple(name)) == kind for name in _names().get(code_hash, ()))
