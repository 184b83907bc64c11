"""A deployment with nodes, payers and claims for the bench: the same in every run."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, cast

from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_utils import keccak, to_checksum_address
from hexbytes import HexBytes
from web3 import Web3
from web3.contract.contract import ContractFunction
from web3.providers.base import JSONBaseProvider
from web3.types import RPCEndpoint, TxReceipt

from scripts.bench.trace import Call, Trace, read_trace
from scripts.chain import rpc
from settlement.client import Settlement
from settlement.committee import creation
from settlement.contracts import MAX_BATCH, Claim, TransactionFailed, order
from settlement.dcap import INTEL, QuoteParts, Trust
from settlement.deploy import (
    DeploymentParameters,
    create_address,
    create_for_tests,
    deploy_test_usdc,
)
from settlement.deployment import Deployment
from settlement.eip712 import (
    assignment_digest,
    job_id,
    receipt_digest,
    registration_digest,
    sign_digest,
    verdict_digest,
)
from settlement.enclave import report_data
from settlement.models import (
    Assignment,
    EnclaveRegistration,
    JobTerms,
    PlatformVerdict,
    Receipt,
    SignedReceipt,
    Work,
)
from settlement.signer import LocalSigner
from settlement.types import to_hex

HOUR = 60 * 60
DAY = 24 * HOUR
WINDOW = 2 * HOUR
GENESIS = 250_000 * WINDOW
"""Fixed, so that calldata and with it gas never vary, and at the start of a challenge window."""
BUDGET = 60_000_000
MAX_OPEN = 50
"""How many jobs one `open_jobs` takes; the contract's own bound."""

MEASUREMENT = keccak(text="bench measurement")
MRTD = bytes([1]) * 48
RTMRS = (bytes([2]) * 48, bytes([3]) * 48, bytes([4]) * 48, bytes([5]) * 48)
KEY = keccak(text="encryption key")
"""An enclave's X25519 key."""
_AMPLE = 10**15
_BLOCK_GAS = 29_000_000  # below the target of a block of 60 million, so that fees stay down
_GAS = {"register_node": 400_000, "register": 200_000, "mint": 100_000}
_BATCH_GAS = 7_000_000


@cache
def account(name: str) -> LocalAccount:
    """A role's account, the same in every run."""
    made: LocalAccount = Account.from_key(keccak(text=f"rapha bench {name}"))
    return made


def address(name: str) -> str:
    """A role's address."""
    return str(account(name).address)


def deploy_by_nonce(
    w3: Web3, signer: LocalSigner, usdc: str, parameters: DeploymentParameters
) -> Deployment:
    """The contracts of `settlement.deploy.deploy`, at addresses that a changed contract keeps.

    By CREATE2 each change of code would change addresses, with them the zero bytes in calldata, and
    so the gas of operations that it has nothing to do with.
    """

    def create(contract: str, *arguments: Any) -> str:
        return create_for_tests(w3, signer, contract, arguments)[0]

    block = w3.eth.block_number
    proposers = list(parameters.proposers)
    timelock = create("RaphaTimelock", parameters.timelock_delay, proposers, proposers)
    certificates = create("PckCertificates")
    kind, members = creation(parameters.committee, parameters.threshold)
    enclaves = create(
        "EnclaveRegistry",
        timelock,
        parameters.guardian,
        create(kind, *members),
        list(parameters.measurements),
        parameters.trust.abi_value(certificates),
    )
    nonce = w3.eth.get_transaction_count(to_checksum_address(signer.address))
    nodes = create(
        "RaphaNodeRegistry",
        timelock,
        parameters.guardian,
        parameters.registrar,
        parameters.protocol,
        create_address(signer.address, nonce + 1),
    )
    vault = create(
        "RaphaClearingVault",
        usdc,
        nodes,
        enclaves,
        timelock,
        parameters.guardian,
        parameters.arbiter,
        parameters.grace_period,
        parameters.challenge_window,
        parameters.arbitration_period,
    )
    return Deployment(
        chain_id=w3.eth.chain_id,
        block=block,
        vault=vault,
        node_registry=nodes,
        enclave_registry=enclaves,
        timelock=timelock,
        usdc=usdc,
        grace_period=parameters.grace_period,
        challenge_window=parameters.challenge_window,
    )


@dataclass(frozen=True)
class Roles:
    """Who shares what a node earns; the onboarder and the protocol are the same for all."""

    hospital: str
    node_owner: str


def roles(node_id: int) -> Roles:
    """The names of a node's own two payees."""
    return Roles(f"hospital {node_id}", f"node owner {node_id}")


class World:
    """Contracts on a chain, with registered nodes and a payer who approved an ample amount."""

    def __init__(self, w3: Web3, *, window: int, nodes: int, trust: Trust = INTEL) -> None:
        self.w3 = w3
        self._clients: dict[str, Settlement] = {}
        self._salt = 0
        rpc(w3, "anvil_autoImpersonateAccount", True)
        rpc(w3, "anvil_setBalance", address("relayer"), hex(10**24))
        relayer = LocalSigner(account("relayer"))
        self.deployment = deploy_by_nonce(
            w3,
            relayer,
            deploy_test_usdc(w3, relayer),
            DeploymentParameters(
                proposers=(relayer.address,),
                guardian=relayer.address,
                registrar=relayer.address,
                protocol=address("protocol"),
                arbiter=address("arbiter"),
                committee=tuple(address(f"operator {i}") for i in range(3)),
                threshold=2,
                measurements=(MEASUREMENT, keccak(MRTD + b"".join(RTMRS))),
                grace_period=DAY,
                challenge_window=window,
                arbitration_period=DAY,
                timelock_delay=2 * DAY,
                trust=trust,
            ),
        )
        for name in ("payer", "permit payer", "sponsor"):
            self.mint(name, _AMPLE)
        for name in ("payer", "sponsor"):
            self.client(name).approve(_AMPLE)
        self.client("payer").deposit(_AMPLE // 10)
        self.add_nodes(nodes)

    @cached_property
    def relayer(self) -> Settlement:
        """Deployed everything, registers nodes, and brings what others have signed."""
        return self.client("relayer")

    def client(self, name: str) -> Settlement:
        """The contracts as a role uses them."""
        if name not in self._clients:
            rpc(self.w3, "anvil_setBalance", address(name), hex(10**24))
            self._clients[name] = Settlement(self.w3, self.deployment, LocalSigner(account(name)))
        return self._clients[name]

    def mint(self, name: str, amount: int = 1) -> None:
        """Give a role USDC; one base unit makes its slot in the token warm."""
        self.relayer.transact(self.relayer.usdc.functions.mint(address(name), amount))

    def pass_time(self, seconds: int) -> None:
        """Let so much time pass."""
        now = self.relayer.now()
        rpc(self.w3, "evm_setNextBlockTimestamp", now + seconds)
        rpc(self.w3, "evm_mine")

    # nodes and enclaves

    def register_node_call(self, node_id: int) -> ContractFunction:
        """The call that registers a node, which then has this id."""
        payees = roles(node_id)
        return self.relayer.nodes.functions.register_node(
            address(payees.node_owner),
            address(payees.hospital),
            address("onboarder"),
            keccak(text=f"hardware {node_id}"),
        )

    def register_enclave_call(
        self, node_id: int, expiry: int = GENESIS + 14 * DAY
    ) -> ContractFunction:
        """The call that registers a node's enclave by two of three signatures."""
        registration = EnclaveRegistration(
            enclave_key=address(f"enclave {node_id}"),
            node_id=node_id,
            measurement=MEASUREMENT,
            attestation_digest=keccak(text=f"quote {node_id}"),
            encryption_key_digest=keccak(text=f"encryption key {node_id}"),
            expiry=expiry,
            epoch=1,
        )
        digest = registration_digest(registration, self.deployment.enclave_domain)
        return self.relayer.register_enclave_call(registration, _committee_signatures(digest))

    def judge_call(self, parts: QuoteParts, expiry: int) -> ContractFunction:
        """The call that brings the word of two of three on the platform that made a quote."""
        verdict = PlatformVerdict(
            platform=parts.pck_key.digest,
            node_id=1,
            module_svn=parts.module_svn,
            expiry=expiry,
            epoch=1,
        )
        digest = verdict_digest(verdict, self.deployment.enclave_domain)
        return self.relayer.judge_call(verdict, _committee_signatures(digest))

    def report_data(self, parts: QuoteParts, name: str) -> bytes:
        """What the platform's next quote must say for the key of an enclave."""
        return report_data(
            chain_id=self.deployment.chain_id,
            registry=self.deployment.enclave_registry,
            enclave_key=address(name),
            encryption_key=KEY,
            nonce=self.relayer.quote_challenge(parts.pck_key.digest),
            configuration=keccak(text="bench configuration"),
        )

    def assign_call(self, terms: JobTerms, node_id: int) -> ContractFunction:
        """The call that gives an open job to a node by two of three signatures."""
        domain = self.deployment.vault_domain
        assignment = Assignment(job_id=job_id(terms, domain), node_id=node_id, epoch=1)
        signatures = _committee_signatures(assignment_digest(assignment, domain))
        return self.relayer.assign_call(terms, node_id, signatures)

    def add_nodes(self, count: int) -> None:
        """Register the next nodes, with an enclave each."""
        first = int(self.relayer.nodes.functions.node_count().call()) + 1
        ids = range(first, first + count)
        self.send("relayer", (self.register_node_call(node_id) for node_id in ids))
        self.send("relayer", (self.register_enclave_call(node_id) for node_id in ids))

    # jobs and claims

    def start_salts(self, number: int) -> None:
        """Count the salts of new jobs on from a number."""
        self._salt = number

    def terms(self, node_id: int = 1, payer: str = "payer") -> JobTerms:
        """Terms of a new job."""
        self._salt += 1
        return JobTerms(
            payer=address(payer),
            node_id=node_id,
            price_per_record=50_000,
            price_per_epoch=200_000,
            budget=BUDGET,
            deadline=GENESIS + 7 * DAY,
            work=Work(
                model_digest=keccak(text="model"),
                dataset_digest=keccak(text="dataset"),
                policy_digest=keccak(text="policy"),
                result_key_digest=keccak(text="result key"),
            ),
            salt=keccak(text=f"salt {self._salt}"),
        )

    def open(self, node_id: int = 1) -> JobTerms:
        """Open a job by allowance."""
        terms = self.terms(node_id)
        self.client("payer").open_job(terms)
        return terms

    def open_many(self, node_ids: Iterable[int]) -> list[JobTerms]:
        """Open a job for each node from the payer's balance."""
        jobs = [self.terms(node_id) for node_id in node_ids]
        open_jobs = self.relayer.vault.functions.open_jobs
        self.send(
            "payer",
            (
                open_jobs(address("payer"), [order(terms) for terms in batch], b"")
                for batch in _batches(jobs, MAX_OPEN)
            ),
        )
        return jobs

    def claim(self, terms: JobTerms, records: int, *, complete: bool = False) -> Claim:
        """A claim with so many records, signed by the enclave of the node in the terms."""
        domain = self.deployment.vault_domain
        receipt = Receipt(
            job_id=job_id(terms, domain),
            records=records,
            epochs=records // 100,
            records_root=keccak(text=f"root {records}"),
            output_digest=keccak(text="output") if complete else bytes(32),
            complete=complete,
        )
        signature = sign_digest(
            receipt_digest(receipt, domain), account(f"enclave {terms.node_id}").key
        )
        return Claim(terms, SignedReceipt(receipt=receipt, signature=signature))

    def settle(self, *claims: Claim) -> TxReceipt:
        """Settle claims in one transaction."""
        return self.relayer.transact(self.relayer.settle_call(claims))

    def settle_all(self, jobs: Sequence[JobTerms], records: int) -> None:
        """Settle a receipt of each job, as many in a transaction as it takes."""
        self.send(
            "relayer",
            (
                self.relayer.settle_call([self.claim(terms, records) for terms in batch])
                for batch in _batches(jobs, MAX_BATCH)
            ),
        )

    # sending and reading back

    def send(self, sender: str, calls: Iterable[ContractFunction]) -> None:
        """Send calls without simulating them, many in a block.

        Raises:
            TransactionFailed: when one of them reverted.
        """
        self.client(sender)
        nonce = int(self.w3.eth.get_transaction_count(to_checksum_address(address(sender))))
        waiting: list[dict[str, str]] = []
        total = 0
        for call in calls:
            gas = _GAS.get(call.fn_name, _BATCH_GAS)
            if total + gas > _BLOCK_GAS:
                self._mine(waiting)
                nonce, waiting, total = nonce + len(waiting), [], 0
            total += gas
            waiting.append(
                {
                    "from": address(sender),
                    "to": str(call.address),
                    "data": call._encode_transaction_data(),
                    "gas": hex(gas),
                    "nonce": hex(nonce + len(waiting)),
                }
            )
        self._mine(waiting)

    def trace(self, receipt: TxReceipt) -> Trace:
        """A mined transaction's trace; the chain must run with `--steps-tracing`."""
        found = receipt["transactionHash"]
        answer = rpc(
            self.w3,
            "debug_traceTransaction",
            to_hex(found),
            {"disableStorage": True, "disableMemory": True},
        )
        assert isinstance(answer, dict)
        data = bytes(self.w3.eth.get_transaction(found)["input"])
        return read_trace(receipt["gasUsed"], data, answer["structLogs"])

    @property
    def calls(self) -> dict[Call, str]:
        """The calls that the vault makes, as an account of gas names them."""
        deployment = self.deployment
        usdc, enclaves = (
            int(found, 16) for found in (deployment.usdc, deployment.enclave_registry)
        )
        return {
            # whether it has code is asked before it is called to move something
            (usdc, "EXTCODESIZE"): "USDC, moved",
            (usdc, "CALL"): "USDC, moved",
            (usdc, "STATICCALL"): "USDC, balance checked",
            (enclaves, "STATICCALL"): "enclave registry",
        }

    def _mine(self, transactions: Sequence[dict[str, str]]) -> None:
        if not transactions:
            return
        rpc(self.w3, "evm_setAutomine", False)
        hashes = self._batch([("eth_sendTransaction", [item]) for item in transactions])
        rpc(self.w3, "evm_mine")
        rpc(self.w3, "evm_setAutomine", True)
        receipts = self._batch([("eth_getTransactionReceipt", [found]) for found in hashes])
        for found, receipt in zip(hashes, receipts, strict=True):
            if receipt is None or int(receipt["status"], 16) != 1:
                raise TransactionFailed(bytes(HexBytes(found)))

    def _batch(self, requests: Sequence[tuple[str, list[object]]]) -> list[Any]:
        provider = cast(JSONBaseProvider, self.w3.provider)
        answers = cast(
            list[dict[str, Any]],
            provider.make_batch_request(
                [(RPCEndpoint(method), arguments) for method, arguments in requests]
            ),
        )
        for answer in answers:
            if "error" in answer:
                raise RuntimeError(f"{requests[0][0]}: {answer['error']}")
        return [answer["result"] for answer in answers]


def _batches(jobs: Sequence[JobTerms], size: int) -> Iterable[Sequence[JobTerms]]:
    return (jobs[start : start + size] for start in range(0, len(jobs), size))


def _committee_signatures(digest: bytes) -> bytes:
    members = sorted((account(f"operator {i}") for i in range(2)), key=_by_address)
    return b"".join(sign_digest(digest, member.key) for member in members)


def _by_address(member: LocalAccount) -> str:
    return str(member.address).lower()
