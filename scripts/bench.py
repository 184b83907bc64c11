"""`make bench`: gas of every way through the vault, and the speed of what runs off chain.

Gas is measured on anvil with the test USDC behind its proxy and is exact: the same contracts give
the same figures anywhere, and `tests/bench/test_gas.py` compares them with `tests/bench/gas.json`.
Speed depends on the machine: it is printed and kept in `tests/bench/speed.json`, and no test
compares it.
"""

import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_utils import keccak
from rich.console import Console
from rich.table import Table
from web3 import Web3
from web3.types import TxReceipt

from oracle.attestation.collateral import FileCollateral
from oracle.attestation.verify import QuoteVerifier
from oracle.clients.edge.devplatform import DevPlatform
from scripts.chain import ROOT, quiet_chain, rpc
from settlement.contracts import Claim, Settlement
from settlement.deploy import DeploymentParameters, deploy, deploy_test_usdc
from settlement.eip712 import (
    job_id,
    receipt_digest,
    recover_signer,
    registration_digest,
    sign_digest,
    vault_domain,
)
from settlement.metering import MerkleLog, record_leaf, record_salt
from settlement.models import EnclaveRegistration, JobTerms, Receipt, SignedReceipt, Work
from settlement.signer import LocalSigner

FIGURES = ROOT / "tests" / "bench"
GENESIS = 1_800_000_000  # fixed, so that calldata and with it gas never vary
DAY = 24 * 60 * 60
MEASUREMENT = keccak(text="bench measurement")

# Measured on one anvil 1.7.1 with Circle's USDC; floors are stripped contracts of the same storage.
PEERS = {
    "open by allowance": "150,497 (Rapha's Solidity vault), 183,292 (Ocean), 179,348 (Sablier)",
    "open by EIP-3009, relayed": "no peer has it; floor 113,207",
    "settle one receipt": "172,268 (Rapha's Solidity vault), 114,617 (Ocean); floor 43,433",
    "settle in a batch of 10, per receipt": "floor 19,868",
    "settle in a batch of 50, per receipt": "floor 16,453",
    "settle in a batch of 10 nodes, per receipt": "floor 24,186",
    "withdraw": "floor 52,615",
}


def account(name: str) -> LocalAccount:
    """A role's account, the same in every run."""
    made: LocalAccount = Account.from_key(keccak(text=f"rapha bench {name}"))
    return made


class Bench:
    """A deployment with several nodes, where every figure is taken warm."""

    def __init__(self, w3: Web3) -> None:
        for name in ("deployer", "payer", "hospital"):
            rpc(w3, "anvil_setBalance", account(name).address, hex(10**21))
        signer = LocalSigner(account("deployer"))
        deployment = deploy(
            w3,
            signer,
            deploy_test_usdc(w3, signer),
            DeploymentParameters(
                proposers=(signer.address,),
                guardian=signer.address,
                registrar=signer.address,
                protocol=account("protocol").address,
                committee=tuple(account(f"operator {i}").address for i in range(3)),
                threshold=2,
                measurements=(MEASUREMENT,),
                grace_period=DAY,
                timelock_delay=2 * DAY,
            ),
        )
        self.relayer = Settlement(w3, deployment, signer)
        self.payer = Settlement(w3, deployment, LocalSigner(account("payer")))
        self.hospital = Settlement(w3, deployment, LocalSigner(account("hospital")))
        self.deployment = deployment
        self._salt = 0
        for name, amount in (("payer", 10**15), ("hospital", 1)):
            mint = self.relayer.usdc.functions.mint(account(name).address, amount)
            self.relayer.transact(mint)
        # like a payer who approved an ample amount once
        self.payer.approve(10**15)

    def register_node(self) -> int:
        """Gas of registering the next node."""
        functions = self.relayer.nodes.functions
        number = int(functions.node_count().call())
        return gas(
            self.relayer.transact(
                functions.register_node(
                    account("node owner").address,
                    account("hospital").address,
                    account("onboarder").address,
                    keccak(text=f"hardware {number}"),
                )
            )
        )

    def register_enclave(self, node_id: int) -> int:
        """Gas of registering a node's enclave by two of three signatures."""
        registration = EnclaveRegistration(
            enclave_key=account(f"enclave {node_id}").address,
            node_id=node_id,
            measurement=MEASUREMENT,
            attestation_digest=keccak(text=f"quote {node_id}"),
            encryption_key_digest=keccak(text=f"encryption key {node_id}"),
            expiry=GENESIS + 7 * DAY,
            epoch=1,
        )
        digest = registration_digest(registration, self.deployment.enclave_domain)
        members = sorted((account(f"operator {i}") for i in range(2)), key=_by_address)
        signatures = [sign_digest(digest, member.key) for member in members]
        return gas(
            self.relayer.transact(self.relayer.register_enclave_call(registration, signatures))
        )

    def terms(self, node_id: int = 1) -> JobTerms:
        """Terms of a new job."""
        self._salt += 1
        return JobTerms(
            payer=account("payer").address,
            node_id=node_id,
            price_per_record=50_000,
            price_per_epoch=200_000,
            budget=60_000_000,
            deadline=GENESIS + DAY,
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
        self.payer.open_job(terms)
        return terms

    def claim(self, terms: JobTerms, records: int, *, complete: bool = False) -> Claim:
        """A claim with so many records."""
        domain = self.deployment.vault_domain
        receipt = Receipt(
            job_id=job_id(terms, domain),
            records=records,
            epochs=records // 100,
            records_root=keccak(text=f"root {records}"),
            output_digest=keccak(text="output") if complete else bytes(32),
            complete=complete,
        )
        key = account(f"enclave {terms.node_id}").key
        signature = sign_digest(receipt_digest(receipt, domain), key)
        return Claim(terms, SignedReceipt(receipt=receipt, signature=signature))

    def settle(self, *claims: Claim) -> int:
        """Gas of settling a batch."""
        return gas(self.relayer.settle(claims)[0])


def _by_address(member: LocalAccount) -> str:
    return str(member.address).lower()


def gas(receipt: TxReceipt) -> int:
    """Gas that a mined transaction used."""
    return int(receipt["gasUsed"])


def measure_gas() -> dict[str, int]:
    """Gas by operation, each measured where the slots involved already hold a value."""
    with quiet_chain(GENESIS) as w3:
        bench = Bench(w3)
        figures = {"register a node": bench.register_node()}
        figures["register an enclave, 2 of 3"] = bench.register_enclave(1)
        for node_id in range(2, 11):
            bench.register_node()
            bench.register_enclave(node_id)

        warm = [bench.open(node_id) for node_id in range(1, 11)]
        bench.settle(*(bench.claim(terms, 1) for terms in warm))
        terms = bench.terms()
        figures["open by allowance"] = gas(bench.payer.open_job(terms))
        relayed = bench.terms()
        authorization = bench.payer.authorize(relayed)
        opened = bench.relayer.open_job_with_authorization(relayed, authorization)
        figures["open by EIP-3009, relayed"] = gas(opened)
        figures["settle a job's first receipt"] = bench.settle(bench.claim(terms, 100))
        figures["settle one receipt"] = bench.settle(bench.claim(terms, 200))
        for size in (10, 50):
            jobs = [bench.open() for _ in range(size)]
            bench.settle(*(bench.claim(job, 100) for job in jobs))
            whole = bench.settle(*(bench.claim(job, 200) for job in jobs))
            figures[f"settle in a batch of {size}, per receipt"] = whole // size
        nodes = [bench.claim(job, 200) for job in warm]
        figures["settle in a batch of 10 nodes, per receipt"] = bench.settle(*nodes) // len(nodes)

        bench.settle(bench.claim(bench.open(), 100, complete=True))
        figures["settle a completing receipt"] = bench.settle(
            bench.claim(relayed, 300, complete=True)
        )
        bench.relayer.distribute(1)
        bench.settle(bench.claim(terms, 300))
        figures["distribute"] = gas(bench.relayer.distribute(1))
        figures["withdraw"] = gas(bench.hospital.withdraw())
        figures["withdraw for another"] = gas(bench.relayer.withdraw_for(account("payer").address))
        late = bench.open()
        rpc(w3, "evm_setNextBlockTimestamp", GENESIS + 3 * DAY)
        rpc(w3, "evm_mine")
        figures["refund after deadline and grace"] = gas(bench.relayer.refund(late))
    return figures


def rate(action: Callable[[], object], *, seconds: float = 1.0) -> float:
    """How often `action` runs in a second."""
    count, begun = 0, time.perf_counter()
    while (passed := time.perf_counter() - begun) < seconds:
        action()
        count += 1
    return count / passed


def measure_speed() -> dict[str, float]:
    """Operations per second on one core of this machine."""
    key, domain_account = account("enclave 1").key, account("vault")
    receipt = Receipt(
        job_id=keccak(text="job"),
        records=569,
        epochs=40,
        records_root=keccak(text="root"),
        output_digest=bytes(32),
        complete=False,
    )
    domain = vault_domain(31337, domain_account.address)
    signature = sign_digest(receipt_digest(receipt, domain), key)
    now = int(time.time())
    dev = DevPlatform.create(now, chain_id=31337)
    quote = dev.quote(MEASUREMENT, bytes(64))
    record, log = bytes(248), MerkleLog()
    with tempfile.TemporaryDirectory() as folder:
        collateral = Path(folder) / "collateral.json"
        collateral.write_text(dev.collateral_json())
        verifier = QuoteVerifier(
            chain_id=31337,
            collateral=FileCollateral(collateral),
            development_root=dev.root_der,
        )
        return {
            "receipts signed": rate(lambda: sign_digest(receipt_digest(receipt, domain), key)),
            "receipts verified": rate(
                lambda: recover_signer(receipt_digest(receipt, domain), signature)
            ),
            "quotes verified": rate(lambda: verifier.verify(quote, now)),
            "record leaves made": rate(
                lambda: record_leaf(record_salt(bytes(32), b"id"), b"id", record)
            ),
            "leaves metered": rate(lambda: log.append(bytes(32))),
        }


def main(
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
    save: Annotated[bool, typer.Option(help="Write them to tests/bench/.")] = True,
) -> None:
    """Measure, print, and keep."""
    figures, speed = measure_gas(), {k: round(v) for k, v in measure_speed().items()}
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    if save:
        FIGURES.mkdir(exist_ok=True)
        (FIGURES / "gas.json").write_text(json.dumps(figures, indent=2) + "\n")
        kept = {"machine": machine, "per_second": speed}
        (FIGURES / "speed.json").write_text(json.dumps(kept, indent=2) + "\n")
    if as_json:
        typer.echo(json.dumps({"gas": figures, "per_second": speed}))
        return
    console = Console()
    table = Table("operation", title="Gas, warm, USDC behind its proxy", title_justify="left")
    table.add_column("gas", justify="right")
    table.add_column("peers and floor")
    for name, value in figures.items():
        table.add_row(name, f"{value:,}", PEERS.get(name, ""))
    console.print(table)
    table = Table("operation", title=f"Speed, one core ({machine})", title_justify="left")
    table.add_column("per second", justify="right")
    for name, per_second in speed.items():
        table.add_row(name, f"{per_second:,}")
    console.print(table)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
