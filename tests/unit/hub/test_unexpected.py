"""What nobody expected is logged whole and told to nobody."""

from typing import Any

import structlog
from sqlalchemy import text

World = Any


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
