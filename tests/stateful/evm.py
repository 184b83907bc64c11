"""A fast EVM for long histories: revm, calldata made by hand, and many views in one call.

Arguments are words, runs of words and dynamic tails. The digests made here are compared with those
of `settlement.eip712` by a test, so that a mistake in one of them cannot hide.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from coincurve import PrivateKey
from eth_abi import encode as abi_encode
from eth_utils import keccak, to_checksum_address
from hexbytes import HexBytes
from pyrevm import EVM, AccountInfo, BlockEnv

from settlement.contracts import artifact
from settlement.reverts import reason_of

START = 1_790_000_000
_REVERT = re.compile(r"Revert \{ gas_used: \d+, output: (0x[0-9a-f]*) \}")

# A contract that calls a list of views and returns their answers one after the other, or reverts
# when one of them does. Of each view its calldata has six words: target, length of the input,
# length of the answer, and the input in three. On the stack i is the position in the calldata and o
# where the next answer goes in memory, from 0x80 on; the input is at 0.
_READER = bytes.fromhex(
    "5f6080"  # i = 0, o = 0x80
    "5b368210601257"  # 0x03: while i < CALLDATASIZE go to 0x12
    "60809003"  # o - 0x80
    "6080f3fe"  # RETURN from 0x80
    "5b6060826060015f37"  # 0x12: CALLDATACOPY(0, i + 96, 96)
    "8160400135"  # length of the answer
    "81"  # where it goes
    "8360200135"  # length of the input
    "5f"  # where it is
    "8535"  # target
    "5afa603157"  # STATICCALL; when it went well go to 0x31
    "5f5ffd"
    "5b816040013501"  # 0x31: o += length of the answer
    "9060c00190"  # i += 192
    "600356"
)
_READER_ADDRESS = "0x00000000000000000000000000000000000ea6e4"
_READER_CALLER = "0x00000000000000000000000000000000000ca11e"


def word(value: int) -> bytes:
    """An integer as a word."""
    return value.to_bytes(32, "big")


def words(*values: int) -> bytes:
    """Integers as words."""
    return b"".join([value.to_bytes(32, "big") for value in values])


class Actor:
    """An account with a key; the same name is always the same key."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.key = PrivateKey(keccak(b"rapha test actor " + name.encode()))
        public = self.key.public_key.format(compressed=False)[1:]
        self.address = to_checksum_address(keccak(public)[12:])
        self.number = int(self.address, 16)
        self.word = word(self.number)

    def sign(self, digest: bytes) -> bytes:
        """65 bytes r, s, v."""
        signature = self.key.sign_recoverable(digest, hasher=None)
        return signature[:64] + bytes([27 + signature[64]])


@cache
def actor(name: str) -> Actor:
    """The account of a role."""
    return Actor(name)


@dataclass(frozen=True)
class Tail:
    """A dynamic argument: its length or count, then its data."""

    count: int
    data: bytes

    @classmethod
    def of_bytes(cls, data: bytes) -> "Tail":
        return cls(len(data), data + bytes(-len(data) % 32))

    @classmethod
    def of_items(cls, items: Sequence[bytes]) -> "Tail":
        return cls(len(items), b"".join(items))


def arguments(*values: int | bytes | Tail) -> bytes:
    """The ABI encoding of words, runs of words and dynamic tails."""
    size = sum(len(value) if isinstance(value, bytes) else 32 for value in values)
    head, tails = [], b""
    for value in values:
        if isinstance(value, Tail):
            head.append(word(size + len(tails)))
            tails += word(value.count) + value.data
        else:
            head.append(value if isinstance(value, bytes) else word(value))
    return b"".join(head) + tails


@cache
def selectors(contract: str) -> dict[str, bytes]:
    """Each function's selector, by name; of overloads the first."""
    found: dict[str, bytes] = {}
    for entry in artifact(contract).abi:
        if entry["type"] == "function":
            kinds = ",".join(kind_of(i) for i in entry["inputs"])
            found.setdefault(entry["name"], keccak(f"{entry['name']}({kinds})".encode())[:4])
    return found


def kind_of(entry: dict[str, Any]) -> str:
    """An ABI entry's canonical type."""
    kind: str = entry["type"]
    if kind.startswith("tuple"):
        return f"({','.join(kind_of(c) for c in entry['components'])}){kind.removeprefix('tuple')}"
    return kind


def event_topic(entry: dict[str, Any]) -> bytes:
    """The first topic of an event's logs."""
    kinds = ",".join(kind_of(i) for i in entry["inputs"])
    return keccak(f"{entry['name']}({kinds})".encode())


class Contract:
    """A contract's address and selectors."""

    def __init__(self, name: str, address: str) -> None:
        self.name, self.address = name, to_checksum_address(address)
        self.number = int(address, 16)
        self.word = word(self.number)
        self._selectors = selectors(name)

    def data(self, function: str, *values: int | bytes | Tail) -> bytes:
        """Calldata."""
        return self._selectors[function] + arguments(*values)

    def view(self, function: str, answer: int, *values: int) -> bytes:
        """A view for `Chain.read`, whose answer has so many words."""
        data = self._selectors[function] + words(*values)
        return self.word + words(len(data), 32 * answer) + data + bytes(96 - len(data))


class Reverted(Exception):
    """A call reverted, with this reason; None where it gave none."""

    def __init__(self, reason: str | None) -> None:
        self.reason = reason
        super().__init__(reason)


class Chain:
    """An EVM with a clock. All logs are kept, with the time of their block."""

    def __init__(self, creation: dict[str, bytes] | None = None) -> None:
        """`creation` replaces the creation code of shipped contracts, by name."""
        self._evm = EVM(spec_id="CANCUN", gas_limit=2**53)
        self._creation = creation or {}
        self._blocks: list[tuple[int, list[Any]]] = []
        self.travel_to(START)
        self._evm.insert_account_info(_READER_ADDRESS, AccountInfo(code=_READER))

    def travel_to(self, second: int) -> None:
        """Set the clock."""
        self.now = second
        self._evm.set_block_env(BlockEnv(number=1, timestamp=second))

    def create(self, name: str, sender: Actor, *values: Any) -> Contract:
        """Deploy a shipped artifact."""
        built = artifact(name)
        code = self._creation.get(name, built.bytecode)
        inputs = [e for e in built.abi if e["type"] == "constructor"]
        kinds = [kind_of(i) for i in inputs[0]["inputs"]] if inputs else []
        address = self._evm.deploy(sender.address, code + abi_encode(kinds, values))
        self._keep_logs()
        return Contract(name, address)

    def nonce(self, sender: Actor) -> int:
        """The nonce of an account's next creation."""
        return int(self._evm.basic(sender.address).nonce)

    def call(self, sender: str, contract: Contract, data: bytes) -> bytes:
        """Send a transaction and return its answer.

        Raises:
            Reverted: when it reverts.
        """
        try:
            answer = self._evm.message_call(sender, contract.address, data)
        except RuntimeError as error:
            found = _REVERT.search(str(error))
            if found is None:
                raise
            raise Reverted(reason_of(found[1])) from None
        self._keep_logs()
        return bytes(answer)

    def read(self, views: bytes) -> bytes:
        """The answers of many views, one after the other."""
        return bytes(self._evm.message_call(_READER_CALLER, _READER_ADDRESS, views, is_static=True))

    def _keep_logs(self) -> None:
        self._blocks.append((self.now, self._evm.result.logs))

    def raw_logs(self) -> Iterator[tuple[int, int, int, Any]]:
        """Time, block, index in it, and revm's own log, of all logs so far."""
        for number, (time, logs) in enumerate(self._blocks):
            for index, log in enumerate(logs):
                yield time, number, index, log

    def logs(self) -> list[tuple[int, dict[str, Any]]]:
        """All logs so far as `eth_getLogs` gives them, each with its block's time."""
        return [
            (
                time,
                {
                    "address": to_checksum_address(log.address),
                    "topics": [HexBytes(topic) for topic in log.topics],
                    "data": HexBytes(log.data[1]),
                    "blockNumber": number,
                    "blockHash": HexBytes(bytes(32)),
                    "transactionHash": HexBytes(bytes(32)),
                    "transactionIndex": 0,
                    "logIndex": index,
                },
            )
            for time, number, index, log in self.raw_logs()
        ]
