"""From a dataset file to the dataset; each source's library is imported when it is needed."""

from pathlib import Path

from oracle.clients.edge.dataset import Dataset
from oracle.clients.edge.sources import settings as kinds
from oracle.clients.edge.sources.rows import Rows


def open_dataset(file: kinds.DatasetFile, folder: Path) -> Dataset:
    """Read the whole source; relative paths start from `folder`.

    Raises:
        SourceInvalid: naming the place that is broken; nothing is taken from a broken source.
        IdentifierRefused: naming a column that identifies people.
    """
    return _read(file.source, folder).dataset(file.modality)


def _read(source: kinds.Source, folder: Path) -> Rows:
    # Imported here: pydicom and pyarrow are extras, and take a second each.
    if isinstance(source, (kinds.CsvSource, kinds.ParquetSource, kinds.SqlSource)):
        from oracle.clients.edge.sources import tables

        return tables.read(source, folder)
    if isinstance(source, (kinds.DicomSource, kinds.DicomWebSource)):
        from oracle.clients.edge.sources import images

        return images.read(source, folder)
    from oracle.clients.edge.sources import fhir

    return fhir.read(source, folder)
