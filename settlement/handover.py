"""Handing a deployment over to those who are to govern it, and proving that it was."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from eth_utils import to_checksum_address
from hexbytes import HexBytes
from pydantic import Field
from web3 import Web3
from web3.contract import Contract
from web3.exceptions import BadFunctionCallOutput, ContractLogicError
from web3.types import FilterParams

from settlement.client import Settlement
from settlement.contracts import artifact
from settlement.deployment import REAL_CHAINS, Deployment
from settlement.errors import InvalidInput
from settlement.history import in_ranges
from settlement.signer import KNOWN_ACCOUNTS, refuse_known_key
from settlement.types import ZERO_ADDRESS, ZERO_BYTES32, Address, Frozen, to_hex
from settlement.verify import Check

ROLES = ("PROPOSER_ROLE", "EXECUTOR_ROLE", "CANCELLER_ROLE")
"""The timelock's roles that people hold; its admin is itself."""

_GOVERNED = {
    "RaphaClearingVault": "vault",
    "RaphaNodeRegistry": "node_registry",
    "EnclaveRegistry": "enclave_registry",
}


class Governance(Frozen):
    """Who is to govern: what a hand-over leads to, and what is proven afterwards.

    `proposers` announce, cancel and execute through the timelock; on a real chain each is a
    contract wallet (Safe) that more than one must sign for.
    """

    proposers: tuple[Address, ...] = Field(min_length=1)
    guardian: Address
    registrar: Address
    arbiter: Address


@dataclass(frozen=True)
class Operation:
    """A batch of calls that the timelock makes, once `delay` seconds (or more) have passed."""

    targets: tuple[str, ...]
    payloads: tuple[bytes, ...]
    salt: bytes
    delay: int

    def schedule(self, timelock: Contract) -> Any:
        """The call by which a proposer announces it."""
        return timelock.functions.schedule_batch(*self._batch(), self.delay)

    def execute(self, timelock: Contract) -> Any:
        """The call by which an executor carries it out."""
        return timelock.functions.execute_batch(*self._batch())

    def id(self, timelock: Contract) -> bytes:
        """How the timelock knows it."""
        return bytes(timelock.functions.hash_operation_batch(*self._batch()).call())

    def _batch(self) -> tuple[Any, ...]:
        zeros = [0] * len(self.targets)
        return list(self.targets), zeros, list(self.payloads), ZERO_BYTES32, self.salt


def timelock_of(w3: Web3, deployment: Deployment) -> Contract:
    """The timelock's contract."""
    address = to_checksum_address(deployment.timelock)
    return w3.eth.contract(address=address, abi=artifact("RaphaTimelock").abi)


def holders(w3: Web3, deployment: Deployment) -> dict[str, set[str]]:
    """Who holds which of the timelock's roles now, from its events and confirmed by itself.

    Raises:
        HistoryUnavailable: when the endpoint does not answer.
    """
    timelock = timelock_of(w3, deployment)
    names = {
        bytes(timelock.functions[name]().call()): name for name in ("DEFAULT_ADMIN_ROLE", *ROLES)
    }
    found: dict[str, set[str]] = {name: set() for name in names.values()}
    topics = [_topic(timelock, "RoleGranted")]

    def ask(first: int, last: int) -> Sequence[Mapping[str, Any]]:
        query = {"address": timelock.address, "topics": [topics], "fromBlock": first}
        logs = w3.eth.get_logs(cast(FilterParams, {**query, "toBlock": last}))
        return cast(Sequence[Mapping[str, Any]], logs)

    for log in in_ranges(ask, deployment.block, w3.eth.block_number):
        name = names.get(bytes(log["topics"][1]))
        account = to_checksum_address(bytes(log["topics"][2])[12:])
        if name and timelock.functions.hasRole(bytes(log["topics"][1]), account).call():
            found[name].add(account)
    return found


def plan_handover(w3: Web3, deployment: Deployment, to: Governance) -> Operation:
    """The one operation that leads from who governs now to `to`; nothing where it is so already.

    Raises:
        InvalidInput: when there is nothing to hand over, or a proposer is no contract wallet.
        KnownKeyRefused: on a real chain, for an account whose key is public.
    """
    chain_id = deployment.chain_id
    for account in (*to.proposers, to.guardian, to.registrar, to.arbiter):
        refuse_known_key(account, chain_id)
    if chain_id in REAL_CHAINS:
        for account in to.proposers:
            if (fault := _wallet_fault(w3, account)) is not None:
                raise InvalidInput(f"{account} cannot be a proposer on chain {chain_id}: {fault}")
    settlement, timelock = Settlement(w3, deployment), timelock_of(w3, deployment)
    targets: list[str] = []
    payloads: list[bytes] = []

    def call(contract: Contract, function: str, *arguments: Any) -> None:
        targets.append(contract.address)
        payloads.append(bytes(HexBytes(contract.encode_abi(function, list(arguments)))))

    held = holders(w3, deployment)
    for name in ROLES:
        role = bytes(timelock.functions[name]().call())
        for account in sorted(set(to.proposers) - held[name]):
            call(timelock, "grantRole", role, account)
    for name in ROLES:
        role = bytes(timelock.functions[name]().call())
        for account in sorted(held[name] - set(to.proposers)):
            call(timelock, "revokeRole", role, account)
    for contract in (settlement.vault, settlement.nodes, settlement.enclaves):
        if contract.functions.guardian().call() != to.guardian:
            call(contract, "set_guardian", to.guardian)
    if settlement.nodes.functions.registrar().call() != to.registrar:
        call(settlement.nodes, "set_registrar", to.registrar)
    if settlement.vault.functions.arbiter().call() != to.arbiter:
        call(settlement.vault, "set_arbiter", to.arbiter)
    if not targets:
        raise InvalidInput("there is nothing to hand over: all roles are as they are to be")
    delay = int(timelock.functions.get_minimum_delay().call())
    salt = Web3.keccak(text=f"rapha handover {to.model_dump_json()}")
    return Operation(tuple(targets), tuple(payloads), bytes(salt), delay)


def plan_committee_change(w3: Web3, deployment: Deployment, committee: str) -> Operation:
    """The operation by which the enclave registry asks another committee's contract."""
    enclaves = Settlement(w3, deployment).enclaves
    place = to_checksum_address(committee)
    payload = bytes(HexBytes(enclaves.encode_abi("set_committee", [place])))
    delay = int(timelock_of(w3, deployment).functions.get_minimum_delay().call())
    # the epoch sets a second change to the same committee apart from the first
    epoch = int(enclaves.functions.epoch().call())
    salt = bytes(Web3.keccak(text=f"rapha committee {epoch} {place}"))
    return Operation((enclaves.address,), (payload,), salt, delay)


def prove(w3: Web3, deployment: Deployment, to: Governance) -> tuple[Check, ...]:
    """Whether `to` governs, and nobody else can do anything."""
    settlement = Settlement(w3, deployment)
    contracts = (settlement.vault, settlement.nodes, settlement.enclaves)
    names = list(_GOVERNED)
    foreign = [
        name
        for name, contract in zip(names, contracts, strict=True)
        if contract.functions.owner().call() != deployment.timelock
    ]
    pending = [
        name
        for name, contract in zip(names, contracts, strict=True)
        if contract.functions.pending_owner().call() != ZERO_ADDRESS
    ]
    held = holders(w3, deployment)
    admins = held.pop("DEFAULT_ADMIN_ROLE")
    wrong = [
        f"{name}: {', '.join(sorted(accounts)) or 'nobody'}"
        for name, accounts in held.items()
        if accounts != set(to.proposers)
    ]
    guardians = [
        name
        for name, contract in zip(names, contracts, strict=True)
        if contract.functions.guardian().call() != to.guardian
    ]
    registrar = settlement.nodes.functions.registrar().call()
    arbiter = settlement.vault.functions.arbiter().call()
    faults = [
        f"{account} {fault}"
        for account in to.proposers
        if (fault := _wallet_fault(w3, account)) is not None
    ]
    everybody = {*to.proposers, to.guardian, to.registrar, to.arbiter, *admins}
    public = sorted(everybody & KNOWN_ACCOUNTS)

    def check(claim: str, found: Sequence[str], good: str) -> Check:
        return Check(claim=claim, holds=not found, why=", ".join(found) or good)

    return (
        check("the timelock owns every contract", foreign, deployment.timelock),
        check("no ownership is on its way to somebody", pending, "no pending owner"),
        check(
            "only the timelock changes the timelock",
            sorted(admins - {deployment.timelock}) or ([] if admins else ["it has no admin"]),
            "it is its own admin",
        ),
        check(
            "the proposers, and nobody else, propose, cancel and execute",
            wrong,
            ", ".join(to.proposers),
        ),
        check("every proposer is a wallet of several", faults, f"{len(to.proposers)} contracts"),
        check("the guardian is as named", guardians, to.guardian),
        check(
            "the registrar is as named",
            [] if registrar == to.registrar else [registrar],
            to.registrar,
        ),
        check("the arbiter is as named", [] if arbiter == to.arbiter else [arbiter], to.arbiter),
        check("no key is public", public, "none of the well-known ones"),
    )


def _wallet_fault(w3: Web3, account: str) -> str | None:
    """What keeps an account from being a Safe that more than one must sign for, or None."""
    address = to_checksum_address(account)
    if not w3.eth.get_code(address):
        return "is a plain key, not a Safe"
    functions = w3.eth.contract(address=address, abi=_SAFE).functions
    try:
        threshold, owners = functions.getThreshold().call(), functions.getOwners().call()
    except (ContractLogicError, BadFunctionCallOutput):
        return "does not answer as a Safe (getThreshold, getOwners)"
    if threshold < 2 or len(set(owners)) < threshold:
        return f"is signed for by {threshold} of {len(owners)}: two are the least"
    return None


def _topic(contract: Contract, event: str) -> str:
    return to_hex(bytes(HexBytes(contract.events[event]().topic)))


_SAFE: list[Any] = [
    {
        "type": "function",
        "name": name,
        "inputs": [],
        "outputs": [{"name": "", "type": kind}],
        "stateMutability": "view",
    }
    for name, kind in (("getThreshold", "uint256"), ("getOwners", "address[]"))
]
"""What a Safe answers (safe-global, OwnerManager)."""
