"""Mutants that no test can notice, each with the reason: nobody can observe a difference."""

# (file, line as it is, line as changed) -> reason
EQUIVALENT: dict[tuple[str, str, str], str] = {}
