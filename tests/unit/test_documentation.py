"""The documentation says what is so: places exist, generated pages are the code's, links lead."""

import json
import re
from pathlib import Path

import pytest
from conftest import ROOT
from mkdocs.exceptions import Abort

from scripts.bench.report import FIGURES, PICTURE, draw
from scripts.pictures import STATES, document
from scripts.website import DeadLink, Stage, build_site

LOADED = re.compile(r"<(?:script|img|iframe|link)\b[^>]*?(?:src|href)=\"?([^\">\s]+)")
PARTY = re.compile(r"^## ", re.MULTILINE)
PLACE = re.compile(r"`((?:contracts|settlement|oracle|scripts|tests)/[\w./-]+)`")
TEST = re.compile(r"`((?:unit|integration|stateful|e2e)/[\w/]+\.py)(?:::(test_\w+))?`")


def test_every_threat_has_a_guard_and_a_test_that_exist() -> None:
    text = (ROOT / "docs" / "threats.md").read_text()
    rows = [line for line in text.splitlines() if re.match(r"\| [STRIDE] \|", line)]
    assert len(rows) > 50
    for row in rows:
        found = TEST.findall(row.split("|")[4])
        assert found, row
        for path, name in found:
            source = (ROOT / "tests" / path).read_text()
            assert not name or f"def {name}(" in source, f"{path}::{name}"
    for place in PLACE.findall(text):
        assert (ROOT / place).exists(), place
    # every party can be anything of STRIDE, but for who governs: it hides nothing and shows all
    for party in PARTY.split(text)[1:]:
        kinds = set(re.findall(r"^\| ([STRIDE]) \|", party, re.MULTILINE))
        assert kinds >= set("STDE"), party.splitlines()[0]


def test_places_that_the_architecture_names_exist() -> None:
    places = PLACE.findall((ROOT / "docs" / "architecture.md").read_text())
    assert len(places) > 20
    for place in places:
        assert (ROOT / place).exists(), place


def test_pictures_are_what_code_and_figures_say(tmp_path: Path) -> None:
    assert STATES.read_text() == document()
    draw(json.loads((FIGURES / "gas.json").read_text()), tmp_path / PICTURE.name)
    assert (tmp_path / PICTURE.name).read_bytes() == PICTURE.read_bytes()


def test_site_is_whole_and_asks_nobody_else(tmp_path: Path) -> None:
    build_site(tmp_path, None)
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 25
    for page in pages:
        loaded = LOADED.findall(page.read_text())
        foreign = [url for url in loaded if url.startswith(("http:", "https:", "//"))]
        assert not foreign, page.name
    for sheet in tmp_path.rglob("*.css"):
        assert not re.findall(r"url\(['\"]?(?:https?:)?//", sheet.read_text()), sheet.name
    reference = (tmp_path / "reference" / "settlement.html").read_text()
    assert 'id="settlement.client.Settlement.open_job_with_authorization"' in reference


@pytest.mark.parametrize(
    ("text", "fault"),
    [("[there](gone.md)", DeadLink), ("[there](cli.md#no-such-chapter)", Abort)],
)
def test_link_that_leads_nowhere_stops_the_site(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, fault: type[Exception]
) -> None:
    rewritten = Stage._rewritten

    def changed(stage: Stage, page: str) -> str:
        if page != "docs/cli.md":
            return rewritten(stage, page)
        for found in re.findall(r"\]\(([^)]+)\)", text):
            stage._link(page, found)
        return f"# Here\n\n{text}\n"

    monkeypatch.setattr(Stage, "_rewritten", changed)
    with pytest.raises(fault):
        build_site(tmp_path, None, reference=False)
