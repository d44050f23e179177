import asyncio
import sys
from pathlib import Path

import pytest
from aiohttp import web

from generation_svc.hub import fetched
from penstock.errors import FailedPrecondition
from penstock.model_files import locate_model
from tests.generation_svc.processes import GGUF, ROOT


async def test_what_is_here_is_itself(tmp_path: Path) -> None:
    assert await fetched(str(tmp_path)) == tmp_path
    assert await fetched(GGUF) == Path(locate_model(GGUF))


@pytest.mark.parametrize("reference", ["/nowhere/model.gguf", "model.gguf", "./a/b", "../a/b"])
async def test_a_path_that_is_not_there_is_not_looked_for_on_a_hub(reference: str) -> None:
    with pytest.raises(FailedPrecondition, match="not there"):
        await fetched(reference)


async def asked_in_a_process(reference: str, endpoint: str, home: Path, **more: str) -> tuple[int, str]:
    """In a process of its own, because the hub's library reads its settings when it is imported."""
    program = f"import asyncio; from generation_svc.hub import fetched; print(asyncio.run(fetched({reference!r})))"
    environment = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "PYTHONPATH": str(ROOT), **more}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    return process.returncode or 0, (out or err).decode().strip()


async def test_a_file_named_by_its_repository_is_fetched_from_the_hub(tmp_path: Path) -> None:
    async def resolve(request: web.Request) -> web.Response:
        assert request.path == "/owner/name/resolve/main/folder/model.gguf"
        headers = {"ETag": '"abc"', "X-Repo-Commit": "0" * 40}
        return web.Response(body=b"weights", headers=headers)

    application = web.Application()
    application.router.add_get("/{path:.*}", resolve)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        port = site._server.sockets[0].getsockname()[1]
        code, said = await asked_in_a_process("owner/name/folder/model.gguf", f"http://127.0.0.1:{port}", tmp_path)
    finally:
        await runner.cleanup()
    assert code == 0, said
    with open(said, "rb") as file:  # noqa: ASYNC230, PTH123  # Seven bytes.
        assert file.read() == b"weights"


async def test_without_a_hub_a_name_is_refused_with_what_was_tried(tmp_path: Path) -> None:
    code, said = await asked_in_a_process("owner/name/model.gguf", "http://127.0.0.1:9", tmp_path, HF_HUB_OFFLINE="1")
    assert code == 1
    assert "neither a file or folder here nor to be had from the hub" in said
