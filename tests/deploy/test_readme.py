"""The operators' pages name settings, files, sections and alerts that there are."""

import re
from pathlib import Path

import pytest
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
PAGES = ["README.md", "retrieval.md", "generation.md"]


@pytest.mark.parametrize("page", PAGES)
def test_every_setting_that_it_names_is_a_field_of_its_service(page, settings_of):
    named = re.findall(r"PENSTOCK_(GATEWAY|RETRIEVAL|GENERATION)_(\w+)", (DEPLOY / page).read_text())
    assert len(named) >= 5
    for service, field in named:
        assert field.lower() in type(settings_of(service.lower(), {})).model_fields


@pytest.mark.parametrize("page", PAGES)
def test_every_file_and_section_that_it_links_exists(page):
    for link in re.findall(r"\]\(([^)]+)\)", (DEPLOY / page).read_text()):
        path, _, section = link.partition("#")
        assert (DEPLOY / path).exists(), link
        if section:
            headings = re.findall(r"^## (.+)$", (DEPLOY / path).read_text(), flags=re.MULTILINE)
            assert section in {heading.lower().replace(" ", "-") for heading in headings}, link


def test_every_secret_that_pods_want_is_made_on_the_page_of_retrieval():
    text = (DEPLOY / "retrieval.md").read_text()
    wanted = set()
    for path in (DEPLOY / "kubernetes").rglob("*.yaml"):
        wanted |= set(re.findall(r"secretName: (\S+)", path.read_text()))
        wanted |= set(re.findall(r"secretKeyRef:\s+name: (\S+)", path.read_text()))
    assert wanted == {"penstock-retrieval", "penstock-retrieval-keys", "penstock-gateway"}
    for name in wanted:
        assert f"create secret generic {name} " in text


@pytest.mark.parametrize("service", ["retrieval", "generation"])
def test_it_says_what_to_do_about_every_alert_and_about_none_that_there_is_not(service):
    rules = yaml.safe_load((DEPLOY / "prometheus-rules.yaml").read_text())
    (group,) = (group for group in rules["groups"] if group["name"] == f"penstock-{service}")
    alerts = {rule["alert"] for rule in group["rules"]}
    named = re.findall(rf"`({service.capitalize()}\w+)`", (DEPLOY / f"{service}.md").read_text())
    assert set(named) == alerts
