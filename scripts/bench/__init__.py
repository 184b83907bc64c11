"""`make bench`: gas of every operation, where it goes, how it scales, and the speed off chain.

Gas is measured on anvil with the test USDC behind its proxy and is exact: the same contracts give
the same figures anywhere, and `tests/bench/test_gas.py` compares them with `tests/bench/gas.json`.
Speed depends on the machine: it is printed and kept in `tests/bench/speed.json`, and no test
compares it.
"""
