# pragma version 0.4.3
"""
@title BLS signatures on BN254, over the precompiles that every EVM has (EIP-196, EIP-197, EIP-198)
@license AGPL-3.0-only
@notice A key is a point of G1 and its twin in G2, both of one secret. Messages and signatures are points of G1.
@dev The pairing precompile refuses coordinates that are not below P and points that are not on their curve or,
     in G2, not in the group of order R; all of G1's curve is that group. The point at infinity counts neither as
     key nor as signature. `_check_curve` comes before all else: Vyper's `ecadd` and `ecmul` do not notice where
     their precompile is missing. Without the two others no signature holds.
"""

# order of the field, and of the groups
P: constant(uint256) = 21888242871839275222246405745257275088696311157297823662689037894645226208583
R: constant(uint256) = 21888242871839275222246405745257275088548364400416034343698204186575808495617
# (P + 1) / 4: the exponent of a square root, since P is 3 modulo 4
ROOT: constant(uint256) = 5472060717959818805561601436314318772174077789324455915672259473661306552146
G1: constant(uint256[2]) = [1, 2]
# of G1 + G1
TWICE_Y: constant(uint256) = 9918110051302171585080402603319702774565515993150576347155970296011118125764
# the generator of G2, negated; imaginary parts come first (EIP-197)
MINUS_G2: constant(uint256[4]) = [
    11559732032986387107991004021392285783925812861821192530917403151452391805634,
    10857046999023057135944570762232829481370756359578518086990519993285655852781,
    17805874995975841540914202342111839520379459829704422454583296818431106115052,
    13392588948715843804641432497768002650278120570034223513918757245338268106653,
]
# one try in two gives a point: all of these fail for one message in 2^128
TRIES: constant(uint256) = 128


@internal
@view
def _check_curve():
    twice: uint256[2] = ecadd(G1, G1)
    minus: uint256[2] = ecmul(G1, R - 1)
    assert twice[1] == TWICE_Y and minus[1] == P - 2, "committee: precompile is missing"


@internal
@view
def _hash_to_g1(domain: bytes32, message: bytes32) -> uint256[2]:
    """
    @dev Hash and try: the first of keccak256(domain, message, 0), (…, 1), … that, modulo P, is the x of a point,
         with the y that is a square itself. How many it takes shows, but the message is public.
    """
    for i: uint256 in range(TRIES):
        x: uint256 = convert(keccak256(abi_encode(domain, message, i)), uint256) % P
        square: uint256 = self._square(x)
        y: uint256 = self._power(square, ROOT)
        if uint256_mulmod(y, y, P) == square:
            return [x, y]
    raise "committee: no point for this digest"


@internal
@pure
def _square(x: uint256) -> uint256:
    """
    @dev y² of the curve.
    """
    return uint256_addmod(uint256_mulmod(uint256_mulmod(x, x, P), x, P), 3, P)


@internal
@view
def _power(base: uint256, exponent: uint256) -> uint256:
    """
    @dev Modulo P; 0 without the precompile.
    """
    word: uint256 = 32
    return convert(
        raw_call(
            0x0000000000000000000000000000000000000005,
            abi_encode(word, word, word, base, exponent, P),
            max_outsize=32,
            is_static_call=True,
        ),
        uint256,
    )


@internal
@pure
def _is_point(point: uint256[2]) -> bool:
    """
    @dev Whether this is a point of G1, and not the one at infinity.
    """
    x: uint256 = point[0]
    y: uint256 = point[1]
    # infinity, (0, 0), is not on the curve
    return x < P and y < P and uint256_mulmod(y, y, P) == self._square(x)


@internal
@pure
def _negated(point: uint256[2]) -> uint256[2]:
    """
    @dev Of a point that is not infinity.
    """
    return [point[0], P - point[1]]


@internal
@view
def _is_signed(
    domain: bytes32, message: bytes32, signature: uint256[2], key: uint256[2], twin: uint256[4]
) -> bool:
    """
    @dev Whether e(signature, G2) = e(hash, twin), so that the twin's secret signed, and e(key, G2) = e(G1, twin),
         so that the key has the same secret. One pairing checks both: the second equation comes in times a
         factor that depends on everything given, so that neither can make up for the other.
    """
    if not (self._is_point(key) and self._is_point(signature)):
        return False
    point: uint256[2] = self._hash_to_g1(domain, message)
    factor: uint256 = convert(keccak256(abi_encode(domain, message, signature, key, twin)), uint256) % R
    success: bool = False
    answer: Bytes[32] = b""
    success, answer = raw_call(
        0x0000000000000000000000000000000000000008,
        abi_encode(
            ecadd(signature, ecmul(key, factor)),
            MINUS_G2,
            ecadd(point, ecmul(G1, factor)),
            twin,
        ),
        max_outsize=32,
        is_static_call=True,
        revert_on_failure=False,
    )
    return success and len(answer) == 32 and convert(answer, uint256) == 1
