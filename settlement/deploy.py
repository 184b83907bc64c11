"""Deploying the contracts: where each will be is known before anything is sent.

Every contract is created by CREATE2 through the deployer that everybody uses (Arachnid's
deterministic deployment proxy), so its address depends on release and parameters alone, not on who
deploys, when, or on which chain. Node registry and vault name each other; `RaphaLauncher` creates
both. A deployment that was interrupted goes on by being run again: what is there is not created
twice.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, cast

import rlp
from eth_abi import encode
from eth_utils import keccak, to_canonical_address, to_checksum_address
from eth_utils.abi import collapse_if_tuple
from hexbytes import HexBytes
from pydantic import Field
from web3 import Web3
from web3.exceptions import ContractLogicError, Web3RPCError
from web3.types import TxParams, TxReceipt

from settlement.bls import BlsMember
from settlement.client import Settlement
from settlement.committee import creation
from settlement.contracts import TransactionFailed, WrongChain, artifact
from settlement.dcap import INTEL, Trust
from settlement.deployment import REAL_CHAINS, Deployment
from settlement.eip712 import usdc_domain
from settlement.errors import InvalidInput
from settlement.networks import NETWORKS
from settlement.reverts import reverted
from settlement.signer import Signer, refuse_known_key
from settlement.types import ZERO_ADDRESS, Address, Bytes32, Frozen, UInt64, to_hex

MIN_TIMELOCK_DELAY = 2 * 24 * 60 * 60
"""Seconds; the least delay of the timelock on a real chain."""

CREATE2_DEPLOYER = "0x4e59b44847b379578588920cA78FbF26c0B4956C"
"""Takes 32 bytes of salt and creation code; https://github.com/Arachnid/deterministic-deployment-proxy."""
CREATE2_DEPLOYER_CODE_HASH = bytes.fromhex(
    "2fa86add0aed31f33a762c9d88e807c475bd51d0f52bd0955754b2608f7e4989"
)

MAX_INITCODE = 49_152
"""Bytes of creation code that a chain takes (EIP-3860, and Polygon PoS)."""


class DeploymentParameters(Frozen):
    """Who governs a deployment and with which numbers.

    `proposers` announce through the timelock, the `guardian` stops things, the `registrar`
    registers nodes, `protocol` gets the protocol's share, the `arbiter` splits what is disputed.
    `grace_period`, `challenge_window` (0 for none), `arbitration_period` and `timelock_delay` are
    seconds. The `committee` signs by ECDSA where its members are addresses, by BLS where they are
    proven keys (`docs/committees.md` says which is cheaper). `trust` says whose quotes count; on
    real chains only Intel's root is accepted.
    """

    proposers: tuple[Address, ...] = Field(min_length=1)
    guardian: Address
    registrar: Address
    protocol: Address
    arbiter: Address
    committee: tuple[Address | BlsMember, ...] = Field(min_length=1)
    threshold: int = Field(gt=0)
    measurements: tuple[Bytes32, ...] = ()
    grace_period: UInt64
    challenge_window: UInt64 = 0
    arbitration_period: UInt64 = 7 * 24 * 60 * 60
    timelock_delay: UInt64
    trust: Trust = INTEL


@dataclass(frozen=True)
class Planned:
    """One contract to be: its address, and its constructor's arguments in ABI encoding.

    `creation` is what CREATE2 creates; None for the two that the launcher creates.
    """

    contract: str
    address: str
    arguments: bytes
    creation: bytes | None


@dataclass(frozen=True)
class Plan:
    """All contracts of a deployment, in the order of their creation."""

    chain_id: int
    usdc: str
    salt: bytes
    parameters: DeploymentParameters
    contracts: tuple[Planned, ...]

    def address(self, contract: str) -> str:
        """Where a contract will be. Raises KeyError for one that is not part of it."""
        return {planned.contract: planned.address for planned in self.contracts}[contract]

    def deployment(self, block: int) -> Deployment:
        """The record of what is deployed; `block` is one before which nothing of it existed."""
        return Deployment(
            chain_id=self.chain_id,
            block=block,
            vault=self.address("RaphaClearingVault"),
            node_registry=self.address("RaphaNodeRegistry"),
            enclave_registry=self.address("EnclaveRegistry"),
            timelock=self.address("RaphaTimelock"),
            usdc=self.usdc,
            grace_period=self.parameters.grace_period,
            challenge_window=self.parameters.challenge_window,
        )


def release() -> str:
    """The version of this code, which names its deployments."""
    return version("rapha-settlement")


def salt_of(name: str) -> bytes:
    """The 32 bytes that set a release's deployment apart from another with equal parameters."""
    return keccak(text=f"rapha settlement {name}")


def create2_address(salt: bytes, creation: bytes) -> str:
    """The address of what the deployer creates (EIP-1014)."""
    seed = b"\xff" + to_canonical_address(CREATE2_DEPLOYER) + salt + keccak(creation)
    return to_checksum_address(keccak(seed)[12:])


def create_address(sender: str, nonce: int) -> str:
    """The address of what `sender` creates at `nonce` (Ethereum yellow paper, section 7).

    A contract's own first creation is at nonce 1 (EIP-161).
    """
    return to_checksum_address(keccak(rlp.encode([to_canonical_address(sender), nonce]))[12:])


def plan(
    chain_id: int,
    parameters: DeploymentParameters,
    *,
    usdc: str | None = None,
    name: str | None = None,
) -> Plan:
    """What will be where. Asks no chain.

    `usdc` is given on local chains only. `name` stands for the release, whose version it is
    otherwise; the same one with the same parameters is the same deployment.

    Raises:
        InvalidInput: on a real chain, for a timelock delay below two days, a root not Intel's, or
            another USDC than Circle's; for members and a threshold that make no committee.
        KnownKeyRefused: on a real chain, for an account whose key is public.
    """
    _check_parameters(chain_id, parameters)
    token = _usdc(chain_id, usdc)
    salt = salt_of(name or release())
    contracts: list[Planned] = []

    def add(contract: str, arguments: Sequence[Any]) -> str:
        built = artifact(contract)
        encoded = encode_arguments(contract, arguments)
        creation_code = built.bytecode + encoded
        if len(creation_code) > MAX_INITCODE:
            raise InvalidInput(
                f"{contract} takes {len(creation_code)} bytes of creation code, and a chain takes "
                f"{MAX_INITCODE}: leave out proposers or members"
            )
        address = create2_address(salt, creation_code)
        contracts.append(Planned(contract, address, encoded, creation_code))
        return address

    proposers = list(parameters.proposers)
    timelock = add("RaphaTimelock", [parameters.timelock_delay, proposers, proposers])
    certificates = add("PckCertificates", [])
    committee = add(*creation(parameters.committee, parameters.threshold))
    enclaves = add(
        "EnclaveRegistry",
        [
            timelock,
            parameters.guardian,
            committee,
            list(parameters.measurements),
            parameters.trust.abi_value(certificates),
        ],
    )
    periods = (
        parameters.grace_period,
        parameters.challenge_window,
        parameters.arbitration_period,
    )
    launcher = add(
        "RaphaLauncher",
        [
            artifact("RaphaNodeRegistry").bytecode,
            artifact("RaphaClearingVault").bytecode,
            enclaves,
            (
                timelock,
                parameters.guardian,
                parameters.registrar,
                parameters.protocol,
                parameters.arbiter,
            ),
            periods,
            # not an argument where it would make the addresses of two chains differ
            ZERO_ADDRESS if chain_id in NETWORKS else token,
        ],
    )
    nodes, vault = create_address(launcher, 1), create_address(launcher, 2)
    for contract, address, arguments in (
        (
            "RaphaNodeRegistry",
            nodes,
            [timelock, parameters.guardian, parameters.registrar, parameters.protocol, vault],
        ),
        (
            "RaphaClearingVault",
            vault,
            [token, nodes, enclaves, timelock, parameters.guardian, parameters.arbiter, *periods],
        ),
    ):
        contracts.append(Planned(contract, address, encode_arguments(contract, arguments), None))
    return Plan(chain_id, token, salt, parameters, tuple(contracts))


def plan_committee(chain_id: int, members: Sequence[Any], threshold: int) -> tuple[Planned, bytes]:
    """A committee's contract alone, for a deployment that gets another, and its salt.

    Raises:
        InvalidInput: for members and a threshold that make no committee.
        KnownKeyRefused: on a real chain, for a member whose key is public.
    """
    for member in members:
        if isinstance(member, str):
            refuse_known_key(member, chain_id)
    contract, arguments = creation(members, threshold)
    encoded = encode_arguments(contract, arguments)
    code = artifact(contract).bytecode + encoded
    salt = salt_of(release())
    return Planned(contract, create2_address(salt, code), encoded, code), salt


def encode_arguments(contract: str, arguments: Sequence[Any]) -> bytes:
    """A constructor's arguments in ABI encoding, as explorers ask for them."""
    constructors = [each for each in artifact(contract).abi if each["type"] == "constructor"]
    inputs = constructors[0]["inputs"] if constructors else []
    return encode([collapse_if_tuple(each) for each in inputs], list(arguments))


def check_usdc(w3: Web3, chain_id: int, usdc: str) -> bytes:
    """Make sure that a token is native USDC; returns the keccak-256 of its code.

    Raises:
        WrongChain: when there is no contract, or symbol, decimals or EIP-712 domain differ.
    """
    address = to_checksum_address(usdc)
    code = bytes(w3.eth.get_code(address))
    if not code:
        raise WrongChain("code of USDC", expected=f"a contract at {usdc}", found="none")
    functions = w3.eth.contract(address=address, abi=artifact("TestUSDC").abi).functions
    for what, found, expected in (
        ("USDC's symbol", functions.symbol().call(), "USDC"),
        ("USDC's decimals", functions.decimals().call(), 6),
        (
            "USDC's EIP-712 domain",
            to_hex(bytes(functions.DOMAIN_SEPARATOR().call())),
            to_hex(usdc_domain(chain_id, address).separator),
        ),
    ):
        if found != expected:
            raise WrongChain(what, expected=expected, found=found)
    return keccak(code)


def check_deployer(w3: Web3) -> None:
    """Make sure that the CREATE2 deployer is there, and is what everybody knows.

    Raises:
        InvalidInput: when it is not, with what to do.
    """
    code = bytes(w3.eth.get_code(to_checksum_address(CREATE2_DEPLOYER)))
    if not code:
        raise InvalidInput(
            f"chain {w3.eth.chain_id} has no CREATE2 deployer at {CREATE2_DEPLOYER}: send its "
            "presigned transaction (see docs/deploy.md), then run this again"
        )
    if keccak(code) != CREATE2_DEPLOYER_CODE_HASH:
        raise InvalidInput(
            f"what is at {CREATE2_DEPLOYER} is not the CREATE2 deployer: deploy nothing through it"
        )


def present(w3: Web3, planned: Plan) -> list[str]:
    """Which contracts of a plan are there already."""
    return [
        each.contract
        for each in planned.contracts
        if w3.eth.get_code(to_checksum_address(each.address))
    ]


def create(w3: Web3, signer: Signer, planned: Planned, salt: bytes) -> TxReceipt | None:
    """Create one contract, or None where it is there already.

    Raises:
        ContractReverted: with its constructor's own reason; nothing was sent then.
        TransactionFailed: when it is not there after all.
    """
    address = to_checksum_address(planned.address)
    if planned.creation is None or w3.eth.get_code(address):
        return None
    deployer = to_checksum_address(CREATE2_DEPLOYER)
    try:
        # the deployer swallows the reason, so the creation is tried as its own first
        w3.eth.call(cast(TxParams, {"from": deployer, "data": HexBytes(planned.creation)}))
        data = HexBytes(salt + planned.creation)
        sender = to_checksum_address(signer.address)
        gas = w3.eth.estimate_gas({"from": sender, "to": deployer, "data": data})
    except (ContractLogicError, Web3RPCError) as error:
        raise reverted(error) from error
    transaction = signer.send(w3, {"to": deployer, "data": data, "gas": gas + gas // 50})
    receipt = w3.eth.wait_for_transaction_receipt(HexBytes(transaction))
    # one that was sent before an interruption may have come first: what counts is what is there
    if not w3.eth.get_code(address):
        raise TransactionFailed(transaction)
    return receipt


def deploy(
    w3: Web3,
    signer: Signer,
    usdc: str | None,
    parameters: DeploymentParameters,
    *,
    name: str | None = None,
    block: int | None = None,
    created: Callable[[Planned, TxReceipt | None], None] | None = None,
) -> Deployment:
    """Create what is not there yet, and check that all belongs together.

    `usdc` is for local chains, and None elsewhere. `block` is one before the first creation; where
    it is not given it is the newest one, or 0 where something is there already. `created` is told
    each contract, with no receipt where it was there already.

    Raises:
        InvalidInput: see `plan` and `check_deployer`.
        KnownKeyRefused: on a real chain, for an account or a signer whose key is public.
        ContractReverted: when a constructor refuses.
        TransactionFailed: when a creation failed.
        WrongChain: when USDC is another, or what was deployed does not fit together.
    """
    chain_id = w3.eth.chain_id
    planned = plan(chain_id, parameters, usdc=usdc, name=name)
    refuse_known_key(to_checksum_address(signer.address), chain_id)
    check_usdc(w3, chain_id, planned.usdc)
    check_deployer(w3)
    if block is None:
        block = 0 if present(w3, planned) else w3.eth.block_number
    for each in planned.contracts:
        receipt = create(w3, signer, each, planned.salt)
        if created is not None:
            created(each, receipt)
    deployment = planned.deployment(block)
    Settlement(w3, deployment).check()
    return deployment


def deploy_test_usdc(w3: Web3, signer: Signer) -> str:
    """Deploy the test USDC behind its proxy; the signer becomes its admin. Local chains only."""
    implementation, _ = create_for_tests(w3, signer, "TestUSDC", [])
    proxy, _ = create_for_tests(w3, signer, "TestUSDCProxy", [implementation])
    token = w3.eth.contract(address=to_checksum_address(proxy), abi=artifact("TestUSDC").abi)
    data = HexBytes(token.encode_abi("initialize", [signer.address]))
    transaction = signer.send(w3, {"to": to_checksum_address(proxy), "data": data, "gas": 200_000})
    if not w3.eth.wait_for_transaction_receipt(HexBytes(transaction))["status"]:
        raise TransactionFailed(transaction)
    return proxy


def create_for_tests(
    w3: Web3, signer: Signer, contract: str, arguments: Sequence[Any]
) -> tuple[str, TxReceipt]:
    """Create any contract by a plain transaction; its address and the receipt.

    Raises:
        InvalidInput: on a real chain.
        TransactionFailed: when the creation reverted.
    """
    if w3.eth.chain_id in REAL_CHAINS:
        raise InvalidInput(
            f"{contract} is for tests and is not deployed on chain {w3.eth.chain_id}"
        )
    data = HexBytes(artifact(contract).bytecode + encode_arguments(contract, arguments))
    sender = to_checksum_address(signer.address)
    gas = w3.eth.estimate_gas(cast(TxParams, {"from": sender, "data": data}))
    transaction = signer.send(w3, {"data": data, "gas": gas})
    receipt = w3.eth.wait_for_transaction_receipt(HexBytes(transaction))
    address = receipt["contractAddress"]
    if not receipt["status"] or address is None:
        raise TransactionFailed(transaction)
    return str(address), receipt


def _usdc(chain_id: int, usdc: str | None) -> str:
    network = NETWORKS.get(chain_id)
    if network is None:
        if usdc is None:
            raise InvalidInput(f"USDC's address is not known on chain {chain_id}: name it")
        return usdc
    if usdc not in (None, network.usdc):
        raise InvalidInput(f"USDC on chain {chain_id} is Circle's {network.usdc}, not {usdc}")
    return network.usdc


def _check_parameters(chain_id: int, parameters: DeploymentParameters) -> None:
    if chain_id not in REAL_CHAINS:
        return
    if parameters.timelock_delay < MIN_TIMELOCK_DELAY:
        raise InvalidInput(
            f"the timelock's delay on chain {chain_id} is at least {MIN_TIMELOCK_DELAY} seconds"
        )
    if parameters.trust.root != INTEL.root:
        raise InvalidInput(
            f"quotes on chain {chain_id} go up to Intel's root; a development platform's is refused"
        )
    for account in (
        *parameters.proposers,
        *(parameters.guardian, parameters.registrar, parameters.protocol, parameters.arbiter),
        *(member for member in parameters.committee if isinstance(member, str)),
    ):
        refuse_known_key(account, chain_id)
