"""What the integration tests share: a deployment on a real chain, and its actors."""

from dataclasses import dataclass
from typing import Any

from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_utils import keccak
from web3 import Web3

from settlement.contracts import Settlement
from settlement.deployment import Deployment
from settlement.models import JobTerms, Work

GENESIS = 1_800_000_000
DAY = 24 * 60 * 60
MEASUREMENT = keccak(text="measurement")


def key(name: str) -> LocalAccount:
    """The account of a role; the same name is always the same key."""
    account: LocalAccount = Account.from_key(keccak(text=f"rapha integration {name}"))
    return account


@dataclass
class Chain:
    """A deployment on anvil, with the contracts as the deployer and as the payer use them."""

    w3: Web3
    deployment: Deployment
    deployer: Settlement
    payer: Settlement

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
