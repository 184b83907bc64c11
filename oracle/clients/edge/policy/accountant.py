"""What a differentially private training takes: ε and δ of DP-SGD, by Google's `dp-accounting`.

What this rests on, and nothing else can make it so: code that trains in the sandbox can be held to
no noise from outside. So the hospital reviews the code, once, and lists the bundle's digest; what
the code then does is what its manifest says, since both are under that digest. How often and with
which probability a record was seen is the trusted loader's own (`poisson`).
"""

import math
from collections.abc import Collection

from oracle.clients.edge.bundle import Bundle
from oracle.clients.edge.policy.privacy import Spend

MICRO, FEMTO = 10**6, 10**15
MAX_EPSILON = 10**6
"""More tells nothing; it denies as more than any budget."""


class DpSgdAccountant:
    """Vouches for bundles on the hospital's list that declare DP-SGD, and for no others."""

    def __init__(self, reviewed: Collection[bytes]) -> None:
        self._reviewed = frozenset(reviewed)

    def spend(self, bundle: Bundle, *, rate: float, steps: int) -> Spend | None:
        """What so many steps take, each record in each with probability `rate`; None: no idea."""
        declared = bundle.manifest.privacy
        if declared is None or bundle.digest not in self._reviewed:
            return None
        epsilon = dp_sgd_epsilon(
            declared.noise_multiplier, rate=rate, steps=steps, delta=declared.delta
        )
        return Spend(math.ceil(epsilon * MICRO), math.ceil(declared.delta * FEMTO))


def dp_sgd_epsilon(noise_multiplier: float, *, rate: float, steps: int, delta: float) -> float:
    """ε of DP-SGD towards adding or removing one record, by Rényi differential privacy.

    An upper bound (Mironov, Talwar and Zhang 2019, for the Poisson-sampled Gaussian mechanism).
    """
    if steps == 0:
        return 0.0
    # Imported here: it takes seconds, and only a hospital that demands a budget needs it.
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent
    from dp_accounting.rdp import RdpAccountant

    event = PoissonSampledDpEvent(rate, GaussianDpEvent(noise_multiplier))
    accountant = RdpAccountant()
    accountant.compose(SelfComposedDpEvent(event, steps))
    epsilon = float(accountant.get_epsilon(delta))
    return epsilon if epsilon < MAX_EPSILON else MAX_EPSILON
