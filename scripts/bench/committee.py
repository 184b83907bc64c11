"""What a committee's signatures cost by scheme and size, and from where on BLS is cheaper.

Each is a transaction to `is_signed` itself, with intrinsic gas and calldata; what a registry
adds in between is the same for both. Of the members who may sign, the dearest choice is measured:
with ECDSA the last ones, with BLS the first, so that the last are absent.
"""

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from eth_utils import keccak
from hexbytes import HexBytes
from py_ecc.optimized_bn128 import field_modulus
from rich.table import Table
from web3 import Web3
from web3.types import TxParams

from scripts.bench.gas import Progress
from scripts.bench.world import GENESIS, account, address
from scripts.chain import ROOT, quiet_chain, rpc
from settlement.bls import SIGNATURE_DOMAIN, BlsMember, BlsSigner, hash_to_g1
from settlement.committee import (
    MAX_BLS_MEMBERS,
    MAX_ECDSA_THRESHOLD,
    Committee,
    creation,
    join_signatures,
    read_committee,
)
from settlement.contracts import TransactionFailed, artifact
from settlement.deploy import create_for_tests
from settlement.eip712 import sign_digest
from settlement.signer import LocalSigner

FIGURES = ROOT / "tests" / "bench" / "committee.json"
DOCUMENT = ROOT / "docs" / "committees.md"

LARGEST_ECDSA = 48
"""Members of whom no more than `MAX_ECDSA_THRESHOLD` must sign."""
SIZES = (3, 9, 15, 21, 30, *range(37, 47), LARGEST_ECDSA, 64, MAX_BLS_MEMBERS)
"""Every size around the one from which on BLS is cheaper, and some beside."""

Figures = Mapping[str, Mapping[str, int]]
"""Members -> threshold, and gas by scheme: creation, a quorum's signatures, those of all."""


def threshold_of(size: int) -> int:
    """Two thirds of the members, rounded up."""
    return -(-2 * size // 3)


def measure_committees(
    progress: Progress = lambda _: None, *, sizes: Sequence[int] = SIZES
) -> dict[str, dict[str, int]]:
    """Gas for committees of each size, as `committee.json` holds them."""
    found = {}
    with quiet_chain(GENESIS) as w3:
        rpc(w3, "anvil_setBalance", address("relayer"), hex(10**24))
        for size in sizes:
            figures = {"threshold": threshold_of(size)}
            if size <= LARGEST_ECDSA:
                addresses = [address(f"operator {i}") for i in range(size)]
                figures |= _measure(w3, "ecdsa", *creation(addresses, threshold_of(size)))
            keys = [_proven(i) for i in range(size)]
            figures |= _measure(w3, "bls", *creation(keys, threshold_of(size)))
            found[str(size)] = figures
            progress(f"committees of {size}")
    return found


def _measure(w3: Web3, scheme: str, contract: str, arguments: tuple[Any, ...]) -> dict[str, int]:
    place, created = create_for_tests(w3, LocalSigner(account("relayer")), contract, arguments)
    committee = read_committee(w3, place)
    members = committee.ids
    quorum = (
        members[-committee.threshold :] if scheme == "ecdsa" else members[: committee.threshold]
    )
    found = {
        f"{scheme}, creation": created["gasUsed"],
        f"{scheme}, quorum": _asked(w3, place, committee, quorum),
    }
    if scheme == "bls":
        found["bls, all"] = _asked(w3, place, committee, members)
    return found


def _asked(w3: Web3, place: str, committee: Committee, signers: Sequence[str]) -> int:
    """Gas of a transaction that asks whether these have signed."""
    signatures = join_signatures(committee, {name: _signatures()[name] for name in signers})
    contract = w3.eth.contract(w3.to_checksum_address(place), abi=artifact("EcdsaCommittee").abi)
    data = HexBytes(contract.encode_abi("is_signed", [_digest(), signatures]))
    call: TxParams = {"to": w3.to_checksum_address(place), "data": data}
    gas = w3.eth.estimate_gas(call)
    sent = LocalSigner(account("relayer")).send(w3, {**call, "gas": gas})
    receipt = w3.eth.wait_for_transaction_receipt(HexBytes(sent))
    if not receipt["status"]:
        raise TransactionFailed(sent)
    return receipt["gasUsed"]


@cache
def _signatures() -> dict[str, bytes]:
    """Every operator's signature over the digest, by its name in either scheme."""
    found = {}
    for i in range(max(SIZES)):
        operator = account(f"operator {i}")
        found[str(operator.address)] = sign_digest(_digest(), operator.key)
        signer = BlsSigner(bytes(operator.key))
        found[signer.public.id] = signer.sign(_digest(), chain_id=31_337)
    return found


@cache
def _proven(i: int) -> BlsMember:
    return BlsSigner(bytes(account(f"operator {i}").key)).prove()


@cache
def _digest() -> bytes:
    """A digest that needs two tries to hash to a point, as one does on average."""
    for i in range(1_000):
        digest = keccak(text=f"rapha bench digest {i}")
        point = hash_to_g1(SIGNATURE_DOMAIN, digest)
        if point[:32] == _hash_try(digest, 1):
            return digest
    raise AssertionError("no digest in a thousand needs two tries")


def _hash_try(digest: bytes, counter: int) -> bytes:
    """The x that a digest's hash to the curve tries, from counter 0 on."""
    x = keccak(SIGNATURE_DOMAIN + digest + counter.to_bytes(32, "big"))
    return (int.from_bytes(x, "big") % field_modulus).to_bytes(32, "big")


def crossover(figures: Figures, present: str) -> int:
    """The size from which on BLS, with a `quorum` or `all` present, is cheaper than ECDSA.

    Raises:
        KeyError: when the sizes around it were not measured.
    """
    dearer = [
        int(size)
        for size, found in figures.items()
        if "ecdsa, quorum" in found and found[f"bls, {present}"] >= found["ecdsa, quorum"]
    ]
    found = max(dearer) + 1
    if str(found) not in figures:
        raise KeyError(found)
    return found


def save_committees(figures: Figures) -> None:
    """Keep the figures and the document made of them."""
    FIGURES.write_text(json.dumps(figures, indent=1) + "\n")
    DOCUMENT.write_text(document(figures))


def document(figures: Figures) -> str:
    """`docs/committees.md`."""
    small, large = figures["3"], figures[str(LARGEST_ECDSA)]
    each = (large["ecdsa, quorum"] - small["ecdsa, quorum"]) / (
        large["threshold"] - small["threshold"]
    )
    absent = (large["bls, quorum"] - large["bls, all"]) / (LARGEST_ECDSA - large["threshold"])
    late, early = crossover(figures, "quorum"), crossover(figures, "all")
    most = figures[str(MAX_BLS_MEMBERS)]["bls, creation"]
    parts = (
        "# Committees: ECDSA or BLS",
        _filled(
            """
            Written by `make bench` from `tests/bench/committee.json`, which `tests/bench` compares
            with new measurements, to the unit.
            """
        ),
        _filled(
            f"""
            **Take `BlsCommittee` from {late} members (M = {threshold_of(late)}) on, and
            `EcdsaCommittee` below.** With M two thirds of N, rounded up, BLS is cheaper from
            N = {late} on even when no more than M sign, and from N = {early}
            (M = {threshold_of(early)}) on when all do. An ECDSA signature takes
            {each:,.0f} gas, calldata and the walk to its signer included. A BLS committee's are
            {large["bls, all"]:,} whatever N is, and {absent:,.0f} more for each absent member.
            """
        ),
        _filled(
            """
            Measured on anvil with the Osaka rules: the gas used by a transaction that calls
            `is_signed`, with its calldata. A registry in between adds the same to both. Signers are
            the dearest choice: the last members with ECDSA, the first with BLS. The digest is one
            that takes two tries to hash to a point, as one does on average; each try more or less
            is about 4,700 gas, nearly all of it for the square root (EIP-7883).
            """
        ),
        "\n".join(f"| {' | '.join(line)} |" for line in _lines(figures)),
        _filled(
            f"""
            The last column says how often a quorum has to sign before what BLS saves has paid for
            the dearer creation. A creation takes both groups' keys and checks each member's proof
            by a pairing; at {MAX_BLS_MEMBERS} members it is {most:,} of the 16,777,216 gas that a
            transaction may use (EIP-7825), so few more would fit. ECDSA ends
            where {MAX_ECDSA_THRESHOLD} must sign, with 2,080 bytes of signatures; a registry and
            the vault take no more.
            """
        ),
        _filled(
            """
            Gas is not all. BN254 is thought to give about 100 bits of strength, secp256k1 128, and
            a wallet shows an operator what it signs only with EIP-712 and ECDSA. So take BLS for
            its price, where the committee is large, and not otherwise.
            """
        ),
    )
    return "\n\n".join(parts) + "\n"


def committee_table(figures: Figures) -> Table:
    """The table as a terminal shows it."""
    header, _, *lines = _lines(figures)
    found = Table(title="Gas of a committee's signatures", title_justify="left")
    for column in header:
        found.add_column(column, justify="right")
    for line in lines:
        found.add_row(*line)
    return found


def _lines(figures: Figures) -> Iterator[Sequence[str]]:
    yield (
        "N",
        "M",
        "ECDSA, M sign",
        "BLS, M sign",
        "BLS, all sign",
        "ECDSA, creation",
        "BLS, creation",
        "repaid after",
    )
    yield ("---:",) * 8
    for size, found in figures.items():
        cells = (
            "ecdsa, quorum",
            "bls, quorum",
            "bls, all",
            "ecdsa, creation",
            "bls, creation",
        )
        gas = [f"{found[cell]:,}" if cell in found else "–" for cell in cells]
        yield (size, str(found["threshold"]), *gas, _repaid(found))


def _repaid(found: Mapping[str, int]) -> str:
    if "ecdsa, quorum" not in found or found["bls, quorum"] >= found["ecdsa, quorum"]:
        return "–"
    dearer = found["bls, creation"] - found["ecdsa, creation"]
    return f"{-(-dearer // (found['ecdsa, quorum'] - found['bls, quorum'])):,}"


def _filled(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), 100, break_on_hyphens=False)
