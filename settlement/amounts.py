"""USDC as people write it, and as the contracts count it: integers of base units, six decimals."""

import re

from settlement.errors import InvalidInput

DECIMALS = 6
UNIT = 1_000_000

_AMOUNT = re.compile(r"([0-9]+)(?:\.([0-9]{1,6}))?")


def parse_usdc(text: str) -> int:
    """Base units from an amount like "12.50".

    Raises:
        InvalidInput: for signs, exponents, thousands separators, or more than six decimals, because
            nothing is rounded silently.
    """
    match = _AMOUNT.fullmatch(text.strip())
    if match is None:
        raise InvalidInput(
            f'"{text}" is not an amount of USDC: write it like 12.50, up to six decimals'
        )
    whole, fraction = match.group(1), match.group(2) or ""
    return int(whole) * UNIT + int(fraction.ljust(DECIMALS, "0"))


def format_usdc(amount: int) -> str:
    """An amount of base units with at least two decimals and none lost: 12_500_000 is "12.50"."""
    sign, amount = ("-" if amount < 0 else ""), abs(amount)
    fraction = f"{amount % UNIT:06d}".rstrip("0").ljust(2, "0")
    return f"{sign}{amount // UNIT:,}.{fraction}"
