"""Deploying the contracts, in the order that their addresses need."""

from collections.abc import Sequence
from typing import Any, cast

import rlp
from eth_utils import keccak, to_canonical_address, to_checksum_address
from hexbytes import HexBytes
from pydantic import Field
from web3 import Web3
from web3.types import TxParams, TxReceipt

from settlement.bls import BlsMember
from settlement.client import Settlement
from settlement.committee import creation
from settlement.contracts import TransactionFailed, artifact
from settlement.dcap import INTEL, Trust
from settlement.deployment import REAL_CHAINS, Deployment
from settlement.errors import InvalidInput
from settlement.signer import Signer
from settlement.types import Address, Bytes32, Frozen, UInt64

MIN_TIMELOCK_DELAY = 2 * 24 * 60 * 60
"""Seconds; the least delay of the timelock on a real chain."""


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


def create_address(sender: str, nonce: int) -> str:
    """The address of what `sender` creates at `nonce` (Ethereum yellow paper, section 7)."""
    return to_checksum_address(keccak(rlp.encode([to_canonical_address(sender), nonce]))[12:])


def create(
    w3: Web3, signer: Signer, contract: str, arguments: Sequence[Any]
) -> tuple[str, TxReceipt]:
    """Deploy one contract; returns its address and the creation's receipt.

    Raises:
        InvalidInput: for a test contract on a real chain.
        TransactionFailed: when the creation reverted.
    """
    built = artifact(contract)
    if built.testing_only and w3.eth.chain_id in REAL_CHAINS:
        raise InvalidInput(
            f"{contract} is for tests and is not deployed on chain {w3.eth.chain_id}"
        )
    factory = w3.eth.contract(abi=built.abi, bytecode=built.bytecode)
    data = HexBytes(factory.constructor(*arguments).data_in_transaction)
    sender = to_checksum_address(signer.address)
    gas = w3.eth.estimate_gas(cast(TxParams, {"from": sender, "data": data}))
    transaction = signer.send(w3, {"data": data, "gas": gas})
    receipt = w3.eth.wait_for_transaction_receipt(HexBytes(transaction))
    address = receipt["contractAddress"]
    if not receipt["status"] or address is None:
        raise TransactionFailed(transaction)
    return str(address), receipt


def deploy(w3: Web3, signer: Signer, usdc: str, parameters: DeploymentParameters) -> Deployment:
    """Deploy timelock, committee, registries and vault, and check that they belong together.

    The node registry is created before the vault that it serves, so the vault's address is computed
    from the deployer's nonce, and the vault's constructor refuses a registry that serves another.

    Raises:
        InvalidInput: on a real chain, for a timelock delay below two days or a root not Intel's;
            for members and a threshold that make no committee.
        TransactionFailed: when a creation reverted.
        WrongChain: when what was deployed does not fit together.
    """
    chain_id = w3.eth.chain_id
    if chain_id in REAL_CHAINS and parameters.timelock_delay < MIN_TIMELOCK_DELAY:
        raise InvalidInput(
            f"the timelock's delay on chain {chain_id} is at least {MIN_TIMELOCK_DELAY} seconds"
        )
    if chain_id in REAL_CHAINS and parameters.trust.root != INTEL.root:
        raise InvalidInput(
            f"quotes on chain {chain_id} go up to Intel's root; a development platform's is refused"
        )
    timelock, first = create(
        w3,
        signer,
        "RaphaTimelock",
        [parameters.timelock_delay, list(parameters.proposers), list(parameters.proposers)],
    )
    certificates, _ = create(w3, signer, "PckCertificates", [])
    committee, _ = create(w3, signer, *creation(parameters.committee, parameters.threshold))
    enclaves, _ = create(
        w3,
        signer,
        "EnclaveRegistry",
        [
            timelock,
            parameters.guardian,
            committee,
            list(parameters.measurements),
            parameters.trust.abi_value(certificates),
        ],
    )
    nonce = w3.eth.get_transaction_count(to_checksum_address(signer.address))
    vault_to_be = create_address(signer.address, nonce + 1)
    nodes, _ = create(
        w3,
        signer,
        "RaphaNodeRegistry",
        [timelock, parameters.guardian, parameters.registrar, parameters.protocol, vault_to_be],
    )
    vault, _ = create(
        w3,
        signer,
        "RaphaClearingVault",
        [
            usdc,
            nodes,
            enclaves,
            timelock,
            parameters.guardian,
            parameters.arbiter,
            parameters.grace_period,
            parameters.challenge_window,
            parameters.arbitration_period,
        ],
    )
    deployment = Deployment(
        chain_id=chain_id,
        block=first["blockNumber"],
        vault=vault,
        node_registry=nodes,
        enclave_registry=enclaves,
        timelock=timelock,
        usdc=usdc,
        grace_period=parameters.grace_period,
        challenge_window=parameters.challenge_window,
    )
    Settlement(w3, deployment).check()
    return deployment


def deploy_test_usdc(w3: Web3, signer: Signer) -> str:
    """Deploy the test USDC behind its proxy; the signer becomes its admin. Local chains only."""
    implementation, _ = create(w3, signer, "TestUSDC", [])
    proxy, _ = create(w3, signer, "TestUSDCProxy", [implementation])
    token = w3.eth.contract(address=to_checksum_address(proxy), abi=artifact("TestUSDC").abi)
    data = HexBytes(token.encode_abi("initialize", [signer.address]))
    transaction = signer.send(w3, {"to": to_checksum_address(proxy), "data": data, "gas": 200_000})
    if not w3.eth.wait_for_transaction_receipt(HexBytes(transaction))["status"]:
        raise TransactionFailed(transaction)
    return proxy
