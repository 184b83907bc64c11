"""The mutants of the contracts, as changes of their text. Nothing is run here."""

import ast
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
CONTRACTS = ROOT / "contracts"
ARTIFACTS = ROOT / "settlement" / "artifacts"

# what each operator becomes; an order both includes its bound or not, and turns round
COMPARISONS = {
    "==": ("!=",),
    "!=": ("==",),
    "<": ("<=", ">="),
    "<=": ("<", ">"),
    ">": (">=", "<="),
    ">=": (">", "<"),
    "in": ("not in",),
    "not in": ("in",),
}
OPERATORS = {
    "+": "-",
    "-": "+",
    "*": "//",
    "//": "*",
    "%": "*",
    "<<": ">>",
    ">>": "<<",
    "|": "&",
    "&": "|",
    "^": "&",
}
FUNCTIONS = {
    "unsafe_add": "unsafe_sub",
    "unsafe_sub": "unsafe_add",
    "unsafe_mul": "unsafe_add",
    "min": "max",
    "max": "min",
}

DROPPED = {
    ast.Assert: "check dropped",
    ast.Assign: "write dropped",
    ast.AugAssign: "write dropped",
    ast.Continue: "jump dropped",
}
# numbers that only say how long something may get
BOUNDS = ("bound", "max_outsize")


@dataclass(frozen=True)
class Mutant:
    """One change of one file. `begin` and `end` are where in its text."""

    file: str
    begin: int
    end: int
    new: str
    line: int
    # first and last line of the statement that it changes
    lines: tuple[int, int]
    # None where it changes a constant, or what holds for the whole file
    function: str | None
    kind: str

    def apply(self, source: str) -> str:
        """The file with the change."""
        return source[: self.begin] + self.new + source[self.end :]

    def texts(self, source: str) -> tuple[str, str]:
        """What is changed and into what, in one line each; the rest of its line with it."""
        start = source.rfind("\n", 0, self.begin) + 1
        stop = source.find("\n", self.end)
        before, after = source[start : self.begin], source[self.end : stop]
        old = source[self.begin : self.end]
        return _one_line(before + old + after), _one_line(before + self.new + after)

    def key(self, sources: dict[str, str]) -> str:
        """A name that changes with the mutant and with the code into which it goes."""
        old, new = self.texts(sources[self.file])
        codes = [shipped_code(contract).hex() for contract in contracts_with(self.file, sources)]
        parts = [self.file, str(self.line), str(self.begin), old, new, *codes]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def digest(sources: dict[str, str]) -> str:
    """Over all files and their names."""
    joined = "\0".join(f"{file}\0{text}" for file, text in sorted(sources.items()))
    return hashlib.sha256(joined.encode()).hexdigest()


def read_sources() -> dict[str, str]:
    """Path -> text of our contracts, modules and interfaces, without those for tests."""
    paths = (*CONTRACTS.glob("*.vy"), *CONTRACTS.glob("modules/*.vy"), *CONTRACTS.glob("*/*.vyi"))
    return {str(path.relative_to(ROOT)): path.read_text() for path in sorted(paths)}


@cache
def shipped_code(contract: str) -> bytes:
    """A contract's creation code as its artifact has it, without the compiler's note."""
    text = (ARTIFACTS / f"{Path(contract).stem}.json").read_text()
    return without_metadata(bytes.fromhex(json.loads(text)["bytecode"].removeprefix("0x")))


def without_metadata(bytecode: bytes) -> bytes:
    """Creation code without the compiler's note at its end, which holds a hash of the sources."""
    return bytecode[: -int.from_bytes(bytecode[-2:], "big")]


def contracts_with(file: str, sources: dict[str, str]) -> tuple[str, ...]:
    """The deployable contracts into which a file goes."""
    return tuple(
        sorted(
            path
            for path in sources
            if path.count("/") == 1 and file in {path, *_imported(path, sources)}
        )
    )


def _imported(file: str, sources: dict[str, str]) -> set[str]:
    found: set[str] = set()
    for package, name in re.findall(r"^from (contracts\.\w+) import (\w+)", sources[file], re.M):
        path = f"{package.replace('.', '/')}/{name}.vy"
        if path in sources:
            found |= {path, *_imported(path, sources)}
    return found


def parse(source: str) -> ast.Module:
    """Vyper as Python's parser takes it, with every character where it was."""
    same_length = (
        (r"^(struct|event) ", lambda found: "class ".ljust(len(found[0]))),
        (r"^( +)log ", lambda found: found[1] + "not "),
        (r"\b(extcall|staticcall) ", lambda found: "await".ljust(len(found[0]))),
        (r"^( +for \w+)(: [^\n]+?)(?= in )", lambda found: found[1] + " " * len(found[2])),
    )
    for pattern, replacement in same_length:
        source = re.sub(pattern, replacement, source, flags=re.M)
    return ast.parse(source)


def lines_of_constructors(sources: dict[str, str]) -> set[tuple[str, int]]:
    """(file, line) of all that creating a contract may run."""
    files = {Path(file).stem: file for file in sources if file.endswith(".vy")}
    bodies = {
        (file, function.name): function
        for file in files.values()
        for function in parse(sources[file]).body
        if isinstance(function, ast.FunctionDef)
    }
    reached: set[tuple[str, str]] = set()
    pending = [key for key in bodies if key[1] == "__init__"]
    while pending:
        key = pending.pop()
        if key in reached or key not in bodies:
            continue
        reached.add(key)
        for node in ast.walk(bodies[key]):
            if isinstance(node, ast.Call):
                owner, _, name = ast.unparse(node.func).rpartition(".")
                pending.append((key[0] if owner == "self" else files.get(owner, ""), name))
    return {
        (file, line)
        for file, name in reached
        for line in range(bodies[file, name].lineno, (bodies[file, name].end_lineno or 0) + 1)
    }


def lines_with_constant(file: str, line: int, sources: dict[str, str]) -> set[tuple[str, int]]:
    """(file, line) inside of functions where the constant declared at a line counts."""
    found: set[tuple[str, int]] = set()
    pending, seen = [(file, line)], set()
    while pending:
        place = pending.pop()
        if place in seen:
            continue
        seen.add(place)
        declared = re.match(r"\w+", sources[place[0]].splitlines()[place[1] - 1])
        if declared is None:
            continue
        module = Path(place[0]).stem
        for path, text in sources.items():
            name = declared[0] if path == place[0] else f"{module}.{declared[0]}"
            uses = re.compile(rf"(?<![\w.]){re.escape(name)}\b")
            for number, content in enumerate(text.splitlines(), 1):
                if uses.search(content.split("#")[0]):
                    (found.add if content[:1] == " " else pending.append)((path, number))
    return found


def mutants_of(file: str, source: str) -> list[Mutant]:
    """All mutants of a file, in its order."""
    unique = {(m.begin, m.end, m.new): m for m in _Maker(file, source).make()}
    return sorted(unique.values(), key=lambda m: (m.begin, m.end, m.new))


@dataclass(frozen=True)
class _Place:
    """The statement, or a compound one's head, that a mutant changes a part of."""

    node: ast.expr | ast.stmt
    function: str | None


@dataclass(frozen=True)
class _Maker:
    file: str
    source: str

    def make(self) -> Iterator[Mutant]:
        pragma = re.search(r"^# pragma nonreentrancy (on)$", self.source, re.M)
        if pragma:
            line = self.source.count("\n", 0, pragma.start()) + 1
            yield Mutant(self.file, *pragma.span(1), "off", line, (line, line), None, "reentrancy")
        for node in parse(self.source).body:
            if isinstance(node, ast.AnnAssign) and node.value is not None:
                yield from self._constant(node, node.value)
            elif isinstance(node, ast.FunctionDef):
                for decorator in node.decorator_list:
                    if isinstance(decorator, ast.Name) and decorator.id == "reentrant":
                        begin, end = self._span(decorator)
                        place = _Place(decorator, node.name)
                        yield self._mutant(begin - 1, end, "", place, "reentrancy")
                for statement in node.body:
                    yield from self._statement(statement, node.name)

    def _constant(self, declared: ast.AnnAssign, value: ast.expr) -> Iterator[Mutant]:
        place, numbers = _Place(declared, None), 0
        for node in ast.walk(value):
            if not isinstance(node, ast.expr):
                continue
            begin, end = self._span(node)
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield self._mutant(end - 1, end - 1, " ", place, "constant")
            elif isinstance(node, ast.Constant):
                if self.source[begin : begin + 2] == "0x":
                    new = "1" if self.source[end - 1] != "1" else "2"
                    yield self._mutant(end - 1, end, new, place, "constant")
                elif isinstance(node.value, int) and not numbers:
                    yield self._mutant(begin, end, str(node.value + 1), place, "constant")
                    numbers += 1
            elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
                yield from self._operation(node, place)

    def _statement(self, statement: ast.stmt, function: str) -> Iterator[Mutant]:
        place = _Place(statement, function)
        begin, end = self._span(statement)
        kind = DROPPED.get(type(statement))
        if isinstance(statement, ast.Expr):
            if isinstance(statement.value, ast.Constant):
                return
            is_log = self.source.startswith("log ", begin)
            kind = "event dropped" if is_log else "call dropped"
        elif isinstance(statement, ast.Return) and statement.value is None:
            kind = "jump dropped"
        if kind:
            yield self._mutant(begin, end, "pass", place, kind)
        match statement:
            case ast.If():
                yield self._negated(statement.test, place)
                yield from self._expressions(statement.test, _Place(statement.test, function))
                for nested in (*statement.body, *statement.orelse):
                    yield from self._statement(nested, function)
            case ast.For():
                yield from self._expressions(statement.iter, _Place(statement.iter, function))
                for nested in statement.body:
                    yield from self._statement(nested, function)
            case ast.AugAssign():
                after = self._span(statement.target)[1]
                at = self.source.index("=", after)
                operator = self.source[after:at].strip()
                new = OPERATORS[operator]
                yield self._mutant(at - len(operator), at, new, place, "arithmetic")
                yield from self._expressions(statement.target, place)
                yield from self._expressions(statement.value, place)
            case ast.AnnAssign():
                if statement.value is not None:
                    yield from self._expressions(statement.value, place)
            case ast.Assert():
                yield from self._expressions(statement.test, place)
            case _:
                yield from self._expressions(statement, place)

    def _expressions(self, root: ast.AST, place: _Place) -> Iterator[Mutant]:
        for node in _walk(root):
            match node:
                case ast.Compare():
                    begin, end, operator = self._between(node.left, node.comparators[0])
                    for new in COMPARISONS[operator]:
                        yield self._mutant(begin, end, new, place, "comparison")
                case ast.BinOp():
                    yield from self._operation(node, place)
                case ast.BoolOp():
                    for left, right in zip(node.values, node.values[1:], strict=False):
                        begin, end, word = self._between(left, right)
                        new = {"and": "or", "or": "and"}[word]
                        yield self._mutant(begin, end, new, place, "logic")
                case ast.Constant(value=bool()):
                    yield self._mutant(*self._span(node), str(not node.value), place, "constant")
                case ast.Constant(value=int(value)):
                    begin, end = self._span(node)
                    if self.source[begin : begin + 2] != "0x":
                        yield self._mutant(begin, end, str(value + 1), place, "constant")
                case ast.Call(func=ast.Name(id=name)) if name in FUNCTIONS:
                    yield self._mutant(*self._span(node.func), FUNCTIONS[name], place, "arithmetic")
                case ast.IfExp():
                    yield self._negated(node.test, place)

    def _operation(self, node: ast.BinOp, place: _Place) -> Iterator[Mutant]:
        begin, end, operator = self._between(node.left, node.right)
        if operator in OPERATORS:
            yield self._mutant(begin, end, OPERATORS[operator], place, "arithmetic")

    def _negated(self, test: ast.expr, place: _Place) -> Mutant:
        begin, end = self._span(test)
        new = f"not ({self.source[begin:end]})"
        return self._mutant(begin, end, new, place, "condition turned round")

    def _between(self, left: ast.expr, right: ast.expr) -> tuple[int, int, str]:
        """Where the operator between two operands is, parentheses and comments aside."""
        begin, end = self._span(left)[1], self._span(right)[0]
        gap = re.sub(r"#.*", lambda found: " " * len(found[0]), self.source[begin:end])
        found = re.search(r"not in|[^\s()]+", gap)
        assert found, f"no operator at {self.file}:{left.lineno}"
        return begin + found.start(), begin + found.end(), found[0]

    def _span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        starts = _line_starts(self.source)
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return (
            starts[node.lineno - 1] + node.col_offset,
            starts[node.end_lineno - 1] + node.end_col_offset,
        )

    def _mutant(self, begin: int, end: int, new: str, place: _Place, kind: str) -> Mutant:
        line = self.source.count("\n", 0, begin) + 1
        node = place.node
        lines = node.lineno, node.end_lineno or node.lineno
        return Mutant(self.file, begin, end, new, line, lines, place.function, kind)


def _walk(root: ast.AST) -> Iterator[ast.AST]:
    """All of an expression but its types and bounds."""
    yield root
    for child in ast.iter_child_nodes(root):
        if not (isinstance(child, ast.keyword) and child.arg in BOUNDS):
            yield from _walk(child)


@cache
def _line_starts(source: str) -> list[int]:
    return [0, *(found.end() for found in re.finditer("\n", source))]
