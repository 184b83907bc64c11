"""Bundles in parts (tus 1.0.0): where to go on, what is refused, and what becomes of them."""

from collections.abc import Callable
from typing import Any

import pytest
from unit.hub.conftest import FILES, START

from oracle.clients.hub.upload_store import MAX_UPLOADS
from settlement.bundle import MAX_ARCHIVE_BYTES, pack_bundle
from settlement.digests import bundle_digest
from settlement.hub.client import HubRefused
from settlement.hub.messages import JobRequest
from settlement.types import to_hex

World = Any
MakeRequest = Callable[..., JobRequest]
BUNDLE = pack_bundle(FILES)
OCTETS = "application/offset+octet-stream"


def begin(world: World, length: int, name: str = "acme") -> Any:
    headers = {**world.headers(name), "tus-resumable": "1.0.0", "upload-length": str(length)}
    return world.http.post("/v1/uploads", headers=headers)


def patch(world: World, url: str, offset: int, data: Any, **changes: str) -> Any:
    headers = {
        **world.headers("acme"),
        "tus-resumable": "1.0.0",
        "upload-offset": str(offset),
        "content-type": OCTETS,
        **changes,
    }
    return world.http.patch(url, content=data, headers=headers)


def view(world: World, url: str) -> Any:
    return world.http.get(url, headers=world.headers("acme")).json()


def offset(world: World, url: str) -> int:
    answer = world.http.head(url, headers=world.headers("acme"))
    assert answer.headers["cache-control"] == "no-store"
    return int(answer.headers["upload-offset"])


def test_bundle_comes_in_parts_and_makes_a_job(world: World, make_request: MakeRequest) -> None:
    answer = begin(world, len(BUNDLE))
    assert (answer.status_code, answer.headers["tus-resumable"]) == (201, "1.0.0")
    url = answer.headers["location"]
    assert patch(world, url, 0, BUNDLE[:100]).headers["upload-offset"] == "100"
    assert offset(world, url) == 100
    assert (view(world, url)["bundle"], view(world, url)["fault"]) == (None, None)
    assert patch(world, url, 100, BUNDLE[100:]).status_code == 204
    found = view(world, url)["bundle"]
    assert found["digest"] == to_hex(bundle_digest(FILES))
    assert (found["framework"], found["entry_point"]) == ("pytorch", "model:train")
    assert found["files"] == {path: len(data) for path, data in FILES.items()}
    request = make_request(bundle=None, upload_id=bytes.fromhex(url.rsplit("/0x")[-1]))
    created = world.party("acme").create_job(request)
    assert created.terms.work.model_digest == bundle_digest(FILES)
    with world.store.read() as tx:
        assert tx.exec_driver_sql("SELECT count(*) FROM upload_parts").scalar() == 0


def test_what_does_not_continue_the_upload_is_refused_and_changes_nothing(world: World) -> None:
    url = begin(world, len(BUNDLE)).headers["location"]
    patch(world, url, 0, BUNDLE[:100])
    for at, data in ((0, BUNDLE[:50]), (101, BUNDLE[101:]), (100, BUNDLE[100:] + b"x")):
        answer = patch(world, url, at, data)
        assert (answer.status_code, answer.json()["code"]) == (409, "UploadMisplaced")
        assert answer.json()["offset"] == 100
    assert offset(world, url) == 100


def test_what_came_before_a_connection_broke_is_kept(world: World) -> None:
    url = begin(world, MAX_ARCHIVE_BYTES).headers["location"]
    headers = {
        **world.headers("acme"),
        "tus-resumable": "1.0.0",
        "upload-offset": "0",
        "content-type": OCTETS,
    }
    scope = {
        "type": "http",
        "method": "PATCH",
        "path": url,
        "query_string": b"",
        "client": ("127.0.0.1", 1),
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    messages = [
        {"type": "http.request", "body": bytes(300_000), "more_body": True},
        {"type": "http.request", "body": bytes(400_000), "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Any:
        return messages.pop(0)

    async def send(_message: Any) -> None:
        return

    world.http.portal.call(world.http.app, scope, receive, send)
    assert offset(world, url) == 700_000


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"tus-resumable": "0.2.0"}, 412, "TusRefused"),
        ({"content-type": "application/json"}, 415, "ContentTypeRefused"),
        ({"upload-offset": "-1"}, 422, "InvalidInput"),
        ({"upload-offset": "all"}, 422, "InvalidInput"),
    ],
)
def test_other_protocols_are_refused(
    world: World, headers: dict[str, str], status: int, code: str
) -> None:
    url = begin(world, len(BUNDLE)).headers["location"]
    answer = patch(world, url, 0, BUNDLE, **headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert offset(world, url) == 0


def test_more_than_a_bundle_may_have_is_refused_at_the_door(world: World) -> None:
    answer = begin(world, MAX_ARCHIVE_BYTES + 1)
    assert (answer.status_code, answer.json()["code"]) == (413, "BodyTooLarge")
    answer = world.http.options("/v1/uploads")
    assert answer.headers["tus-max-size"] == str(MAX_ARCHIVE_BYTES)
    assert answer.headers["tus-extension"] == "creation,termination,expiration"


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({**FILES, "weights.bin": b"\x80\x04K\x01."}, "executable-format"),
        ({**FILES, "lib.bin": b"\x7fELF\x02\x01\x01"}, "native-code"),
        ({**FILES, "lib.so": b"anything"}, "native-code"),
        ({"model.py": b""}, "manifest-missing"),
    ],
)
def test_forbidden_bundle_is_named_and_makes_no_job(
    world: World, make_request: MakeRequest, files: dict[str, bytes], reason: str
) -> None:
    data = zipped(files)
    url = begin(world, len(data)).headers["location"]
    assert patch(world, url, 0, data).status_code == 204
    assert view(world, url)["fault"]["reason"] == reason
    request = make_request(bundle=None, upload_id=bytes.fromhex(url.rsplit("/0x")[-1]))
    with pytest.raises(HubRefused) as caught:
        world.party("acme").create_job(request)
    assert (caught.value.code, caught.value.data["reason"]) == ("UploadUnfit", reason)


def zipped(files: dict[str, bytes]) -> bytes:
    import io
    import zipfile

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)
    return buffer.getvalue()


def test_unfinished_upload_makes_no_job(world: World, make_request: MakeRequest) -> None:
    url = begin(world, len(BUNDLE)).headers["location"]
    request = make_request(bundle=None, upload_id=bytes.fromhex(url.rsplit("/0x")[-1]))
    with pytest.raises(HubRefused) as caught:
        world.party("acme").create_job(request)
    assert (caught.value.code, caught.value.data) == ("UploadUnfit", {"offset": 0})


def test_uploads_are_few_end_by_themselves_and_can_be_deleted(world: World) -> None:
    urls = [begin(world, 10).headers["location"] for _ in range(MAX_UPLOADS)]
    answer = begin(world, 10)
    assert (answer.status_code, answer.json()["code"]) == (409, "TooManyUploads")
    assert begin(world, 10, "rival").status_code == 201
    headers = {**world.headers("acme"), "tus-resumable": "1.0.0"}
    assert world.http.delete(urls[0], headers=headers).status_code == 204
    assert world.http.head(urls[0], headers=headers).status_code == 404
    assert begin(world, 10).status_code == 201
    world.now[0] = START + 3600
    assert world.http.head(urls[1], headers=headers).status_code == 404
    assert begin(world, 10).status_code == 201


def test_bundle_that_nothing_speaks_of_is_forgotten(
    world: World, make_request: MakeRequest
) -> None:
    url = begin(world, len(BUNDLE)).headers["location"]
    patch(world, url, 0, BUNDLE)
    other = pack_bundle({**FILES, "model.py": b"def train(): return 1\n"})
    world.party("acme").create_job(make_request(bundle=other))

    def kept() -> int:
        with world.store.read() as tx:
            return tx.exec_driver_sql("SELECT count(*) FROM bundles").scalar() or 0

    assert kept() == 2
    world.now[0] = START + 3600
    world.service.sweep(10)
    assert kept() == 1
