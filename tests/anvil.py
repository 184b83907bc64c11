"""What the integration tests share: a deployment on a real chain, and its actors."""

from dataclasses import dataclass
from typing import Any

from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_utils import keccak
from web3 import Web3

from scripts.chain import rpc
from settlement.client import Settlement
from settlement.contracts import Claim
from settlement.dcap import INTEL, Trust
from settlement.deploy import DeploymentParameters, deploy, deploy_test_usdc
from settlement.deployment import Deployment
from settlement.eip712 import job_id, receipt_digest, registration_digest, sign_digest
from settlement.models import EnclaveRegistration, JobTerms, Receipt, SignedReceipt, Work
from settlement.signer import LocalSigner

GENESIS = 1_800_000_000
DAY = 24 * 60 * 60
MEASUREMENT = keccak(text="measurement")
OUTPUT = keccak(text="output")
THRESHOLD = 2


def key(name: str) -> LocalAccount:
    """The account of a role; the same name is always the same key."""
    account: LocalAccount = Account.from_key(keccak(text=f"rapha integration {name}"))
    return account


COMMITTEE = sorted((key(f"operator {i}") for i in range(3)), key=lambda a: a.address.lower())


@dataclass
class Chain:
    """A deployment on anvil, with the contracts as the deployer and as the payer use them."""

    w3: Web3
    deployment: Deployment
    deployer: Settlement
    payer: Settlement

    def actor(self, name: str) -> Settlement:
        """The contracts as somebody else uses them, with money for gas."""
        rpc(self.w3, "anvil_setBalance", key(name).address, hex(10**21))
        return Settlement(self.w3, self.deployment, LocalSigner(key(name)))

    def terms(self, **changes: Any) -> JobTerms:
        """Terms of a job for 50 USDC on node 1."""
        fields: dict[str, Any] = {
            "payer": key("payer").address,
            "node_id": 1,
            "price_per_record": 50_000,
            "price_per_epoch": 100_000,
            "budget": 50_000_000,
            "deadline": GENESIS + DAY,
            "work": Work(
                model_digest=keccak(text="model"),
                dataset_digest=keccak(text="dataset"),
                policy_digest=keccak(text="policy"),
                result_key_digest=keccak(text="result key"),
            ),
            "salt": bytes(32),
        }
        return JobTerms(**{**fields, **changes})

    def id(self, terms: JobTerms) -> bytes:
        """The job's id."""
        return job_id(terms, self.deployment.vault_domain)

    def open(self, terms: JobTerms) -> JobTerms:
        """Escrow the budget from the payer's allowance."""
        self.payer.approve(terms.budget)
        self.payer.open_job(terms)
        return terms

    def register_node(self, hardware: str) -> int:
        """Register a node with the same payees; returns its id."""
        functions = self.deployer.nodes.functions
        payees = [key(name).address for name in ("owner", "hospital", "onboarder")]
        self.deployer.transact(functions.register_node(*payees, keccak(text=hardware)))
        return int(functions.node_count().call())

    def register_enclave(self, name: str = "enclave", node_id: int = 1) -> None:
        """Have the committee vouch for an enclave key, good for a week."""
        registration = EnclaveRegistration(
            enclave_key=key(name).address,
            node_id=node_id,
            measurement=MEASUREMENT,
            attestation_digest=keccak(text="quote"),
            encryption_key_digest=keccak(text="encryption key"),
            expiry=self.payer.now() + 7 * DAY,
            epoch=1,
        )
        digest = registration_digest(registration, self.deployment.enclave_domain)
        call = self.deployer.register_enclave_call(registration, self.committee_signatures(digest))
        self.deployer.transact(call)

    def committee_signatures(self, digest: bytes) -> bytes:
        """A quorum's signatures, as its contract takes them."""
        return b"".join(sign_digest(digest, operator.key) for operator in COMMITTEE[:THRESHOLD])

    def claim(self, terms: JobTerms, records: int, *, by: str = "enclave", **changes: Any) -> Claim:
        """A claim with the enclave's signature."""
        complete = changes.get("complete", False)
        fields: dict[str, Any] = {
            "job_id": self.id(terms),
            "records": records,
            "epochs": 0,
            "records_root": keccak(text=f"root {records}"),
            "output_digest": OUTPUT if complete else bytes(32),
            "complete": False,
        }
        receipt = Receipt(**{**fields, **changes})
        digest = receipt_digest(receipt, self.deployment.vault_domain)
        signature = sign_digest(digest, key(by).key)
        return Claim(terms, SignedReceipt(receipt=receipt, signature=signature))

    def pass_time(self, until: int) -> None:
        """Mine a block at this time (Unix seconds)."""
        rpc(self.w3, "evm_setNextBlockTimestamp", until)
        rpc(self.w3, "evm_mine")


def set_up(w3: Web3, *, challenge_window: int = 0, trust: Trust = INTEL) -> Chain:
    """Deploy the contracts, register a node and give the payer a thousand USDC."""
    for name in ("deployer", "payer"):
        rpc(w3, "anvil_setBalance", key(name).address, hex(10**21))
    signer = LocalSigner(key("deployer"))
    deployment = deploy(
        w3,
        signer,
        deploy_test_usdc(w3, signer),
        DeploymentParameters(
            proposers=(signer.address,),
            guardian=key("guardian").address,
            registrar=signer.address,
            protocol=key("protocol").address,
            arbiter=key("arbiter").address,
            committee=tuple(operator.address for operator in COMMITTEE),
            threshold=THRESHOLD,
            measurements=(MEASUREMENT,),
            grace_period=DAY,
            challenge_window=challenge_window,
            arbitration_period=2 * DAY,
            timelock_delay=2 * DAY,
            trust=trust,
        ),
    )
    deployer = Settlement(w3, deployment, signer)
    payer = Settlement(w3, deployment, LocalSigner(key("payer")))
    chain = Chain(w3, deployment, deployer, payer)
    chain.register_node("hardware")
    deployer.transact(deployer.usdc.functions.mint(key("payer").address, 10**9))
    return chain
