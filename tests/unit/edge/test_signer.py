import ast
import stat
from pathlib import Path

import dcap_qvl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from longrun import LONG

import oracle.clients.edge.signer as signer_module
from oracle.clients.edge.devplatform import DevPlatform
from oracle.clients.edge.errors import KeyFileInvalid, ReceiptRegression, SimulatedEnclaveRefused
from oracle.clients.edge.policy.digest import RULES, base_rules
from oracle.clients.edge.sandbox.limits import ChildLimits
from oracle.clients.edge.signer import (
    MEASURED_FILES,
    EnclaveSigner,
    configuration_digest,
    measurement,
)
from settlement.eip712 import receipt_digest, recover_signer
from settlement.enclave import report_data
from settlement.models import Receipt
from settlement.types import ZERO_BYTES32

ROOT = Path(signer_module.__file__).parents[3]
JOB = bytes([9] * 32)
NOW = 1_800_000_000


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "enclave"


@pytest.fixture
def signer(directory):
    return EnclaveSigner.open(directory, chain_id=31337)


def receipt(records=0, epochs=0, *, root=None, output=ZERO_BYTES32, complete=False, job=JOB):
    return Receipt(
        job_id=job,
        records=records,
        epochs=epochs,
        records_root=root or records.to_bytes(32, "big"),
        output_digest=output,
        complete=complete,
    )


def completion(records=5, epochs=1, output=bytes([1] * 32)):
    return receipt(records, epochs, output=output, complete=True)


def test_keys_are_sealed_private_and_marked_as_simulated(signer, directory):
    path = directory / "sealed.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert b"SIMULATED-DEV-ONLY" in path.read_bytes()
    again = EnclaveSigner.open(directory, chain_id=31337)
    assert (again.enclave_key, again.encryption_key) == (
        signer.enclave_key,
        signer.encryption_key,
    )
    assert len(signer.encryption_key) == 32


def test_two_enclaves_have_different_keys(signer, tmp_path):
    other = EnclaveSigner.open(tmp_path / "other", chain_id=31337)
    assert other.enclave_key != signer.enclave_key


@pytest.mark.parametrize("chain_id", [1, 137, 80002])
def test_a_simulated_enclave_is_refused_on_real_chains(directory, chain_id):
    with pytest.raises(SimulatedEnclaveRefused, match=str(chain_id)):
        EnclaveSigner.open(directory, chain_id=chain_id)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"sealing":"SGX"}', b'{"sealing":"SIMULATED-DEV-ONLY"}']
)
def test_a_damaged_sealed_file_is_refused_without_showing_it(directory, content):
    directory.mkdir()
    (directory / "sealed.json").write_bytes(content)
    with pytest.raises(KeyFileInvalid) as caught:
        EnclaveSigner.open(directory, chain_id=31337)
    assert caught.value.__suppress_context__


def test_the_key_shows_in_no_representation(signer, directory):
    text = (directory / "sealed.json").read_text()
    assert signer._signing_key.hex() in text
    assert signer._signing_key.hex() not in repr(signer) + str(signer)


def test_a_receipt_is_signed_by_the_enclave_key(signer, deployment):
    signed = signer.sign_receipt(receipt(3, 0), deployment.vault_domain)
    digest = receipt_digest(signed.receipt, deployment.vault_domain)
    assert recover_signer(digest, signed.signature) == signer.enclave_key


def test_the_same_receipt_again_gives_the_same_signature(signer, deployment):
    domain = deployment.vault_domain
    assert signer.sign_receipt(completion(), domain) == signer.sign_receipt(completion(), domain)


@pytest.mark.parametrize(
    ("first", "second", "detail"),
    [
        (receipt(5, 1), receipt(4, 1), "less than"),
        (receipt(5, 1), receipt(6, 0), "less than"),
        (receipt(5, 1), receipt(5, 2, root=bytes(32)), "another root"),
        (completion(), receipt(6, 2), "the job is complete"),
        (completion(), completion(output=bytes([2] * 32)), "the job is complete"),
        (completion(), receipt(5, 1), "the job is complete"),
        (receipt(1), completion(0, 0), "less than"),
        (receipt(1), receipt(2, complete=True), "a completing receipt names an output"),
    ],
)
def test_a_receipt_that_does_not_continue_is_refused_also_after_a_restart(
    signer, directory, deployment, first, second, detail
):
    signer.sign_receipt(first, deployment.vault_domain)
    for enclave in (signer, EnclaveSigner.open(directory, chain_id=31337)):
        with pytest.raises(ReceiptRegression, match=detail):
            enclave.sign_receipt(second, deployment.vault_domain)


def test_a_job_does_not_hold_back_another(signer, deployment):
    signer.sign_receipt(receipt(5, 1), deployment.vault_domain)
    signer.sign_receipt(receipt(1, 0, job=bytes(32)), deployment.vault_domain)


def test_an_unreadable_last_receipt_is_refused_rather_than_forgotten(signer, directory, deployment):
    signer.sign_receipt(receipt(5, 1), deployment.vault_domain)
    (directory / "signed" / f"{JOB.hex()}.json").write_bytes(b"")
    with pytest.raises(ReceiptRegression, match="unreadable"):
        signer.sign_receipt(receipt(6, 1), deployment.vault_domain)


@settings(max_examples=1_000 if LONG else 30)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3)), max_size=12))
def test_what_is_signed_never_goes_back(tmp_path_factory, steps):
    enclave = EnclaveSigner.open(tmp_path_factory.mktemp("enclave"), chain_id=31337)
    domain = signer_domain()
    last = (0, 0)
    for records, epochs in steps:
        if records < last[0] or epochs < last[1]:
            with pytest.raises(ReceiptRegression):
                enclave.sign_receipt(receipt(records, epochs), domain)
        else:
            enclave.sign_receipt(receipt(records, epochs), domain)
            last = (records, epochs)


def signer_domain():
    from settlement.eip712 import vault_domain

    return vault_domain(31337, "0x" + "11" * 20)


def test_the_quote_binds_keys_chain_registry_nonce_and_configuration(signer, deployment):
    platform = DevPlatform.create(NOW, chain_id=31337)
    nonce, configuration = bytes([3] * 32), configuration_digest(ChildLimits())
    quote = signer.quote(
        platform,
        nonce=nonce,
        chain_id=31337,
        registry=deployment.enclave_registry,
        configuration=configuration,
    )
    assert quote[48 + 64 : 48 + 96] == measurement()
    assert quote[48 + 320 : 48 + 384] == report_data(
        chain_id=31337,
        registry=deployment.enclave_registry,
        enclave_key=signer.enclave_key,
        encryption_key=signer.encryption_key,
        nonce=nonce,
        configuration=configuration,
    )
    collateral = dcap_qvl.QuoteCollateralV3.from_json(platform.collateral_json())
    verdict = dcap_qvl.verify_with_root_ca(quote, collateral, platform.root_der, NOW)
    assert verdict.status == "UpToDate"


def test_configuration_digest_changes_with_a_limit():
    assert configuration_digest(ChildLimits()) != configuration_digest(ChildLimits(open_files=9))
    assert len(configuration_digest(ChildLimits())) == 32


def test_measurement_changes_with_any_measured_file(tmp_path, monkeypatch):
    for name in MEASURED_FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    original = measurement()
    monkeypatch.setattr(signer_module, "_ROOT", tmp_path)
    assert measurement() == original
    for name in MEASURED_FILES:
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content + b"#")
        assert measurement() != original
        (tmp_path / name).write_bytes(content)


def test_every_rule_that_the_node_enforces_is_measured():
    rules = {path.relative_to(ROOT).as_posix() for path in RULES.iterdir()}
    assert len(rules) == len(base_rules()) == 3
    assert rules < set(MEASURED_FILES)


def test_everything_that_measured_code_imports_of_this_project_is_measured():
    for name in (name for name in MEASURED_FILES if name.endswith(".py")):
        for node in ast.walk(ast.parse((ROOT / name).read_text())):
            if not isinstance(node, ast.ImportFrom) or node.module is None:
                continue
            if node.module.split(".")[0] not in ("oracle", "settlement"):
                continue
            path = node.module.replace(".", "/")
            inner = [f"{path}/{alias.name}.py" for alias in node.names]
            for file in inner if (ROOT / path).is_dir() else [f"{path}.py"]:
                assert file in MEASURED_FILES, f"{name} imports {file}"
