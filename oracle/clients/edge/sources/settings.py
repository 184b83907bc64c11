"""What a hospital writes about its dataset: one TOML file, one source.

Times, amounts and secrets have no place in it; a password or token is read from a file it names.
"""

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from oracle.clients.edge.errors import SourceInvalid
from settlement.dataset import Label
from settlement.types import Frozen

MAX_DATASET_FILE = 1 << 20
Missing = Literal["refuse", "leave_out"]
"""What becomes of a record without one of its values."""


class _Source(Frozen):
    missing: Missing = "refuse"
    allow_identifiers: tuple[str, ...] = ()


class _Table(_Source):
    """`id` is the column of the stable id, `label` that of the class; `columns` are the numbers.

    `classes` are the values of `label` by their number; without it the label is a whole number.
    `bands` are further columns whose values are counted for the profile.
    """

    id: str
    label: str
    columns: tuple[Label, ...] = Field(min_length=1, max_length=4095)
    classes: tuple[str, ...] = ()
    bands: tuple[Label, ...] = ()


class CsvSource(_Table):
    """A CSV file with a header (RFC 4180, UTF-8)."""

    kind: Literal["csv"]
    path: Path


class ParquetSource(_Table):
    """A Parquet file."""

    kind: Literal["parquet"]
    path: Path


class SqlSource(_Table):
    """What a query gives. `url_file` holds SQLAlchemy's URL, password and all."""

    kind: Literal["sql"]
    url_file: Path
    query: str


class _Images(_Source):
    """`labels` is a CSV file with columns ``id`` (SOP Instance UID) and ``label``.

    `size` (rows, columns) resamples each image to it by nearest neighbours; without it all images
    have to be of one size. `bands` are attributes whose values are counted for the profile.
    """

    labels: Path
    size: tuple[int, int] | None = None
    bands: tuple[str, ...] = ("Modality",)


class DicomSource(_Images):
    """All DICOM files in a directory, one frame each."""

    kind: Literal["dicom"]
    path: Path


class DicomWebSource(_Images):
    """The instances that a DICOMweb server finds for `search` (QIDO-RS), read by WADO-RS.

    `token_file` holds a bearer token.
    """

    kind: Literal["dicomweb"]
    url: str
    search: dict[str, str] = Field(default_factory=dict)
    token_file: Path | None = None
    page: int = Field(100, gt=0, le=10_000)
    timeout_seconds: float = Field(60.0, gt=0)


class FhirSource(_Source):
    """FHIR R4 bundles in a directory. A record is a patient.

    `observations` are LOINC codes, each the latest quantity of that patient, in that order;
    `condition` is the code whose presence makes the label 1.
    """

    kind: Literal["fhir"]
    path: Path
    observations: tuple[Label, ...] = Field(min_length=1)
    condition: str
    bands: tuple[Literal["gender"], ...] = ("gender",)


Source = Annotated[
    CsvSource | ParquetSource | SqlSource | DicomSource | DicomWebSource | FhirSource,
    Field(discriminator="kind"),
]


class DatasetFile(Frozen):
    """The whole file. `deduplicate` is in the digest that buyers sign."""

    modality: Label
    deduplicate: bool = False
    source: Source


def read_dataset_file(path: Path) -> DatasetFile:
    """The file at `path`; relative paths in it start from its folder.

    Raises:
        SourceInvalid: naming each field that is wrong.
    """
    try:
        data = path.read_bytes()[: MAX_DATASET_FILE + 1]
        if len(data) > MAX_DATASET_FILE:
            raise SourceInvalid(path, f"more than {MAX_DATASET_FILE} bytes")
        return DatasetFile.model_validate(tomllib.loads(data.decode()))
    except OSError as error:
        raise SourceInvalid(path, error.strerror or "cannot be read") from error
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
            for fault in error.errors(include_input=False, include_url=False)
        )
        raise SourceInvalid(path, faults) from error
    except ValueError as error:
        raise SourceInvalid(path, f"not TOML: {error}") from error
