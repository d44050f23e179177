"""The real model, over real text."""

from pathlib import Path

import pytest

pytestmark = [pytest.mark.model, pytest.mark.slow]


CORPUS = Path(__file__).parents[2] / "examples/corpus/squad_xquad_en"
