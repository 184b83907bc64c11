"""Where the contracts of one deployment are, and with which parameters."""

from pathlib import Path

from pydantic import Field
from pydantic_core import from_json

from settlement.eip712 import Domain, enclave_registry_domain, usdc_domain, vault_domain
from settlement.errors import InvalidInput
from settlement.types import Address, Frozen, UInt64

REAL_CHAINS = frozenset({1, 137, 80002})
"""Ethereum, Polygon PoS and Amoy: development roots and well-known keys are refused there."""


class Deployment(Frozen):
    """The record that deploying writes and every process reads.

    `block` is one before which none of its contracts existed: logs are read from there.
    `grace_period` is seconds after a job's deadline in which finished work is still paid,
    `challenge_window` those that fresh earnings wait at least before they can be distributed.
    """

    chain_id: int = Field(gt=0)
    block: UInt64
    vault: Address
    node_registry: Address
    enclave_registry: Address
    timelock: Address
    usdc: Address
    grace_period: UInt64
    challenge_window: UInt64 = 0

    @property
    def vault_domain(self) -> Domain:
        """EIP-712 domain of terms and receipts."""
        return vault_domain(self.chain_id, self.vault)

    @property
    def enclave_domain(self) -> Domain:
        """EIP-712 domain of committee registrations."""
        return enclave_registry_domain(self.chain_id, self.enclave_registry)

    @property
    def usdc_domain(self) -> Domain:
        """EIP-712 domain of the USDC token."""
        return usdc_domain(self.chain_id, self.usdc)


def load_deployment(path: Path) -> Deployment:
    """Read a deployment record, the short one or the signed one (`settlement.record`).

    Raises:
        InvalidInput: when the file is missing or is not such a record.
    """
    try:
        content = from_json(path.read_bytes())
        signed = isinstance(content, dict) and "deployment" in content
        return Deployment.model_validate(content["deployment"] if signed else content)
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{path} is not a deployment record: {error}") from error
