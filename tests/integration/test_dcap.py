"""The on-chain check of quotes on a chain with the real P-256 precompile, and on one without."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from anvil import DAY, GENESIS, MEASUREMENT, key, set_up
from eth_utils import keccak
from hexbytes import HexBytes
from web3 import Web3
from web3.exceptions import ContractLogicError, Web3RPCError

from oracle.clients.edge.devplatform import DevPlatform
from scripts.chain import quiet_chain, rpc
from settlement.committee import creation
from settlement.contracts import abi_value, artifact
from settlement.dcap import INTEL, QuoteParts, Trust, split_quote
from settlement.deploy import create_for_tests
from settlement.eip712 import enclave_registry_domain, sign_digest, verdict_digest
from settlement.enclave import report_data
from settlement.models import PlatformVerdict
from settlement.reverts import ContractReverted, Revert, reverted
from settlement.signer import LocalSigner

pytestmark = pytest.mark.xdist_group("anvil")

VECTORS = Path(__file__).parents[1] / "vectors/attestation"
ENCLAVE = key("enclave").address
OPERATOR = key("operator 0")
ENCRYPTION_KEY = b"\x01" * 32
REGISTERS = tuple(keccak(text=f"register {i}") + bytes([i]) * 16 for i in range(5))
QUOTE_GAS, PLATFORM_GAS = 110_000, 180_000

# a time within the validity of each recorded quote's collateral
RECORDED = {
    "sgx/phala_v3": 1_751_500_800,
    "sgx/automata_v3": 1_755_236_700,
    "tdx/phala_v4": 1_751_500_800,
    "tdx/near_v4": 1_758_000_000,
    "tdx/automata_v4_outofdate": 1_749_095_100,
}


def recorded(name: str) -> QuoteParts:
    raw = (VECTORS / f"{name}.quote.bin").read_bytes()
    at = 432 if raw[0] == 3 else 632
    return split_quote(raw[: at + 4 + int.from_bytes(raw[at : at + 4], "little")])


@dataclass
class Registry:
    """An enclave registry alone on a chain, owned by its deployer, with a committee of one."""

    w3: Web3
    contract: Any
    signer: LocalSigner

    @classmethod
    @contextmanager
    def on_chain(cls, second: int, trust: Trust, hardfork: str) -> Iterator["Registry"]:
        """A new chain whose clock begins at `second`."""
        with quiet_chain(second, hardfork=hardfork) as w3:
            signer = LocalSigner(key("deployer"))
            rpc(w3, "anvil_setBalance", signer.address, hex(10**21))
            certificates, _ = create_for_tests(w3, signer, "PckCertificates", [])
            owner = signer.address
            committee, _ = create_for_tests(w3, signer, *creation([OPERATOR.address], 1))
            arguments = [owner, owner, committee, [MEASUREMENT, TD_MEASUREMENT]]
            address, _ = create_for_tests(
                w3, signer, "EnclaveRegistry", [*arguments, trust.abi_value(certificates)]
            )
            abi = artifact("EnclaveRegistry").abi
            yield cls(
                w3, w3.eth.contract(address=Web3.to_checksum_address(address), abi=abi), signer
            )

    def transact(self, name: str, *arguments: Any) -> int:
        """Call a function in a transaction; returns the gas that it used."""
        function = self.contract.functions[name](*arguments)
        data = HexBytes(function.build_transaction({"gas": 0, "from": self.signer.address})["data"])
        call = {"to": self.contract.address, "data": data, "from": self.signer.address}
        gas = self.w3.eth.estimate_gas(call)
        sent = self.signer.send(self.w3, {"to": call["to"], "data": data, "gas": gas})
        receipt = self.w3.eth.wait_for_transaction_receipt(HexBytes(sent))
        assert receipt["status"] == 1
        return int(receipt["gasUsed"])

    def register_platform(self, parts: QuoteParts) -> int:
        return self.transact("register_platform", parts.certificates[0], parts.issuer.abi_value())

    def judge(self, parts: QuoteParts) -> int:
        verdict = PlatformVerdict(
            platform=parts.pck_key.digest,
            node_id=1,
            module_svn=parts.module_svn,
            expiry=self.w3.eth.get_block("latest")["timestamp"] + 7 * DAY,
            epoch=1,
        )
        domain = enclave_registry_domain(self.w3.eth.chain_id, self.contract.address)
        signature = sign_digest(verdict_digest(verdict, domain), OPERATOR.key)
        return self.transact("judge", abi_value(verdict), signature)

    def report_data(self, name: str, platform: bytes) -> bytes:
        return report_data(
            chain_id=self.w3.eth.chain_id,
            registry=self.contract.address,
            enclave_key=key(name).address,
            encryption_key=ENCRYPTION_KEY,
            nonce=bytes(self.contract.functions.challenge(platform).call()),
            configuration=b"\x0c" * 32,
        )

    def register_quote(self, parts: QuoteParts, name: str) -> int:
        return self.transact(
            "register_quote",
            parts.abi_value(),
            key(name).address,
            keccak(ENCRYPTION_KEY),
        )

    def is_valid(self, name: str) -> bool:
        return bool(self.contract.functions.is_valid(key(name).address, 1).call())


TD_MEASUREMENT = keccak(b"".join(REGISTERS))


@contextmanager
def refused(expected: Revert) -> Iterator[None]:
    with pytest.raises((ContractLogicError, Web3RPCError)) as caught:
        yield
    assert reverted(caught.value).revert is expected


@pytest.mark.parametrize("name", RECORDED)
def test_real_platform_and_quote_pass_by_the_real_precompile(name: str) -> None:
    parts = recorded(name)
    with Registry.on_chain(RECORDED[name], INTEL, "osaka") as registry:
        gas = registry.register_platform(parts)
        assert gas <= PLATFORM_GAS
        registry.judge(parts)
        report = registry.contract.functions.check_quote(parts.abi_value()).call()
        assert report[3] + report[4] == parts.signed[-64:]
        forged = replace(parts, signature=parts.signature[::-1])
        with refused(Revert.DCAP_INVALID_SIGNATURE_OF_THE_QUOTE):
            registry.contract.functions.check_quote(forged.abi_value()).call()


def test_quotes_register_keys_within_their_gas() -> None:
    platform = DevPlatform.create(GENESIS, chain_id=31337)
    with Registry.on_chain(GENESIS, platform.trust, "osaka") as registry:
        sgx = split_quote(platform.quote(MEASUREMENT, bytes(64)))
        tdx = split_quote(platform.td_quote(REGISTERS[0], bytes(64), rtmrs=REGISTERS[1:]))
        registry.register_platform(sgx)
        for name, parts in [("sgx enclave", sgx), ("tdx enclave", tdx), ("sgx enclave", sgx)]:
            registry.judge(parts)
            data = registry.report_data(name, parts.pck_key.digest)
            quote = (
                platform.quote(MEASUREMENT, data)
                if parts is sgx
                else platform.td_quote(REGISTERS[0], data, rtmrs=REGISTERS[1:])
            )
            gas = registry.register_quote(split_quote(quote), name)
            assert gas <= QUOTE_GAS
            assert registry.is_valid(name)
        registry.transact("revoke_platform", sgx.pck_key.digest)
        assert not registry.is_valid("sgx enclave")
        assert not registry.is_valid("tdx enclave")


def test_client_brings_platform_verdict_and_quote() -> None:
    platform = DevPlatform.create(GENESIS, chain_id=31337)
    with quiet_chain(GENESIS) as w3:
        chain = set_up(w3, trust=platform.trust)
        client, parts = chain.deployer, split_quote(platform.quote(MEASUREMENT, bytes(64)))
        client.transact(client.register_platform_call(parts))
        verdict = PlatformVerdict(
            platform=parts.pck_key.digest,
            node_id=1,
            module_svn=parts.module_svn,
            expiry=client.now() + 7 * DAY,
            epoch=1,
        )
        digest = verdict_digest(verdict, chain.deployment.enclave_domain)
        client.transact(client.judge_call(verdict, chain.committee_signatures(digest)))
        data = report_data(
            chain_id=31337,
            registry=chain.deployment.enclave_registry,
            enclave_key=ENCLAVE,
            encryption_key=ENCRYPTION_KEY,
            nonce=client.quote_challenge(parts.pck_key.digest),
            configuration=b"\x0c" * 32,
        )
        quote = split_quote(platform.quote(MEASUREMENT, data))
        call = client.register_quote_call(quote, ENCLAVE, keccak(ENCRYPTION_KEY))
        client.transact(call)
        assert client.call(client.enclaves.functions.is_valid(ENCLAVE, 1))
        with pytest.raises(ContractReverted) as caught:
            client.transact(call)
        assert caught.value.revert is Revert.ENCLAVES_REGISTRATION_IS_NOT_NEWER


def test_without_the_precompile_nothing_passes() -> None:
    parts = recorded("sgx/phala_v3")
    without_cas = replace(INTEL, authorities=())
    with Registry.on_chain(RECORDED["sgx/phala_v3"], without_cas, "cancun") as registry:
        with refused(Revert.DCAP_P256_PRECOMPILE_IS_MISSING):
            registry.contract.functions.check_quote(parts.abi_value()).call()
        with refused(Revert.DCAP_P256_PRECOMPILE_IS_MISSING):
            registry.transact("allow_authority", INTEL.authorities[0])
        with refused(Revert.DCAP_CA_NOT_ALLOWED):
            registry.register_platform(parts)
