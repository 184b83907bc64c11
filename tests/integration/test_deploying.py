"""Deploying on Polygon's chain ids, interrupted and not; checking it; handing it over."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from anvil import DAY, key
from eth_utils import keccak
from explorer_site import Etherscan
from rehearsal import parameters, rehearsal, safe, signer
from vyper.cli.vyper_json import compile_json
from web3 import Web3
from web3.types import TxParams

from scripts.chain import rpc
from scripts.deploy import rehearse, run
from scripts.explorer import Explorer, ExplorerUnavailable, VerificationRefused
from scripts.verify import check
from settlement.client import Settlement
from settlement.contracts import WrongChain, artifact
from settlement.deploy import CREATE2_DEPLOYER, check_deployer, check_usdc, deploy, plan
from settlement.errors import InvalidInput
from settlement.handover import Governance, plan_handover, prove, timelock_of
from settlement.networks import AMOY, GWEI, POLYGON
from settlement.record import DeploymentRecord, check_deployed, check_record, load_record
from settlement.reverts import ContractReverted, Revert
from settlement.signer import KNOWN_ACCOUNTS, KnownKeyRefused, LocalSigner
from settlement.verify import Check

pytestmark = pytest.mark.xdist_group("anvil")

CREATED = (
    "RaphaTimelock",
    "PckCertificates",
    "EcdsaCommittee",
    "EnclaveRegistry",
    "RaphaLauncher",
)
NAME = "rehearsal"


class Interrupted(Exception):
    """The process ended."""


class Dying(LocalSigner):
    """A signer whose process ends before or after its n-th transaction is on its way."""

    def __init__(self, at: int, after: bool) -> None:
        super().__init__(key("deployer"))
        self._left, self._after = at, after

    def send(self, w3: Web3, transaction: TxParams) -> bytes:
        self._left -= 1
        if self._left == 0 and not self._after:
            raise Interrupted
        sent = super().send(w3, transaction)
        if self._left == 0:
            raise Interrupted
        return sent


@pytest.fixture(scope="module")
def base() -> Iterator[Web3]:
    """Polygon's chain id, with nothing of ours."""
    with rehearsal(POLYGON.chain_id) as w3:
        signer(w3)
        yield w3


@pytest.fixture
def polygon(base: Web3) -> Iterator[Web3]:
    """The same, rolled back afterwards."""
    snapshot = rpc(base, "evm_snapshot")
    yield base
    rpc(base, "evm_revert", snapshot)


@pytest.fixture(scope="module")
def recorded(base: Web3, tmp_path_factory: pytest.TempPathFactory) -> tuple[Web3, DeploymentRecord]:
    """A finished deployment, which later tests of this file look at."""
    snapshot = rpc(base, "evm_snapshot")
    folder = tmp_path_factory.mktemp("records")
    record = run(base, signer(base), parameters(), folder, name=NAME)
    written = load_record(folder / f"137-{NAME}.json")
    assert written == record
    rpc(base, "evm_revert", snapshot)
    return base, record


def failing(checks: tuple[Check, ...]) -> set[str]:
    return {each.claim for each in checks if not each.holds}


def test_amoy_gets_polygons_addresses_with_its_own_usdc(polygon: Web3) -> None:
    deployment = deploy(polygon, signer(polygon), None, parameters(), name=NAME)
    assert deployment.usdc == POLYGON.usdc
    with rehearsal(AMOY.chain_id) as amoy:
        other = deploy(amoy, signer(amoy, "somebody else"), None, parameters(), name=NAME)
    assert other.usdc == AMOY.usdc
    same = {"chain_id", "usdc", "block"}
    assert other.model_dump(exclude=same) == deployment.model_dump(exclude=same)
    planned = plan(AMOY.chain_id, parameters(), name=NAME)
    assert planned.deployment(other.block) == other


def test_fees_and_gas_are_what_polygon_takes(polygon: Web3) -> None:
    before = polygon.eth.block_number
    deploy(polygon, signer(polygon), None, parameters(), name=NAME)
    sent = [
        transaction
        for number in range(before + 1, polygon.eth.block_number + 1)
        for transaction in polygon.eth.get_block(number, full_transactions=True)["transactions"]
    ]
    assert len(sent) == len(CREATED)
    for transaction in sent:
        assert transaction["maxPriorityFeePerGas"] >= 25 * GWEI
        assert transaction["gas"] <= 16_777_216


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_deployment_goes_on_from_wherever_it_stopped(
    polygon: Web3, tmp_path: Path, after: bool
) -> None:
    began = polygon.eth.block_number
    for _ in CREATED:
        # each run comes one transaction further, and its process ends
        with pytest.raises(Interrupted):
            run(polygon, Dying(1 if after else 2, after), parameters(), tmp_path, name=NAME)
        if not after:
            break
    record = run(polygon, signer(polygon), parameters(), tmp_path, name=NAME)
    assert record.deployment.block == began
    assert polygon.eth.block_number == began + len(CREATED)  # nothing was created twice
    assert not failing(check(polygon, record, None))
    assert [path.name for path in tmp_path.iterdir()] == [f"137-{NAME}.json"]


def test_lost_memory_makes_no_record_that_misses_events(polygon: Web3, tmp_path: Path) -> None:
    began = polygon.eth.block_number
    with pytest.raises(Interrupted):
        run(polygon, Dying(2, after=False), parameters(), tmp_path, name=NAME)
    (tmp_path / f"137-{NAME}.unfinished").unlink()
    with pytest.raises(InvalidInput, match="RaphaTimelock of this deployment are there already"):
        run(polygon, signer(polygon), parameters(), tmp_path, name=NAME)
    record = run(polygon, signer(polygon), parameters(), tmp_path, name=NAME, block=began)
    assert record.deployment.block == began
    assert record.contracts[0].transaction is None
    assert deploy(polygon, signer(polygon), None, parameters(), name=NAME).block == 0


def test_running_it_again_sends_nothing(polygon: Web3) -> None:
    first = deploy(polygon, signer(polygon), None, parameters(), name=NAME)
    height = polygon.eth.block_number
    again = deploy(polygon, signer(polygon), None, parameters(), name=NAME, block=first.block)
    assert again == first
    assert polygon.eth.block_number == height


@pytest.mark.parametrize(
    "changes",
    [
        {"guardian": min(KNOWN_ACCOUNTS)},
        {"proposers": (max(KNOWN_ACCOUNTS),)},
        {"committee": (min(KNOWN_ACCOUNTS),), "threshold": 1},
        {"arbiter": min(KNOWN_ACCOUNTS)},
        {"registrar": min(KNOWN_ACCOUNTS)},
        {"protocol": min(KNOWN_ACCOUNTS)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_public_keys_govern_nothing_real(changes: Mapping[str, Any]) -> None:
    with pytest.raises(KnownKeyRefused):
        plan(POLYGON.chain_id, parameters(**changes))
    plan(31337, parameters(**changes), usdc=POLYGON.usdc)


def test_other_usdc_is_refused_where_circles_is_known(polygon: Web3) -> None:
    with pytest.raises(InvalidInput, match=r"USDC on chain 137 is Circle's"):
        plan(137, parameters(), usdc=AMOY.usdc)
    rpc(polygon, "anvil_setCode", POLYGON.usdc, "0x")
    with pytest.raises(WrongChain, match="code of USDC"):
        deploy(polygon, signer(polygon), None, parameters())


def test_token_with_another_domain_is_not_usdc(polygon: Web3) -> None:
    assert check_usdc(polygon, 137, POLYGON.usdc) == keccak(
        bytes(polygon.eth.get_code(Web3.to_checksum_address(POLYGON.usdc)))
    )
    with pytest.raises(WrongChain, match="USDC's EIP-712 domain"):
        check_usdc(polygon, 1, POLYGON.usdc)


def test_create2_deployer_must_be_the_known_one(polygon: Web3) -> None:
    check_deployer(polygon)
    rpc(polygon, "anvil_setCode", CREATE2_DEPLOYER, "0x00")
    with pytest.raises(InvalidInput, match="is not the CREATE2 deployer"):
        deploy(polygon, signer(polygon), None, parameters())
    rpc(polygon, "anvil_setCode", CREATE2_DEPLOYER, "0x")
    with pytest.raises(InvalidInput, match=r"docs/deploy\.md"):
        deploy(polygon, signer(polygon), None, parameters())


def test_constructors_own_reason_is_told(polygon: Web3) -> None:
    height = polygon.eth.block_number
    with pytest.raises(ContractReverted) as refused:
        deploy(polygon, signer(polygon), None, parameters(grace_period=1))
    assert refused.value.revert is Revert.VAULT_GRACE_OUT_OF_RANGE
    assert polygon.eth.block_number == height + len(CREATED) - 1


def test_dry_run_on_a_fork_leaves_the_chain_as_it_is(polygon: Web3) -> None:
    height = polygon.eth.block_number
    endpoint = polygon.provider.endpoint_uri  # type: ignore[attr-defined]
    deployment, gas = rehearse(endpoint, parameters())
    assert plan(137, parameters()).deployment(deployment.block) == deployment
    assert 15_000_000 < gas < 25_000_000
    assert polygon.eth.block_number == height
    assert not polygon.eth.get_code(Web3.to_checksum_address(deployment.vault))


def test_record_that_was_changed_is_refused(recorded: tuple[Web3, DeploymentRecord]) -> None:
    _, record = recorded
    assert not failing(check_record(record))
    signed = "the record is signed by who deployed"
    made = "release and parameters give these contracts, arguments and addresses"
    other = record.contracts[0].model_copy(update={"address": key("thief").address})
    for update, broken in (
        ({"release": "another"}, {signed, made}),
        ({"contracts": (other, *record.contracts[1:])}, {signed, made}),
        ({"contracts": record.contracts[:-1]}, {signed, made}),
        ({"usdc_code_hash": bytes(32)}, {signed}),
        ({"signer": key("thief").address}, {signed}),
        ({"parameters": parameters(guardian=key("thief").address)}, {signed, made}),
    ):
        assert failing(check_record(record.model_copy(update=update))) == broken


def test_chain_that_differs_from_the_record_is_named(
    polygon: Web3, recorded: tuple[Web3, DeploymentRecord]
) -> None:
    record = recorded[1]
    absent = failing(check_deployed(polygon, record))
    assert "every contract's code is the record's" in absent
    deploy(polygon, signer(polygon), None, parameters(), name=NAME)
    assert not failing(check_deployed(polygon, record))
    rpc(polygon, "anvil_setCode", record.deployment.timelock, "0x00")
    assert failing(check_deployed(polygon, record)) == {"every contract's code is the record's"}
    rpc(polygon, "anvil_setCode", POLYGON.usdc, "0x00")
    assert "USDC is the one it was" in failing(check_deployed(polygon, record))


def test_deployment_is_handed_over_to_a_safe_and_proven(polygon: Web3) -> None:
    deployment = deploy(polygon, signer(polygon), None, parameters(), name=NAME)
    of_two = safe(polygon, 2)
    to = Governance(
        proposers=(of_two,),
        guardian=key("new guardian").address,
        registrar=key("new registrar").address,
        arbiter=key("new arbiter").address,
    )
    before = failing(prove(polygon, deployment, to))
    assert before == {
        "the proposers, and nobody else, propose, cancel and execute",
        "the guardian is as named",
        "the registrar is as named",
        "the arbiter is as named",
    }
    operation = plan_handover(polygon, deployment, to)
    timelock = timelock_of(polygon, deployment)
    deployer = Settlement(polygon, deployment, signer(polygon))
    deployer.transact(operation.schedule(timelock))
    with pytest.raises(ContractReverted) as early:
        deployer.transact(operation.execute(timelock))
    assert early.value.revert is Revert.TIMELOCK_OPERATION_IS_NOT_READY
    rpc(polygon, "evm_setNextBlockTimestamp", deployer.now() + 2 * DAY + 1)
    rpc(polygon, "evm_mine")
    deployer.transact(operation.execute(timelock))
    assert not failing(prove(polygon, deployment, to))
    with pytest.raises(InvalidInput, match="nothing to hand over"):
        plan_handover(polygon, deployment, to)
    with pytest.raises(ContractReverted) as gone:
        deployer.transact(operation.schedule(timelock))
    assert gone.value.revert is Revert.ACCESS_ROLE_IS_MISSING
    # and the Safe can do all of it
    back = plan_handover(
        polygon, deployment, to.model_copy(update={"guardian": key("guardian").address})
    )
    polygon.eth.wait_for_transaction_receipt(
        polygon.eth.send_transaction(
            {
                "from": Web3.to_checksum_address(of_two),
                "to": timelock.address,
                "data": back.schedule(timelock)._encode_transaction_data(),
            }
        )
    )
    assert timelock.functions.is_operation_pending(back.id(timelock)).call()


def test_no_single_key_becomes_a_proposer_on_a_real_chain(polygon: Web3) -> None:
    deployment = deploy(polygon, signer(polygon), None, parameters(), name=NAME)
    roles = {name: key(name).address for name in ("guardian", "registrar", "arbiter")}
    for proposer, fault in (
        (key("one").address, "is a plain key, not a Safe"),
        (deployment.vault, "does not answer as a Safe"),
        (safe(polygon, 1), "is signed for by 1 of 3"),
    ):
        to = Governance(proposers=(proposer,), **roles)
        with pytest.raises(InvalidInput, match=fault):
            plan_handover(polygon, deployment, to)
        assert "every proposer is a wallet of several" in failing(prove(polygon, deployment, to))


def test_sources_that_are_submitted_compile_to_what_is_deployed(
    recorded: tuple[Web3, DeploymentRecord], etherscan: Etherscan
) -> None:
    _, record = recorded
    chosen = [each for each in record.contracts if each.contract == "RaphaNodeRegistry"]
    with Explorer(137, "secret", api=etherscan.url, pause=lambda _: None) as explorer:
        for created in chosen:
            assert explorer.verify(record, created) == "Pass - Verified"
    assert len(etherscan.submitted) == len(chosen)
    for form, created in zip(etherscan.submitted, chosen, strict=True):
        assert set(form) == {
            *("codeformat", "sourceCode", "constructorArguments", "contractaddress"),
            *("contractname", "compilerversion", "optimizationUsed"),
        }
        assert (form["codeformat"], form["compilerversion"]) == ("vyper-json", "vyper:0.4.3")
        assert form["contractaddress"] == created.address
        path, name = form["contractname"].split(":")
        assert (path, name) == (f"contracts/{created.contract}.vy", created.contract)
        built = compile_json(json.loads(form["sourceCode"]))["contracts"][path][name]
        code = bytes.fromhex(built["evm"]["bytecode"]["object"].removeprefix("0x"))
        assert code == artifact(name).bytecode
        # the exact arguments: with them the code is what was created
        assert keccak(code + bytes.fromhex(form["constructorArguments"])) == created.creation_hash


def test_explorers_no_is_told_in_its_own_words(
    recorded: tuple[Web3, DeploymentRecord], etherscan: Etherscan
) -> None:
    _, record = recorded
    created = next(each for each in record.contracts if each.contract == "RaphaNodeRegistry")
    etherscan.verdict = "Fail - Unable to verify"
    with (
        Explorer(137, "secret", api=etherscan.url, pause=lambda _: None) as explorer,
        pytest.raises(VerificationRefused, match="Fail - Unable to verify"),
    ):
        explorer.verify(record, created)
    with (
        Explorer(137, "wrong", api=etherscan.url, pause=lambda _: None) as explorer,
        pytest.raises(VerificationRefused, match="apikey") as refused,
    ):
        explorer.verify(record, created)
    assert "secret" not in str(refused.value)
    nobody = etherscan.url.replace("/v2/api", "/v1")
    etherscan.server.shutdown()
    etherscan.server.server_close()
    with Explorer(137, "secret", api=nobody) as explorer, pytest.raises(ExplorerUnavailable):
        explorer.verify(record, created)
