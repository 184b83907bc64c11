"""DICOM images, from files or by DICOMweb. A job gets pixels; attributes stay here.

So nothing of PS3.15's Basic Application Level Confidentiality Profile (table E.1-1) reaches a job
by an attribute. Text burned into the pixels would: an image that says it has some is refused.
"""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError
from pydicom.pixels import apply_rescale

from oracle.clients.edge.errors import IdentifierRefused, SourceInvalid
from oracle.clients.edge.sources.rows import Rows
from oracle.clients.edge.sources.settings import DicomSource, DicomWebSource

COUNTABLE = frozenset({"Modality", "BodyPartExamined", "PatientSex", "Laterality", "ViewPosition"})
"""Attributes whose values may be counted for the profile; none of them names anybody."""
BURNED_IN = "BurnedInAnnotation"
_BROKEN = (InvalidDicomError, AttributeError, ValueError, KeyError, EOFError, NotImplementedError,
           RuntimeError, OSError, TypeError)  # fmt: skip
"""What pydicom raises for a file that is cut off or nonsense."""


def read(source: DicomSource | DicomWebSource, folder: Path) -> Rows:
    """All images, with their labels.

    Raises:
        SourceInvalid, IdentifierRefused: see `open.open_dataset`.
    """
    for name in source.bands:
        if name not in COUNTABLE and name not in source.allow_identifiers:
            raise IdentifierRefused(name)
    labels = _labels(folder / source.labels)
    if isinstance(source, DicomSource):
        where: object = folder / source.path
        found = _files(folder / source.path)
    else:
        where = source.url
        found = _instances(source, folder)
    rows = Rows(str(where), ("pixels",), source.missing, source.bands)
    for place, image in found:
        try:
            uid = str(image.SOPInstanceUID)
            burned = str(image.get(BURNED_IN, "NO")).upper()
            pixels = _pixels(image)
            bands = tuple(str(image.get(name, "") or "missing") for name in source.bands)
        except _BROKEN as error:
            raise SourceInvalid(place, f"not a readable image ({type(error).__name__})") from None
        if burned != "NO" and BURNED_IN not in source.allow_identifiers:
            raise IdentifierRefused(BURNED_IN)
        if pixels.ndim != 2:
            raise SourceInvalid(place, f"not one grey frame, but {pixels.ndim} dimensions")
        if source.size is not None:
            pixels = _resample(pixels, source.size)
        if rows.shape is None:
            rows.shape = pixels.shape
        elif rows.shape != pixels.shape:
            raise SourceInvalid(place, f"is {pixels.shape}, others {rows.shape}; set a size")
        rows.add(place, uid, pixels.reshape(-1).tolist(), labels.get(uid), bands)
    return rows


def _pixels(image: Any) -> NDArray[np.float64]:
    """Stored values by slope and intercept (PS3.3, C.11.1), float64 [rows, columns]."""
    return np.asarray(apply_rescale(image.pixel_array, image), dtype=np.float64)


def _resample(pixels: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    rows, columns = (
        ((np.arange(wanted) + 0.5) * there / wanted).astype(np.intp)
        for wanted, there in zip(size, pixels.shape, strict=True)
    )
    return np.asarray(pixels[np.ix_(rows, columns)])


def _labels(path: Path) -> dict[str, int]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
        labels = {row["id"]: int(row["label"]) for row in rows}
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, TypeError, ValueError):
        raise SourceInvalid(path, "not a CSV file of id and whole-numbered label") from None
    if len(labels) != len(rows):
        raise SourceInvalid(path, "an id stands twice")
    return labels


def _files(folder: Path) -> Iterator[tuple[str, Any]]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    if not paths:
        raise SourceInvalid(folder, "there is no file")
    for path in paths:
        try:
            yield str(path), pydicom.dcmread(path)
        except _BROKEN as error:
            raise SourceInvalid(path, f"not a DICOM file ({type(error).__name__})") from None


def _instances(source: DicomWebSource, folder: Path) -> Iterator[tuple[str, Any]]:
    import requests
    from dicomweb_client import DICOMwebClient
    from dicomweb_client.session_utils import create_session

    session = create_session()
    # Nothing of the environment may lead records through a proxy or send other credentials.
    session.trust_env = False
    if source.token_file is not None:
        try:
            token = (folder / source.token_file).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SourceInvalid(source.token_file, "holds no token") from error
        session.headers["Authorization"] = f"Bearer {token}"
    client = DICOMwebClient(source.url, session=session, timeout=source.timeout_seconds)
    try:
        offset = 0
        while True:
            found = client.search_for_instances(
                search_filters=dict(source.search), limit=source.page, offset=offset
            )
            for entry in found:
                study, series, instance = (
                    entry[tag]["Value"][0] for tag in ("0020000D", "0020000E", "00080018")
                )
                place = f"{source.url}, instance {offset}"
                image = client.retrieve_instance(study, series, instance)
                if str(image.SOPInstanceUID) != instance:
                    raise SourceInvalid(place, "the server gave another instance than was asked")
                offset += 1
                yield place, image
            if len(found) < source.page:
                return
    except (requests.RequestException, *_BROKEN) as error:
        if isinstance(error, SourceInvalid):
            raise
        # Without the cause: an URL of DICOMweb names the patient's study.
        raise SourceInvalid(source.url, f"DICOMweb failed ({type(error).__name__})") from None
