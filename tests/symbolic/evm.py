"""Runtime bytecode, run on symbols: every path that a call can take, with what it answers.

Words are Python integers where they are known. Where not, `Bits` keeps them as 256-bit vectors,
which suits shifts and masks, and `Integers` as unbounded integers with an upper bound, which suits
products and quotients; an operation that could wrap around has no meaning there and is refused.
Only what pure functions with arguments of a fixed size need is here: no storage, no calls.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import z3

SIZE = 2**256
MASK = SIZE - 1
MAX_STEPS = 20_000

THEN_SHIFT_TO_SELECTOR = bytes([0x60, 0xE0, 0x1C])  # PUSH1 224 SHR


class Unsupported(AssertionError):
    """The bytecode does something for which this interpreter has no meaning."""


class Bits:
    """Words as 256-bit vectors."""

    def variable(self, name: str, bits: int = 256) -> Any:
        """A word that is known to be below 2^bits."""
        return z3.ZeroExt(256 - bits, z3.BitVec(name, bits)) if bits < 256 else z3.BitVec(name, 256)

    def term(self, word: Any) -> Any:
        """A word as a z3 term."""
        return z3.BitVecVal(word, 256) if isinstance(word, int) else word

    def apply(self, name: str, *operands: Any) -> Any:
        """What the operation makes of words, the top of the stack first."""
        a, b = (self.term(word) for word in (*operands, 0)[:2])
        made: dict[str, Callable[[], Any]] = {
            "ADD": lambda: a + b,
            "SUB": lambda: a - b,
            "MUL": lambda: a * b,
            "AND": lambda: a & b,
            "OR": lambda: a | b,
            "XOR": lambda: a ^ b,
            "NOT": lambda: ~a,
            "SHL": lambda: b << a,
            "SHR": lambda: z3.LShR(b, a),
            "LT": lambda: self._flag(z3.ULT(a, b)),
            "GT": lambda: self._flag(z3.UGT(a, b)),
            "EQ": lambda: self._flag(a == b),
            "ISZERO": lambda: self._flag(a == 0),
        }
        if name not in made:
            raise Unsupported(f"{name} of bit-vectors")
        return made[name]()

    def _flag(self, condition: Any) -> Any:
        return z3.If(condition, z3.BitVecVal(1, 256), z3.BitVecVal(0, 256))


class Integers:
    """Words as non-negative integers, each with a bound that it cannot exceed."""

    def __init__(self) -> None:
        self._bounds: dict[int, int] = {}
        self._products: dict[int, tuple[Any, Any]] = {}
        self._kept: list[Any] = []  # so that no id is used twice
        self.facts: list[Any] = []

    def variable(self, name: str, bits: int = 256) -> Any:
        """A word that is known to be below 2^bits."""
        made = z3.Int(name)
        self.facts += [made >= 0, made < 2**bits]
        return self._bounded(made, 2**bits - 1)

    def term(self, word: Any) -> Any:
        """A word as a z3 term."""
        return z3.IntVal(word) if isinstance(word, int) else word

    def bound(self, word: Any) -> int:
        """What a word cannot exceed."""
        return word if isinstance(word, int) else self._bounds[word.get_id()]

    def _bounded(self, term: Any, bound: int) -> Any:
        if bound >= SIZE:
            raise Unsupported("the sum or product could exceed a word")
        self._bounds[term.get_id()] = bound
        self._kept.append(term)
        return term

    def apply(self, name: str, *operands: Any) -> Any:
        """What the operation makes of words, the top of the stack first."""
        (x, y) = (*operands, 0)[:2]
        a, b, high, other = self.term(x), self.term(y), self.bound(x), self.bound(y)
        match name:
            case "ADD":
                return self._bounded(a + b, high + other)
            case "SUB":
                return self._bounded(z3.If(a >= b, a - b, a - b + SIZE), MASK)
            case "MUL":
                product = self._bounded(a * b, high * other)
                self._products[product.get_id()] = (a, b)
                return product
            case "DIV" if isinstance(y, int) and y:
                return self._bounded(a / b, high // y)
            case "DIV" if (factors := self._products.get(a.get_id())) is not None:
                # a product that cannot wrap, divided by one of its factors
                rest = [f for f, g in (factors, factors[::-1]) if g.eq(b)]
                if rest:
                    return self._bounded(z3.If(b == 0, 0, rest[0]), self.bound(rest[0]))
            case "LT":
                return self._flag(a < b)
            case "GT":
                return self._flag(a > b)
            case "EQ":
                return self._flag(a == b)
            case "ISZERO":
                return self._flag(a == 0)
            case "OR" if high <= 1 and other <= 1:
                return self._flag(a + b != 0)
            case "AND" if high <= 1 and other <= 1:
                return self._flag(a + b == 2)
        raise Unsupported(f"{name} of integers")

    def _flag(self, condition: Any) -> Any:
        return self._bounded(z3.If(condition, z3.IntVal(1), z3.IntVal(0)), 1)


def _known(name: str, *operands: int) -> int:
    a, b = (*operands, 0)[:2]
    match name:
        case "ADD":
            made = a + b
        case "SUB":
            made = a - b
        case "MUL":
            made = a * b
        case "DIV":
            made = a // b if b else 0
        case "MOD":
            made = a % b if b else 0
        case "AND":
            made = a & b
        case "OR":
            made = a | b
        case "XOR":
            made = a ^ b
        case "NOT":
            made = ~a
        case "SHL":
            made = b << a if a < 256 else 0
        case "SHR":
            made = b >> a
        case "LT":
            made = int(a < b)
        case "GT":
            made = int(a > b)
        case "EQ":
            made = int(a == b)
        case "ISZERO":
            made = int(a == 0)
    return made & MASK


OPERATIONS = {
    0x01: ("ADD", 2),
    0x02: ("MUL", 2),
    0x03: ("SUB", 2),
    0x04: ("DIV", 2),
    0x06: ("MOD", 2),
    0x10: ("LT", 2),
    0x11: ("GT", 2),
    0x14: ("EQ", 2),
    0x15: ("ISZERO", 1),
    0x16: ("AND", 2),
    0x17: ("OR", 2),
    0x18: ("XOR", 2),
    0x19: ("NOT", 1),
    0x1B: ("SHL", 2),
    0x1C: ("SHR", 2),
}


@dataclass
class Path:
    """One way through the code: what must be so for it to be taken, and how it ends."""

    conditions: list[Any] = field(default_factory=list)
    reverted: bool = False
    output: list[Any] = field(default_factory=list)


@dataclass
class _Frame:
    pc: int
    stack: list[Any]
    # byte offset -> a known byte, or a word and which of its bytes
    memory: dict[int, Any]
    conditions: list[Any]
    steps: int = 0

    def load(self, offset: int) -> Any:
        cells = [self.memory.get(offset + i, 0) for i in range(32)]
        if all(isinstance(cell, int) for cell in cells):
            return int.from_bytes(bytes(cells), "big")
        word = cells[0][0] if isinstance(cells[0], tuple) else None
        if word is None or any(
            not isinstance(cell, tuple) or cell[0] is not word or cell[1] != i
            for i, cell in enumerate(cells)
        ):
            raise Unsupported("a load across symbolic words")
        return word

    def store(self, offset: int, word: Any) -> None:
        cells = (
            word.to_bytes(32, "big") if isinstance(word, int) else [(word, i) for i in range(32)]
        )
        self.memory.update({offset + i: cell for i, cell in enumerate(cells)})


@dataclass
class Machine:
    """A contract's runtime code and the algebra in which its words live."""

    code: bytes
    words: Bits | Integers

    def call(
        self, selector: bytes, arguments: Sequence[Any], given: Sequence[Any] = ()
    ) -> list[Path]:
        """Every path of a call whose arguments are words, under what is given."""
        solver = z3.Solver()
        solver.add(*given)
        pending, done = [_Frame(0, [], {}, [])], []
        while pending:
            self._run(pending.pop(), selector, arguments, pending, done, solver)
        return done

    def _run(
        self,
        frame: _Frame,
        selector: bytes,
        arguments: Sequence[Any],
        pending: list[_Frame],
        done: list[Path],
        solver: z3.Solver,
    ) -> None:
        code, stack = self.code, frame.stack
        while True:
            frame.steps += 1
            if frame.steps > MAX_STEPS:
                raise Unsupported("a path without an end")
            opcode = code[frame.pc] if frame.pc < len(code) else 0
            frame.pc += 1
            if opcode in OPERATIONS:
                name, count = OPERATIONS[opcode]
                operands = [stack.pop() for _ in range(count)]
                known = all(isinstance(word, int) for word in operands)
                stack.append(
                    _known(name, *operands) if known else self.words.apply(name, *operands)
                )
            elif 0x5F <= opcode <= 0x7F:  # PUSH
                length = opcode - 0x5F
                stack.append(int.from_bytes(code[frame.pc : frame.pc + length], "big"))
                frame.pc += length
            elif 0x80 <= opcode <= 0x8F:  # DUP
                stack.append(stack[0x7F - opcode])
            elif 0x90 <= opcode <= 0x9F:  # SWAP
                n = opcode - 0x8E
                stack[-1], stack[-n] = stack[-n], stack[-1]
            elif opcode == 0x50:  # POP
                stack.pop()
            elif opcode == 0x5B:  # JUMPDEST
                pass
            elif opcode == 0x34:  # CALLVALUE
                stack.append(0)
            elif opcode == 0x36:  # CALLDATASIZE
                stack.append(4 + 32 * len(arguments))
            elif opcode == 0x35:  # CALLDATALOAD
                stack.append(self._calldata(frame, stack.pop(), selector, arguments))
            elif opcode == 0x37:  # CALLDATACOPY
                to, source, length = stack.pop(), stack.pop(), stack.pop()
                for i in range(0, length, 32):
                    frame.store(to + i, self._argument(source + i, arguments))
            elif opcode == 0x39:  # CODECOPY
                to, source, length = stack.pop(), stack.pop(), stack.pop()
                for i in range(length):
                    frame.memory[to + i] = code[source + i]
            elif opcode == 0x5E:  # MCOPY
                to, source, length = stack.pop(), stack.pop(), stack.pop()
                moved = [frame.memory.get(source + i, 0) for i in range(length)]
                frame.memory.update({to + i: cell for i, cell in enumerate(moved)})
            elif opcode == 0x51:  # MLOAD
                stack.append(frame.load(stack.pop()))
            elif opcode == 0x52:  # MSTORE
                frame.store(stack.pop(), stack.pop())
            elif opcode == 0x56:  # JUMP
                frame.pc = stack.pop()
            elif opcode == 0x57:  # JUMPI
                target, condition = stack.pop(), stack.pop()
                if isinstance(condition, int):
                    frame.pc = target if condition else frame.pc
                    continue
                taken = self.words.term(condition) != 0
                for pc, holds in ((target, taken), (frame.pc, z3.Not(taken))):
                    conditions = [*frame.conditions, holds]
                    if solver.check(*conditions) != z3.unsat:
                        pending.append(
                            _Frame(pc, list(stack), dict(frame.memory), conditions, frame.steps)
                        )
                return
            elif opcode == 0xF3:  # RETURN
                offset, length = stack.pop(), stack.pop()
                output = [frame.load(offset + i) for i in range(0, length, 32)]
                done.append(Path(frame.conditions, output=output))
                return
            elif opcode == 0x00:  # STOP
                done.append(Path(frame.conditions))
                return
            elif opcode in (0xFD, 0xFE):  # REVERT, INVALID
                done.append(Path(frame.conditions, reverted=True))
                return
            else:
                raise Unsupported(f"opcode {opcode:#x}")

    def _calldata(
        self, frame: _Frame, offset: int, selector: bytes, arguments: Sequence[Any]
    ) -> Any:
        if offset:
            return self._argument(offset, arguments)
        if self.code[frame.pc : frame.pc + 3] != THEN_SHIFT_TO_SELECTOR:
            raise Unsupported("more of the first word than the selector")
        return int.from_bytes(selector, "big") << 224

    def _argument(self, offset: int, arguments: Sequence[Any]) -> Any:
        index, rest = divmod(offset - 4, 32)
        if rest:
            raise Unsupported("a load across arguments")
        return arguments[index] if index < len(arguments) else 0
