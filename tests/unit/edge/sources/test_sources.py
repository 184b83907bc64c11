"""Every source gives the same kind of dataset, whole or not at all, and nobody's identifiers."""

import json
import sqlite3
import tomllib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet
from unit.edge.sources.dicom import IDENTIFYING, Server, image, serving, uid

from oracle.clients.edge.dataset import cohort_bands, commit
from oracle.clients.edge.errors import IdentifierRefused, SourceInvalid
from oracle.clients.edge.sources.open import open_dataset
from oracle.clients.edge.sources.settings import DatasetFile, read_dataset_file

HEADER = "study_id,name,age,marker,outcome,sex\n"
LINES = [f"s{n:03d},Jane {n},{40 + n},{n / 2},{'ill' if n % 2 else 'well'},f\n" for n in range(12)]
TABLE = """
id = "study_id"
label = "outcome"
classes = ["well", "ill"]
columns = ["age", "marker"]
bands = ["sex"]
"""


@pytest.fixture
def read(tmp_path):
    def read(source, head='modality = "tabular/test"\n'):
        path = tmp_path / "dataset.toml"
        path.write_text(head + "[source]\n" + source)
        return open_dataset(read_dataset_file(path), tmp_path)

    return read


def as_csv(folder: Path, lines=LINES, header=HEADER) -> str:
    (folder / "t.csv").write_text(header + "".join(lines))
    return 'kind = "csv"\npath = "t.csv"\n' + TABLE


def as_parquet(folder: Path) -> str:
    columns = list(zip(*(line.strip().split(",") for line in LINES), strict=True))
    table = dict(zip(HEADER.strip().split(","), columns, strict=True))
    table["age"] = [int(value) for value in table["age"]]
    table["marker"] = [float(value) for value in table["marker"]]
    parquet.write_table(pa.table(table), folder / "t.parquet")
    return 'kind = "parquet"\npath = "t.parquet"\n' + TABLE


def as_sql(folder: Path) -> str:
    with sqlite3.connect(folder / "t.sqlite") as database:
        database.execute("CREATE TABLE t (study_id, name, age REAL, marker REAL, outcome, sex)")
        rows = [line.strip().split(",") for line in LINES]
        database.executemany("INSERT INTO t VALUES (?,?,?,?,?,?)", rows)
    (folder / "url").write_text(f"sqlite:///{folder}/t.sqlite\n")
    return 'kind = "sql"\nurl_file = "url"\nquery = "SELECT * FROM t ORDER BY age DESC"\n' + TABLE


@pytest.mark.parametrize("write", [as_csv, as_parquet, as_sql])
def test_the_same_table_is_the_same_dataset_from_any_source(read, tmp_path, write):
    dataset = read(write(tmp_path))
    assert dataset.ids == tuple(b"s%03d" % n for n in range(12))
    assert dataset.labels.tolist() == [0, 1] * 6
    assert dataset.schema == ("age:float32", "marker:float32", "label:int64")
    assert dataset.groups["sex"] == ["f"] * 12
    expected = np.array([[40 + n, n / 2, n % 2] for n in range(12)])
    stored = [
        [*np.frombuffer(r[:16], "<f8"), *np.frombuffer(r[16:], "<i8")] for r in dataset.records
    ]
    assert np.array_equal(stored, expected)
    assert b"Jane" not in b"".join(dataset.records)


def test_the_commitment_does_not_depend_on_the_order_of_lines(read, tmp_path):
    digests = {
        commit(read(as_csv(tmp_path, lines)), bytes(32)).digest for lines in (LINES, LINES[::-1])
    }
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("s900,J,1\n", "line 14 has 3 of 6 fields"),
        ("s900,J,x,1,ill,f\n", "record 13: column age is not a number"),
        ("s900,J,1,1,dead,f\n", "record 13: column outcome is none of the classes"),
        ("s900,J,,1,ill,f\n", "record 13: a value or label is missing"),
        ("s900,J,nan,1,ill,f\n", "record 13: a value or label is missing"),
        (",J,1,1,ill,f\n", "record 13: a record without an id"),
        ("s001,J,1,1,ill,f\n", "record 13: its record id stands twice"),
        ('s900,"J,1,1,ill,f\n', "not CSV"),
    ],
)
def test_a_broken_line_breaks_the_whole_file_and_is_named(read, tmp_path, line, fault):
    with pytest.raises(SourceInvalid, match=fault) as caught:
        read(as_csv(tmp_path, [*LINES, line]))
    assert "t.csv" in str(caught.value)
    assert "dead" not in str(caught.value)


def test_incomplete_records_are_left_out_where_the_hospital_says_so(read, tmp_path):
    dataset = read(as_csv(tmp_path, [*LINES, "s900,J,,1,ill,f\n"]) + 'missing = "leave_out"\n')
    assert (len(dataset), dataset.left_out) == (12, 1)


@pytest.mark.parametrize("column", ["SSN", "Patient_ID", "date of birth", "ZIP"])
def test_a_column_that_identifies_people_is_refused_unless_freed(read, tmp_path, column):
    source = as_csv(tmp_path, header=HEADER.replace("age", column)).replace('"age"', f'"{column}"')
    with pytest.raises(IdentifierRefused) as caught:
        read(source)
    assert caught.value.name == column
    assert len(read(source + f'allow_identifiers = ["{column}"]\n')) == 12


def test_the_id_of_a_record_is_never_among_its_values(read, tmp_path):
    source = as_csv(tmp_path).replace('["age", "marker"]', '["age", "study_id"]')
    with pytest.raises(IdentifierRefused, match="study_id"):
        read(source)


def test_a_missing_column_a_missing_file_and_other_bytes_are_named(read, tmp_path):
    with pytest.raises(SourceInvalid, match="there is no column marker"):
        read(as_csv(tmp_path, header=HEADER.replace("marker", "other")))
    with pytest.raises(SourceInvalid, match=r"none\.csv: No such file"):
        read('kind = "csv"\npath = "none.csv"\n' + TABLE)
    (tmp_path / "t.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SourceInvalid, match="not UTF-8"):
        read('kind = "csv"\npath = "t.csv"\n' + TABLE)


@pytest.mark.parametrize("keep", [0, 10, 300])
def test_a_parquet_file_that_is_cut_off_is_refused(read, tmp_path, keep):
    source = as_parquet(tmp_path)
    path = tmp_path / "t.parquet"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(SourceInvalid, match=r"t\.parquet: not a readable Parquet file"):
        read(source)


def test_what_a_database_refuses_shows_neither_password_nor_record(read, tmp_path):
    source = as_sql(tmp_path)
    (tmp_path / "url").write_text("postgresql+psycopg://user:secret@127.0.0.1:1/db")
    with pytest.raises(SourceInvalid, match="the database refused it") as caught:
        read(source)
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("source", "field"),
    [
        ('kind = "excel"\n', "source"),
        ('kind = "csv"\npath = "t.csv"\n', "source.csv.columns"),
        ('kind = "csv"\npath = "t.csv"\nsurprise = 1\n' + TABLE, "source.csv.surprise"),
        ("kind = \n", "not TOML"),
    ],
)
def test_a_mistake_in_the_dataset_file_is_named(read, source, field):
    with pytest.raises(SourceInvalid, match=field):
        read(source)


# DICOM


@pytest.fixture
def archive(tmp_path):
    (tmp_path / "images/deeper").mkdir(parents=True)
    for number in range(6):
        place = tmp_path / ("images/deeper" if number % 2 else "images")
        (place / f"{number}.dcm").write_bytes(image(number))
    labels = "".join(f"{uid(number)},{number % 2}\n" for number in range(6))
    (tmp_path / "labels.csv").write_text("id,label\n" + labels)
    return tmp_path


FILES = 'kind = "dicom"\npath = "images"\nlabels = "labels.csv"\n'


def test_images_become_arrays_and_nothing_else_of_them_is_kept(read, archive):
    dataset = read(FILES)
    assert dataset.shape == (4, 6)
    assert dataset.features.shape == (6, 24)
    assert dataset.schema == ("pixels:float32:4x6", "label:int64")
    assert dataset.ids == tuple(uid(number).encode() for number in range(6))
    assert dataset.labels.tolist() == [0, 1] * 3
    first = np.frombuffer(dataset.records[1][:-8], "<f8")
    assert first.tolist() == [2.0 * (pixel + 1) - 1 for pixel in range(24)]
    kept = repr((dataset.groups, dataset.columns)).encode() + b"".join(dataset.records)
    for secret in IDENTIFYING:
        assert secret.encode() not in kept


def test_images_of_several_sizes_need_one_to_be_set(read, archive):
    (archive / "images/5.dcm").write_bytes(image(9, size=(8, 12)))
    (archive / "labels.csv").open("a").write(f"{uid(9)},1\n")
    with pytest.raises(SourceInvalid, match="set a size"):
        read(FILES)
    dataset = read(FILES + "size = [2, 3]\n")
    assert dataset.shape == (2, 3)
    corner = np.frombuffer(dataset.records[-1][:-8], "<f8")[0]
    assert corner == 2.0 * (2 * 12 + 2 + 9) - 1


@pytest.mark.parametrize("keep", [0, 100, 140, 400, -8])
def test_an_image_that_is_cut_off_is_named(read, archive, keep):
    path = archive / "images/deeper/3.dcm"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(SourceInvalid, match=r"3\.dcm: not a"):
        read(FILES)


def test_text_burned_into_an_image_is_refused_unless_freed(read, archive):
    (archive / "images/0.dcm").write_bytes(image(0, BurnedInAnnotation="YES"))
    with pytest.raises(IdentifierRefused, match="BurnedInAnnotation"):
        read(FILES)
    assert len(read(FILES + 'allow_identifiers = ["BurnedInAnnotation"]\n')) == 6


def test_attributes_that_identify_are_not_even_counted(read, archive):
    with pytest.raises(IdentifierRefused, match="PatientName"):
        read(FILES + 'bands = ["PatientName"]\n')
    assert read(FILES + 'bands = ["PatientSex"]\n').groups["PatientSex"] == ["M", "F"] * 3


def test_an_image_without_a_label_is_missing_one(read, archive):
    (archive / "labels.csv").write_text(f"id,label\n{uid(0)},1\n")
    with pytest.raises(SourceInvalid, match="label is missing"):
        read(FILES)
    assert read(FILES + 'missing = "leave_out"\n').left_out == 5


@pytest.fixture
def server(archive):
    instances = {uid(number): image(number) for number in range(6)}
    with serving(Server(instances, token="let-me-in")) as server:
        (archive / "token").write_text("let-me-in\n")
        yield server


def web(server) -> str:
    return (
        f'kind = "dicomweb"\nurl = "{server.url}"\nlabels = "labels.csv"\n'
        'token_file = "token"\npage = 4\nsearch = { Modality = "CR" }\n'
    )


def test_dicomweb_gives_the_same_dataset_as_the_files(read, server):
    fetched, filed = read(web(server)), read(FILES)
    assert commit(fetched, bytes(32)).digest == commit(filed, bytes(32)).digest
    searches = [path for path in server.asked if path.startswith("/dicom/instances")]
    assert len(searches) == 2
    assert all("Modality=CR" in search for search in searches)


def test_dicomweb_that_fails_gives_nothing_and_names_no_study(read, server, archive):
    server.broken = True
    with pytest.raises(SourceInvalid, match="DICOMweb failed") as caught:
        read(web(server))
    assert uid(0) not in str(caught.value)
    server.broken = False
    (archive / "token").write_text("wrong")
    with pytest.raises(SourceInvalid, match="DICOMweb failed"):
        read(web(server))


def test_another_instance_than_was_asked_for_is_refused(read, server):
    server.instances[uid(3)] = image(4)
    with pytest.raises(SourceInvalid, match="another instance than was asked"):
        read(web(server))


# FHIR


def bundle(*resources: dict[str, object]) -> str:
    entries = [{"resource": resource} for resource in resources]
    return json.dumps({"resourceType": "Bundle", "type": "collection", "entry": entries})


def patient(number: int) -> dict[str, object]:
    return {
        "resourceType": "Patient",
        "id": f"p{number}",
        "gender": "female",
        "name": [{"family": "Doe", "given": ["Jane"]}],
        "identifier": [{"value": "MRN-4711"}],
        "address": [{"line": ["12 High Street"]}],
    }


def observed(number: int, code: str, value: float, time: str, **more: object) -> dict[str, object]:
    return {
        "resourceType": "Observation",
        "id": f"o{number}-{code}-{time}",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": code}]},
        "subject": {"reference": f"Patient/p{number}"},
        "effectiveDateTime": time,
        "valueQuantity": {"value": value, "code": "mm[Hg]"},
        **more,
    }


def ill(number: int, **more: object) -> dict[str, object]:
    return {
        "resourceType": "Condition",
        "code": {"coding": [{"code": "38341003"}]},
        "subject": {"reference": f"Patient/p{number}"},
        **more,
    }


FHIR = 'kind = "fhir"\npath = "fhir"\nobservations = ["8480-6", "8462-4"]\ncondition = "38341003"\n'


@pytest.fixture
def clinic(tmp_path):
    (tmp_path / "fhir").mkdir()
    for number in range(6):
        resources = [
            patient(number),
            observed(number, "8480-6", 100 + number, "2024-01-01"),
            observed(number, "8480-6", 120 + number, "2025-01-01"),
            observed(number, "8480-6", 1.0, "2026-01-01", status="entered-in-error"),
            observed(number, "8462-4", 80, "2025-01-01"),
            *([ill(number)] if number % 2 else []),
        ]
        (tmp_path / f"fhir/{number}.json").write_text(bundle(*resources))
    return tmp_path


def test_a_patient_is_a_record_of_its_latest_quantities(read, clinic):
    dataset = read(FHIR)
    assert dataset.ids == tuple(b"p%d" % number for number in range(6))
    assert dataset.labels.tolist() == [0, 1] * 3
    values = [np.frombuffer(record[:-8], "<f8").tolist() for record in dataset.records]
    assert values == [[120.0 + number, 80.0] for number in range(6)]
    kept = repr((dataset.groups, dataset.columns)).encode() + b"".join(dataset.records)
    assert not any(secret in kept for secret in (b"Doe", b"MRN-4711", b"High Street"))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{", "not a readable JSON file"),
        ("[" * 100_000, "not a readable JSON file"),
        ('{"resourceType": "Patient"}', "not a FHIR Bundle"),
        ('{"resourceType": "Bundle", "entry": [{}]}', "entry 0 has no resource"),
        (bundle(patient(0)), "a patient stands twice"),
        (bundle({"resourceType": "Patient"}), "entry 0: id"),
        (bundle(observed(9, "8480-6", 1, "2025")), "a patient that is in no bundle"),
        (
            bundle(observed(1, "8480-6", 1, "2025", valueQuantity={"value": 1, "code": "kPa"})),
            "two units",
        ),
        (
            bundle(observed(1, "8480-6", 1, "2025", valueQuantity={"value": "Jane Doe"})),
            "valueQuantity.value",
        ),
    ],
)
def test_a_broken_bundle_is_named_and_nothing_is_read(read, clinic, text, fault):
    (clinic / "fhir/x.json").write_text(text)
    with pytest.raises(SourceInvalid, match=fault) as caught:
        read(FHIR)
    assert caught.value.where.endswith("x.json")
    assert "Doe" not in str(caught.value)


def test_a_refuted_condition_is_none(read, clinic):
    refuted = {"coding": [{"code": "refuted"}]}
    (clinic / "fhir/x.json").write_text(bundle(ill(0, verificationStatus=refuted)))
    assert read(FHIR).labels[0] == 0


# what is published


def test_the_manual_shows_dataset_files_that_the_node_takes():
    manual = (Path(__file__).parents[4] / "docs/datasets.md").read_text()
    examples = [part.split("```")[0] for part in manual.split("```toml\n")[1:]]
    files = [
        DatasetFile.model_validate({"modality": "tabular/test"} | tomllib.loads(example))
        for example in examples
    ]
    kinds = [file.source.kind for file in files]
    assert kinds == ["csv", "sql", "dicom", "dicomweb", "fhir"]


@given(st.lists(st.sampled_from("abcdefg"), max_size=120), st.integers(1, 30))
def test_no_published_count_nor_a_difference_speaks_of_fewer_than_k(values, k):
    bands = cohort_bands({"x": values}, k)
    total = len(values)
    assert bool(bands) == (total >= k)
    for _, lowest, highest in bands:
        assert lowest >= k
        assert lowest % k == 0
        assert highest == lowest + k - 1
    if bands:
        assert sum(low for _, low, _ in bands) <= total <= sum(high for _, _, high in bands)
        shown = {name.removeprefix("x:") for name, _, _ in bands} - {"other"}
        hidden = [value for value in values if value not in shown]
        assert not hidden or len(hidden) >= k
