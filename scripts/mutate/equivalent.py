"""Mutants that no test can notice, each with the reason: nobody can observe a difference."""

# (file, line as it is, line as changed) -> reason
EQUIVALENT: dict[tuple[str, str, str], str] = {
    (
        "contracts/EnclaveRegistry.vy",
        "_MEASUREMENT_SHIFT: constant(uint256) = 128",
        "_MEASUREMENT_SHIFT: constant(uint256) = 129",
    ): "where a private field begins, with a bit to spare below the next one",
}
