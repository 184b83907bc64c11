"""What goes wrong is logged whole, and no secret with it."""

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from settlement.logs import configure

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
    configure()
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
