"""The gateway's own bounds on what one run takes, as its settings say them."""

from pathlib import Path
from typing import Any

import pytest

from penstock.errors import BudgetExceeded
from penstock.flow.v1 import flow_pb2 as pb
from tests.gateway.fakes import document, node
from tests.gateway.serving import serving

TWICE = document(
    node("question", "input"), node("docs", "retrieve", collection="squad"), node("prompt", "prompt", template="{docs}"),
    node("first", "generate"), node("second", "generate"), node("more", "retrieve", collection="squad"),
    node("found", "output"),
    edges=["question > docs", "docs > prompt", "prompt > first", "first > second", "second > more", "more > found"],
)  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "budget"),
    [
        ({"run_model_calls_max": 1}, "model_calls"),
        ({"run_tokens_max": 7}, "tokens"),
        ({"run_retrievals_max": 1}, "retrievals"),
        ({"run_model_calls_max": 2, "run_tokens_max": 8, "run_retrievals_max": 2}, None),
    ],
)
async def test_a_run_takes_no_more_than_the_gateways_settings_allow(
    tmp_path: Path, settings: dict[str, Any], budget: str | None
) -> None:
    async with serving(tmp_path, **settings) as stack:
        await stack.flows.CreateFlow(pb.CreateFlowRequest(flow_id="twice", document=TWICE))
        if budget is None:
            assert (await stack.run("twice", question="?")).usage.model_calls == 2
            return
        with pytest.raises(BudgetExceeded) as caught:
            await stack.run("twice", question="?")
        assert caught.value.metadata["budget"] == budget
