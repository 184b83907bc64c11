"""Which enclave keys count, for which node, and until when."""

import pytest
from eth_utils import keccak
from world import COMMITTEE, DAY, MEASUREMENT, World, actor, reverts

from settlement.contracts import abi_value
from settlement.models import EnclaveRegistration
from settlement.reverts import Revert
from settlement.types import ZERO_ADDRESS

KEY = actor("enclave 2").address
FRESH = b"\x07" * 32
MAX_VALIDITY = 31 * DAY


def register(world: World, registration: EnclaveRegistration) -> None:
    world.enclaves.register(
        abi_value(registration),
        b"".join(world.co_sign(registration)),
        sender=actor("anyone").address,
    )


def is_valid(world: World, key: str = KEY, node_id: int = 1) -> bool:
    return bool(world.enclaves.is_valid(key, node_id))


def test_registered_key_counts_for_its_node(world: World) -> None:
    registration = world.registration(enclave_key=KEY)
    register(world, registration)
    assert world.events(world.enclaves) == [
        (
            "EnclaveRegistered",
            {
                "enclave_key": KEY,
                "node_id": 1,
                "measurement": MEASUREMENT,
                "attestation_digest": registration.attestation_digest,
                "encryption_key_digest": registration.encryption_key_digest,
                "expiry": registration.expiry,
            },
        )
    ]
    assert is_valid(world)
    assert tuple(world.enclaves.enclave(KEY)) == (1, registration.expiry, MEASUREMENT, False)


@pytest.mark.parametrize("node_id", [0, 2, 2**64 - 1])
def test_key_counts_for_no_other_node(world: World, node_id: int) -> None:
    assert not is_valid(world, actor("enclave").address, node_id)


def test_unknown_and_zero_keys_do_not_count(world: World) -> None:
    assert not is_valid(world, actor("thief").address)
    assert not is_valid(world, ZERO_ADDRESS)
    assert not is_valid(world, ZERO_ADDRESS, 0)
    assert tuple(world.enclaves.enclave(KEY)) == (0, 0, bytes(32), False)


def test_key_stops_counting_at_its_expiry(world: World) -> None:
    register(world, world.registration(enclave_key=KEY, expiry=world.now + 10))
    world.pass_time(9)
    assert is_valid(world)
    world.pass_time(1)
    assert not is_valid(world)


@pytest.mark.parametrize("late", [0, 1, DAY])
def test_expired_registration_is_refused(world: World, late: int) -> None:
    with reverts(Revert.ENCLAVES_REGISTRATION_HAS_EXPIRED):
        register(world, world.registration(enclave_key=KEY, expiry=world.now - late))


def test_expiry_is_at_most_a_month_ahead(world: World) -> None:
    register(world, world.registration(enclave_key=KEY, expiry=world.now + MAX_VALIDITY))
    over = world.registration(enclave_key=KEY, expiry=world.now + MAX_VALIDITY + 1)
    with reverts(Revert.ENCLAVES_EXPIRY_TOO_FAR_AHEAD):
        register(world, over)
    with reverts(Revert.ENCLAVES_EXPIRY_TOO_FAR_AHEAD):
        register(world, over.model_copy(update={"expiry": 2**64 - 1}))


def test_zero_key_and_zero_node_are_refused(world: World) -> None:
    zero_key = world.registration().model_copy(update={"enclave_key": ZERO_ADDRESS})
    with reverts(Revert.ENCLAVES_KEY_IS_ZERO):
        register(world, zero_key)
    zero_node = world.registration(enclave_key=KEY).model_copy(update={"node_id": 0})
    with reverts(Revert.ENCLAVES_NODE_IS_ZERO):
        register(world, zero_node)


@pytest.mark.parametrize("measurement", [FRESH, bytes(32)])
def test_unknown_measurement_is_refused(world: World, measurement: bytes) -> None:
    with reverts(Revert.ENCLAVES_MEASUREMENT_IS_NOT_ALLOWED):
        register(world, world.registration(enclave_key=KEY, measurement=measurement))


def test_renewal_extends_and_is_no_replay(world: World) -> None:
    old = world.registration(enclave_key=KEY)
    register(world, old)
    with reverts(Revert.ENCLAVES_REGISTRATION_IS_NOT_NEWER):
        register(world, old)
    renewal = world.registration(enclave_key=KEY, expiry=old.expiry + DAY)
    register(world, renewal)
    with reverts(Revert.ENCLAVES_REGISTRATION_IS_NOT_NEWER):
        register(world, old)
    assert world.enclaves.enclave(KEY)[1] == renewal.expiry


def test_expired_key_can_be_renewed(world: World) -> None:
    world.pass_time(8 * DAY)
    assert not is_valid(world, actor("enclave").address)
    world.register_enclave()
    assert is_valid(world, actor("enclave").address)


def test_key_never_moves_to_another_node(world: World) -> None:
    register(world, world.registration(enclave_key=KEY))
    moved = world.registration(enclave_key=KEY, node_id=2, expiry=world.now + 8 * DAY)
    with reverts(Revert.ENCLAVES_KEY_BELONGS_TO_ANOTHER_NODE):
        register(world, moved)
    world.pass_time(9 * DAY)
    with reverts(Revert.ENCLAVES_KEY_BELONGS_TO_ANOTHER_NODE):
        register(world, world.registration(enclave_key=KEY, node_id=2))


def test_renewal_may_bring_a_new_measurement(world: World) -> None:
    register(world, world.registration(enclave_key=KEY))
    world.govern(world.enclaves, "allow_measurement", FRESH)
    register(
        world, world.registration(enclave_key=KEY, measurement=FRESH, expiry=world.now + 8 * DAY)
    )
    world.enclaves.revoke_measurement(MEASUREMENT, sender=actor("guardian").address)
    assert is_valid(world)
    assert world.enclaves.enclave(KEY)[2] == FRESH


def test_revoked_key_stops_at_once_and_for_good(world: World) -> None:
    register(world, world.registration(enclave_key=KEY))
    world.enclaves.revoke(KEY, sender=actor("guardian").address)
    assert world.events(world.enclaves) == [("EnclaveRevoked", {"enclave_key": KEY})]
    assert not is_valid(world)
    assert tuple(world.enclaves.enclave(KEY)) == (1, 0, MEASUREMENT, True)
    with reverts(Revert.ENCLAVES_KEY_IS_REVOKED):
        register(world, world.registration(enclave_key=KEY, expiry=world.now + 30 * DAY))
    world.enclaves.revoke(KEY, sender=actor("guardian").address)
    assert not is_valid(world)


def test_key_can_be_revoked_before_it_is_registered(world: World) -> None:
    world.enclaves.revoke(KEY, sender=actor("guardian").address)
    assert not is_valid(world)
    assert not is_valid(world, node_id=0)
    with reverts(Revert.ENCLAVES_KEY_IS_REVOKED):
        register(world, world.registration(enclave_key=KEY))


def test_revoked_measurement_stops_every_key_that_runs_it(world: World) -> None:
    register(world, world.registration(enclave_key=KEY))
    world.enclaves.revoke_measurement(MEASUREMENT, sender=actor("guardian").address)
    assert world.events(world.enclaves) == [("MeasurementRevoked", {"measurement": MEASUREMENT})]
    assert not is_valid(world)
    assert not is_valid(world, actor("enclave").address)
    assert not world.enclaves.is_measurement_allowed(MEASUREMENT)
    with reverts(Revert.ENCLAVES_MEASUREMENT_IS_NOT_ALLOWED):
        register(world, world.registration(enclave_key=actor("enclave 3").address))
    with reverts(Revert.ENCLAVES_MEASUREMENT_IS_NOT_ALLOWED):
        world.enclaves.revoke_measurement(MEASUREMENT, sender=actor("guardian").address)


def test_owner_allows_a_revoked_measurement_again(world: World) -> None:
    world.enclaves.revoke_measurement(MEASUREMENT, sender=actor("guardian").address)
    world.govern(world.enclaves, "allow_measurement", MEASUREMENT)
    assert world.events(world.enclaves) == [("MeasurementAllowed", {"measurement": MEASUREMENT})]
    assert is_valid(world, actor("enclave").address)


def test_revoking_one_measurement_leaves_the_others(world: World) -> None:
    world.govern(world.enclaves, "allow_measurement", FRESH)
    register(world, world.registration(enclave_key=KEY, measurement=FRESH))
    world.enclaves.revoke_measurement(MEASUREMENT, sender=actor("guardian").address)
    assert is_valid(world)
    assert not is_valid(world, actor("enclave").address)


@pytest.mark.parametrize("measurement", [bytes(32), FRESH])
def test_unknown_measurement_cannot_be_revoked(world: World, measurement: bytes) -> None:
    with reverts(Revert.ENCLAVES_MEASUREMENT_IS_NOT_ALLOWED):
        world.enclaves.revoke_measurement(measurement, sender=actor("guardian").address)


def test_zero_measurement_cannot_be_allowed(world: World) -> None:
    with reverts(Revert.ENCLAVES_MEASUREMENT_IS_ZERO):
        world.govern(world.enclaves, "allow_measurement", bytes(32))
    assert not world.enclaves.is_measurement_allowed(bytes(32))


def test_registration_for_another_registry_is_refused(world: World) -> None:
    registration = World.create().registration(enclave_key=KEY)
    signatures = b"".join(World.create().co_sign(registration))
    with reverts(Revert.COMMITTEE_SIGNER_IS_NOT_A_MEMBER):
        world.enclaves.register(abi_value(registration), signatures, sender=actor("anyone").address)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("enclave_key", actor("thief").address),
        ("node_id", 2),
        ("attestation_digest", keccak(text="another quote")),
        ("encryption_key_digest", keccak(text="thief's key")),
        ("expiry", 1),
    ],
)
def test_registration_changed_after_signing_is_refused(
    world: World, field: str, value: object
) -> None:
    registration = world.registration(enclave_key=KEY)
    signatures = b"".join(world.co_sign(registration, COMMITTEE[:2]))
    if field == "expiry":
        value = registration.expiry + 1
    changed = registration.model_copy(update={field: value})
    with reverts(Revert.COMMITTEE_SIGNER_IS_NOT_A_MEMBER):
        world.enclaves.register(abi_value(changed), signatures, sender=actor("anyone").address)
