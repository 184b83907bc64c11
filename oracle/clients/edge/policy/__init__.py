"""The policy guard: Rego rules that say what may be trained, and what may leave the hospital.

`guard` is what the node calls: one gate before training, one before release. `input` is what rules
may look at, `rules` the rules of every node, `hospital` those that one hospital adds, `engine` what
evaluates them, `explain` their words. Import the modules: this package itself imports nothing.
"""
