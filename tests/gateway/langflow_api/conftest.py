"""The gateway as it is served, with the flows of the captured answers."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.gateway.langflow_api.flows import ANSWER, keep, trivial, with_model
from tests.gateway.serving import Stack, serving


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with serving(tmp_path) as running:
        running.generation.words = ANSWER
        await keep(running, "trivial", trivial())
        await keep(running, "chat", with_model())
        yield running
