"""Mutants that no test can notice, each with the reason: nobody can observe a difference."""

_VAULT = "contracts/RaphaClearingVault.vy"
_NODES = "contracts/RaphaNodeRegistry.vy"
_CHALLENGE = "contracts/modules/challenge.vy"
_CUSTODY = "contracts/modules/custody.vy"
_ESCROW = "contracts/modules/escrow.vy"
_SIGNATURES = "contracts/modules/signatures.vy"

_OVERWRITTEN = "the next statement overwrites the variable before anything reads it"
_ROLLS_TOO_OFTEN = (
    "it decides only whether to roll the node's word, and rolling one that is in its period "
    "changes nothing: it costs gas, which tests/bench holds"
)
_BRINGS_IN_TOO_OFTEN = (
    "it decides only whether to bring the job's word into the node's period and version, and doing "
    "so once more changes nothing: it costs gas, which tests/bench holds"
)
_NO_SUCH_SIGNATURE = (
    "nobody can make a signature with s at this very value over a digest that names its signer"
)
_MINTS_NOTHING = "no function that looks at it is exported: a test compares the functions that are"

_HALF = "57896044618658097711785492504343953926418782139537452191302581570759080747168"
_SHARES = 'assert node_owner_bps <= BPS and onboarder_bps <= BPS, "nodes: hospital share too low"'
_SUM_REFUSES = "a share of everything is refused by the next line, for the same reason"
_STEP = "if (run.earnings_word >> words.NODE_STEP) & words.MASK_22 != run.period:"
_JOB_STEP = (
    "if (job_word >> words.STEP) & words.MASK_46 != "
    "(run.earnings_word >> words.NODE_STEP) & words.MASK_46:"
)

# (file, line as it is, line as changed) -> reason
EQUIVALENT: dict[tuple[str, str, str], str] = {
    (_VAULT, "outcome: uint256 = 0", "outcome: uint256 = 1"): _OVERWRITTEN,
    (_VAULT, _STEP, _STEP.replace(">>", "<<")): _ROLLS_TOO_OFTEN,
    (_VAULT, _STEP, _STEP.replace("&", "|")): _ROLLS_TOO_OFTEN,
    (_VAULT, "run.enclave = enclave", "pass"): (
        "it remembers the key that was just found valid; without it each receipt asks again"
    ),
    (_VAULT, _JOB_STEP, _JOB_STEP.replace("job_word >>", "job_word <<")): _BRINGS_IN_TOO_OFTEN,
    (_VAULT, _JOB_STEP, _JOB_STEP.replace("STEP) &", "STEP) |", 1)): _BRINGS_IN_TOO_OFTEN,
    (_VAULT, _JOB_STEP, _JOB_STEP.replace("NODE_STEP) &", "NODE_STEP) |")): _BRINGS_IN_TOO_OFTEN,
    (_NODES, "erc721.is_minter[msg.sender] = False", "pass"): _MINTS_NOTHING,
    (
        _NODES,
        "erc721.is_minter[msg.sender] = False",
        "erc721.is_minter[msg.sender] = True",
    ): _MINTS_NOTHING,
    (_NODES, _SHARES, _SHARES.replace("node_owner_bps <=", "node_owner_bps <")): _SUM_REFUSES,
    (_NODES, _SHARES, _SHARES.replace("onboarder_bps <=", "onboarder_bps <")): _SUM_REFUSES,
    (
        _CHALLENGE,
        "self._carried[job_id][version] = 0",
        "self._carried[job_id][version] = 1",
    ): "of the word only what is fresh and earlier is read again, and both are zero in it",
    (_CUSTODY, "success: bool = False", "success: bool = True"): _OVERWRITTEN,
    (
        _CUSTODY,
        'assert paused_until == 0 or block.timestamp >= paused_until + GRACE, "vault: paused too recently"',  # noqa: E501
        'assert paused_until == 1 or block.timestamp >= paused_until + GRACE, "vault: paused too recently"',  # noqa: E501
    ): "where there was no pause the rest holds: every chain's time is later than any grace",
    (_ESCROW, "active_node = order.node_id", "pass"): (
        "it remembers the node that was just found active; without it each order asks again"
    ),
    (
        _SIGNATURES,
        f"_HALF_ORDER: constant(uint256) = {_HALF}",
        f"_HALF_ORDER: constant(uint256) = {int(_HALF) + 1}",
    ): _NO_SUCH_SIGNATURE,
    (_SIGNATURES, "if s <= _HALF_ORDER:", "if s < _HALF_ORDER:"): _NO_SUCH_SIGNATURE,
    (_SIGNATURES, "success: bool = False", "success: bool = True"): _OVERWRITTEN,
}
