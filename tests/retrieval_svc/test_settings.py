from pathlib import Path

import pytest
from pydantic import ValidationError

from retrieval_svc.settings import RetrievalSettings


def test_every_setting_says_what_it_is() -> None:
    assert [name for name, field in RetrievalSettings.model_fields.items() if not field.description] == []


def test_every_number_has_bounds() -> None:
    numbers = {name: field for name, field in RetrievalSettings.model_fields.items() if field.annotation in (int, float)}
    unbounded = [
        name
        for name, field in numbers.items()
        if not any(hasattr(rule, "le") for rule in field.metadata)
        or not any(hasattr(rule, "ge") or hasattr(rule, "gt") for rule in field.metadata)
    ]
    assert unbounded == []


def test_the_record_lies_in_the_data_folder_unless_another_is_named(tmp_path: Path) -> None:
    own = RetrievalSettings(data_dir=tmp_path)
    assert own.resolved_database_url == f"sqlite+aiosqlite:///{tmp_path}/retrieval.db"
    other = RetrievalSettings(data_dir=tmp_path, database_url="postgresql+asyncpg://db/penstock")
    assert other.resolved_database_url == "postgresql+asyncpg://db/penstock"


def test_overlap_leaves_room_for_new_text() -> None:
    with pytest.raises(ValidationError, match="chunk_overlap_tokens"):
        RetrievalSettings(chunk_tokens_max=100, chunk_overlap_tokens=51)


def test_the_environment_is_read_with_the_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_RETRIEVAL_TOP_K_MAX", "50")
    assert RetrievalSettings().top_k_max == 50
