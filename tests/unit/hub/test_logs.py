"""What goes wrong is logged whole, and no secret with it."""

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from sqlalchemy import text

from oracle.clients.hub.cli import configure_logs

World = Any
SECRET = "bearer-token-that-must-stay-unseen"


@pytest.fixture
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.usefixtures("restored_logging")
@pytest.mark.parametrize("library", [True, False])
def test_traceback_is_json_without_the_frames_variables(
    capsys: pytest.CaptureFixture[str], library: bool
) -> None:
    configure_logs()
    token = SECRET
    try:
        raise RuntimeError(f"a failure while {len(token)} characters were held")
    except RuntimeError:
        log = logging.getLogger("uvicorn.error") if library else structlog.get_logger("rapha.hub")
        log.exception("it broke")
    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["level"]) == ("it broke", "error")
    assert line["exception"][0]["exc_type"] == "RuntimeError"
    assert SECRET not in json.dumps(line)


def test_unexpected_error_is_told_to_nobody(world: World) -> None:
    with world.service._store._engine.begin() as connection:
        connection.execute(text("DROP TABLE artifacts"))
        connection.execute(text("DROP TABLE jobs"))
    with structlog.testing.capture_logs() as logged:
        answer = world.http.get("/v1/jobs/0x" + "00" * 32, headers=world.headers("acme"))
    assert [(line["event"], line["exc_info"]) for line in logged] == [("internal error", True)]
    assert (answer.status_code, answer.json()["code"]) == (500, "InternalError")
    assert answer.json()["detail"] == "the hub failed; see its log"
    assert answer.json()["final"] is False
