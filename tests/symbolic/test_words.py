"""What the packed words promise, proven on compiled code for all values at once.

Each property is a function of a harness that returns a counterexample, or None where z3 has shown
that there is none. Every property is also seen to fail on a contract that is broken on purpose.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import boa
import pytest
import z3
from boa.contracts.abi.abi_contract import ABIContractFactory
from symbolic.evm import Bits, Integers, Machine, Path
from symbolic.harness import (
    EARNINGS,
    ESCROW,
    JOB,
    NODE,
    REGISTRY,
    SHARES,
    VAULT,
    WORDS,
    Edit,
    Harness,
    harness,
)

JOB_BITS = dict(zip(JOB, (3, 1, 22, 24, 22, 46, 46, 46, 46), strict=True))
NODE_BITS = dict(zip(NODE, (56, 56, 56, 24, 22, 42), strict=True))
MAX_OWED = 2**56 - 1

Counterexample = str | None


def call(
    harness: Harness, words: Bits | Integers, name: str, arguments: Sequence[Any], *given: Any
) -> list[Path]:
    """All paths of a call of the harness."""
    return Machine(harness.code, words).call(harness.selectors[name], arguments, given)


def refute(given: Sequence[Any], claimed: Any) -> Counterexample:
    """Values under which what is claimed does not hold, as text."""
    solver = z3.Solver()
    solver.set("timeout", 60_000)
    solver.add(*given, z3.Not(claimed))
    answer = solver.check()
    assert answer != z3.unknown, solver.reason_unknown()
    return str(solver.model()) if answer == z3.sat else None


def refute_paths(
    paths: Sequence[Path], given: Sequence[Any], claimed: Callable[[list[Any]], Any]
) -> Counterexample:
    """The same for what a call answers, on every path; a revert counts against it."""
    assert paths
    assert z3.Solver().check(*given) != z3.unsat, "what is given contradicts itself"
    for path in paths:
        holds = z3.BoolVal(False) if path.reverted else claimed(path.output)
        if found := refute([*given, *path.conditions], holds):
            return found
    return None


def fields(words: Bits, bits: Mapping[str, int], prefix: str = "") -> dict[str, Any]:
    """A struct's fields, each anything that its bits hold."""
    return {name: words.variable(prefix + name, width) for name, width in bits.items()}


def equal(found: Sequence[Any], expected: Sequence[Any]) -> Any:
    """Whether words are the same, one by one."""
    return z3.And(*(a == b for a, b in zip(found, expected, strict=True)))


def unpacked(harness: Harness, kind: str, word: Any) -> list[Any]:
    """The fields of a packed word, by the contract's own code."""
    (path,) = call(harness, Bits(), f"unpack_{kind}", [word])
    assert not path.reverted
    return path.output


def packed(harness: Harness, kind: str, values: Mapping[str, Any]) -> Any:
    """The word of fields, by the contract's own code."""
    (path,) = call(harness, Bits(), f"pack_{kind}", list(values.values()))
    (word,) = path.output
    return word


# properties


def job_fields_survive_packing(harness: Harness) -> Counterexample:
    job = fields(Bits(), JOB_BITS)
    found = unpacked(harness, "job", packed(harness, "job", job))
    return refute([], equal(found, list(job.values())))


def job_words_survive_unpacking(harness: Harness) -> Counterexample:
    word = Bits().variable("word")
    found = dict(zip(JOB, unpacked(harness, "job", word), strict=True))
    return refute([], packed(harness, "job", found) == word)


def earnings_fields_survive_packing(harness: Harness) -> Counterexample:
    earnings = fields(Bits(), NODE_BITS)
    found = unpacked(harness, "earnings", packed(harness, "earnings", earnings))
    return refute([], equal(found, list(earnings.values())))


def earnings_words_survive_unpacking(harness: Harness) -> Counterexample:
    word = Bits().variable("word")
    found = dict(zip(NODE, unpacked(harness, "earnings", word), strict=True))
    return refute([], packed(harness, "earnings", found) == word)


def rolled_job(job: Mapping[str, Any], period: Any) -> list[Any]:
    """The job at a later period, as its docstring has it."""
    stays, next_one = period == job["period"], period == job["period"] + 1
    return [
        job["state"],
        job["sponsored"],
        job["node_id"],
        job["version"],
        period,
        z3.If(stays, job["earlier"], z3.If(next_one, job["fresh"], 0)),
        z3.If(stays, job["fresh"], 0),
        job["paid"],
        job["funded"],
    ]


def rolling_a_job_forgets_only_what_has_matured(harness: Harness) -> Counterexample:
    words = Bits()
    job, period = fields(words, JOB_BITS), words.variable("now", 22)
    given = [z3.UGE(period, job["period"]), z3.ULE(job["fresh"] + job["earlier"], job["paid"])]
    return refute_paths(
        call(harness, words, "roll_job", [*job.values(), period], *given),
        given,
        lambda found: z3.And(
            equal(found, rolled_job(job, period)),
            z3.ULE(found[JOB.index("fresh")] + found[JOB.index("earlier")], job["paid"]),
        ),
    )


def rolling_earnings_loses_nothing(harness: Harness) -> Counterexample:
    words = Bits()
    node, period = fields(words, NODE_BITS), words.variable("now", 22)
    total = node["matured"] + node["fresh"] + node["earlier"]
    given = [z3.UGE(period, node["period"]), z3.ULE(total, MAX_OWED)]
    stays, next_one = period == node["period"], period == node["period"] + 1

    def claimed(found: list[Any]) -> Any:
        matured, fresh, earlier, *rest = found
        return z3.And(
            matured + fresh + earlier == total,
            fresh == z3.If(stays, node["fresh"], 0),
            earlier == z3.If(stays, node["earlier"], z3.If(next_one, node["fresh"], 0)),
            equal(rest, [node["version"], period, node["disputes"]]),
        )

    paths = call(harness, words, "roll_earnings", [*node.values(), period], *given)
    return refute_paths(paths, given, claimed)


def a_job_rolls_as_its_node_does(harness: Harness) -> Counterexample:
    """So that a dispute never takes from a node what its job no longer has, or takes too much."""
    words = Bits()
    job, node = fields(words, JOB_BITS), fields(words, NODE_BITS, "node ")
    period = words.variable("now", 22)
    given = [
        z3.UGE(period, job["period"]),
        job["period"] == node["period"],
        z3.ULE(job["fresh"], node["fresh"]),
        z3.ULE(job["earlier"], node["earlier"]),
        z3.ULE(node["matured"] + node["fresh"] + node["earlier"], MAX_OWED),
    ]
    ours = call(harness, words, "roll_job", [*job.values(), period], *given)
    theirs = call(harness, words, "roll_earnings", [*node.values(), period], *given)
    for path in ours:
        found = {name: words.term(word) for name, word in zip(JOB, path.output, strict=True)}
        if counterexample := refute_paths(
            theirs,
            [*given, *path.conditions],
            lambda node, job=found: z3.And(  # type: ignore[misc]
                z3.ULE(job["fresh"], words.term(node[1])),
                z3.ULE(job["earlier"], words.term(node[2])),
            ),
        ):
            return counterexample
    return None


def paid_job(harness: Harness, function: str, *grows: str) -> Counterexample:
    """That an amount within the job's funds adds to these fields and reaches no other."""
    words = Bits()
    job, amount = fields(words, JOB_BITS), words.variable("amount")
    given = [
        z3.ULE(job["paid"], job["funded"]),
        z3.ULE(amount, job["funded"] - job["paid"]),
        z3.ULE(job["fresh"] + job["earlier"], job["paid"]),
    ]
    expected = [value + (amount if name in grows else 0) for name, value in job.items()]
    (path,) = call(harness, words, function, [packed(harness, "job", job), amount])
    found = dict(zip(JOB, unpacked(harness, "job", path.output[0]), strict=True))
    return refute(
        given,
        z3.And(
            equal(list(found.values()), expected),
            z3.ULE(found["paid"], found["funded"]),
            z3.ULE(found["fresh"] + found["earlier"], found["paid"]),
        ),
    )


def paying_at_once_adds_to_paid_alone(harness: Harness) -> Counterexample:
    return paid_job(harness, "job_paid_at_once", "paid")


def paying_fresh_adds_to_paid_and_fresh_alone(harness: Harness) -> Counterexample:
    return paid_job(harness, "job_paid_fresh", "paid", "fresh")


def paid_node(harness: Harness, function: str, grows: str) -> Counterexample:
    """That an amount which the vault can owe adds to this field and reaches no other."""
    words = Bits()
    node, amount = fields(words, NODE_BITS), words.variable("amount")
    total = node["matured"] + node["fresh"] + node["earlier"]
    given = [z3.ULE(total, MAX_OWED), z3.ULE(amount, MAX_OWED - total)]
    expected = [value + (amount if name == grows else 0) for name, value in node.items()]
    (path,) = call(harness, words, function, [packed(harness, "earnings", node), amount])
    return refute(given, equal(unpacked(harness, "earnings", path.output[0]), expected))


def paying_a_node_at_once_adds_to_matured_alone(harness: Harness) -> Counterexample:
    return paid_node(harness, "node_paid_at_once", "matured")


def paying_a_node_fresh_adds_to_fresh_alone(harness: Harness) -> Counterexample:
    return paid_node(harness, "node_paid_fresh", "fresh")


def counters_and_prices_that_pass_fit_64_bits(harness: Harness) -> Counterexample:
    words = Bits()
    claim = [words.variable(f"claim {i}") for i in range(15)]
    records, epochs, complete = claim[8], claim[9], claim[12]
    order = [words.variable(f"order {i}") for i in range(10)]
    fits = [z3.ULT(word, 2**64) for word in (records, epochs)]
    return refute_paths(
        call(harness, words, "malformed", claim),
        [],
        lambda found: (found[0] == 0) == z3.And(*fits, z3.ULE(complete, 1)),
    ) or refute_paths(
        call(harness, words, "price_in_range", order),
        [],
        lambda found: (found[0] != 0) == z3.And(*(z3.ULT(price, 2**64) for price in order[1:3])),
    )


def what_is_earned_does_not_overflow(harness: Harness) -> Counterexample:
    words = Integers()
    claim: list[Any] = [0] * 15
    for i in (2, 3, 8, 9):
        claim[i] = words.variable(f"factor {i}", 64)
    # a product or sum that could exceed a word would be refused as unsupported
    paths = call(harness, words, "earned", claim, *words.facts)
    expected = claim[8] * claim[2] + claim[9] * claim[3]
    return refute_paths(paths, words.facts, lambda found: found[0] == expected)


def a_split_sums_exactly(harness: Harness) -> Counterexample:
    """For all shares that governance can set; the hospital keeps at least half and the rounding."""
    words = Integers()
    amount = words.variable("amount", 56)
    shares = [words.variable(name, 16) for name in SHARES]
    allowed = [
        path
        for path in call(harness, words, "allow_shares", shares, *words.facts)
        if not path.reverted
    ]
    assert allowed
    for path in allowed:
        given = [*words.facts, *path.conditions]
        # a product of what is not negative, which z3 multiplies out from here on
        half = 5_000 * amount - sum(amount * share for share in shares)
        if found := refute(given, amount * (5_000 - sum(shares)) >= 0):
            return found
        given.append(half >= 0)

        def claimed(amounts: list[Any]) -> Any:
            hospital, *others = amounts
            return z3.And(
                hospital + sum(others) == amount,
                2 * hospital >= amount,
                *(
                    z3.And(10_000 * part <= amount * share, 10_000 * (part + 1) > amount * share)
                    for part, share in zip(others, shares, strict=True)
                ),
            )

        paths = call(harness, words, "split", [amount, 1, 2, 3, 4, *shares], *given)
        if found := refute_paths(paths, given, claimed):
            return found
    return None


PROPERTIES = (
    job_fields_survive_packing,
    job_words_survive_unpacking,
    earnings_fields_survive_packing,
    earnings_words_survive_unpacking,
    rolling_a_job_forgets_only_what_has_matured,
    rolling_earnings_loses_nothing,
    a_job_rolls_as_its_node_does,
    paying_at_once_adds_to_paid_alone,
    paying_fresh_adds_to_paid_and_fresh_alone,
    paying_a_node_at_once_adds_to_matured_alone,
    paying_a_node_fresh_adds_to_fresh_alone,
    counters_and_prices_that_pass_fit_64_bits,
    what_is_earned_does_not_overflow,
    a_split_sums_exactly,
)

ROLL_JOB = "rolled.earlier = job.fresh if period == job.period + 1 else 0"

# a property, and a mistake that it must find
BROKEN: tuple[tuple[Callable[[Harness], Counterexample], Edit], ...] = (
    (
        job_fields_survive_packing,
        (WORDS, "FRESH: constant(uint256) = 92", "FRESH: constant(uint256) = 91"),
    ),
    (job_fields_survive_packing, (WORDS, "(word >> PAID) & MASK_46", "(word >> PAID) & MASK_56")),
    (
        job_words_survive_unpacking,
        (WORDS, "MASK_46: constant(uint256) = 2**46", "MASK_46: constant(uint256) = 2**45"),
    ),
    (
        earnings_fields_survive_packing,
        (WORDS, "NODE_EARLIER: constant(uint256) = 88", "NODE_EARLIER: constant(uint256) = 89"),
    ),
    (
        earnings_words_survive_unpacking,
        (WORDS, "MASK_42: constant(uint256) = 2**42", "MASK_42: constant(uint256) = 2**41"),
    ),
    (
        rolling_a_job_forgets_only_what_has_matured,
        (WORDS, ROLL_JOB, ROLL_JOB.replace("+ 1", "+ 2")),
    ),
    (
        rolling_earnings_loses_nothing,
        (WORDS, "rolled.matured += earnings.fresh", "rolled.matured += 0"),
    ),
    (
        rolling_earnings_loses_nothing,
        (WORDS, "rolled.matured += earnings.earlier", "rolled.matured += earnings.fresh"),
    ),
    (
        a_job_rolls_as_its_node_does,
        (WORDS, "rolled.earlier = earnings.fresh", "rolled.matured += earnings.fresh"),
    ),
    (
        paying_at_once_adds_to_paid_alone,
        (
            VAULT,
            "unsafe_add(job_word, amount << words.PAID)",
            "unsafe_add(job_word, amount << words.FRESH)",
        ),
    ),
    (
        paying_fresh_adds_to_paid_and_fresh_alone,
        (
            VAULT,
            "amount << words.PAID | amount << words.FRESH",
            "amount << words.PAID | amount << words.EARLIER",
        ),
    ),
    (
        paying_fresh_adds_to_paid_and_fresh_alone,
        (WORDS, "PAID: constant(uint256) = 46", "PAID: constant(uint256) = 45"),
    ),
    (
        paying_a_node_at_once_adds_to_matured_alone,
        (VAULT, "amount << words.MATURED", "amount << words.NODE_FRESH + 1"),
    ),
    (
        paying_a_node_fresh_adds_to_fresh_alone,
        (WORDS, "NODE_FRESH: constant(uint256) = 144", "NODE_FRESH: constant(uint256) = 145"),
    ),
    (
        counters_and_prices_that_pass_fit_64_bits,
        (VAULT, "(claim.records | claim.epochs) >> 64", "(claim.records & claim.epochs) >> 64"),
    ),
    (
        counters_and_prices_that_pass_fit_64_bits,
        (ESCROW, "order.price_per_epoch) >> 64", "order.price_per_epoch) >> 65"),
    ),
    (
        what_is_earned_does_not_overflow,
        (
            VAULT,
            "unsafe_mul(claim.epochs, claim.terms[3])",
            "unsafe_mul(claim.epochs, claim.terms[2])",
        ),
    ),
    (a_split_sums_exactly, (WORDS, "// 10_000", "// 1_000")),
    (
        a_split_sums_exactly,
        (EARNINGS, "amount - node_owner_amount - onboarder_amount", "amount - node_owner_amount"),
    ),
    (
        a_split_sums_exactly,
        (
            REGISTRY,
            "MIN_HOSPITAL_BPS: constant(uint256) = 5_000",
            "MIN_HOSPITAL_BPS: constant(uint256) = 4_000",
        ),
    ),
)


@pytest.mark.parametrize("proof", PROPERTIES, ids=lambda proof: proof.__name__)
def test_property_holds_for_all_values(proof: Callable[[Harness], Counterexample]) -> None:
    assert proof(harness()) is None


@pytest.mark.parametrize(
    ("proof", "edit"), BROKEN, ids=[f"{proof.__name__}: {edit[2]}" for proof, edit in BROKEN]
)
def test_property_is_refuted_where_the_contract_is_broken(
    proof: Callable[[Harness], Counterexample], edit: Edit
) -> None:
    assert proof(harness(edit)) is not None


def test_every_property_is_seen_to_fail() -> None:
    assert {proof for proof, _ in BROKEN} == set(PROPERTIES)


def test_a_product_that_could_overflow_is_refused() -> None:
    words = Integers()
    with pytest.raises(AssertionError, match="could exceed a word"):
        words.apply("MUL", words.variable("a", 128), words.variable("b", 129))


# the interpreter itself


def calls(harness: Harness, seed: int) -> Iterator[tuple[str, list[int]]]:
    """For each function arguments small, large and in between."""
    source = random.Random(seed)
    for entry in harness.abi:
        sizes = [c for i in entry["inputs"] for c in leaves(i)]
        for _ in range(20):
            yield (
                entry["name"],
                [
                    source.choice(
                        [0, 1, source.getrandbits(16), source.getrandbits(bits), 2**bits - 1]
                    )
                    if bits < 256
                    else source.choice(
                        [0, 1, 2**64 - 1, source.getrandbits(64), source.getrandbits(256)]
                    )
                    for bits in sizes
                ],
            )


def leaves(entry: dict[str, Any]) -> list[int]:
    """Bits of each word of an argument."""
    kind = entry["type"]
    if kind == "tuple":
        return [bits for c in entry["components"] for bits in leaves(c)]
    if kind.endswith("]"):
        return [256] * int(kind.split("[")[1][:-1])
    return [160 if kind == "address" else 1 if kind == "bool" else 256]


def test_interpreter_agrees_with_the_evm_on_random_calls() -> None:
    made = harness()
    with boa.env.anchor():
        address, runtime = boa.env.deploy_code(bytecode=made.creation_code)[:2]
        assert runtime[: len(made.code)] == made.code
        contract = ABIContractFactory("Harness", made.abi).at(address)
        endings = set()
        for name, arguments in calls(made, 1):
            (path,) = call(made, Bits(), name, arguments)
            data = made.selectors[name] + b"".join(word.to_bytes(32, "big") for word in arguments)
            computation = boa.env.execute_code(to_address=address, data=data, contract=contract)
            endings.add((name, computation.is_error))
            assert path.reverted == computation.is_error
            if not path.reverted:
                found = b"".join(word.to_bytes(32, "big") for word in path.output)
                assert found == computation.output
        assert {("split", True), ("split", False), ("allow_shares", True)} < endings
