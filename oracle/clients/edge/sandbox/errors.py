"""What can go wrong with the sandbox and the guard of the network, by name."""

from settlement.errors import RaphaError

PACKAGES = "apt-get install bubblewrap libseccomp2 nftables"


class SandboxUnavailable(RaphaError, RuntimeError):
    """This machine cannot run the sandbox, so a node that requires it trains nothing."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"no sandbox here: {why}. Install it ({PACKAGES}) and allow user namespaces"
            " (sysctl user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns);"
            " RAPHA_EDGE_SANDBOX=development is for test chains only"
        )
        self.why = why


class SandboxUnsound(RaphaError, PermissionError):
    """The sandbox that was started is not as it has to be; nothing of the job ran in it."""

    def __init__(self, faults: tuple[str, ...]) -> None:
        super().__init__(f"the sandbox was not released: {'; '.join(faults)}")
        self.faults = faults


class DevelopmentSandboxRefused(RaphaError, PermissionError):
    """A node that may train without a sandbox, on a chain with real money."""

    def __init__(self, chain_id: int) -> None:
        super().__init__(
            f"RAPHA_EDGE_SANDBOX=development is refused on chain {chain_id}; set it to required"
        )
        self.chain_id = chain_id


class WanGuardUnavailable(RaphaError, RuntimeError):
    """The node may not close its own network, and is configured to train only when it can."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"the node's network cannot be closed while a job trains: {why}."
            " Set RAPHA_EDGE_WAN_GUARD=if_allowed to train all the same: the evidence will say so"
        )
        self.why = why
