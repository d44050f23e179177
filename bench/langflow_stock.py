"""Makes gateway/langflow/stock_hashes.json from LangFlow's published wheels: the hash of every component's source.

    pip download --no-deps -d wheels langflow-base==1.13.0 lfx==1.13.0 lfx-openai ...
    python -m bench.langflow_stock wheels gateway/langflow/stock_hashes.json

The wheels' code is parsed to find the components' names, never run.
"""

import ast
import hashlib
import json
import sys
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Hashes = defaultdict[str, set[str]]


def main() -> None:
    wheels, target = Path(sys.argv[1]), Path(sys.argv[2])
    found: Hashes = defaultdict(set)
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            for name, source in components(archive):
                found[name].add(hashlib.sha256(source).hexdigest()[:12])
    target.write_text(json.dumps({name: " ".join(sorted(found[name])) for name in sorted(found)}, indent=0) + "\n")
    print(f"{len(found)} components, {sum(map(len, found.values()))} sources")


def components(archive: zipfile.ZipFile) -> Iterator[tuple[str, bytes]]:
    """Names of components, each with a source that it had: of the modules, and of the flows that come with LangFlow."""
    for path in archive.namelist():
        if path.endswith(".py") and ("/components/" in path or path.startswith("lfx_")):
            source = archive.read(path)
            yield from ((name, source) for name in names(source))
        elif path.endswith(".json") and ("starter_projects/" in path or path.endswith("component_index.json")):
            yield from embedded(json.loads(archive.read(path)))


def names(source: bytes) -> Iterator[str]:
    """The components that a module defines, by the name and by the class."""
    try:
        module = ast.parse(source)
    except SyntaxError:
        return
    for node in module.body:
        if isinstance(node, ast.ClassDef):
            written = {
                target.id: statement.value.value
                for statement in node.body
                for target in targets(statement)
                if isinstance(statement, ast.Assign | ast.AnnAssign) and isinstance(statement.value, ast.Constant)
            }
            if "display_name" in written or "name" in written:
                name = written.get("name")
                yield name if isinstance(name, str) else node.name


def targets(statement: ast.stmt) -> list[ast.Name]:
    found = (
        statement.targets
        if isinstance(statement, ast.Assign)
        else [statement.target]
        if isinstance(statement, ast.AnnAssign)
        else []
    )
    return [target for target in found if isinstance(target, ast.Name)]


def embedded(value: Any) -> Iterator[tuple[str, bytes]]:
    """The components in a flow, or in the index that comes with lfx, which holds their nodes by name."""
    if "entries" in value:
        nodes = [(name, node) for _, entry in value["entries"] for name, node in entry.items()]
    else:
        nodes = [(each["data"].get("type", ""), each["data"].get("node", {})) for each in value["data"]["nodes"]]
    for name, node in nodes:
        code = (node.get("template") or {}).get("code", {}).get("value")
        if isinstance(code, str):
            yield name, code.encode()


if __name__ == "__main__":
    main()
