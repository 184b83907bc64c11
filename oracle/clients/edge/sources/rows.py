"""What every source reads into: numbers, a label and an id for each record, and no more."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from oracle.clients.edge.dataset import Dataset, tabular
from oracle.clients.edge.errors import IdentifierRefused, SourceInvalid
from oracle.clients.edge.sources.settings import Missing

MAX_LABEL = 2**31

_IDENTIFYING = frozenset(
    {
        "account", "address", "beneficiary", "birthdate", "certificate", "city", "dateofbirth",
        "device", "dob", "driver", "email", "ethnicity", "face", "familyname", "fax", "firstname",
        "fullname", "givenname", "identifier", "ip", "ipaddress", "lastname", "license", "mail",
        "medicalrecordnumber", "mrn", "name", "nationalid", "patientaddress", "patientbirthdate",
        "patientid", "patientname", "phone", "photo", "postalcode", "postcode", "serial", "ssn",
        "street", "surname", "telecom", "telephone", "url", "vehicle", "zip", "zipcode",
    }
)  # fmt: skip
"""Column names of what HIPAA's safe harbour lists (45 CFR 164.514(b)(2)), letters only."""


def refuse_identifiers(names: Sequence[str], allowed: Sequence[str]) -> None:
    """Pass names that do not say that they identify people, or that the hospital freed.

    A name is a hint only: what a column holds is for the hospital to know.

    Raises:
        IdentifierRefused: naming the first.
    """
    for name in names:
        letters = "".join(letter for letter in name.lower() if letter.isalpha())
        if letters in _IDENTIFYING and name not in allowed:
            raise IdentifierRefused(name)


@dataclass
class Rows:
    """Records as they are read. `where` names the source in errors."""

    where: str
    columns: tuple[str, ...]
    missing: Missing
    band_names: tuple[str, ...] = ()
    shape: tuple[int, ...] | None = None
    _rows: dict[bytes, tuple[NDArray[np.float64], int, tuple[str, ...]]] = field(
        default_factory=dict
    )
    _left_out: int = 0

    def add(
        self,
        where: object,
        record_id: str,
        values: Sequence[float | None],
        label: int | None,
        bands: tuple[str, ...] = (),
    ) -> None:
        """Take one record, read at `where`. A value that is None or not finite is missing.

        Raises:
            SourceInvalid: for an id that is empty or was there before, and for a missing value
                unless the hospital leaves such records out.
        """
        key = record_id.encode()
        if not key:
            raise SourceInvalid(where, "a record without an id")
        if key in self._rows:
            raise SourceInvalid(where, "its record id stands twice")
        whole = [value for value in values if value is not None and math.isfinite(value)]
        if len(whole) != len(values) or label is None:
            if self.missing == "refuse":
                raise SourceInvalid(
                    where,
                    "a value or label is missing or not finite; mend it, or leave such records"
                    ' out with missing = "leave_out"',
                )
            self._left_out += 1
            return
        if not 0 <= label < MAX_LABEL:
            raise SourceInvalid(where, "its label is not a class number")
        self._rows[key] = (np.array(values, dtype=np.float64), label, bands)

    def dataset(self, modality: str) -> Dataset:
        """All of it, in the order of the ids.

        Raises:
            SourceInvalid: when there is no record.
        """
        if not self._rows:
            raise SourceInvalid(self.where, "no complete record")
        ids = sorted(self._rows)
        rows = [self._rows[key] for key in ids]
        return tabular(
            modality=modality,
            columns=self.columns,
            ids=tuple(ids),
            values=np.stack([values for values, _, _ in rows]),
            labels=np.array([label for _, label, _ in rows], dtype=np.int64),
            shape=self.shape,
            groups={
                name: [bands[place] for _, _, bands in rows]
                for place, name in enumerate(self.band_names)
            },
            left_out=self._left_out,
        )
