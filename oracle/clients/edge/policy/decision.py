"""From a gate's document to allow or deny.

Allow is one answer of many: the base rules say so plainly, and no rule of the hospital's denies.
"""

import json
import re
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from oracle.clients.edge.policy.digest import base_rules
from oracle.clients.edge.policy.engine import Engine, EvaluationFailed, Fault
from oracle.clients.edge.policy.hospital import HospitalRules
from oracle.clients.edge.policy.input import Gate, InputRefused, parse_input
from settlement.bundle import Framework, Network, TensorDtype

Source = Literal["base", "hospital", "input"]
INPUT_REFUSED = "input_refused"
UNNAMED = "unnamed"
_RULE = re.compile(r"[a-z][a-z0-9_]{0,63}")
PARAMETERS = frozenset({"have", "need", "framework", "dtype", "network"})
"""The names under which a denial may carry something."""
_MAX_PARAMETER = 1 << 62
_WORDS = frozenset((*get_args(TensorDtype), *get_args(Framework), *get_args(Network)))


@dataclass(frozen=True)
class Denial:
    """A rule's no.

    `parameters` are whole numbers and names of this product, so that they may leave the hospital;
    `detail` is for the hospital alone.
    """

    rule: str
    source: Source = "base"
    parameters: dict[str, int | str] = field(default_factory=dict)
    detail: str = ""


@dataclass(frozen=True)
class Decision:
    """Allowed exactly when nothing denies."""

    denials: tuple[Denial, ...]

    @property
    def allowed(self) -> bool:
        """Whether the gate opens."""
        return not self.denials

    @property
    def rules(self) -> frozenset[str]:
        """Which rules deny, those of the hospital as ``hospital.<id>``."""
        return frozenset(name_of(denial) for denial in self.denials)


def name_of(denial: Denial) -> str:
    """The rule's stable name in errors and logs."""
    return f"hospital.{denial.rule}" if denial.source == "hospital" else denial.rule


def decide(
    engine: Engine, data: bytes, hospital: HospitalRules, *, gate: Gate | None = None
) -> Decision:
    """Judge a gate's document, JSON: of `gate`, when one is named.

    Never raises for what is in the document or in the rules: whatever is wrong with them denies.
    """
    try:
        document = parse_input(data)
    except InputRefused as error:
        return Decision((Denial(INPUT_REFUSED, "input", detail=", ".join(error.fields)),))
    if gate not in (None, document.gate):
        detail = f"it is of the gate before {document.gate}"
        return Decision((Denial(INPUT_REFUSED, "input", detail=detail),))
    value = json.loads(data)
    denials = _base(engine, document.gate, value)
    if hospital.speaks(document.gate):
        denials += _hospital(engine, document.gate, value, hospital)
    return Decision(tuple(sorted(denials, key=lambda d: (d.source, d.rule, str(d.parameters)))))


def _base(engine: Engine, gate: str, value: Any) -> list[Denial]:
    try:
        answer = engine.query(base_rules(), f"data.rapha.{gate}.decision", value)
        if not isinstance(answer, dict) or set(answer) != {"allow", "deny"}:
            raise EvaluationFailed(Fault.MALFORMED, "the decision is not allow and deny")
        allow, deny = answer["allow"], answer["deny"]
        if type(allow) is not bool or not isinstance(deny, list):
            raise EvaluationFailed(Fault.MALFORMED, "allow is no boolean, or deny no set")
        denials = [_denial(entry, "base") for entry in deny]
        if None in denials or allow == bool(denials):
            raise EvaluationFailed(Fault.MALFORMED, "allow and deny contradict each other")
    except EvaluationFailed as error:
        return [Denial(error.fault, "base", detail=error.detail)]
    return [denial for denial in denials if denial is not None]


def _hospital(engine: Engine, gate: str, value: Any, hospital: HospitalRules) -> list[Denial]:
    try:
        deny = engine.query(hospital.files, f"data.hospital.{gate}.deny", value)
        if not isinstance(deny, list):
            raise EvaluationFailed(Fault.MALFORMED, "deny is no set")
    except EvaluationFailed as error:
        return [Denial(error.fault, "hospital", detail=error.detail)]
    denials = []
    for entry in deny:
        denial = _denial({"rule": entry} if isinstance(entry, str) else entry, "hospital")
        if denial is None or not hospital.spells(denial.rule):
            denial = Denial(UNNAMED, "hospital")
        denials.append(denial)
    return denials


def _denial(entry: Any, source: Source) -> Denial | None:
    """The entry of a `deny` set, or None when it is not of the one form that may be repeated."""
    if not isinstance(entry, dict):
        return None
    rule = entry.get("rule")
    if not isinstance(rule, str) or not _RULE.fullmatch(rule):
        return None
    parameters = {name: value for name, value in entry.items() if name != "rule"}
    for name, value in parameters.items():
        number = type(value) is int and abs(value) < _MAX_PARAMETER
        if name not in PARAMETERS or not (number or (isinstance(value, str) and value in _WORDS)):
            return None
    return Denial(rule, source, parameters)
