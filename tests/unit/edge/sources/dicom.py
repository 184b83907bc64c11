"""DICOM files of invented patients, and a server that speaks QIDO-RS and WADO-RS over HTTP."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from urllib.parse import parse_qs, urlsplit

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

IDENTIFYING = ("DOE^JANE", "MRN-4711", "19500102", "12 High Street")
STUDY, SERIES = "1.2.3", "1.2.3.4"


def uid(number: int) -> str:
    return f"{SERIES}.{number}"


def image(number: int, *, size: tuple[int, int] = (4, 6), **attributes: object) -> bytes:
    """The file of one image whose stored pixels are `number`, by slope 2 and intercept -1."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = uid(number)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = Dataset()
    data.file_meta = meta
    data.SOPClassUID = SecondaryCaptureImageStorage
    data.SOPInstanceUID = uid(number)
    data.StudyInstanceUID, data.SeriesInstanceUID = STUDY, SERIES
    data.PatientName, data.PatientID, data.PatientBirthDate, data.PatientAddress = IDENTIFYING
    data.Modality = "CR"
    data.PatientSex = "F" if number % 2 else "M"
    data.Rows, data.Columns = size
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, 0
    data.RescaleSlope, data.RescaleIntercept = 2, -1
    data.PixelData = (np.arange(size[0] * size[1]) + number).astype("<u2").tobytes()
    for name, value in attributes.items():
        setattr(data, name, value)
    buffer = BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


class Server(ThreadingHTTPServer):
    """Serves instances by UID. `token` is demanded; `broken` breaks each image off."""

    def __init__(self, instances: dict[str, bytes], token: str | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.instances = instances
        self.token = token
        self.broken = False
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/dicom"


class Handler(BaseHTTPRequestHandler):
    """PS3.18, 10.4 (retrieve) and 10.6 (search), as far as the node uses them."""

    server: Server

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the test's terminal."""

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self.server.asked.append(self.path)
        if self.server.token and self.headers["Authorization"] != f"Bearer {self.server.token}":
            return self._answer(401, "text/plain", b"")
        if parts.path == "/dicom/instances":
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            start = int(query.get("offset", 0))
            found = sorted(self.server.instances)[start : start + int(query.get("limit", 1000))]
            return self._answer(
                200 if found else 204,
                "application/dicom+json",
                json.dumps([_entry(name) for name in found]).encode() if found else b"",
            )
        prefix = f"/dicom/studies/{STUDY}/series/{SERIES}/instances/"
        data = self.server.instances.get(parts.path.removeprefix(prefix))
        if data is None:
            return self._answer(404, "text/plain", b"")
        if self.server.broken:
            data = data[:200]
        body = b"--edge\r\nContent-Type: application/dicom\r\n\r\n" + data + b"\r\n--edge--\r\n"
        return self._answer(200, 'multipart/related; type="application/dicom"; boundary=edge', body)

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _entry(name: str) -> dict[str, object]:
    tags = {"0020000D": STUDY, "0020000E": SERIES, "00080018": name}
    return {tag: {"vr": "UI", "Value": [value]} for tag, value in tags.items()}


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    """The server at work in a thread."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
