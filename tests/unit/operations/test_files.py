"""What an operator takes over: each metric it names exists, and its own tools take it."""

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from prometheus_client.parser import text_string_to_metric_families
from typer.main import get_command
from unit.oracle.bench import Bench

from oracle.cli import app
from oracle.config import OracleSettings
from oracle.metrics import endpoint_metrics

FOLDER = ROOT / "docs" / "operations"
MANUAL = ROOT / "docs" / "operations.md"
METRIC = re.compile(r"\brapha_oracle_[a-z_]+")


@pytest.fixture(scope="module")
def exposed(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names of all samples that an oracle exposes once its loops have run."""
    bench = Bench.create(tmp_path_factory.mktemp("oracle"))
    service = bench.service()
    for loop in service.loops:
        loop.succeeded_at = 1.0
    text = service.metrics.text().decode()
    # also those of which there is no sample yet
    families = [*text_string_to_metric_families(text), *endpoint_metrics([])]
    return {
        f"{family.name}_total" if family.type == "counter" else family.name for family in families
    }


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def board_expressions() -> list[str]:
    board = json.loads((FOLDER / "grafana.json").read_text())
    return [target["expr"] for panel in board["panels"] for target in panel["targets"]]


def test_every_metric_of_an_alert_exists(exposed: set[str]) -> None:
    for rule in alerts():
        named = set(METRIC.findall(rule["expr"])) - {"rapha_oracle_"}
        assert named <= exposed, rule["alert"]


def test_every_metric_of_the_board_exists_and_every_metric_is_on_it(exposed: set[str]) -> None:
    named = {name for expression in board_expressions() for name in METRIC.findall(expression)}
    assert named == exposed


def test_every_alert_points_to_a_chapter_of_the_manual() -> None:
    chapters = {
        re.sub(r"[^a-z0-9 -]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for line in MANUAL.read_text().splitlines()
        if line.startswith("#")
    }
    for rule in alerts():
        path, _, chapter = rule["annotations"]["page"].partition("#")
        assert path == "docs/operations.md"
        assert chapter in chapters, rule["alert"]
        assert rule["labels"]["severity"] in ("page", "ticket")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (Debian: prometheus)")
def test_promtool_takes_the_alerts() -> None:
    command = ["promtool", "check", "rules", str(FOLDER / "alerts.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    unit = (FOLDER / "rapha-oracle.service").read_text()
    command = re.search(r"^ExecStart=(\S+)", unit, re.MULTILINE)
    assert command is not None
    # it is not installed here; all else is checked as it stands
    copy = tmp_path / "rapha-oracle.service"
    copy.write_text(unit.replace(command[1], "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def settings_named(text: str) -> set[str]:
    return set(re.findall(r"\bRAPHA_ORACLE_([A-Z_]+[A-Z])\b", text))


@pytest.mark.parametrize("name", ["rapha-oracle.service", "Containerfile", "../operations.md"])
def test_every_setting_that_is_named_exists(name: str) -> None:
    known = {field.upper() for field in OracleSettings.model_fields}
    assert settings_named((FOLDER / name).read_text()) <= known


def test_the_container_has_the_makefiles_uv_and_the_projects_program() -> None:
    text = (FOLDER / "Containerfile").read_text()
    version = re.search(r"^UV_VERSION := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert version is not None
    assert f"uv=={version[1]}\n" in text
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "rapha-oracle" in project["scripts"]
    assert 'ENTRYPOINT ["rapha-oracle"]' in text
    for copied in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE):
        for path in copied.split():
            assert (ROOT / path).exists(), path


def test_every_command_that_the_manual_runs_exists() -> None:
    commands = set(get_command(app).commands)  # type: ignore[attr-defined]
    manual = MANUAL.read_text()
    run = set(re.findall(r"^\$ rapha-oracle ([a-z-]+)", manual, re.MULTILINE))
    assert run <= commands
    # and every command that an operator has is in it
    assert commands - {"keys"} <= set(re.findall(r"rapha-oracle ([a-z-]+)", manual))
