"""Which of LangFlow's starter flows are imported, and what keeps the others from it, by the releases in a folder of wheels.

pip download --no-deps -d wheels langflow-base==1.13.0 langflow-base==0.9.0 ...
python -m bench.langflow_starters wheels
"""

import re
import sys
import zipfile
from collections import defaultdict
from pathlib import Path

from gateway.importing import examine

WHEEL = re.compile(r"langflow_base-(.+?)-py3")


def main() -> None:
    imported: defaultdict[str, set[str]] = defaultdict(set)
    refused: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for wheel in Path(sys.argv[1]).glob("langflow_base-*.whl"):
        release = version(wheel)
        for name, text in starters(wheel):
            read = examine(text)
            if read.flow is not None:
                imported[release].add(name)
            else:
                refused[release][name] = ", ".join(sorted({fault.node_id.rpartition("-")[0] for fault in read.faults}))
    releases = sorted(imported, key=lambda each: [int(part) for part in re.findall(r"\d+", each)])
    print("| Release | Starters | Imported | Not, because of |\n|---|---|---|---|")
    for release in releases:
        why = "; ".join(f"{name}: {reason}" for name, reason in sorted(refused[release].items()))
        print(f"| {release} | {len(imported[release]) + len(refused[release])} | {len(imported[release])} | {why} |")
    print("\nImported in any:", ", ".join(sorted(set().union(*imported.values()))))


def version(wheel: Path) -> str:
    """LangFlow's version by that of its base package, which was 0.x until 1.12."""
    found = WHEEL.match(wheel.name)
    base = found[1] if found else wheel.stem
    return f"1.{base.removeprefix('0.')}" if base.startswith("0.") else base


def starters(wheel: Path) -> list[tuple[str, bytes]]:
    """The starter flows in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        paths = [path for path in archive.namelist() if "starter_projects/" in path and path.endswith(".json")]
        return [(Path(path).stem.strip(), archive.read(path)) for path in paths]


if __name__ == "__main__":
    main()
