"""A local stack and its folder."""

from pathlib import Path

import pytest

from penstock.cli.local import LocalStack, _locked
from penstock.errors import FailedPrecondition


async def test_a_second_stack_on_a_folder_is_refused_and_touches_nothing(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/gateway.log").write_text("of the running one")
    with _locked(tmp_path), pytest.raises(FailedPrecondition, match="another penstock runs"):
        await LocalStack(tmp_path, fixed_ports=False, environment={}).start(lambda _: None)
    assert (tmp_path / "logs/gateway.log").read_text() == "of the running one"
    _locked(tmp_path).close()


@pytest.mark.e2e
async def test_some_of_the_services_start_alone(tmp_path: Path) -> None:
    stack = LocalStack(tmp_path, fixed_ports=False, environment={}, names=["gateway"])
    ready = []
    await stack.start(ready.append)
    try:
        assert [service.name for service in ready] == ["gateway"]
        assert list(stack.services) == ["gateway"]
    finally:
        assert await stack.stop() == {"gateway": 0}
