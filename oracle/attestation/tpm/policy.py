"""Which PCR values a node model may have."""

from collections.abc import Iterable, Mapping
from typing import Annotated

from eth_abi import encode
from eth_utils.crypto import keccak
from pydantic import Field, model_validator

from oracle.attestation.errors import (
    NodeModelUnknown,
    NodeUnassigned,
    PcrMissing,
    PcrNotAllowed,
    PcrUnknown,
)
from oracle.attestation.tpm.quote import PcrDigest
from oracle.attestation.tpm.structures import Bank
from settlement.errors import InvalidInput
from settlement.types import Bytes32, Frozen, UInt64

POLICY_TAG = keccak(text="rapha.pcr-policy.v1")

PolicyPcr = Annotated[int, Field(ge=8, le=15)]
"""The PCRs that the operating system measures: those below are the firmware's and differ between
machines of one model, those above can be reset without a reboot."""


class PcrPolicy(Frozen):
    """The allowed values of each PCR of one node model, in one bank.

    A new version replaces the earlier ones whole. SHA-1 banks are not accepted.
    """

    model: str = Field(min_length=1, max_length=64)
    version: UInt64 = Field(gt=0)
    bank: Bank = Bank.SHA256
    pcrs: dict[PolicyPcr, frozenset[PcrDigest]] = Field(min_length=1)

    @model_validator(mode="after")
    def _values_fit_the_bank(self) -> "PcrPolicy":
        if self.bank is Bank.SHA1:
            raise ValueError("the SHA-1 bank is not accepted")
        for pcr, values in self.pcrs.items():
            if not values:
                raise ValueError(f"PCR {pcr} allows no value")
            if any(len(value) != self.bank.size for value in values):
                raise ValueError(f"a value of PCR {pcr} does not have {self.bank.size} bytes")
        return self

    @property
    def selection(self) -> dict[Bank, frozenset[int]]:
        """The PCRs that a quote must be over."""
        return {self.bank: frozenset(self.pcrs)}

    @property
    def digest(self) -> bytes:
        """keccak-256 of the policy's ABI encoding, the same however its values are ordered."""
        return keccak(
            encode(
                ["bytes32", "string", "uint64", "string", "(uint8,bytes[])[]"],
                [
                    POLICY_TAG,
                    self.model,
                    self.version,
                    self.bank.value,
                    [(pcr, sorted(values)) for pcr, values in sorted(self.pcrs.items())],
                ],
            )
        )

    def check(self, values: Mapping[int, bytes]) -> None:
        """Judge a node's PCR values in the policy's bank.

        Raises:
            PcrUnknown: when the policy says nothing about one.
            PcrMissing: when one that it judges is not among them.
            PcrNotAllowed: when one has a value that is not allowed.
        """
        name = f"{self.model} v{self.version}"
        for pcr in sorted(values.keys() - self.pcrs.keys()):
            raise PcrUnknown(pcr, name)
        for pcr, allowed in sorted(self.pcrs.items()):
            value = values.get(pcr)
            if value is None:
                raise PcrMissing(pcr, name)
            if value not in allowed:
                raise PcrNotAllowed(pcr, value, name)


class PcrPolicies:
    """The policies of all node models, of which the latest version of each counts."""

    def __init__(self, policies: Iterable[PcrPolicy]) -> None:
        """
        Raises:
            InvalidInput: when a model has the same version twice.
        """
        self._current: dict[str, PcrPolicy] = {}
        seen: set[tuple[str, int]] = set()
        for policy in policies:
            if (policy.model, policy.version) in seen:
                raise InvalidInput(f"two policies are {policy.model} v{policy.version}")
            seen.add((policy.model, policy.version))
            known = self._current.get(policy.model)
            if known is None or known.version < policy.version:
                self._current[policy.model] = policy

    def current(self, model: str) -> PcrPolicy:
        """The latest policy of a node model.

        Raises:
            NodeModelUnknown: when it has none.
        """
        try:
            return self._current[model]
        except KeyError as error:
            raise NodeModelUnknown(model) from error


NodeId = Annotated[int, Field(gt=0, lt=2**64)]


class NodeTpm(Frozen):
    """What an operator expects of one node: its model and, where pinned, its very TPM.

    `ek_key_digest` is the SHA-256 of the endorsement key (SubjectPublicKeyInfo).
    """

    model: str
    ek_key_digest: Bytes32 | None = None


class NodePolicies(Frozen):
    """An operator's policies, and which node is of which model; the operator's file holds it.

    Nodes that are not named are of `default_model`, if there is one. With `event_log_required`
    quotes count only with a log that explains them.
    """

    policies: tuple[PcrPolicy, ...] = Field(min_length=1)
    nodes: dict[NodeId, NodeTpm] = Field(default_factory=dict)
    default_model: str | None = None
    event_log_required: bool = False

    @model_validator(mode="after")
    def _models_have_policies(self) -> "NodePolicies":
        known = PcrPolicies(self.policies)
        models = [node.model for node in self.nodes.values()]
        for model in [*models, *([self.default_model] if self.default_model else [])]:
            known.current(model)
        return self

    def of(self, node_id: int) -> PcrPolicy:
        """The current policy of a node's model.

        Raises:
            NodeUnassigned: when nothing says which model the node is.
        """
        node = self.nodes.get(node_id)
        model = node.model if node else self.default_model
        if model is None:
            raise NodeUnassigned(node_id)
        return PcrPolicies(self.policies).current(model)

    def pinned(self, node_id: int) -> bytes | None:
        """The one endorsement key that the node may have, None where the first one is taken."""
        node = self.nodes.get(node_id)
        return node.ek_key_digest if node else None
