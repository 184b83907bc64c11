"""FHIR R4 bundles: the latest quantity of each wanted observation, patient by patient.

Only codes, quantities, times, subjects and the gender are looked at. Names, identifiers, addresses,
contacts and narratives are never taken out of the JSON.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from oracle.clients.edge.errors import SourceInvalid
from oracle.clients.edge.sources.rows import Rows
from oracle.clients.edge.sources.settings import FhirSource
from settlement.digests import check_nesting

CANCELLED = frozenset({"entered-in-error", "cancelled"})


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Coding(_Part):
    code: str | None = None


class _Concept(_Part):
    coding: tuple[_Coding, ...] = ()

    @property
    def codes(self) -> frozenset[str]:
        return frozenset(coding.code for coding in self.coding if coding.code)


class _Reference(_Part):
    reference: str


class _Quantity(_Part):
    value: float = Field(allow_inf_nan=False)
    unit: str | None = None
    code: str | None = None


class _Patient(_Part):
    id: str = Field(min_length=1)
    gender: str = "unknown"


class _Observation(_Part):
    id: str = Field(min_length=1)
    status: str
    code: _Concept
    subject: _Reference
    effectiveDateTime: str = ""  # noqa: N815 (FHIR's name)
    valueQuantity: _Quantity | None = None  # noqa: N815 (FHIR's name)


class _Condition(_Part):
    code: _Concept
    subject: _Reference
    verificationStatus: _Concept = _Concept()  # noqa: N815 (FHIR's name)


class _Value(NamedTuple):
    time: str
    id: str
    number: float


_KINDS: dict[str, type[_Part]] = {
    "Patient": _Patient,
    "Observation": _Observation,
    "Condition": _Condition,
}
_RULED_OUT = frozenset({"refuted", "entered-in-error"})


def read(source: FhirSource, folder: Path) -> Rows:
    """All patients of all bundles.

    Raises:
        SourceInvalid: see `open.open_dataset`.
    """
    directory = folder / source.path
    patients: dict[str, tuple[Path, _Patient]] = {}
    latest: dict[tuple[str, str], _Value] = {}
    units: dict[str, str | None] = {}
    ill: set[str] = set()
    subjects: list[tuple[Path, str]] = []
    for path, resource in _resources(directory):
        match resource:
            case _Patient():
                if resource.id in patients:
                    raise SourceInvalid(path, "a patient stands twice")
                patients[resource.id] = (path, resource)
            case _Observation() if resource.status not in CANCELLED:
                quantity = resource.valueQuantity
                for code in resource.code.codes & set(source.observations):
                    if quantity is None:
                        continue
                    unit = quantity.code or quantity.unit
                    if units.setdefault(code, unit) != unit:
                        raise SourceInvalid(path, f"observation {code} stands in two units")
                    subject = _patient_id(resource.subject, path)
                    subjects.append((path, subject))
                    value = _Value(resource.effectiveDateTime, resource.id, quantity.value)
                    latest[subject, code] = max(value, latest.get((subject, code), value))
            case _Condition():
                if source.condition in resource.code.codes and not (
                    resource.verificationStatus.codes & _RULED_OUT
                ):
                    subject = _patient_id(resource.subject, path)
                    subjects.append((path, subject))
                    ill.add(subject)
            case _:
                continue
    for path, subject in subjects:
        if subject not in patients:
            raise SourceInvalid(path, "it speaks of a patient that is in no bundle")
    rows = Rows(str(directory), source.observations, source.missing, source.bands)
    for patient_id, (path, patient) in patients.items():
        found = [latest.get((patient_id, code)) for code in source.observations]
        values = [value.number if value else None for value in found]
        bands = tuple(patient.gender for _ in source.bands)
        rows.add(path, patient_id, values, int(patient_id in ill), bands)
    return rows


def _patient_id(reference: _Reference, path: Path) -> str:
    kind, _, name = reference.reference.rpartition("/")
    if not name or (kind and not kind.endswith("Patient")):
        raise SourceInvalid(path, "a subject that is no reference like Patient/id")
    return name


def _resources(directory: Path) -> Iterator[tuple[Path, _Part]]:
    paths = sorted(directory.glob("*.json"))
    if not paths:
        raise SourceInvalid(directory, "there is no .json file")
    for path in paths:
        try:
            data = path.read_bytes()
            check_nesting(data)
            bundle: Any = json.loads(data)
        except (OSError, ValueError):
            raise SourceInvalid(path, "not a readable JSON file") from None
        if not isinstance(bundle, dict) or bundle.get("resourceType") != "Bundle":
            raise SourceInvalid(path, "not a FHIR Bundle")
        entries = bundle.get("entry", [])
        if not isinstance(entries, list):
            raise SourceInvalid(path, "entry is not a list")
        for number, entry in enumerate(entries):
            resource = entry.get("resource") if isinstance(entry, dict) else None
            if not isinstance(resource, dict):
                raise SourceInvalid(path, f"entry {number} has no resource")
            kind = _KINDS.get(str(resource.get("resourceType")))
            if kind is None:
                continue
            try:
                yield path, kind.model_validate(resource)
            except ValidationError as error:
                fields = ", ".join(
                    ".".join(map(str, fault["loc"]))
                    for fault in error.errors(include_input=False, include_url=False)
                )
                raise SourceInvalid(path, f"entry {number}: {fields}") from None
