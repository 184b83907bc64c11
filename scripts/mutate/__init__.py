"""Whether the tests notice a mistake: every check and statement of the contracts, changed in turn.

`python -m scripts.mutate` makes each mutant, runs the contract tests against it in a process of its
own until one fails, and writes `docs/mutants.md`. A mutant that no test notices is either a test to
write or equal in effect to the original; `EQUIVALENT` lists the latter, each with its reason.
"""
