"""Progress, failure and the four artifacts of a running job."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from oracle.clients.hub import files
from oracle.clients.hub.files import ArtifactFiles
from settlement.hub.client import HubRefused
from settlement.hub.messages import ArtifactName, Failure, JobRequest, JobState, Progress
from settlement.types import to_hex

MakeRequest = Callable[..., JobRequest]
World = Any
WEIGHTS, METRICS, RECEIPTS, EVIDENCE = ArtifactName
OOM = Failure(code="OutOfMemory", detail="the job asked for 9 GiB")


def refused(call: Callable[[], object]) -> tuple[str, int]:
    with pytest.raises(HubRefused) as caught:
        call()
    return caught.value.code, caught.value.status


def test_fourth_artifact_delivers_in_any_order(world: World, make_request: MakeRequest) -> None:
    created = world.running(make_request())
    node, states = world.party("1"), []
    for name in (RECEIPTS, EVIDENCE, WEIGHTS, METRICS):
        states.append(node.put_artifact(created.job_id, name, name.encode()).state)
    assert states == [JobState.RUNNING, JobState.RUNNING, JobState.RUNNING, JobState.DELIVERED]


def test_developer_downloads_what_the_node_uploaded(
    world: World, make_request: MakeRequest
) -> None:
    created = world.delivered(make_request())
    for name in ArtifactName:
        assert world.party("acme").artifact(created.job_id, name) == f"the {name}".encode()


def test_artifact_is_there_before_the_job_is_delivered(
    world: World, make_request: MakeRequest
) -> None:
    created = world.running(make_request())
    with pytest.raises(HubRefused) as caught:
        world.party("acme").artifact(created.job_id, WEIGHTS)
    assert (caught.value.code, caught.value.status) == ("ArtifactUnknown", 404)
    assert caught.value.final is False
    world.party("1").put_artifact(created.job_id, WEIGHTS, b"w")
    assert world.party("acme").artifact(created.job_id, WEIGHTS) == b"w"


def test_same_upload_again_is_fine_also_after_delivery(
    world: World, make_request: MakeRequest
) -> None:
    created = world.delivered(make_request())
    view = world.party("1").put_artifact(created.job_id, WEIGHTS, b"the weights")
    assert view.state is JobState.DELIVERED


def test_other_bytes_are_refused_and_the_first_stay(
    world: World, make_request: MakeRequest
) -> None:
    created = world.running(make_request())
    node = world.party("1")
    node.put_artifact(created.job_id, WEIGHTS, b"first")
    assert refused(lambda: node.put_artifact(created.job_id, WEIGHTS, b"other")) == (
        "ArtifactConflict",
        409,
    )
    assert world.party("acme").artifact(created.job_id, WEIGHTS) == b"first"


@pytest.mark.parametrize("state", ["QUOTED", "FUNDED", "FAILED"])
def test_only_a_running_job_takes_anything(
    world: World, make_request: MakeRequest, state: str
) -> None:
    node = world.party("1")
    if state == "FAILED":
        created = world.running(make_request())
        node.report_failure(created.job_id, OOM)
    else:
        created = world.party("acme").create_job(make_request())
        if state == "FUNDED":
            world.oracle.escrow(created.job_id, created.terms)
            world.party("acme").job(created.job_id)
    progress = Progress(records=1, epochs=0, epochs_total=2)
    calls: list[Callable[[], object]] = [
        lambda: node.put_artifact(created.job_id, WEIGHTS, b"w"),
        lambda: node.report_progress(created.job_id, progress),
    ]
    if state != "FAILED":
        calls.append(lambda: node.report_failure(created.job_id, OOM))
    for call in calls:
        assert refused(call) == ("JobNotRunning", 409)
    assert world.service._store.job(created.job_id).state is JobState(state)


def test_progress_is_shown_and_never_goes_back(world: World, make_request: MakeRequest) -> None:
    created = world.running(make_request())
    far = Progress(records=569, epochs=1, epochs_total=2, metrics={"loss": 0.25})
    near = Progress(records=128, epochs=0, epochs_total=2)
    world.party("1").report_progress(created.job_id, far)
    assert world.party("1").report_progress(created.job_id, near).progress == far
    assert world.party("acme").job(created.job_id).progress == far


@pytest.mark.parametrize("value", ["NaN", "Infinity"])
def test_metric_that_is_no_number_is_refused(
    world: World, make_request: MakeRequest, value: str
) -> None:
    created = world.running(make_request())
    body = f'{{"records":1,"epochs":0,"epochs_total":2,"metrics":{{"loss":{value}}}}}'
    answer = world.http.post(
        f"/v1/jobs/{to_hex(created.job_id)}/progress",
        content=body,
        headers={**world.headers("1"), "content-type": "application/json"},
    )
    assert (answer.status_code, answer.json()["code"]) == (422, "InvalidInput")


def test_failure_is_told_once_and_stays(world: World, make_request: MakeRequest) -> None:
    created = world.running(make_request())
    node = world.party("1")
    assert node.report_failure(created.job_id, OOM).failure == OOM
    again = node.report_failure(created.job_id, Failure(code="Other", detail="later"))
    assert (again.state, again.failure) == (JobState.FAILED, OOM)
    assert world.party("acme").job(created.job_id).failure == OOM


def test_delivered_job_cannot_fail(world: World, make_request: MakeRequest) -> None:
    created = world.delivered(make_request())
    assert refused(lambda: world.party("1").report_failure(created.job_id, OOM)) == (
        "JobNotRunning",
        409,
    )


def test_artifact_of_unknown_name_is_refused(world: World, make_request: MakeRequest) -> None:
    created = world.running(make_request())
    url = f"/v1/jobs/{to_hex(created.job_id)}/artifacts/passwd"
    answer = world.http.put(url, content=b"x", headers=world.headers("1"))
    assert (answer.status_code, answer.json()["code"]) == (422, "InvalidInput")


def test_artifact_above_its_limit_is_refused_and_leaves_nothing(
    world: World, make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(files.MAX_BYTES, METRICS, 1_000)
    created = world.running(make_request())
    assert refused(
        lambda: world.party("1").put_artifact(created.job_id, METRICS, bytes(1_001))
    ) == ("BodyTooLarge", 413)
    assert list((world.folder / "artifacts").iterdir()) == []
    world.party("1").put_artifact(created.job_id, METRICS, bytes(1_000))


def test_refused_upload_leaves_no_file(world: World, make_request: MakeRequest) -> None:
    created = world.party("acme").create_job(make_request())
    refused(lambda: world.party("1").put_artifact(created.job_id, WEIGHTS, b"w"))
    assert list((world.folder / "artifacts").iterdir()) == []


def test_crash_between_file_and_row_is_healed_by_the_same_upload(
    world: World, make_request: MakeRequest
) -> None:
    created = world.running(make_request())
    with world.service._files.upload(WEIGHTS) as upload:
        upload.write(b"weights")
        upload.keep()
    assert refused(lambda: world.party("acme").artifact(created.job_id, WEIGHTS))[1] == 404
    world.party("1").put_artifact(created.job_id, WEIGHTS, b"weights")
    assert world.party("acme").artifact(created.job_id, WEIGHTS) == b"weights"


def test_what_a_crash_left_of_an_upload_is_swept_at_start(tmp_path: Path) -> None:
    (tmp_path / "upload-half").write_bytes(b"half")
    os.utime(tmp_path / "upload-half", (0, 0))
    (tmp_path / "upload-of-another-hub").write_bytes(b"half")
    (tmp_path / ("a" * 64)).write_bytes(b"whole")
    ArtifactFiles(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"a" * 64, "upload-of-another-hub"}
