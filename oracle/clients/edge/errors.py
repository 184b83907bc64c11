"""What can go wrong at the hospital's node, by name."""

from typing import Any

from settlement.errors import InvalidInput, RaphaError


class HyperparameterInvalid(InvalidInput):
    """A hyperparameter that the loader takes from the bundle is out of its range."""

    def __init__(self, name: str, allowed: range) -> None:
        super().__init__(
            f"the bundle's hyperparameter {name} must be a whole number from"
            f" {allowed.start} to {allowed.stop - 1}"
        )
        self.name = name


class TensorsInvalid(InvalidInput):
    """Bytes that are not a well-formed safetensors file."""

    def __init__(self, detail: str) -> None:
        super().__init__(f"not a safetensors file: {detail}")
        self.detail = detail


class KeyFileInvalid(InvalidInput):
    """A key file that does not hold the key it should; the message never shows its content."""

    def __init__(self, path: object, expected: str) -> None:
        super().__init__(f"{path} does not hold {expected}; restore it from its backup")
        self.path = str(path)


class JournalInvalid(RaphaError):
    """A meter's journal that is damaged, or that belongs to another job."""

    def __init__(self, path: object, detail: str) -> None:
        super().__init__(f"the journal {path} cannot be continued: {detail}")
        self.path = str(path)
        self.detail = detail


class PolicyDenied(RaphaError, PermissionError):
    """The output policy or the hospital's own rule forbids this; `rule` is its stable name."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(f"denied by the rule {rule}: {detail}")
        self.rule = rule
        self.detail = detail


class TermsRefused(InvalidInput):
    """A job handed over by the hub is not what its terms say, or not what this node offers."""

    def __init__(self, field: str, expected: Any, actual: Any) -> None:
        super().__init__(f"the job's {field} is {actual}, and this node requires {expected}")
        self.field = field
        self.expected = expected
        self.actual = actual


class EstimateExceeded(RaphaError, ValueError):
    """By its estimate the job does not fit into what it is granted, so it does not begin."""

    def __init__(self, excesses: tuple[str, ...]) -> None:
        super().__init__(f"the job does not fit: {'; '.join(excesses)}")
        self.excesses = excesses


class FrameworkMissing(RaphaError, RuntimeError):
    """The bundle needs a framework that this node does not have."""

    def __init__(self, framework: str) -> None:
        super().__init__(f"this node has no {framework}; offer the bundle to another node")
        self.framework = framework


class TrainingFailed(RaphaError, RuntimeError):
    """The bundle's code ended without a result.

    `stderr` is the tail of what it wrote there. It may hold records, so it stays on this machine:
    it is neither part of the message nor ever logged or sent.
    """

    def __init__(self, cause: str, stderr: bytes = b"") -> None:
        super().__init__(f"the training ended without a result: {cause}")
        self.cause = cause
        self.stderr = stderr


class TrainingTimedOut(RaphaError, TimeoutError):
    """The bundle's code took more time than it was given (seconds, wall or CPU)."""

    def __init__(self, seconds: float, kind: str = "wall") -> None:
        super().__init__(f"the training took more than its {seconds:g} s of {kind} time")
        self.seconds = seconds
        self.kind = kind


class ProtocolViolation(RaphaError, ValueError):
    """The bundle's process said something that the protocol does not allow."""

    def __init__(self, detail: str) -> None:
        super().__init__(f"the training process broke the protocol: {detail}")
        self.detail = detail


class NodeStopping(RaphaError, InterruptedError):
    """The node is being stopped; the job resumes when it starts again."""

    final = False

    def __init__(self) -> None:
        super().__init__("the node is stopping; the job resumes when it starts again")


class SimulatedEnclaveRefused(RaphaError, PermissionError):
    """A development enclave on a chain with real money."""

    def __init__(self, chain_id: int) -> None:
        super().__init__(f"a SIMULATED-DEV-ONLY enclave is refused on chain {chain_id}")
        self.chain_id = chain_id


class ReceiptRegression(RaphaError, ValueError):
    """The enclave was asked to sign less than, or other than, what it signed before."""

    def __init__(self, job_id: bytes, detail: str) -> None:
        super().__init__(f"the enclave signs no such receipt for job 0x{job_id.hex()}: {detail}")
        self.job_id = job_id
        self.detail = detail


class AttestationRefused(RaphaError, PermissionError):
    """The oracle refused this node's evidence for good; `reason` is its named code."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"the oracle refused the attestation ({reason}): {detail}")
        self.reason = reason
        self.detail = detail


class AttestationTimedOut(RaphaError, TimeoutError):
    """The enclave key did not become valid on chain in time."""

    final = False

    def __init__(self, enclave_key: str, seconds: float) -> None:
        super().__init__(f"{enclave_key} is not registered on chain after {seconds:g} s")
        self.enclave_key = enclave_key
        self.seconds = seconds


class ReceiptRejected(RaphaError):
    """The completing receipt was rejected, so the job cannot be settled or delivered."""

    def __init__(self, digest: bytes, reason: str) -> None:
        super().__init__(f"the oracle rejected the completing receipt 0x{digest.hex()}: {reason}")
        self.digest = digest
        self.reason = reason


class SettlementTimedOut(RaphaError, TimeoutError):
    """The completing receipt was not settled while the vault would still have paid it."""

    def __init__(self, job_id: bytes, until: int) -> None:
        super().__init__(f"job 0x{job_id.hex()} was not settled until Unix time {until}")
        self.job_id = job_id
        self.until = until


class StateUnwritable(RaphaError, OSError):
    """The state directory's disk takes no more; the node stops, and goes on once there is room."""

    final = False

    def __init__(self, path: object, why: str) -> None:
        super().__init__(
            f"nothing can be written to {path} ({why}): the node stops, and no job is lost. Make"
            " room, then start it again"
        )
        self.path = str(path)
        self.why = why


class AuditDamaged(RaphaError):
    """The audit log is not the one that this node wrote; the node works on no other."""

    def __init__(self, path: object, detail: str) -> None:
        super().__init__(
            f"the audit log {path} is not as this node left it: {detail}. Restore it, its head and"
            " its key from one backup, or keep all three as evidence and start with none"
        )
        self.path = str(path)
        self.detail = detail


class StateInUse(RaphaError, RuntimeError):
    """Another process works with the same state directory."""

    final = False

    def __init__(self, path: object) -> None:
        super().__init__(f"another node is running with the state in {path}; stop it first")
        self.path = str(path)


class SourceInvalid(InvalidInput):
    """A data source that cannot be read whole; `where` names the file, table, study or resource.

    The message names places and columns, never a value of a record.
    """

    def __init__(self, where: object, detail: str) -> None:
        super().__init__(f"{where}: {detail}")
        self.where = str(where)
        self.detail = detail


class IdentifierRefused(InvalidInput):
    """A column, attribute or element that identifies people, and that the hospital did not free."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name} identifies people; leave it out, or name it in allow_identifiers if the"
            " hospital's own rules let a job see it"
        )
        self.name = name
