"""The signed record of a deployment, and checking the chain against it."""

from pathlib import Path

from eth_utils import keccak, to_checksum_address
from pydantic import ValidationError
from web3 import Web3
from web3.exceptions import BadFunctionCallOutput, ContractLogicError

from settlement.client import Settlement
from settlement.contracts import WrongChain, artifact
from settlement.deploy import DeploymentParameters, Plan, check_usdc, plan
from settlement.deployment import Deployment
from settlement.digests import canonical_json
from settlement.eip712 import (
    Domain,
    deployment_domain,
    hash_struct,
    recover_signer,
    typed_data,
    typed_digest,
)
from settlement.errors import InvalidInput, InvalidSignature
from settlement.signer import Signer
from settlement.types import Address, Bytes32, Frozen, HexData, Signature, to_hex
from settlement.verify import Check

FOLDER = Path(__file__).parent / "deployments"
"""Where records are kept: `<chain id>-<release>.json`."""


# what is there is another contract, or answers as no such contract does
_MISFITS = (WrongChain, BadFunctionCallOutput, ContractLogicError)


class CreatedContract(Frozen):
    """One contract as it was created.

    `arguments` are its constructor's in ABI encoding; `code_hash` is keccak-256 of its code as
    deployed; `creation_hash` of what created it; `transaction` is None where it was there before.
    """

    contract: str
    address: Address
    arguments: HexData
    code_hash: Bytes32
    creation_hash: Bytes32
    transaction: Bytes32 | None


class DeploymentRecord(Frozen):
    """All that is needed to check a deployment again, signed by who deployed it.

    `usdc_code_hash` is of USDC's code (its proxy's) on the day.
    """

    release: str
    compiler: str
    deployment: Deployment
    parameters: DeploymentParameters
    usdc_code_hash: Bytes32
    contracts: tuple[CreatedContract, ...]
    signer: Address
    signature: Signature

    @property
    def digest(self) -> bytes:
        """Keccak-256 of the canonical JSON of all but signer and signature."""
        return keccak(canonical_json(self.model_dump(mode="json", exclude={"signer", "signature"})))

    @property
    def domain(self) -> Domain:
        """The EIP-712 domain in which it is signed."""
        return deployment_domain(self.deployment.chain_id, self.deployment.vault)

    @property
    def plan(self) -> Plan:
        """What release and parameters say should be where. Raises as `settlement.deploy.plan`."""
        chain_id = self.deployment.chain_id
        return plan(chain_id, self.parameters, usdc=self.deployment.usdc, name=self.release)


def make_record(
    w3: Web3,
    signer: Signer,
    planned: Plan,
    deployment: Deployment,
    transactions: dict[str, bytes],
    name: str,
) -> DeploymentRecord:
    """Write down what is deployed, from the chain itself, and sign it.

    `transactions` are those that created contracts, by contract, as far as they are known.
    """
    launched = transactions.get("RaphaLauncher")
    contracts = tuple(
        CreatedContract(
            contract=each.contract,
            address=each.address,
            arguments=each.arguments,
            code_hash=keccak(bytes(w3.eth.get_code(to_checksum_address(each.address)))),
            creation_hash=keccak(artifact(each.contract).bytecode + each.arguments),
            transaction=transactions.get(each.contract)
            or (launched if each.creation is None else None),
        )
        for each in planned.contracts
    )
    unsigned = DeploymentRecord(
        release=name,
        compiler=artifact("RaphaClearingVault").compiler,
        deployment=deployment,
        parameters=planned.parameters,
        usdc_code_hash=check_usdc(w3, deployment.chain_id, deployment.usdc),
        contracts=contracts,
        signer=to_checksum_address(signer.address),
        signature=bytes(65),
    )
    document = typed_data(unsigned.domain, "DeploymentRecord", {"digest": to_hex(unsigned.digest)})
    return unsigned.model_copy(update={"signature": signer.sign_typed_data(document)})


def record_path(folder: Path, chain_id: int, name: str) -> Path:
    """Where a record goes."""
    return folder / f"{chain_id}-{name}.json"


def load_record(path: Path) -> DeploymentRecord:
    """Read a record.

    Raises:
        InvalidInput: when the file is missing or is no such record.
    """
    try:
        return DeploymentRecord.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise InvalidInput(f"{path} is not a deployment's signed record: {error}") from error


def check_record(record: DeploymentRecord) -> tuple[Check, ...]:
    """What a record proves by itself: that it is signed, and that this code makes the same.

    An address is the hash of what creates it (EIP-1014), and the launcher's children have no other
    creator, so whatever is at these addresses was created by this very code and these arguments.
    """
    digest = typed_digest(record.domain, hash_struct("DeploymentRecord", [record.digest]))
    try:
        found = recover_signer(digest, record.signature)
    except InvalidSignature as error:
        found = str(error)
    try:
        planned = {each.contract: each for each in record.plan.contracts}
        differing = [
            each.contract
            for each in record.contracts
            if each.contract not in planned
            or (each.address, each.arguments)
            != (planned[each.contract].address, planned[each.contract].arguments)
            or each.creation_hash != keccak(artifact(each.contract).bytecode + each.arguments)
        ]
        differing += sorted(planned.keys() - {each.contract for each in record.contracts})
        if record.plan.deployment(record.deployment.block) != record.deployment:
            differing.append("the addresses that processes read")
        why = ", ".join(differing)
    except InvalidInput as error:
        why = str(error)
    return (
        Check(
            claim="the record is signed by who deployed",
            holds=found == record.signer,
            why=record.signer if found == record.signer else f"it is not by {record.signer}",
        ),
        Check(
            claim="release and parameters give these contracts, arguments and addresses",
            holds=not why,
            why=why or f"{len(record.contracts)} contracts of {record.release}",
        ),
    )


def check_deployed(w3: Web3, record: DeploymentRecord) -> tuple[Check, ...]:
    """The record against the chain: code, parameters, USDC, and who holds which role at the start.

    Roles that were handed over since are `settlement.handover.prove`'s.
    """
    deployment = record.deployment
    changed = [
        each.contract
        for each in record.contracts
        if keccak(bytes(w3.eth.get_code(to_checksum_address(each.address)))) != each.code_hash
    ]
    checks = [
        Check(
            claim="every contract's code is the record's",
            holds=not changed,
            why=f"{len(record.contracts)} code hashes" if not changed else ", ".join(changed),
        ),
    ]
    try:
        Settlement(w3, deployment).check()
        fit = None
    except _MISFITS as error:
        fit = str(error)
    checks.append(
        Check(
            claim="the contracts know each other, and the record's parameters",
            holds=fit is None,
            why=fit or f"chain {deployment.chain_id}",
        )
    )
    try:
        same = check_usdc(w3, deployment.chain_id, deployment.usdc) == record.usdc_code_hash
        usdc = "symbol, decimals, EIP-712 domain, code" if same else "its code is another"
    except _MISFITS as error:
        same, usdc = False, str(error)
    checks.append(Check(claim="USDC is the one it was", holds=same, why=usdc))
    return tuple(checks)
