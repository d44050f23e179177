"""The operator's page names settings and files that there are."""

import re
from pathlib import Path

DEPLOY = Path(__file__).parents[2] / "deploy"


def test_every_setting_that_it_names_is_a_field_of_its_service(settings_of):
    text = (DEPLOY / "README.md").read_text()
    named = re.findall(r"PENSTOCK_(GATEWAY|RETRIEVAL|GENERATION)_(\w+)", text)
    assert len(named) >= 5
    for service, field in named:
        assert field.lower() in type(settings_of(service.lower(), {})).model_fields


def test_every_file_that_it_links_exists():
    for link in re.findall(r"\]\(([^)]+)\)", (DEPLOY / "README.md").read_text()):
        assert (DEPLOY / link).exists(), link
