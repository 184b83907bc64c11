"""A chain in memory with the contracts' own rules, blocks, a mempool and reorganisations.

It stands in for an endpoint where a test has to stop the oracle between two steps. Calldata is JSON
here; the rules are those of `contracts/`, and the integration tests run the contracts themselves.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from eth_abi import encode
from eth_account import Account
from eth_account.typed_transactions import TypedTransaction
from eth_utils import keccak, to_checksum_address
from hexbytes import HexBytes

from oracle.errors import ChainUnavailable, Delivery, FeeTooLow, FundsTooLow, LogRangeRefused
from oracle.facts import (
    Block,
    Call,
    CallKind,
    EnclaveQuoted,
    EnclaveRegistered,
    EnclaveRevoked,
    Event,
    Fees,
    Header,
    JobAssigned,
    JobCancelled,
    JobClosed,
    JobOpened,
    JobToppedUp,
    JobVoided,
    MeasurementChanged,
    Mined,
    Place,
    Platform,
    PlatformJudged,
    PlatformRevoked,
    Settled,
    SittingCommittee,
)
from oracle.statements import Statement, statement_digest
from settlement.committee import Committee, EcdsaCommittee, TooFewSignatures, signers_of
from settlement.contracts import Claim, Outcome, authorization_signer
from settlement.dcap import P256Key, QuoteParts
from settlement.deployment import Deployment
from settlement.eip712 import job_id, receipt_digest, recover_signer
from settlement.enclave import ENCLAVE_TAG
from settlement.errors import InvalidSignature
from settlement.models import (
    Authorization,
    EnclaveRegistration,
    JobTerms,
    PlatformVerdict,
    SignedReceipt,
)
from settlement.reverts import ContractReverted, Revert

START = 1_800_000_000
MAX_VALIDITY = 31 * 24 * 3600
FINALITY = 2
PLENTY = 10**21


@dataclass
class Job:
    terms: JobTerms
    node_id: int
    funded: int
    paid: int = 0
    closed: bool = False
    cancelled_until: int | None = None


@dataclass
class Enclave:
    node_id: int
    expiry: int
    measurement: bytes
    revoked: bool = False
    platform: bytes | None = None


@dataclass
class State:
    jobs: dict[bytes, Job] = field(default_factory=dict)
    voided: set[bytes] = field(default_factory=set)
    enclaves: dict[str, Enclave] = field(default_factory=dict)
    measurements: dict[bytes, bool] = field(default_factory=dict)
    platforms: dict[bytes, Platform] = field(default_factory=dict)
    nodes: set[int] = field(default_factory=set)
    committee: Committee | None = None
    epoch: int = 1
    paused: bool = False
    nonces: dict[str, int] = field(default_factory=dict)
    receipts: dict[bytes, Mined] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)

    def copy(self) -> "State":
        """The same state, which changes on its own from here on."""
        return replace(
            self,
            jobs={key: replace(job) for key, job in self.jobs.items()},
            enclaves={key: replace(enclave) for key, enclave in self.enclaves.items()},
            measurements=dict(self.measurements),
            platforms=dict(self.platforms),
            voided=set(self.voided),
            nodes=set(self.nodes),
            nonces=dict(self.nonces),
            receipts=dict(self.receipts),
            events=list(self.events),
        )


@dataclass(frozen=True)
class Pending:
    sender: str
    nonce: int
    raw: bytes
    fee: int


class Ledger:
    """`oracle.facts.Chain` in memory."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.state = State()
        self.time = START
        self.base_fee = 10
        self.down = False
        self.max_range = 1_000_000
        self.fork = 0
        self.mempool: dict[tuple[str, int], Pending] = {}
        self.sent: list[bytes] = []
        self.refuse_sends = False
        # accounts that have less than this ledger's plenty of the native coin
        self.balances: dict[str, int] = {}
        # job ids whose receipts the vault calls malformed, which no receipt of the SDK's types is
        self.malformed: set[bytes] = set()
        self._place = Place(0, 0, bytes(32))
        self._blocks: list[tuple[Block, State]] = []
        self._append()

    # What the world does

    def mine(self, *actions: Callable[["Ledger"], None], seconds: int = 1) -> Block:
        """A block with these actions and with all that the mempool holds in nonce order."""
        self.time += seconds
        number = len(self._blocks)
        for index, action in enumerate(actions):
            self._place = Place(number, 1000 * index, keccak(text=f"act {number} {index}"))
            action(self)
        for pending in sorted(self.mempool.values(), key=lambda p: (p.sender, p.nonce)):
            self._execute(pending, number)
        return self._append()

    def hold(self) -> Block:
        """A block that takes nothing from the mempool, as when fees are too low."""
        self.time += 1
        return self._append()

    def reorganise(self, depth: int) -> None:
        """Drop the newest blocks; what was in them is gone, and new blocks have other hashes."""
        del self._blocks[-depth:]
        self.state = self._blocks[-1][1].copy()
        self.fork += 1

    def paid(self) -> dict[bytes, tuple[int, bool]]:
        """Per job what was paid, and whether it is closed."""
        return {key: (job.paid, job.closed) for key, job in self.state.jobs.items()}

    def _append(self) -> Block:
        number = len(self._blocks)
        block = Block(number, keccak(text=f"block {number} fork {self.fork}"), self.time)
        self._blocks.append((block, self.state.copy()))
        return block

    def _emit(self, event: Any) -> None:
        self.state.events.append(event)
        self._place = replace(self._place, index=self._place.index + 1)

    def _execute(self, pending: Pending, number: int) -> None:
        if pending.nonce != self.state.nonces.get(pending.sender, 0):
            return
        del self.mempool[(pending.sender, pending.nonce)]
        transaction = keccak(pending.raw)
        self._place = Place(number, 1_000_000 + 1000 * pending.nonce, transaction)
        self.state.nonces[pending.sender] = pending.nonce + 1
        before = self.state.copy()
        try:
            self._run(bytes(_fields(pending.raw)["data"]))
            success = True
        except ContractReverted:
            self.state, success = before, False
        self.state.receipts[transaction] = Mined(number, success)

    def _run(self, data: bytes) -> None:
        if not data:
            return
        call = json.loads(data)
        if call["kind"] == CallKind.SETTLE:
            self._settle([_claim(item) for item in call["claims"]])
        elif call["kind"] == CallKind.OPEN:
            terms = JobTerms.model_validate(call["terms"])
            self._open(terms, Authorization.model_validate(call["authorization"]))
        elif call["kind"] == CallKind.PLATFORM:
            self._register_platform(_parts(call["parts"]))
        elif call["kind"] == CallKind.JUDGE:
            verdict = PlatformVerdict.model_validate(call["verdict"])
            self._judge(verdict, bytes.fromhex(call["signatures"]))
        elif call["kind"] == CallKind.QUOTE:
            digest = bytes.fromhex(call["encryption_key_digest"])
            self._register_quote(_parts(call["parts"]), call["enclave_key"], digest)
        else:
            registration = EnclaveRegistration.model_validate(call["registration"])
            self._register(registration, bytes.fromhex(call["signatures"]))

    # The contracts' rules

    def open(self, terms: JobTerms) -> bytes:
        """Open a job by allowance."""
        key = job_id(terms, self.deployment.vault_domain)
        self._check_new(key)
        if terms.node_id and terms.node_id not in self.state.nodes:
            raise ContractReverted(Revert.VAULT_NODE_IS_NOT_ACTIVE.value)
        self.state.jobs[key] = Job(terms, terms.node_id, terms.budget)
        self._emit(JobOpened(self._place, key, terms))
        return key

    def assign(self, key: bytes, node_id: int) -> None:
        """Give a job without a node to one, the committee's signatures taken for good."""
        self.state.jobs[key].node_id = node_id
        self._emit(JobAssigned(self._place, key, node_id))

    def top_up(self, key: bytes, amount: int) -> None:
        """Add to a job's escrow."""
        job = self.state.jobs[key]
        job.funded += amount
        self._emit(JobToppedUp(self._place, key, amount, job.funded))

    def cancel(self, key: bytes) -> None:
        """End a job: at once without a node, else a grace period from now."""
        job = self.state.jobs[key]
        if job.node_id == 0:
            self._close(key, bytes(32))
            return
        job.cancelled_until = min(self.time, job.terms.deadline) + self.deployment.grace_period
        self._emit(JobCancelled(self._place, key, job.cancelled_until))

    def void(self, terms: JobTerms) -> None:
        """Make sure that a job is never opened."""
        key = job_id(terms, self.deployment.vault_domain)
        self._check_new(key)
        self.state.voided.add(key)
        self._emit(JobVoided(self._place, key))

    def _check_new(self, key: bytes) -> None:
        if key in self.state.jobs or key in self.state.voided:
            raise ContractReverted(Revert.VAULT_JOB_EXISTS.value)

    def _open(self, terms: JobTerms, authorization: Authorization) -> None:
        self._check_new(job_id(terms, self.deployment.vault_domain))
        if authorization_signer(self.deployment, terms, authorization) != terms.payer:
            raise ContractReverted(Revert.USDC_INVALID_SIGNATURE.value)
        self.open(terms)

    def _register(self, registration: EnclaveRegistration, signatures: bytes) -> None:
        if registration.epoch != self.state.epoch:
            raise ContractReverted(Revert.ENCLAVES_SIGNED_FOR_ANOTHER_COMMITTEE.value)
        if not self.state.measurements.get(registration.measurement):
            raise ContractReverted(Revert.ENCLAVES_MEASUREMENT_IS_NOT_ALLOWED.value)
        self._check_known(registration.enclave_key, registration.node_id, registration.expiry)
        self._check_signatures(registration, signatures)
        self.register(registration)

    def _check_known(self, enclave_key: str, node_id: int, expiry: int) -> None:
        known = self.state.enclaves.get(enclave_key)
        if known is None:
            return
        if known.revoked:
            raise ContractReverted(Revert.ENCLAVES_KEY_IS_REVOKED.value)
        if known.node_id != node_id:
            raise ContractReverted(Revert.ENCLAVES_KEY_BELONGS_TO_ANOTHER_NODE.value)
        if expiry <= known.expiry:
            raise ContractReverted(Revert.ENCLAVES_REGISTRATION_IS_NOT_NEWER.value)
        if self._is_of_revoked_platform(known):
            raise ContractReverted(Revert.DCAP_PLATFORM_IS_REVOKED.value)

    def _is_of_revoked_platform(self, enclave: Enclave) -> bool:
        return enclave.platform is not None and self.state.platforms[enclave.platform].revoked

    def _check_signatures(self, statement: Statement, signatures: bytes) -> None:
        digest = statement_digest(statement, self.deployment.enclave_domain)
        assert self.state.committee is not None
        try:
            signers_of(self.state.committee, digest, signatures)
        except TooFewSignatures:
            raise ContractReverted(Revert.COMMITTEE_TOO_FEW_SIGNATURES.value) from None
        except InvalidSignature:
            raise ContractReverted(Revert.COMMITTEE_SIGNER_IS_NOT_A_MEMBER.value) from None

    def register(self, registration: EnclaveRegistration) -> None:
        """Register an enclave, its signatures taken for good."""
        r = registration
        known = self.state.enclaves.get(r.enclave_key)
        platform = known.platform if known else None
        self.state.enclaves[r.enclave_key] = Enclave(
            r.node_id, r.expiry, r.measurement, platform=platform
        )
        self._emit(
            EnclaveRegistered(
                self._place,
                r.enclave_key,
                r.node_id,
                r.measurement,
                r.attestation_digest,
                r.encryption_key_digest,
                r.expiry,
            )
        )

    def _register_platform(self, parts: QuoteParts) -> None:
        known = self.platform(parts.platform)
        if known.revoked:
            raise ContractReverted(Revert.DCAP_PLATFORM_IS_REVOKED.value)
        if parts.certified_until <= known.certified_until:
            raise ContractReverted(Revert.DCAP_CERTIFICATE_IS_NOT_NEWER.value)
        self.state.platforms[parts.platform] = replace(known, certified_until=parts.certified_until)

    def _judge(self, verdict: PlatformVerdict, signatures: bytes) -> None:
        if verdict.epoch != self.state.epoch:
            raise ContractReverted(Revert.ENCLAVES_SIGNED_FOR_ANOTHER_COMMITTEE.value)
        if verdict.expiry <= self.time:
            raise ContractReverted(Revert.ENCLAVES_REGISTRATION_HAS_EXPIRED.value)
        if verdict.expiry > self.time + MAX_VALIDITY:
            raise ContractReverted(Revert.ENCLAVES_EXPIRY_TOO_FAR_AHEAD.value)
        self._check_signatures(verdict, signatures)
        known = self.platform(verdict.platform)
        if known.revoked:
            raise ContractReverted(Revert.DCAP_PLATFORM_IS_REVOKED.value)
        if verdict.expiry > known.certified_until:
            raise ContractReverted(Revert.DCAP_PLATFORM_IS_NOT_CERTIFIED_FOR_SO_LONG.value)
        if verdict.expiry <= known.expiry:
            raise ContractReverted(Revert.DCAP_VERDICT_IS_NOT_NEWER.value)
        self.judge(verdict)

    def judge(self, verdict: PlatformVerdict) -> None:
        """Keep a verdict, its signatures taken for good."""
        self.state.platforms[verdict.platform] = replace(
            self.platform(verdict.platform),
            node_id=verdict.node_id,
            module_svn=verdict.module_svn,
            expiry=verdict.expiry,
        )
        self.use_challenge(verdict.platform)
        v = verdict
        self._emit(PlatformJudged(self._place, v.platform, v.node_id, v.module_svn, v.expiry))

    def use_challenge(self, platform: bytes) -> None:
        """Put another challenge in the place of the present one, as each accepted quote does."""
        known, block = self.platform(platform), self._blocks[-1][0]
        fresh = keccak(block.hash + platform + known.challenge)
        self.state.platforms[platform] = replace(known, challenge=fresh)

    def _register_quote(self, parts: QuoteParts, enclave_key: str, encryption_key: bytes) -> None:
        known = self.platform(parts.platform)
        if known.revoked:
            raise ContractReverted(Revert.DCAP_PLATFORM_IS_REVOKED.value)
        if known.expiry <= self.time:
            raise ContractReverted(Revert.ENCLAVES_NO_VERDICT_ON_THE_PLATFORM.value)
        self._check_known(enclave_key, known.node_id, known.expiry)
        try:
            parts.pck_key.check(parts.report_signature, parts.report)
            parts.attestation_key.check(parts.signature, parts.signed)
        except InvalidSignature:
            raise ContractReverted(Revert.DCAP_INVALID_SIGNATURE_OF_THE_QUOTE.value) from None
        if parts.module_svn != known.module_svn:
            raise ContractReverted(Revert.ENCLAVES_VERDICT_ON_ANOTHER_TDX_MODULE.value)
        measurement = parts.signed[48 + 64 : 48 + 96]  # of SGX
        if not self.state.measurements.get(measurement):
            raise ContractReverted(Revert.ENCLAVES_MEASUREMENT_IS_NOT_ALLOWED.value)
        binding = encode(
            ["bytes32", "uint256", "address", "address", "bytes32", "bytes32"],
            [
                ENCLAVE_TAG,
                self.deployment.chain_id,
                self.deployment.enclave_registry,
                enclave_key,
                encryption_key,
                known.challenge,
            ],
        )
        if parts.signed[-64:-32] != keccak(binding):
            raise ContractReverted(Revert.ENCLAVES_QUOTE_BINDS_SOMETHING_ELSE.value)
        self.use_challenge(parts.platform)
        self._emit(EnclaveQuoted(self._place, enclave_key, parts.platform))
        self.register(
            EnclaveRegistration(
                enclave_key=enclave_key,
                node_id=known.node_id,
                measurement=measurement,
                attestation_digest=keccak(parts.signed),
                encryption_key_digest=encryption_key,
                expiry=known.expiry,
                epoch=self.state.epoch,
            )
        )
        self.state.enclaves[enclave_key].platform = parts.platform

    def revoke_platform(self, platform: bytes) -> None:
        """Revoke a platform, and every key that it has quoted."""
        self.state.platforms[platform] = replace(self.platform(platform), revoked=True)
        self._emit(PlatformRevoked(self._place, platform))

    def allow(self, measurement: bytes, allowed: bool = True) -> None:
        """Allow or revoke a measurement."""
        self.state.measurements[measurement] = allowed
        self._emit(MeasurementChanged(self._place, measurement, allowed))

    def revoke(self, enclave_key: str) -> None:
        """Revoke an enclave key."""
        self.state.enclaves[enclave_key].revoked = True
        self._emit(EnclaveRevoked(self._place, enclave_key))

    def refund(self, key: bytes) -> None:
        """Close a job by time."""
        self._close(key, bytes(32))

    def _close(self, key: bytes, output: bytes) -> None:
        job = self.state.jobs[key]
        job.closed = True
        refunded = job.funded - job.paid
        self._emit(JobClosed(self._place, key, job.paid, refunded, output))

    def _settle(self, claims: Sequence[Claim]) -> list[Outcome]:
        if self.state.paused:
            raise ContractReverted(Revert.VAULT_PAUSED.value)
        return [self._settle_one(claim) for claim in claims]

    def _settle_one(self, claim: Claim) -> Outcome:
        receipt = claim.signed.receipt
        key = job_id(claim.terms, self.deployment.vault_domain)
        if key in self.state.voided:
            return Outcome.NOTHING_NEW
        job = self.state.jobs.get(key)
        if job is None:
            return Outcome.UNKNOWN_JOB
        if key in self.malformed:
            return Outcome.MALFORMED
        if job.closed:
            return Outcome.NOTHING_NEW
        if job.node_id == 0:
            return Outcome.NOT_ASSIGNED
        payable_until = claim.terms.deadline + self.deployment.grace_period
        if job.cancelled_until is not None:
            payable_until = job.cancelled_until
        if self.time > payable_until:
            return Outcome.TOO_LATE
        if receipt.complete and receipt.output_digest == bytes(32):
            return Outcome.OUTPUT_MISSING
        worth = receipt.records * job.terms.price_per_record
        worth += receipt.epochs * job.terms.price_per_epoch
        earned = min(worth, job.funded)
        if not receipt.complete and earned <= job.paid:
            return Outcome.NOTHING_NEW
        digest = receipt_digest(receipt.model_copy(update={"job_id": key}), self._vault)
        try:
            enclave = self.state.enclaves.get(recover_signer(digest, claim.signed.signature))
        except InvalidSignature:
            return Outcome.ENCLAVE_REFUSED
        if (
            enclave is None
            or enclave.revoked
            or self._is_of_revoked_platform(enclave)
            or enclave.node_id != job.node_id
            or enclave.expiry <= self.time
            or not self.state.measurements.get(enclave.measurement)
        ):
            return Outcome.ENCLAVE_REFUSED
        amount = max(earned - job.paid, 0)
        job.paid += amount
        self._emit(Settled(self._place, key, digest, receipt.records, receipt.epochs, amount))
        if receipt.complete:
            self._close(key, receipt.output_digest)
        return Outcome.PAID

    @property
    def _vault(self) -> Any:
        return self.deployment.vault_domain

    # What the oracle asks

    def _reach(self) -> None:
        if self.down:
            raise ChainUnavailable("the endpoint is down")

    def check(self) -> None:
        self._reach()

    def finalized(self) -> Block:
        self._reach()
        return self._blocks[max(len(self._blocks) - 1 - FINALITY, 0)][0]

    def latest(self) -> int:
        self._reach()
        return len(self._blocks) - 1

    def block(self, number: int) -> Block | None:
        self._reach()
        return self._blocks[number][0] if number < len(self._blocks) else None

    def events(self, first: int, last: int) -> Sequence[Event]:
        self._reach()
        if last - first + 1 > self.max_range:
            raise LogRangeRefused(first, last)
        return [e for e in self.state.events if first <= e.place.block <= last]

    def headers(self, first: int, last: int) -> Sequence[Header]:
        self._reach()
        logged = {event.place.block for event in self.state.events}
        return [
            Header(
                self._blocks[number][0],
                parent=self._blocks[number - 1][0].hash if number else bytes(32),
                logged=number in logged,
            )
            for number in range(first, last + 1)
        ]

    def committee(self) -> SittingCommittee:
        self._reach()
        assert self.state.committee is not None
        return SittingCommittee(self.state.epoch, self.state.committee)

    def seat(self, *members: str, threshold: int = 1) -> None:
        """These addresses are the committee, without a new epoch."""
        ordered = tuple(sorted(members, key=lambda member: int(member, 16)))
        self.state.committee = EcdsaCommittee(members=ordered, threshold=threshold)

    def is_measurement_allowed(self, measurement: bytes) -> bool:
        self._reach()
        return self.state.measurements.get(measurement, False)

    def is_node_active(self, node_id: int) -> bool:
        self._reach()
        return node_id in self.state.nodes

    def settle_call(self, claims: Sequence[Claim]) -> Call:
        items = [
            {
                "terms": claim.terms.model_dump(mode="json"),
                "signed": claim.signed.model_dump(mode="json"),
            }
            for claim in claims
        ]
        return self._call(CallKind.SETTLE, claims=items)

    def register_call(self, registration: EnclaveRegistration, signatures: bytes) -> Call:
        return self._call(
            CallKind.REGISTER,
            registration=registration.model_dump(mode="json"),
            signatures=signatures.hex(),
        )

    def platform(self, platform: bytes) -> Platform:
        self._reach()
        return self.state.platforms.get(platform) or Platform(
            revoked=False,
            certified_until=0,
            node_id=0,
            module_svn=0,
            expiry=0,
            challenge=keccak(platform),
        )

    def register_platform_call(self, parts: QuoteParts) -> Call:
        return self._call(CallKind.PLATFORM, parts=_plain(parts))

    def judge_call(self, verdict: PlatformVerdict, signatures: bytes) -> Call:
        return self._call(
            CallKind.JUDGE, verdict=verdict.model_dump(mode="json"), signatures=signatures.hex()
        )

    def register_quote_call(
        self, parts: QuoteParts, enclave_key: str, encryption_key_digest: bytes
    ) -> Call:
        return self._call(
            CallKind.QUOTE,
            parts=_plain(parts),
            enclave_key=enclave_key,
            encryption_key_digest=encryption_key_digest.hex(),
        )

    def open_call(self, terms: JobTerms, authorization: Authorization) -> Call:
        return self._call(
            CallKind.OPEN,
            terms=terms.model_dump(mode="json"),
            authorization=authorization.model_dump(mode="json"),
        )

    def _call(self, kind: CallKind, **values: Any) -> Call:
        registry = kind not in (CallKind.SETTLE, CallKind.OPEN)
        to = self.deployment.enclave_registry if registry else self.deployment.vault
        return Call(kind, to, json.dumps({"kind": kind, **values}).encode())

    def simulate_settle(self, claims: Sequence[Claim]) -> Sequence[Outcome]:
        self._reach()
        before = self.state.copy()
        try:
            return self._settle(claims)
        finally:
            self.state = before

    def estimate_gas(self, call: Call, sender: str) -> int:
        self._reach()
        before = self.state.copy()
        try:
            self._run(call.data)
        finally:
            self.state = before
        return 100_000

    def fees(self) -> Fees:
        self._reach()
        return Fees(base_fee=self.base_fee, tip=1)

    def next_nonce(self, account: str, *, final: bool) -> int:
        self._reach()
        at = max(len(self._blocks) - 1 - FINALITY, 0) if final else -1
        return self._blocks[at][1].nonces.get(account, 0)

    def send(self, raw: bytes) -> Delivery:
        self._reach()
        if self.refuse_sends:
            raise FundsTooLow("insufficient funds for gas * price + value")
        fields = _fields(raw)
        sender, nonce = to_checksum_address(Account.recover_transaction(raw)), int(fields["nonce"])
        pending = Pending(sender, nonce, raw, int(fields["maxFeePerGas"]))
        self.sent.append(raw)
        if nonce < self.state.nonces.get(sender, 0):
            return Delivery.NONCE_USED
        if self.balance(sender) < int(fields["gas"]) * int(fields["maxFeePerGas"]):
            raise FundsTooLow("insufficient funds for gas * price + value")
        present = self.mempool.get((sender, nonce))
        if present and present.raw == raw:
            return Delivery.KNOWN
        if present and pending.fee * 10 < present.fee * 11:
            raise FeeTooLow("replacement transaction underpriced")
        self.mempool[(sender, nonce)] = pending
        return Delivery.SENT

    def mined(self, transaction: bytes) -> Mined | None:
        self._reach()
        return self.state.receipts.get(transaction)

    def fee(self, transaction: bytes) -> int | None:
        self._reach()
        return 100_000 * self.base_fee if transaction in self.state.receipts else None

    def is_known(self, transaction: bytes) -> bool:
        self._reach()
        pooled = (keccak(pending.raw) for pending in self.mempool.values())
        return transaction in self.state.receipts or transaction in pooled

    def balance(self, account: str) -> int:
        self._reach()
        return self.balances.get(account, PLENTY)

    def calldata_by_nonce(self) -> dict[tuple[str, int], set[bytes]]:
        """All that was ever sent under each nonce of each key."""
        by_nonce: dict[tuple[str, int], set[bytes]] = {}
        for raw in self.sent:
            fields = _fields(raw)
            nonce = (Account.recover_transaction(raw), int(fields["nonce"]))
            by_nonce.setdefault(nonce, set()).add(bytes(fields["data"]))
        return by_nonce


def _fields(raw: bytes) -> dict[str, Any]:
    return dict(TypedTransaction.from_bytes(HexBytes(raw)).as_dict())


def _claim(item: dict[str, Any]) -> Claim:
    return Claim(
        JobTerms.model_validate(item["terms"]), SignedReceipt.model_validate(item["signed"])
    )


def _plain(parts: QuoteParts) -> dict[str, Any]:
    key = parts.attestation_key
    values = vars(parts) | {"attestation_key": key.x + key.y, "certificates": b""}
    plain: dict[str, Any] = {name: value.hex() for name, value in values.items()}
    return plain | {"certificates": [certificate.hex() for certificate in parts.certificates]}


def _parts(plain: dict[str, Any]) -> QuoteParts:
    values = {name: bytes.fromhex(v) for name, v in plain.items() if name != "certificates"}
    key = values.pop("attestation_key")
    certificates = tuple(bytes.fromhex(certificate) for certificate in plain["certificates"])
    return QuoteParts(
        attestation_key=P256Key(key[:32], key[32:]), certificates=certificates, **values
    )
