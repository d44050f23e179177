from typing import get_args

import pytest
from pydantic import ValidationError

from generation_svc.__main__ import ENGINES, POOLING_ENGINES
from generation_svc.settings import GenerationSettings
from penstock.errors import FailedPrecondition


async def start(**settings: object) -> None:
    chosen = GenerationSettings(**settings)
    await ENGINES[chosen.engine](chosen, pytest.fail)


def test_every_engine_that_may_be_chosen_is_there() -> None:
    assert {*ENGINES, *POOLING_ENGINES} == set(get_args(GenerationSettings.model_fields["engine"].annotation))


async def test_vllm_over_a_gguf_file_says_how_to_make_a_checkpoint() -> None:
    with pytest.raises(FailedPrecondition, match="penstock models prepare"):
        await start(engine="vllm")


async def test_vllm_in_an_environment_without_it_says_where_it_is() -> None:
    with pytest.raises(FailedPrecondition, match="make vllm"):
        await start(engine="vllm", model="owner/name")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("engine", "abacus"),
        ("running_max", 0),
        ("waiting_max", -1),
        ("coalesce_ms_max", -1),
        ("served_name", "a/b"),
        ("openai_base_url", "x"),
    ],
)
def test_a_setting_out_of_bounds_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ValidationError, match=name):
        GenerationSettings(**{name: value})


def test_settings_come_from_the_environment_by_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_GENERATION_ENGINE", "openai")
    monkeypatch.setenv("PENSTOCK_GENERATION_OPENAI_API_KEY", "sk-secret")
    settings = GenerationSettings()
    assert settings.engine == "openai"
    assert "sk-secret" not in repr(settings)


async def test_whoever_may_wait_must_be_let_in_to_wait() -> None:
    from generation_svc.__main__ import _check_room

    with pytest.raises(FailedPrecondition, match="set it to 96 or more"):
        _check_room(GenerationSettings(concurrency_max=95, running_max=32, waiting_max=64))
    _check_room(GenerationSettings(concurrency_max=96, running_max=32, waiting_max=64))
