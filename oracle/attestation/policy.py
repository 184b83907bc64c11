"""Which TCB states an operator accepts, and until when."""

from collections.abc import Sequence
from typing import Literal

from oracle.attestation.errors import EvaluationTooLow, TcbRefused
from settlement.types import Frozen, UInt64

UP_TO_DATE = "UpToDate"

ToleratedStatus = Literal[
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
    "TDRelaunchAdvised",
    "TDRelaunchAdvisedConfigurationNeeded",
]
"""The statuses that an operator may tolerate. Revoked is not among them."""


class TcbAllowance(Frozen):
    """Tolerates one status, with at most these advisories, before `until` (Unix seconds)."""

    status: ToleratedStatus
    advisories: frozenset[str]
    until: UInt64


class TcbPolicy(Frozen):
    """Accepts UpToDate always, and another status only where an allowance says so.

    Debug enclaves and revoked platforms cannot be allowed. Collateral counts from the TCB
    evaluation data number `minimum_evaluation` on: an older one still calls up to date what the
    vendor has since found wanting.
    """

    allowances: tuple[TcbAllowance, ...] = ()
    minimum_evaluation: UInt64 = 0

    def check(self, status: str, advisories: Sequence[str], now: int) -> None:
        """Judge a genuine platform's TCB status at `now` (Unix seconds).

        Raises:
            TcbRefused: unless the status is UpToDate or one allowance covers status and advisories.
        """
        allowed = status == UP_TO_DATE or any(
            allowance.status == status
            and allowance.advisories.issuperset(advisories)
            and now < allowance.until
            for allowance in self.allowances
        )
        if not allowed:
            raise TcbRefused(status, advisories)

    def check_evaluation(self, evaluation: int) -> None:
        """Judge by which TCB evaluation the collateral speaks.

        Raises:
            EvaluationTooLow: when it is an older one than `minimum_evaluation`.
        """
        if evaluation < self.minimum_evaluation:
            raise EvaluationTooLow(evaluation, self.minimum_evaluation)
