"""What each denial means, in words for the person who has to do something about it."""

from datetime import UTC, datetime

from oracle.clients.edge.policy.decision import INPUT_REFUSED, UNNAMED, Decision, Denial
from oracle.clients.edge.policy.engine import Fault

WORDS: dict[str, str] = {
    "framework": "the hospital does not run {framework}; offer the bundle to another node",
    "bundle": "the bundle is not on the hospital's list; have it reviewed there first",
    "image": "the node's own software is not on the hospital's list of measurements",
    "dataset": "the hospital has not released this dataset for training",
    "dataset_agreed": "the job was agreed for another dataset than the node serves",
    "min_records": "it rests on {have} of at least {need} records that the agreed policy demands",
    "min_cohort": "it rests on {have} of at least {need} records that the hospital demands",
    "consent_purpose": "the consent to use these records does not cover training models",
    "consent_until": "the job may run until {have:time}, and the consent ends {need:time}",
    "retention": "the job may run until {have:time}, and the records are deleted {need:time}",
    "epochs": "{have} epochs are more than the hospital's {need}",
    "wall_seconds": "{have} s of time are more than the hospital's {need}",
    "cpu_seconds": "{have} s of CPU time are more than the hospital's {need}",
    "memory_bytes": "{have} bytes of memory are more than the hospital's {need}",
    "gpus": "the job would get {have} GPUs, and the hospital lets it have {need} at most",
    "output_limit": "an output of {have} bytes is agreed, and the hospital lets out {need} at most",
    "network": "the bundle asks for the network {network!r}, and training has none",
    "outputs_declared": "the bundle's manifest does not declare its outputs; add them to it",
    "declared_none": "the bundle's manifest declares no tensor, so there is nothing to train",
    "declared_count": "the manifest declares {have} tensors, and the policy allows {need}",
    "declared_dtype": "the manifest declares a tensor of {dtype}, which the policy does not allow",
    "declared_bytes": "the declared tensors have {have} bytes, and the policy allows {need}",
    "declared_shape": "{have} declared tensors have a size along which records could be laid out",
    "max_output_bytes": "{have} bytes are more than the {need} that the agreed policy allows",
    "well_formed": "the weights are not a strict safetensors file",
    "no_tensors": "there is no tensor in the weights",
    "early_tensors": "{have} tensors are to leave while the job still runs",
    "max_tensors": "{have} tensors are more than the {need} that the agreed policy allows",
    "undeclared_tensors": "{have} tensors are not declared in the bundle's manifest",
    "other_form": "{have} tensors have another dtype or shape than the manifest declares",
    "allowed_dtypes": "a tensor of {dtype} is there, which the agreed policy does not allow",
    "record_shape": "{have} tensors have a size along which records could be laid out",
    "allowed_metrics": "{have} metrics are not on the agreed policy's list",
    "metric_length": "{have} metrics have more values than the {need} epochs of the job",
    "rows_in_metrics": "values of a record stand among the metrics",
    "privacy_accountant": "the hospital demands differential privacy, and has not reviewed this"
    " bundle as one that keeps it; have it reviewed there first",
    "privacy_metrics": "the hospital demands differential privacy, which covers weights and no"
    " metric: {have} are asked for; agree on none",
    "privacy_epsilon": "ε would come to {have:micro}, and this buyer has {need:micro} in all",
    "privacy_delta": "δ would come to {have:femto}, and this buyer has {need:femto} in all",
    INPUT_REFUSED: "the gate was asked about something that does not have the form of its input",
    Fault.CRASHED: "the rules could not be evaluated: the engine crashed",
    Fault.TIMED_OUT: "the rules could not be evaluated: the engine took too long",
    Fault.FAILED: "the rules could not be evaluated: they are not valid for the engine",
    Fault.UNDEFINED: "the rules could not be evaluated: they define no answer",
    Fault.MALFORMED: "the rules could not be evaluated: their answer has another form than agreed",
}
"""By rule. `{have}` is what was found, `{need}` the bound."""


class _Number(int):
    """Formats itself in a unit."""

    def __format__(self, spec: str) -> str:
        if spec == "time":
            if self >= 1 << 38:  # beyond the year 9999, which no calendar here can show
                return f"at Unix time {int(self)}"
            return datetime.fromtimestamp(self, UTC).strftime("%Y-%m-%d %H:%M UTC")
        if spec == "micro":
            return f"{self / 10**6:g}"
        if spec == "femto":
            return f"{self / 10**15:g}"
        return super().__format__(spec)


def words(denial: Denial) -> str:
    """One denial, as a sentence that may leave the hospital."""
    values = {
        name: _Number(value) if isinstance(value, int) else value
        for name, value in denial.parameters.items()
    }
    if denial.source == "hospital" and denial.rule not in list(Fault):
        figures = ", ".join(f"{name} {value}" for name, value in sorted(values.items()))
        named = "an unnamed rule" if denial.rule == UNNAMED else f"the rule {denial.rule}"
        return f"{named} of the hospital's own denies it{f' ({figures})' if figures else ''}"
    whose = "the hospital's own rules: " if denial.source == "hospital" else ""
    return whose + WORDS[denial.rule].format(**values)


def explain(decision: Decision) -> tuple[str, ...]:
    """Every denial in words; none when it is allowed."""
    return tuple(words(denial) for denial in decision.denials)
