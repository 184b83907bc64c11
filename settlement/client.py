"""A client of the contracts: reads, and transacts as its signer."""

from collections.abc import Sequence
from copy import copy
from functools import cached_property
from typing import Any, cast

from eth_typing import ChecksumAddress
from eth_utils import to_checksum_address
from hexbytes import HexBytes
from web3 import Web3
from web3.contract import Contract
from web3.contract.contract import ContractFunction
from web3.exceptions import ContractLogicError, Web3RPCError
from web3.types import TxParams, TxReceipt

from settlement.contracts import (
    Claim,
    Earnings,
    JobStatus,
    Outcome,
    TransactionFailed,
    WrongChain,
    abi_value,
    artifact,
    authorization_document,
    check_batch,
    deposit_document,
    order,
    terms_ref,
)
from settlement.dcap import QuoteParts
from settlement.deployment import Deployment
from settlement.eip712 import (
    job_id,
    message_of,
    typed_data,
)
from settlement.errors import InvalidInput
from settlement.models import (
    Authorization,
    Deposit,
    EnclaveRegistration,
    JobTerms,
    OpenJobs,
    PlatformVerdict,
    Sponsorship,
    Withdrawal,
)
from settlement.reverts import reverted
from settlement.signer import Signer
from settlement.types import to_hex


class Settlement:
    """The contracts of one deployment over one RPC connection.

    Reading needs no signer. Each write simulates first and raises `ContractReverted` without
    spending gas, then sends, waits for the receipt and returns it.
    """

    def __init__(self, w3: Web3, deployment: Deployment, signer: Signer | None = None) -> None:
        self.w3 = w3
        self.deployment = deployment
        self._signer = signer

    @property
    def signer(self) -> Signer | None:
        """Who writes, if anybody does."""
        return self._signer

    def on_behalf_of(self, signer: Signer | None) -> "Settlement":
        """The same contracts and connection, for another signer."""
        other = copy(self)
        other._signer = signer
        return other

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
            ("the vault's grace period", self.vault.functions.grace(), deployment.grace_period),
            (
                "the vault's challenge window",
                self.vault.functions.challenge_window(),
                deployment.challenge_window,
            ),
        ):
            if (found_value := contract.call()) != expected:
                raise WrongChain(what, expected=expected, found=found_value)
        separator = bytes(self.usdc.functions.DOMAIN_SEPARATOR().call())
        if separator != deployment.usdc_domain.separator:
            raise WrongChain(
                "USDC's EIP-712 domain",
                expected=to_hex(deployment.usdc_domain.separator),
                found=to_hex(separator),
            )

    def job(self, job: bytes) -> JobStatus:
        """A job as the vault holds it; state UNKNOWN for an id that was never opened."""
        values = self.vault.functions.job(job).call()
        status = dict(zip(JobStatus.model_fields, values, strict=True))
        return JobStatus(**{**status, "sponsored": bool(status["sponsored"])})

    def earnings(self, node_id: int, version: int | None = None) -> Earnings:
        """What a node's present payees, or those of an earlier version, have earned."""
        functions = self.vault.functions
        call = (
            functions.earnings_of(node_id)
            if version is None
            else functions.past_earnings_of(node_id, version)
        )
        return Earnings(**dict(zip(Earnings.model_fields, call.call(), strict=True)))

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
        """Escrow the budget from the signer's allowance.

        Raises:
            InvalidInput: when the signer is not the payer of these terms.
        """
        self._check_payer(terms)
        return self.transact(self.vault.functions.open_job(order(terms)))

    def open_job_with_permit(self, terms: JobTerms, *, lifetime: int = 3600) -> TxReceipt:
        """Escrow the budget with no allowance given before: by EIP-2612, in one transaction.

        Raises:
            InvalidInput: when the signer is not the payer of these terms.
        """
        signer = self._check_payer(terms)
        deadline = self.now() + lifetime
        message = {
            "owner": terms.payer,
            "spender": self.deployment.vault,
            "value": terms.budget,
            "nonce": int(self.usdc.functions.nonces(terms.payer).call()),
            "deadline": deadline,
        }
        signature = signer.sign_typed_data(
            typed_data(self.deployment.usdc_domain, "Permit", message)
        )
        return self.transact(
            self.vault.functions.open_job_with_permit(
                order(terms), deadline, signature[64], signature[:32], signature[32:64]
            )
        )

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
            terms.payer,
            order(terms),
            authorization.valid_after,
            authorization.valid_before,
            authorization.signature,
        )

    def sign(self, intent: OpenJobs | Sponsorship | Withdrawal) -> bytes:
        """The signer's EIP-712 signature in the vault's domain over something that others bring."""
        document = typed_data(
            self.deployment.vault_domain, type(intent).__name__, message_of(intent)
        )
        return self._writer().sign_typed_data(document)

    def open_jobs(self, jobs: OpenJobs, signature: bytes = b"") -> TxReceipt:
        """Open jobs from their payer's balance, all or none.

        Raises:
            InvalidInput: when the jobs have several payers, or `signature` is missing and the
                signer is not the payer.
        """
        payers = {terms.payer for terms in jobs.jobs}
        if len(payers) != 1:
            raise InvalidInput(f"one call opens the jobs of one payer, not of {len(payers)}")
        if not signature:
            self._check_payer(jobs.jobs[0])
        orders = [order(terms) for terms in jobs.jobs]
        return self.transact(self.vault.functions.open_jobs(payers.pop(), orders, signature))

    def sponsor_job(self, terms: JobTerms, signature: bytes) -> TxReceipt:
        """Escrow another's budget from the signer's allowance, by the payer's `Sponsorship`."""
        return self.transact(self.vault.functions.sponsor_job(terms.payer, order(terms), signature))

    def top_up(self, terms: JobTerms, amount: int, *, from_balance: bool = False) -> TxReceipt:
        """Add to the escrow of a job that the signer funded."""
        return self.transact(self.vault.functions.top_up(terms_ref(terms), amount, from_balance))

    def void_job(self, terms: JobTerms) -> TxReceipt:
        """Make sure that terms which the signer has signed are never opened.

        Raises:
            InvalidInput: when the signer is not the payer of these terms.
        """
        self._check_payer(terms)
        return self.transact(self.vault.functions.void_job(order(terms)))

    def assign_call(self, terms: JobTerms, node_id: int, signatures: bytes) -> ContractFunction:
        """The call that assigns a job; `signatures` as `settlement.committee` joins them."""
        return self.vault.functions.assign(terms_ref(terms), node_id, signatures)

    def cancel(self, terms: JobTerms) -> TxReceipt:
        """End a job: at once without a node, else by `refund` after a grace period."""
        return self.transact(self.vault.functions.cancel(terms_ref(terms)))

    def settle_call(self, claims: Sequence[Claim]) -> ContractFunction:
        """The call that settles one receipt, or many.

        Raises:
            InvalidInput: for more than `MAX_BATCH` claims, or none.
        """
        check_batch(claims)
        values = [claim.abi_value() for claim in claims]
        if len(values) == 1:
            return self.vault.functions.settle(values[0])
        return self.vault.functions.settle_many(values)

    def simulate_settle(self, claims: Sequence[Claim]) -> list[Outcome]:
        """What settling would answer now for each claim, without sending.

        Raises:
            ContractReverted: when the whole call is refused (paused).
        """
        answer = self.call(self.settle_call(claims))
        return [Outcome(code) for code in (answer if len(claims) > 1 else [answer])]

    def settle(self, claims: Sequence[Claim]) -> tuple[TxReceipt, list[Outcome]]:
        """Settle receipts. Refused ones are named by their outcome and stop no other."""
        outcomes = self.simulate_settle(claims)
        return self.transact(self.settle_call(claims)), outcomes

    def refund(self, terms: JobTerms) -> TxReceipt:
        """Close a job whose time is over."""
        return self.transact(self.vault.functions.refund(terms_ref(terms)))

    def distribute(self, *node_ids: int) -> TxReceipt:
        """Split what nodes have earned among their payees."""
        functions = self.vault.functions
        if len(node_ids) == 1:
            return self.transact(functions.distribute(node_ids[0]))
        return self.transact(functions.distribute_many(list(node_ids)))

    def distribute_past(self, node_id: int, version: int) -> TxReceipt:
        """Split what a node's payees of an earlier version have earned."""
        return self.transact(self.vault.functions.distribute_past(node_id, version))

    def dispute(self, terms: JobTerms, version: int | None = None) -> TxReceipt:
        """Freeze what a job has freshly earned, under its present payee set by default."""
        if version is None:
            version = self.job(job_id(terms, self.deployment.vault_domain)).version
        return self.transact(self.vault.functions.dispute(terms_ref(terms), version))

    def resolve(self, dispute_id: int, returned: int) -> TxReceipt:
        """As the arbiter, return so many base units to who funded the job, the rest to the node."""
        return self.transact(self.vault.functions.resolve(dispute_id, returned))

    def release(self, dispute_id: int) -> TxReceipt:
        """Give the node what is disputed, once the arbiter's time is over."""
        return self.transact(self.vault.functions.release(dispute_id))

    def deposit(self, amount: int, account: str | None = None) -> TxReceipt:
        """Add to an account's balance, the signer's own unless told otherwise, by allowance."""
        account = account or self._writer().address
        return self.transact(self.vault.functions.deposit(account, amount))

    def authorize_deposit(self, deposit: Deposit, *, lifetime: int = 3600) -> Authorization:
        """The signer's one EIP-3009 signature for a deposit, good for `lifetime` seconds.

        Raises:
            InvalidInput: when the deposit is another account's.
        """
        signer = self._writer()
        if signer.address != deposit.account:
            raise InvalidInput(f"{signer.address} cannot sign for {deposit.account}")
        valid_before = self.now() + lifetime
        document = deposit_document(
            self.deployment, deposit, valid_after=0, valid_before=valid_before
        )
        return Authorization(
            valid_after=0, valid_before=valid_before, signature=signer.sign_typed_data(document)
        )

    def deposit_with_authorization(
        self, deposit: Deposit, authorization: Authorization
    ) -> TxReceipt:
        """Bring a deposit that its account has signed; the signer only pays the gas."""
        return self.transact(
            self.vault.functions.deposit_with_authorization(
                *abi_value(deposit)[:2],
                authorization.valid_after,
                authorization.valid_before,
                deposit.salt,
                authorization.signature,
            )
        )

    def withdraw(self) -> TxReceipt:
        """Take the signer's whole balance out."""
        return self.transact(self.vault.functions.withdraw())

    def withdraw_to(self, to: str, amount: int) -> TxReceipt:
        """Send a part of the signer's balance to any address."""
        return self.transact(self.vault.functions.withdraw_to(to, amount))

    def withdraw_for(self, *accounts: str) -> TxReceipt:
        """Send accounts their own whole balances; of many, one that USDC refuses stops no other."""
        functions = self.vault.functions
        if len(accounts) == 1:
            return self.transact(functions.withdraw_for(accounts[0]))
        return self.transact(functions.withdraw_for_many(list(accounts)))

    def withdraw_by_signature(self, withdrawal: Withdrawal, signature: bytes) -> TxReceipt:
        """Bring a withdrawal that its account has signed."""
        return self.transact(
            self.vault.functions.withdraw_by_signature(
                withdrawal.account,
                withdrawal.to,
                withdrawal.amount,
                withdrawal.deadline,
                signature,
            )
        )

    def register_enclave_call(
        self, registration: EnclaveRegistration, signatures: bytes
    ) -> ContractFunction:
        """The call that registers an enclave; `signatures` as `settlement.committee` joins them."""
        return self.enclaves.functions.register(abi_value(registration), signatures)

    def register_platform_call(self, parts: QuoteParts) -> ContractFunction:
        """The call that registers the platform of a quote by the certificates that came with it."""
        return self.enclaves.functions.register_platform(
            parts.certificates[0], parts.issuer.abi_value()
        )

    def judge_call(self, verdict: PlatformVerdict, signatures: bytes) -> ContractFunction:
        """The call that brings a verdict; `signatures` as `settlement.committee` joins them."""
        return self.enclaves.functions.judge(abi_value(verdict), signatures)

    def register_quote_call(
        self, parts: QuoteParts, enclave_key: str, encryption_key_digest: bytes
    ) -> ContractFunction:
        """The call that registers an enclave key by a quote made for `quote_challenge`."""
        return self.enclaves.functions.register_quote(
            parts.abi_value(), to_checksum_address(enclave_key), encryption_key_digest
        )

    def quote_challenge(self, platform: bytes) -> bytes:
        """The nonce (32 bytes) that the next quote of a platform must be made for."""
        return bytes(self.call(self.enclaves.functions.challenge(platform)))

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

    def _check_payer(self, terms: JobTerms) -> Signer:
        signer = self._writer()
        if signer.address != terms.payer:
            raise InvalidInput(f"{signer.address} is not the payer {terms.payer} of these terms")
        return signer

    def _writer(self) -> Signer:
        if self._signer is None:
            raise InvalidInput("this needs a signer: Settlement(w3, deployment, signer)")
        return self._signer

    def _contract(self, name: str, address: str) -> Contract:
        checksummed: ChecksumAddress = to_checksum_address(address)
        return self.w3.eth.contract(address=checksummed, abi=artifact(name).abi)
