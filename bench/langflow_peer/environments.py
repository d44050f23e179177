"""The peers' environments below one folder: made once, 2 GB. By uv where there is one, else by pip.

uv venv --python 3.11 DIR/langflow     uv pip install --python DIR/langflow/bin/python langflow==1.13.0 ...
uv venv --python 3.11 DIR/lfx          uv pip install --python DIR/lfx/bin/python lfx==1.13.0 ...
"""

import asyncio
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench.peers.environments import NotInstalled

LANGFLOW: Final = ("langflow==1.13.0", "lfx==1.13.0", "langflow-sdk==0.4.0", "lfx-bundles==1.2.4")
LFX: Final = ("lfx==1.13.0", "langflow-sdk==0.4.0", "lfx-openai", "langchain-openai", "lfx-bundles==1.2.4")


async def installed(folder: Path, name: str, pins: Sequence[str]) -> Path:
    """The bin folder of an environment, which is made when it is not there as pinned. Raises NotInstalled."""
    own = folder / name
    marker = own / "pins"
    if marker.exists() and marker.read_text() == "\n".join(pins):
        return own / "bin"
    python, uv = str(own / "bin/python"), shutil.which("uv")
    if uv is not None:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        await _run([uv, "venv", "--quiet", "--clear", "--python", version, str(own)])
        await _run([uv, "pip", "install", "--quiet", "--python", python, *pins])
    else:
        await _run([sys.executable, "-m", "venv", "--clear", str(own)])
        await _run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *pins])
    marker.write_text("\n".join(pins))
    return own / "bin"


async def _run(command: Sequence[str]) -> None:
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
    said, _ = await process.communicate()
    if process.returncode:
        raise NotInstalled("\n".join(said.decode(errors="replace").splitlines()[-3:]))
