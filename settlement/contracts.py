"""The contracts as Python sees them: artifacts, encoding, events, and a client that transacts."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache, cached_property
from importlib.resources import files
from typing import Any, cast

from eth_typing import ChecksumAddress
from eth_utils import to_checksum_address
from hexbytes import HexBytes
from web3 import Web3
from web3.contract import Contract
from web3.contract.contract import ContractFunction
from web3.exceptions import ContractLogicError, Web3RPCError
from web3.types import TxParams, TxReceipt

from settlement.deployment import Deployment
from settlement.eip712 import (
    job_id,
    receive_authorization_digest,
    recover_signer,
    typed_data,
    work_digest,
)
from settlement.errors import InvalidInput, RaphaError
from settlement.models import Authorization, EnclaveRegistration, JobTerms, SignedReceipt, Work
from settlement.reverts import ContractReverted, reverted
from settlement.signer import Signer
from settlement.types import Frozen, to_hex

MAX_BATCH = 50
"""How many receipts one `settle` takes; the contract's own bound."""


class Outcome(IntEnum):
    """What `settle` answers for each receipt of a batch."""

    PAID = 0
    NOTHING_NEW = 1
    UNKNOWN_JOB = 2
    TOO_LATE = 3
    ENCLAVE_REFUSED = 4
    OUTPUT_MISSING = 5


class JobState(IntEnum):
    """The state in a job's word."""

    UNKNOWN = 0
    OPEN = 1
    CLOSED = 2


class WrongChain(RaphaError, RuntimeError):
    """The chain, or a contract on it, is not what the deployment record says."""

    def __init__(self, what: str, *, expected: object, found: object) -> None:
        self.expected, self.found = expected, found
        super().__init__(
            f"{what}: expected {expected}, found {found}; check RPC URL and deployment record"
        )


class TransactionFailed(RaphaError, RuntimeError):
    """A transaction was mined and reverted."""

    def __init__(self, transaction: bytes) -> None:
        self.transaction = transaction
        super().__init__(f"transaction {to_hex(transaction)} was mined and reverted")


@dataclass(frozen=True)
class Artifact:
    """What the compiler made of one contract."""

    contract: str
    abi: list[dict[str, Any]]
    bytecode: bytes
    testing_only: bool


@cache
def artifact(contract: str) -> Artifact:
    """The shipped ABI and creation bytecode of a contract."""
    data = json.loads((files("settlement") / "artifacts" / f"{contract}.json").read_text())
    return Artifact(
        contract, data["abi"], bytes.fromhex(data["bytecode"][2:]), data["testing_only"]
    )


@dataclass(frozen=True)
class Claim:
    """A signed receipt with the terms that it counts under: one item of `settle`."""

    terms: JobTerms
    signed: SignedReceipt

    def abi_value(self) -> tuple[Any, ...]:
        """The value of the contract's `Claim` struct."""
        receipt, signature = self.signed.receipt, self.signed.signature
        return (
            terms_ref(self.terms),
            receipt.records,
            receipt.epochs,
            receipt.records_root,
            receipt.output_digest,
            receipt.complete,
            signature[64],
            signature[:32],
            signature[32:64],
        )


def terms_ref(terms: JobTerms) -> tuple[Any, ...]:
    """The contract's `TermsRef`: the terms with their work by its struct hash."""
    return tuple(
        work_digest(value) if isinstance(value, Work) else value
        for value in (getattr(terms, name) for name in JobTerms.model_fields)
    )


def abi_value(model: Frozen) -> tuple[Any, ...]:
    """A model as the value of the contract's struct of the same name."""
    values = (getattr(model, name) for name in type(model).model_fields)
    return tuple(abi_value(value) if isinstance(value, Frozen) else value for value in values)


def authorization_document(
    deployment: Deployment, terms: JobTerms, *, valid_after: int, valid_before: int
) -> dict[str, Any]:
    """The typed data that the payer signs to escrow: EIP-3009 with the job id as its nonce."""
    message = {
        "from": terms.payer,
        "to": deployment.vault,
        "value": terms.budget,
        "validAfter": valid_after,
        "validBefore": valid_before,
        "nonce": to_hex(job_id(terms, deployment.vault_domain)),
    }
    return typed_data(deployment.usdc_domain, "ReceiveWithAuthorization", message)


def authorization_signer(
    deployment: Deployment, terms: JobTerms, authorization: Authorization
) -> str:
    """Who signed an authorisation by ECDSA; a smart wallet's only its contract can tell.

    Raises:
        InvalidSignature: when the bytes are no ECDSA signature.
    """
    digest = receive_authorization_digest(
        deployment.usdc_domain,
        payer=terms.payer,
        to=deployment.vault,
        value=terms.budget,
        valid_after=authorization.valid_after,
        valid_before=authorization.valid_before,
        nonce=job_id(terms, deployment.vault_domain),
    )
    return recover_signer(digest, authorization.signature)


class JobStatus(Frozen):
    """A job as the vault holds it. Amounts are USDC base units; `payable_until` is Unix seconds."""

    state: JobState
    funded: int
    paid: int
    node_id: int
    payable_until: int


class Settlement:
    """The contracts of one deployment over one RPC connection.

    Reading needs no signer. Each write simulates first and raises `ContractReverted` without
    spending gas, then sends, waits for the receipt and returns it.
    """

    def __init__(self, w3: Web3, deployment: Deployment, signer: Signer | None = None) -> None:
        self.w3 = w3
        self.deployment = deployment
        self._signer = signer

    @cached_property
    def vault(self) -> Contract:
        """`RaphaClearingVault`."""
        return self._contract("RaphaClearingVault", self.deployment.vault)

    @cached_property
    def nodes(self) -> Contract:
        """`RaphaNodeRegistry`."""
        return self._contract("RaphaNodeRegistry", self.deployment.node_registry)

    @cached_property
    def enclaves(self) -> Contract:
        """`EnclaveRegistry`."""
        return self._contract("EnclaveRegistry", self.deployment.enclave_registry)

    @cached_property
    def usdc(self) -> Contract:
        """USDC, by the ABI that FiatToken v2.2 and the test token share."""
        return self._contract("TestUSDC", self.deployment.usdc)

    def check(self) -> None:
        """Make sure that this is the right chain and that the contracts belong together.

        Raises:
            WrongChain: when chain id, code or an address differs from the record.
        """
        deployment = self.deployment
        if (found := self.w3.eth.chain_id) != deployment.chain_id:
            raise WrongChain("chain id", expected=deployment.chain_id, found=found)
        for name in ("vault", "node_registry", "enclave_registry", "usdc"):
            address = to_checksum_address(getattr(deployment, name))
            if not self.w3.eth.get_code(address):
                raise WrongChain(
                    f"code of {name}", expected=f"a contract at {address}", found="none"
                )
        for what, contract, expected in (
            ("the vault's USDC", self.vault.functions.usdc(), deployment.usdc),
            ("the vault's node registry", self.vault.functions.nodes(), deployment.node_registry),
            ("the vault's enclaves", self.vault.functions.enclaves(), deployment.enclave_registry),
            ("the node registry's vault", self.nodes.functions.vault(), deployment.vault),
        ):
            if (address := contract.call()) != expected:
                raise WrongChain(what, expected=expected, found=address)
        separator = bytes(self.usdc.functions.DOMAIN_SEPARATOR().call())
        if separator != deployment.usdc_domain.separator:
            raise WrongChain(
                "USDC's EIP-712 domain",
                expected=to_hex(deployment.usdc_domain.separator),
                found=to_hex(separator),
            )

    def job(self, job: bytes) -> JobStatus:
        """A job as the vault holds it; state UNKNOWN for an id that was never opened."""
        state, funded, paid, node_id, until = self.vault.functions.job(job).call()
        return JobStatus(
            state=JobState(state), funded=funded, paid=paid, node_id=node_id, payable_until=until
        )

    def balance(self, account: str) -> int:
        """What an account may withdraw from the vault, in USDC base units."""
        return int(self.vault.functions.balances(account).call())

    def usdc_balance(self, account: str) -> int:
        """What an account holds in its wallet, in USDC base units."""
        return int(self.usdc.functions.balanceOf(account).call())

    def now(self) -> int:
        """The latest block's time in Unix seconds: the clock that contracts go by."""
        return int(self.w3.eth.get_block("latest")["timestamp"])

    def authorize(self, terms: JobTerms, *, lifetime: int = 3600) -> Authorization:
        """The signer's one signature that escrows `terms`, good for `lifetime` seconds from now.

        Raises:
            InvalidInput: when the signer is not the payer of these terms.
        """
        signer = self._writer()
        if signer.address != terms.payer:
            raise InvalidInput(f"{signer.address} cannot sign for the payer {terms.payer}")
        valid_before = self.now() + lifetime
        document = authorization_document(
            self.deployment, terms, valid_after=0, valid_before=valid_before
        )
        return Authorization(
            valid_after=0, valid_before=valid_before, signature=signer.sign_typed_data(document)
        )

    def approve(self, amount: int) -> TxReceipt:
        """Allow the vault to take `amount` base units of USDC."""
        return self.transact(self.usdc.functions.approve(self.deployment.vault, amount))

    def open_job(self, terms: JobTerms) -> TxReceipt:
        """Escrow the budget from the signer's allowance."""
        return self.transact(self.vault.functions.open_job(abi_value(terms)))

    def open_job_with_authorization(
        self, terms: JobTerms, authorization: Authorization
    ) -> TxReceipt:
        """Escrow the budget by the payer's EIP-3009 signature; the signer only pays the gas."""
        return self.transact(self.open_with_authorization_call(terms, authorization))

    def open_with_authorization_call(
        self, terms: JobTerms, authorization: Authorization
    ) -> ContractFunction:
        """The call behind `open_job_with_authorization`, for those who send it themselves."""
        return self.vault.functions.open_job_with_authorization(
            abi_value(terms),
            authorization.valid_after,
            authorization.valid_before,
            authorization.signature,
        )

    def settle_call(self, claims: Sequence[Claim]) -> ContractFunction:
        """The call behind `settle`.

        Raises:
            InvalidInput: for more than `MAX_BATCH` claims, or none.
        """
        if not 0 < len(claims) <= MAX_BATCH:
            raise InvalidInput(f"a batch holds 1 to {MAX_BATCH} receipts, not {len(claims)}")
        return self.vault.functions.settle([claim.abi_value() for claim in claims])

    def simulate_settle(self, claims: Sequence[Claim]) -> list[Outcome]:
        """What `settle` would answer now for each claim, without sending.

        Raises:
            ContractReverted: when the whole call is refused (paused).
        """
        return [Outcome(code) for code in self.call(self.settle_call(claims))]

    def settle(self, claims: Sequence[Claim]) -> tuple[TxReceipt, list[Outcome]]:
        """Settle receipts. Refused ones are named by their outcome and stop no other."""
        outcomes = self.simulate_settle(claims)
        return self.transact(self.settle_call(claims)), outcomes

    def refund(self, terms: JobTerms) -> TxReceipt:
        """Close a job whose deadline and grace have passed."""
        return self.transact(self.vault.functions.refund(terms_ref(terms)))

    def distribute(self, node_id: int) -> TxReceipt:
        """Split a node's earnings among its payees."""
        return self.transact(self.vault.functions.distribute(node_id))

    def withdraw(self) -> TxReceipt:
        """Take the signer's whole balance out."""
        return self.transact(self.vault.functions.withdraw())

    def withdraw_for(self, account: str) -> TxReceipt:
        """Send an account its own whole balance."""
        return self.transact(self.vault.functions.withdraw_for(account))

    def register_enclave_call(
        self, registration: EnclaveRegistration, signatures: Sequence[bytes]
    ) -> ContractFunction:
        """The call that registers an enclave; `signatures` sorted by signer."""
        return self.enclaves.functions.register(abi_value(registration), list(signatures))

    def call(self, function: ContractFunction) -> Any:
        """Call without sending.

        Raises:
            ContractReverted: with the typed reason.
        """
        try:
            caller = {"from": self._signer.address} if self._signer else {}
            return function.call(cast(TxParams, caller))
        except (ContractLogicError, Web3RPCError) as error:
            raise reverted(error) from error

    def transact(self, function: ContractFunction) -> TxReceipt:
        """Simulate, send and wait.

        Raises:
            ContractReverted: the call would revert; nothing was sent.
            TransactionFailed: it reverted all the same, because something changed in between.
        """
        signer = self._writer()
        sender = to_checksum_address(signer.address)
        try:
            gas = function.estimate_gas({"from": sender})
        except (ContractLogicError, Web3RPCError) as error:
            raise reverted(error) from error
        call: TxParams = {
            "to": function.address,
            "data": HexBytes(function._encode_transaction_data()),
            "gas": gas + gas // 5,  # what others do in between may warm or cool a slot
        }
        transaction = signer.send(self.w3, call)
        receipt = self.w3.eth.wait_for_transaction_receipt(HexBytes(transaction))
        if not receipt["status"]:
            raise TransactionFailed(transaction)
        return receipt

    def _writer(self) -> Signer:
        if self._signer is None:
            raise InvalidInput("this needs a signer: Settlement(w3, deployment, signer)")
        return self._signer

    def _contract(self, name: str, address: str) -> Contract:
        checksummed: ChecksumAddress = to_checksum_address(address)
        return self.w3.eth.contract(address=checksummed, abi=artifact(name).abi)


__all__ = [
    "MAX_BATCH",
    "Artifact",
    "Authorization",
    "Claim",
    "ContractReverted",
    "JobState",
    "JobStatus",
    "Outcome",
    "Settlement",
    "TransactionFailed",
    "WrongChain",
    "abi_value",
    "artifact",
    "authorization_document",
    "authorization_signer",
    "terms_ref",
]
