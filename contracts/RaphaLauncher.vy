# pragma version 0.4.3
# pragma evm-version cancun
"""
@title RaphaLauncher
@license AGPL-3.0-only
@notice Creates a node registry and the vault that it serves, in one transaction. Each names the other when it is
        created, so neither address can depend on what is created: those of what a contract creates depend on its own
        address and its count alone. This one's own depends on its arguments only, so that nobody who sends the same
        creation first can put anything else in their place, and the same arguments give the same addresses on every
        chain.
@dev USDC, which is another contract on each chain, is therefore no argument on the chains that are known here.
"""

# Circle, "USDC contract addresses": Polygon PoS, Amoy
_POLYGON_USDC: constant(address) = 0x3c499c542cEF5E3811e1192ce70d8cC03d5c3359
_AMOY_USDC: constant(address) = 0x41E94Eb019C0762f9Bfcf9Fb1E58725BfB0e7582


struct Parties:
    owner: address
    guardian: address
    registrar: address
    protocol: address
    arbiter: address


struct Periods:
    grace: uint256
    challenge_window: uint256
    arbitration_period: uint256


@deploy
def __init__(
    registry_code: Bytes[18_000],
    vault_code: Bytes[28_000],
    enclaves: address,
    parties: Parties,
    periods: Periods,
    other_usdc: address,
):
    """
    @param registry_code Creation code of `RaphaNodeRegistry`, without arguments.
    @param vault_code Creation code of `RaphaClearingVault`, without arguments.
    @param enclaves The enclave registry.
    @param parties Who governs both, as their constructors take them.
    @param periods The vault's, seconds.
    @param other_usdc USDC where the chain is neither Polygon PoS nor Amoy; not looked at there.
    """
    usdc: address = other_usdc
    if chain.id == 137:
        usdc = _POLYGON_USDC
    elif chain.id == 80002:
        usdc = _AMOY_USDC
    # what this creates first and second (Ethereum yellow paper, section 7; a contract counts from 1)
    vault: address = self._created(0x02)
    nodes: address = raw_create(
        registry_code, parties.owner, parties.guardian, parties.registrar, parties.protocol, vault
    )
    created: address = raw_create(
        vault_code,
        usdc,
        nodes,
        enclaves,
        parties.owner,
        parties.guardian,
        parties.arbiter,
        periods.grace,
        periods.challenge_window,
        periods.arbitration_period,
    )


@internal
@view
def _created(count: bytes1) -> address:
    digest: bytes32 = keccak256(concat(0xd694, convert(self, bytes20), count))
    return convert(convert(digest, uint256) & convert(max_value(uint160), uint256), address)
