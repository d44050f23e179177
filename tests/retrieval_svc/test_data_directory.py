import os
from pathlib import Path

import pytest

from penstock.errors import FailedPrecondition
from retrieval_svc.data_directory import locked_directory


def test_the_folder_is_made_and_held(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    with locked_directory(folder):
        assert (folder / "lock").read_text() == str(os.getpid())


def test_a_second_holder_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    with locked_directory(tmp_path), pytest.raises(FailedPrecondition, match=f"in use by process {os.getpid()}"):
        with locked_directory(tmp_path):
            pass
    with locked_directory(tmp_path):
        pass


def test_a_lock_file_that_was_left_behind_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("99999")
    with locked_directory(tmp_path):
        assert (tmp_path / "lock").read_text() == str(os.getpid())


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FailedPrecondition, match="PENSTOCK_RETRIEVAL_DATA_DIR"):
        with locked_directory(tmp_path / "file" / "below"):
            pass
