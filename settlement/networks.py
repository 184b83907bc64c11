"""The chains with real money that a deployment can be on, as docs/polygon.md found them."""

from settlement.types import Address, Frozen

GWEI = 10**9


class Network(Frozen):
    """What code has to know about a chain before it asks it.

    `choice` is ape's name for it, `usdc` Circle's native USDC, `explorer` where people look things
    up, `min_tip` the least wei per gas that block producers take as tip.
    """

    chain_id: int
    choice: str
    usdc: Address
    explorer: str
    min_tip: int


POLYGON = Network(
    chain_id=137,
    choice="polygon:mainnet",
    usdc="0x3c499c542cEF5E3811e1192ce70d8cC03d5c3359",
    explorer="https://polygonscan.com",
    min_tip=25 * GWEI,
)
AMOY = Network(
    chain_id=80002,
    choice="polygon:amoy",
    usdc="0x41E94Eb019C0762f9Bfcf9Fb1E58725BfB0e7582",
    explorer="https://amoy.polygonscan.com",
    min_tip=25 * GWEI,
)
NETWORKS = {network.chain_id: network for network in (POLYGON, AMOY)}


def min_tip(chain_id: int) -> int:
    """The least tip of a chain in wei per gas; an estimate below it never mines. 0 elsewhere."""
    network = NETWORKS.get(chain_id)
    return network.min_tip if network else 0
