"""The contracts in an in-process EVM, with named actors: the world of the contract tests."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import boa
from boa import BoaError
from boa.contracts.abi.abi_contract import ABIContractFactory
from boa.util.abi import Address
from eth.exceptions import Revert as FailedCreation
from eth_abi import encode
from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_utils import keccak, to_checksum_address
from hexbytes import HexBytes

from settlement.contracts import Claim, Outcome, abi_value, artifact, terms_ref
from settlement.deploy import create_address
from settlement.deployment import Deployment
from settlement.eip712 import (
    job_id,
    receipt_digest,
    receive_authorization_digest,
    registration_digest,
    sign_digest,
)
from settlement.events import decode_events
from settlement.models import EnclaveRegistration, JobTerms, Receipt, SignedReceipt, Work
from settlement.reverts import Revert, reason_of

GRACE = 24 * 60 * 60
DAY = 24 * 60 * 60
MEASUREMENT = keccak(text="measurement")
OUTPUT = keccak(text="output")
RICH = 10**12  # a million USDC


@cache
def actor(name: str) -> LocalAccount:
    """The account of a role; the same name is always the same key."""
    account: LocalAccount = Account.from_key(keccak(text=f"rapha test actor {name}"))
    return account


@contextmanager
def reverts(expected: Revert | str | None) -> Iterator[None]:
    """The block reverts with exactly this reason; None for none, as of a bad encoding."""
    reason = expected.value if isinstance(expected, Revert) else expected
    try:
        yield
    except BoaError as error:
        found = reason_of(error.call_trace.computation.output)
    except FailedCreation as error:
        found = reason_of(error.args[0])
    else:
        raise AssertionError(f"did not revert; expected {reason!r}")
    assert found == reason, f"reverted with {found!r}; expected {reason!r}"


def logs_of(contract: Any) -> list[dict[str, Any]]:
    """The logs of the last call to a contract, as `eth_getLogs` gives them."""
    return [
        {
            "address": to_checksum_address(address),
            "topics": [HexBytes(topic.to_bytes(32, "big")) for topic in topics],
            "data": HexBytes(data),
            "blockNumber": boa.env.evm.patch.block_number,
            "blockHash": HexBytes(bytes(32)),
            "transactionHash": HexBytes(bytes(32)),
            "transactionIndex": 0,
            "logIndex": index,
        }
        for index, (address, topics, data) in enumerate(contract._computation.get_log_entries())
    ]


COMMITTEE = sorted((actor(f"operator {i}") for i in range(3)), key=lambda a: a.address.lower())


def deploy(contract: str, *arguments: Any, sender: str) -> Any:
    """Create a shipped artifact in boa's EVM."""
    built = artifact(contract)
    factory = ABIContractFactory(contract, built.abi)
    encoder = boa.util.abi.abi_encode
    constructor = next((e for e in built.abi if e["type"] == "constructor"), None)
    types = [_abi_type(i) for i in constructor["inputs"]] if constructor else []
    data = built.bytecode + (encoder(f"({','.join(types)})", list(arguments)) if types else b"")
    address, _ = boa.env.deploy_code(bytecode=data, sender=sender)[:2]
    return factory.at(address)


def _abi_type(entry: dict[str, Any]) -> str:
    kind: str = entry["type"]
    if kind.startswith("tuple"):
        inner = ",".join(_abi_type(c) for c in entry["components"])
        return f"({inner}){kind.removeprefix('tuple')}"
    return kind


@dataclass
class World:
    """One deployment with a registered node, a registered enclave and a funded payer."""

    usdc: Any
    timelock: Any
    enclaves: Any
    nodes: Any
    vault: Any
    deployment: Deployment

    @classmethod
    def create(cls, *, threshold: int = 2, grace: int = GRACE) -> "World":
        deployer = actor("deployer").address
        usdc = deploy("TestUSDC", sender=deployer)
        proxy = deploy("TestUSDCProxy", usdc.address, sender=deployer)
        usdc = ABIContractFactory("TestUSDC", artifact("TestUSDC").abi).at(proxy.address)
        usdc.initialize(deployer, sender=deployer)
        proposers = [actor("proposer").address]
        timelock = deploy("RaphaTimelock", 2 * DAY, proposers, proposers, sender=deployer)
        guardian = actor("guardian").address
        enclaves = deploy(
            "EnclaveRegistry",
            timelock.address,
            guardian,
            [member.address for member in COMMITTEE],
            threshold,
            [MEASUREMENT],
            sender=deployer,
        )
        vault_to_be = create_address(
            deployer, boa.env.evm.vm.state.get_nonce(Address(deployer).canonical_address) + 1
        )
        nodes = deploy(
            "RaphaNodeRegistry",
            timelock.address,
            guardian,
            actor("registrar").address,
            actor("protocol").address,
            vault_to_be,
            sender=deployer,
        )
        vault = deploy(
            "RaphaClearingVault",
            usdc.address,
            nodes.address,
            enclaves.address,
            timelock.address,
            guardian,
            grace,
            sender=deployer,
        )
        assert vault.address == vault_to_be
        deployment = Deployment(
            chain_id=boa.env.evm.chain.chain_id,
            block=0,
            vault=str(vault.address),
            node_registry=str(nodes.address),
            enclave_registry=str(enclaves.address),
            timelock=str(timelock.address),
            usdc=str(usdc.address),
            grace_period=grace,
        )
        world = cls(usdc, timelock, enclaves, nodes, vault, deployment)
        world.register_node()
        world.register_enclave()
        world.fund(actor("payer"))
        return world

    def create_vault(self, **changes: Any) -> "World":
        """A second vault with its own node registry over the same USDC, enclaves and timelock.

        `changes` are the vault's constructor arguments: usdc, enclaves, owner, guardian, grace.
        """
        deployer = actor("deployer").address
        given: dict[str, Any] = {
            "usdc": self.usdc.address,
            "enclaves": self.enclaves.address,
            "owner": self.timelock.address,
            "guardian": actor("guardian").address,
            "grace": GRACE,
            **changes,
        }
        nonce = boa.env.evm.vm.state.get_nonce(Address(deployer).canonical_address)
        nodes = deploy(
            "RaphaNodeRegistry",
            self.timelock.address,
            actor("guardian").address,
            actor("registrar").address,
            actor("protocol").address,
            create_address(deployer, nonce + 1),
            sender=deployer,
        )
        vault = deploy(
            "RaphaClearingVault",
            given.pop("usdc"),
            nodes.address,
            *given.values(),
            sender=deployer,
        )
        deployment = self.deployment.model_copy(
            update={"vault": str(vault.address), "node_registry": str(nodes.address)}
        )
        return World(self.usdc, self.timelock, self.enclaves, nodes, vault, deployment)

    @classmethod
    @contextmanager
    def temporary(cls, **parameters: Any) -> Iterator["World"]:
        """A world of one's own that is undone afterwards: what each Hypothesis example plays in."""
        with boa.env.anchor():
            yield cls.create(**parameters)

    @property
    def now(self) -> int:
        """The block's time in Unix seconds."""
        return int(boa.env.timestamp)

    def pass_time(self, seconds: int) -> None:
        """Move the block's time on."""
        boa.env.time_travel(seconds=seconds)

    def travel_to(self, second: int) -> None:
        """Move the block's time to this second, forward only."""
        if second != self.now:
            assert second > self.now
            self.pass_time(second - self.now)

    def events(self, contract: Any) -> list[tuple[str, dict[str, Any]]]:
        """Name and arguments of our events in the last call to a contract, decoded by the SDK.

        Reading anything from the contract is a call too: ask for the events first.
        """
        decoded = decode_events(self.deployment, logs_of(contract))
        return [(event.name, dict(event.args)) for event in decoded]

    def fund(self, account: LocalAccount, amount: int = RICH) -> None:
        """Give an account USDC and let the vault take it."""
        self.usdc.mint(account.address, amount, sender=actor("deployer").address)
        self.usdc.approve(self.vault.address, 2**256 - 1, sender=account.address)

    def register_node(self, hospital: str = "hospital", owner: str = "node owner") -> int:
        """Register a node; returns its id."""
        count = self.nodes.node_count()
        return int(
            self.nodes.register_node(
                actor(owner).address,
                actor(hospital).address,
                actor("onboarder").address,
                keccak(text=f"hardware {count}"),
                sender=actor("registrar").address,
            )
        )

    def registration(self, **changes: Any) -> EnclaveRegistration:
        """A registration for node 1's enclave, good for a week."""
        fields: dict[str, Any] = {
            "enclave_key": actor("enclave").address,
            "node_id": 1,
            "measurement": MEASUREMENT,
            "attestation_digest": keccak(text="quote"),
            "encryption_key_digest": keccak(text="encryption key"),
            "expiry": self.now + 7 * DAY,
            "epoch": int(self.enclaves.epoch()),
        }
        return EnclaveRegistration(**{**fields, **changes})

    def co_sign(
        self, registration: EnclaveRegistration, signers: list[LocalAccount] | None = None
    ) -> list[bytes]:
        """Signatures over a registration, by the first two members unless told otherwise."""
        digest = registration_digest(registration, self.deployment.enclave_domain)
        return [sign_digest(digest, signer.key) for signer in signers or COMMITTEE[:2]]

    def register_enclave(self, **changes: Any) -> EnclaveRegistration:
        """Register an enclave by committee."""
        registration = self.registration(**changes)
        self.enclaves.register(
            abi_value(registration), self.co_sign(registration), sender=actor("anyone").address
        )
        return registration

    def terms(self, salt: int = 0, **changes: Any) -> JobTerms:
        """Terms of a job for 100 USDC at 0.10 a record and 1.00 an epoch, due in three days."""
        fields: dict[str, Any] = {
            "payer": actor("payer").address,
            "node_id": 1,
            "price_per_record": 100_000,
            "price_per_epoch": 1_000_000,
            "budget": 100_000_000,
            "deadline": self.now + 3 * DAY,
            "work": Work(
                model_digest=keccak(text="model"),
                dataset_digest=keccak(text="dataset"),
                policy_digest=keccak(text="policy"),
                result_key_digest=keccak(text="result key"),
            ),
            "salt": salt.to_bytes(32, "big"),
        }
        return JobTerms(**{**fields, **changes})

    def job_id(self, terms: JobTerms) -> bytes:
        """The job id of terms."""
        return job_id(terms, self.deployment.vault_domain)

    def open(self, terms: JobTerms) -> bytes:
        """Open a job by allowance, as its payer; returns the job id."""
        return bytes(self.vault.open_job(abi_value(terms), sender=terms.payer))

    def authorization(
        self, terms: JobTerms, signer: LocalAccount | None = None, **changes: Any
    ) -> bytes:
        """The payer's EIP-3009 signature that escrows `terms`, valid for a day."""
        fields: dict[str, Any] = {
            "payer": terms.payer,
            "to": self.deployment.vault,
            "value": terms.budget,
            "valid_after": 0,
            "valid_before": self.now + DAY,
            "nonce": self.job_id(terms),
        }
        digest = receive_authorization_digest(self.deployment.usdc_domain, **{**fields, **changes})
        return sign_digest(digest, (signer or actor("payer")).key)

    def cancel_authorization(self, account: LocalAccount, nonce: bytes) -> None:
        """Cancel an EIP-3009 authorisation by its author's signature."""
        struct_hash = keccak(
            encode(
                ["bytes32", "address", "bytes32"],
                [
                    keccak(text="CancelAuthorization(address authorizer,bytes32 nonce)"),
                    account.address,
                    nonce,
                ],
            )
        )
        digest = keccak(b"\x19\x01" + self.deployment.usdc_domain.separator + struct_hash)
        signature = sign_digest(digest, account.key)
        self.usdc.cancelAuthorization(
            account.address, nonce, signature, sender=actor("anyone").address
        )

    def receipt(
        self,
        terms: JobTerms,
        records: int = 0,
        epochs: int = 0,
        *,
        complete: bool = False,
        **changes: Any,
    ) -> Receipt:
        """A receipt for a job."""
        fields: dict[str, Any] = {
            "job_id": self.job_id(terms),
            "records": records,
            "epochs": epochs,
            "records_root": keccak(text=f"root {records}"),
            "output_digest": OUTPUT if complete else bytes(32),
            "complete": complete,
        }
        return Receipt(**{**fields, **changes})

    def claim(
        self,
        terms: JobTerms,
        records: int = 0,
        epochs: int = 0,
        *,
        signer: LocalAccount | None = None,
        **changes: Any,
    ) -> Claim:
        """A claim with a receipt signed by the node's enclave unless told otherwise."""
        receipt = self.receipt(terms, records, epochs, **changes)
        digest = receipt_digest(receipt, self.deployment.vault_domain)
        signature = sign_digest(digest, (signer or actor("enclave")).key)
        return Claim(terms, SignedReceipt(receipt=receipt, signature=signature))

    def settle(self, *claims: Claim) -> list[Outcome]:
        """Settle as anyone."""
        values = [claim.abi_value() for claim in claims]
        return [Outcome(o) for o in self.vault.settle(values, sender=actor("anyone").address)]

    def refund(self, terms: JobTerms) -> int:
        """Refund as anyone."""
        return int(self.vault.refund(terms_ref(terms), sender=actor("anyone").address))

    def call_raw(self, contract: Any, data: bytes, name: str) -> bytes:
        """Call with calldata that no ABI encoder would make; returns what came back."""
        computation = boa.env.execute_code(
            to_address=contract.address, data=data, sender=actor(name).address, contract=contract
        )
        if computation.is_error:
            raise BoaError.create(computation, contract)
        return bytes(computation.output)

    def job(self, terms: JobTerms) -> tuple[int, int, int, int, int]:
        """(state, funded, paid, node id, payable until)."""
        return tuple(self.vault.job(self.job_id(terms)))  # type: ignore[return-value]

    def balance(self, name: str) -> int:
        """What an actor may withdraw."""
        return int(self.vault.balances(actor(name).address))

    def wallet(self, name: str) -> int:
        """What an actor holds in USDC."""
        return int(self.usdc.balanceOf(actor(name).address))

    def govern(self, contract: Any, function: str, *arguments: Any) -> None:
        """Call as the timelock: what governance does once its delay is over."""
        getattr(contract, function)(*arguments, sender=str(self.timelock.address))
