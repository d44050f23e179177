import json
from pathlib import Path

import pytest

from gateway.compiler import Compiler
from gateway.validation import examine, validate
from gateway.variables import Variables, open_variables
from penstock.errors import FlowMisconfigured
from tests.gateway.fakes import World, document, node

READS = document(
    node("company", "input", required=False, variable="Our Company"), node("answer", "output"), edges=["company > answer"]
)


def compiled(variables: Variables):
    own = World().compiler
    backends = type(own.backends)(
        **{name: getattr(own.backends, name) for name in own.backends.__slots__ if name != "variables"}, variables=variables
    )
    return Compiler(backends=backends, tracer=own.tracer).compile(validate(READS))


async def test_an_input_reads_a_variable_that_the_flow_does_not_hold() -> None:
    flow = compiled(open_variables({"PENSTOCK_VARIABLE_OUR_COMPANY": "Analytical Engines", "PATH": "/bin"}, None))
    assert (await flow.run({})).outputs == {"answer": "Analytical Engines"}
    assert (await flow.run({"company": "Mine"})).outputs == {"answer": "Mine"}


async def test_nothing_of_the_environment_can_be_read_but_by_the_prefix() -> None:
    flow = compiled(open_variables({"OUR_COMPANY": "secret"}, None))
    with pytest.raises(FlowMisconfigured, match="PENSTOCK_VARIABLE_OUR_COMPANY") as caught:
        await flow.run({})
    assert caught.value.metadata["node"] == "company"


async def test_files_of_a_mounted_secret_go_before_the_environment(tmp_path: Path) -> None:
    (tmp_path / "our_company").write_text("From a file\n")
    (tmp_path / ".hidden").write_text("no")
    (tmp_path / "folder").mkdir()
    flow = compiled(open_variables({"PENSTOCK_VARIABLE_OUR_COMPANY": "From the environment"}, tmp_path))
    assert (await flow.run({})).outputs == {"answer": "From a file"}


@pytest.mark.parametrize(
    "params", [{"variable": "X"}, {"variable": "X", "required": False, "default": "d"}, {"variable": "", "required": False}]
)
def test_a_variable_stands_in_for_a_text_that_is_not_required(params: dict[str, object]) -> None:
    _, faults = examine(document(node("a", "input", **params), node("b", "output"), edges=["a > b"]))
    assert [fault.node_id for fault in faults][:1] == ["a"]
    assert json.loads(READS)["nodes"][0]["params"]["variable"] == "Our Company"
