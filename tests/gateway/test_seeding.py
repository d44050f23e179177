from pathlib import Path

import pytest

from gateway.flow_cache import FlowCache
from gateway.flows import Flows
from gateway.seeding import seed
from penstock.errors import FailedPrecondition
from tests.gateway.fakes import CHAT, ECHO, MemoryFlowStore, World


@pytest.fixture
def flows(world: World) -> Flows:
    return Flows(store=MemoryFlowStore(), cache=FlowCache(8), compiler=world.compiler, refresh_s=1, names_max=8)


async def test_each_file_becomes_a_flow_and_replaces_the_one_of_its_name(flows: Flows, tmp_path: Path) -> None:
    await flows.create("chat", ECHO)
    (tmp_path / "chat.json").write_text(CHAT)
    (tmp_path / "echo.json").write_text(ECHO)
    (tmp_path / "README.md").write_text("not a flow")
    assert await seed(flows, tmp_path) == 2
    assert (await flows.get("chat")).document == CHAT
    assert await seed(flows, tmp_path) == 2


async def test_the_bundled_examples_are_kept(flows: Flows) -> None:
    assert await seed(flows, Path(__file__).parents[2] / "examples/flows") >= 3


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        (
            "bad.json",
            ECHO.replace("upper", "uper").encode(),
            ["bad.json", "node 'loud' params.operation", "did you mean 'upper'?"],
        ),
        ("Bad.json", ECHO.encode(), ["Bad.json", "is not a flow id"]),
        ("bad.json", b"\xff\xfe", ["bad.json", "cannot be read"]),
    ],
)
async def test_a_fault_names_the_file_and_the_node(
    flows: Flows, tmp_path: Path, name: str, content: bytes, says: list[str]
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FailedPrecondition) as caught:
        await seed(flows, tmp_path)
    assert all(part in caught.value.message for part in says)


async def test_a_folder_that_is_not_there_is_told(flows: Flows, tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match="is not a folder"):
        await seed(flows, tmp_path / "nowhere")
