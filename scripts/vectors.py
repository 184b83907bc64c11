"""Test vectors for other implementations: `python -m scripts.vectors` writes docs/vectors.json.

With `--check` it compares instead. Inputs are fixed, so the same code always writes the same file;
what each part is for stands in docs/integrators.md.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_utils import keccak

from oracle.committee import challenge_nonce
from settlement.contracts import Claim
from settlement.dcap import P256Key
from settlement.digests import (
    bundle_digest,
    canonical_json,
    delivery_info,
    output_digest,
    policy_digest,
    result_key_digest,
)
from settlement.eip712 import (
    Domain,
    deployment_domain,
    enclave_registry_domain,
    encode_type,
    hash_struct,
    job_id,
    message_of,
    receipt_digest,
    sign_digest,
    struct_hash,
    type_hash,
    typed_digest,
    usdc_domain,
    vault_domain,
    work_digest,
)
from settlement.enclave import report_data
from settlement.metering import inclusion_proof, merkle_root, record_leaf, record_salt
from settlement.models import (
    MAX_BUDGET,
    MAX_NODE_ID,
    Assignment,
    Deposit,
    EnclaveRegistration,
    JobTerms,
    OpenJobs,
    PlatformVerdict,
    Receipt,
    SignedReceipt,
    Sponsorship,
    Withdrawal,
    Work,
)
from settlement.types import Frozen, to_hex

ROOT = Path(__file__).resolve().parent.parent
VECTORS = ROOT / "docs" / "vectors.json"
FORMAT = "rapha.vectors.v1"

CHAINS = (1, 137, 80002, 31337)
LEAVES = 13
UINT64, UINT128, UINT256 = 2**64 - 1, 2**128 - 1, 2**256 - 1


def word(name: str) -> bytes:
    """32 bytes that are always the same for a name."""
    return keccak(text=f"rapha vectors {name}")


def account(name: str) -> LocalAccount:
    """A key that everybody knows, always the same for a name."""
    made: LocalAccount = Account.from_key(word(f"key of {name}"))
    return made


def address(name: str) -> str:
    """The address of `account(name)`."""
    return str(account(name).address)


def terms(**changes: Any) -> JobTerms:
    """Terms of an ordinary job."""
    fields: dict[str, Any] = {
        "payer": address("payer"),
        "node_id": 7,
        "price_per_record": 50_000,
        "price_per_epoch": 100_000,
        "budget": 60_000_000,
        "deadline": 1_800_000_000,
        "work": Work(
            model_digest=word("model"),
            dataset_digest=word("dataset"),
            policy_digest=word("policy"),
            result_key_digest=word("result key"),
        ),
        "salt": word("salt"),
    }
    return JobTerms(**{**fields, **changes})


EXTREME_TERMS = terms(
    node_id=MAX_NODE_ID,
    price_per_record=UINT64,
    price_per_epoch=0,
    budget=MAX_BUDGET,
    deadline=UINT64,
    salt=bytes(32),
)


def make() -> dict[str, Any]:
    """Everything that the file holds. Integers are decimal strings, bytes hex."""
    chain_id = CHAINS[1]
    vault = vault_domain(chain_id, address("vault"))
    registry = enclave_registry_domain(chain_id, address("enclave registry"))
    usdc = usdc_domain(chain_id, address("usdc"))
    return {
        "format": FORMAT,
        "domains": [
            _domain(make_domain(chain, address(name)))
            for make_domain, name in (
                (vault_domain, "vault"),
                (enclave_registry_domain, "enclave registry"),
                (deployment_domain, "vault"),
                (usdc_domain, "usdc"),
            )
            for chain in CHAINS
        ],
        "types": [
            {
                "primaryType": primary,
                "encodeType": encode_type(primary),
                "typeHash": to_hex(type_hash(primary)),
            }
            for primary in (
                *("JobTerms", "OpenJobs", "Sponsorship", "Assignment", "Deposit", "Withdrawal"),
                *("Receipt", "EnclaveRegistration", "PlatformVerdict"),
                *("DeploymentRecord", "Permit", "ReceiveWithAuthorization"),
            )
        ],
        "typedData": [
            *_models(vault, registry),
            _case(
                "DeploymentRecord",
                deployment_domain(chain_id, address("vault")),
                {"digest": to_hex(word("record"))},
                hash_struct("DeploymentRecord", [word("record")]),
                "a deployer vouches for its record",
            ),
            *_usdc(usdc, vault),
        ],
        "works": [
            {"message": message_of(each.work), "digest": to_hex(work_digest(each.work))}
            for each in (terms(), EXTREME_TERMS)
        ],
        "signatures": _signatures(vault),
        "reportData": _report_data(),
        "quoteNonces": [
            {
                "challenges": [to_hex(each) for each in challenges],
                "nonce": to_hex(challenge_nonce(challenges)),
            }
            for challenges in (
                [word("challenge 1")],
                [word(f"challenge {i}") for i in range(3)],
                [word(f"challenge {i}") for i in reversed(range(3))],
            )
        ],
        "platforms": [
            {"x": to_hex(key.x), "y": to_hex(key.y), "digest": to_hex(key.digest)}
            for key in (P256Key(word("x"), word("y")), P256Key(bytes(32), b"\xff" * 32))
        ],
        "metering": _metering(),
        "canonicalJson": [
            {"value": value, "text": canonical_json(value).decode()} for value in _PLAIN
        ],
        "bundles": [
            {
                "files": {path: to_hex(data) for path, data in files.items()},
                "digest": to_hex(bundle_digest(files)),
            }
            for files in _FILES
        ],
        "policies": [
            {
                "rules": {path: to_hex(data) for path, data in rules.items()},
                "parameters": canonical_json(parameters).decode(),
                "digest": to_hex(policy_digest(rules, parameters)),
            }
            for rules in _FILES
            for parameters in ({}, {"epsilon": 1.0, "max_outputs": 3, "note": "é"})
        ],
        "resultKeys": [
            {"key": to_hex(key), "digest": to_hex(result_key_digest(key))}
            for key in (word("result key"), bytes(32))
        ],
        "outputs": [
            {
                "weights": to_hex(weights),
                "metrics": to_hex(metrics),
                "evidence": None if evidence is None else to_hex(evidence),
                "digest": to_hex(output_digest(weights, metrics, evidence)),
            }
            for weights, metrics, evidence in (
                (b"weights", b"{}", None),
                (b"weights", b"{}", b'{"isolation":"bubblewrap"}'),
                (b"", b"", b""),
            )
        ],
        "deliveries": [
            {
                "chainId": str(chain),
                "vault": address("vault"),
                "jobId": to_hex(word("job")),
                "info": to_hex(
                    delivery_info(chain_id=chain, vault=address("vault"), job_id=word("job"))
                ),
            }
            for chain in CHAINS
        ],
    }


# keys in an order that is not theirs, beyond ASCII, and at the ends of the escapes
_PLAIN: tuple[Any, ...] = (
    {},
    [],
    None,
    True,
    "",
    {"b": [False, None, "x"], "a": {"d": "2", "c": "1"}},
    {"\U0001f600": "astral", "\ue000": "private", "é": "accent", "Z": "upper", "a": "lower"},
    '"\\/\b\f\n\r\t\x00\x1f\x7f\x80\u2028é漢\U0001f600',
)

_FILES: tuple[dict[str, bytes], ...] = (
    {},
    {"train.py": b"print('hello')\n", "manifest.json": b"{}"},
    {"z/é.py": b"\x00\xff", "a.py": b""},
)


def _domain(domain: Domain) -> dict[str, Any]:
    return {**_domain_fields(domain), "separator": to_hex(domain.separator)}


def _domain_fields(domain: Domain) -> dict[str, Any]:
    return {
        "name": domain.name,
        "version": domain.version,
        "chainId": str(domain.chain_id),
        "verifyingContract": domain.verifying_contract,
    }


def _plain(value: Any) -> Any:
    """A message for JSON: integers as text, since many readers keep but 53 bits of a number."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _case(
    primary: str, domain: Domain, message: dict[str, Any], struct: bytes, what: str
) -> dict[str, Any]:
    return {
        "what": what,
        "domain": _domain_fields(domain),
        "primaryType": primary,
        "message": _plain(message),
        "structHash": to_hex(struct),
        "digest": to_hex(typed_digest(domain, struct)),
    }


def _models(vault: Domain, registry: Domain) -> list[dict[str, Any]]:
    def case(model: Frozen, domain: Domain, what: str) -> dict[str, Any]:
        return _case(type(model).__name__, domain, message_of(model), struct_hash(model), what)

    job = job_id(terms(), vault)
    return [
        case(terms(), vault, "the job id"),
        case(terms(node_id=0), vault, "the job id, the node left to the committee"),
        case(EXTREME_TERMS, vault, "the job id, with the largest values"),
        case(OpenJobs(jobs=(terms(),)), vault, "a payer opens one job from its balance"),
        case(
            OpenJobs(jobs=(terms(), terms(salt=word("other salt")), EXTREME_TERMS)),
            vault,
            "a payer opens three jobs from its balance",
        ),
        case(
            Sponsorship(terms=terms(), sponsor=address("sponsor")),
            vault,
            "a payer lets a sponsor fund its job",
        ),
        case(
            Assignment(job_id=job, node_id=7, epoch=1), vault, "a committee member assigns a node"
        ),
        case(
            Deposit(account=address("payer"), amount=1_000_000_000, salt=word("deposit")),
            vault,
            "the EIP-3009 nonce of a deposit",
        ),
        case(
            Withdrawal(
                account=address("hospital"),
                to=address("cold wallet"),
                amount=12_500_000,
                nonce=0,
                deadline=1_800_000_000,
            ),
            vault,
            "a payee has a part of its balance sent somewhere",
        ),
        case(
            Receipt(
                job_id=job,
                records=0,
                epochs=0,
                records_root=merkle_root([]),
                output_digest=bytes(32),
                complete=False,
            ),
            vault,
            "a first receipt",
        ),
        case(_complete(job), vault, "a completing receipt"),
        case(
            Receipt(
                job_id=job,
                records=UINT64,
                epochs=UINT64,
                records_root=b"\xff" * 32,
                output_digest=b"\xff" * 32,
                complete=True,
            ),
            vault,
            "a receipt with the largest values",
        ),
        case(
            EnclaveRegistration(
                enclave_key=address("enclave"),
                node_id=7,
                measurement=word("measurement"),
                attestation_digest=word("quote"),
                encryption_key_digest=word("encryption key"),
                expiry=1_800_000_000,
                epoch=3,
            ),
            registry,
            "a committee member vouches for an enclave key",
        ),
        case(
            PlatformVerdict(
                platform=word("platform"),
                node_id=7,
                module_svn=UINT128,
                expiry=1_800_000_000,
                epoch=3,
            ),
            registry,
            "a committee member judges a TDX platform",
        ),
        case(
            PlatformVerdict(
                platform=word("platform"), node_id=7, module_svn=0, expiry=UINT64, epoch=0
            ),
            registry,
            "a committee member judges an SGX platform",
        ),
    ]


def _complete(job: bytes) -> Receipt:
    return Receipt(
        job_id=job,
        records=455,
        epochs=5,
        records_root=merkle_root([word("leaf")]),
        output_digest=output_digest(b"weights", b"{}"),
        complete=True,
    )


def _usdc(usdc: Domain, vault: Domain) -> list[dict[str, Any]]:
    deposit = Deposit(account=address("payer"), amount=1_000_000_000, salt=word("deposit"))
    messages: list[tuple[str, dict[str, Any], str]] = [
        (
            "ReceiveWithAuthorization",
            {
                "from": address("payer"),
                "to": vault.verifying_contract,
                "value": value,
                "validAfter": 0,
                "validBefore": UINT256,
                "nonce": nonce,
            },
            what,
        )
        for value, nonce, what in (
            (terms().budget, job_id(terms(), vault), "a payer escrows a job: nonce is the job id"),
            (
                deposit.amount,
                typed_digest(vault, struct_hash(deposit)),
                "a payer tops up its balance: nonce is the deposit's digest",
            ),
        )
    ]
    messages.append(
        (
            "Permit",
            {
                "owner": address("payer"),
                "spender": vault.verifying_contract,
                "value": terms().budget,
                "nonce": 4,
                "deadline": 1_800_000_000,
            },
            "a payer allows the vault to take a budget",
        )
    )
    return [
        _case(
            primary,
            usdc,
            {
                name: to_hex(value) if isinstance(value, bytes) else value
                for name, value in message.items()
            },
            hash_struct(primary, list(message.values())),
            what,
        )
        for primary, message, what in messages
    ]


def _signatures(vault: Domain) -> list[dict[str, Any]]:
    job = job_id(terms(), vault)
    cases = []
    for name in ("enclave", "payer", "operator", "hospital"):
        receipt = _complete(job)
        digest = receipt_digest(receipt, vault) if name == "enclave" else word(f"digest {name}")
        signature = sign_digest(digest, account(name).key)
        value = Claim(terms(), SignedReceipt(receipt=receipt, signature=signature)).abi_value()
        cases.append(
            {
                "privateKey": to_hex(bytes(account(name).key)),
                "signer": address(name),
                "digest": to_hex(digest),
                "signature": to_hex(signature),
                "r": to_hex(value[-2].to_bytes(32, "big")),
                "vs": to_hex(value[-1].to_bytes(32, "big")),
            }
        )
    return cases


def _report_data() -> list[dict[str, Any]]:
    cases = []
    for chain in CHAINS:
        key, nonce, configuration = (
            word("encryption key"),
            word(f"nonce {chain}"),
            word("configuration"),
        )
        bound = report_data(
            chain_id=chain,
            registry=address("enclave registry"),
            enclave_key=address("enclave"),
            encryption_key=key,
            nonce=nonce,
            configuration=configuration,
        )
        cases.append(
            {
                "chainId": str(chain),
                "registry": address("enclave registry"),
                "enclaveKey": address("enclave"),
                "encryptionKey": to_hex(key),
                "nonce": to_hex(nonce),
                "configuration": to_hex(configuration),
                "reportData": to_hex(bound),
            }
        )
    return cases


def _metering() -> dict[str, Any]:
    dataset_key = word("dataset key")
    records, leaves = [], []
    for index in range(LEAVES):
        record_id, record = f"record {index}".encode(), word(f"record {index}") * index
        salt = record_salt(dataset_key, record_id)
        leaves.append(record_leaf(salt, record_id, record))
        records.append(
            {
                "id": to_hex(record_id),
                "record": to_hex(record),
                "salt": to_hex(salt),
                "leaf": to_hex(leaves[-1]),
            }
        )
    return {
        "datasetKey": to_hex(dataset_key),
        "records": records,
        "roots": [to_hex(merkle_root(leaves[:size])) for size in range(LEAVES + 1)],
        "proofs": [
            {
                "index": index,
                "size": size,
                "path": [to_hex(node) for node in inclusion_proof(leaves[:size], index)],
            }
            for size in range(1, LEAVES + 1)
            for index in range(size)
        ],
    }


def text() -> str:
    """The file's text."""
    return json.dumps(make(), indent=1, ensure_ascii=True) + "\n"


def main() -> int:
    """Write the file, or with `--check` compare it; exit code 1 where it differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    if not parser.parse_args().check:
        VECTORS.write_text(text())
        return 0
    if VECTORS.exists() and VECTORS.read_text() == text():
        return 0
    print(f"{VECTORS.name} is stale: run `python -m scripts.vectors`", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
