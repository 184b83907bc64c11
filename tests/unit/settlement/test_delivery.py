import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from settlement.delivery import DeliveryUnreadable, open_sealed, seal

PLACE = {"chain_id": 31337, "vault": "0x" + "11" * 20, "job_id": bytes([4] * 32)}
WEIGHTS = b"weights" * 100


@pytest.fixture
def private():
    return X25519PrivateKey.generate()


@pytest.fixture
def sealed(private):
    return seal(WEIGHTS, private.public_key().public_bytes_raw(), **PLACE)


def test_the_developer_opens_what_was_sealed_to_its_key(private, sealed):
    assert open_sealed(sealed, private.private_bytes_raw(), **PLACE) == WEIGHTS
    assert len(sealed) == len(WEIGHTS) + 48


def test_sealing_twice_gives_different_bytes(private, sealed):
    assert seal(WEIGHTS, private.public_key().public_bytes_raw(), **PLACE) != sealed


@pytest.mark.parametrize(
    "change",
    [{"chain_id": 1}, {"vault": "0x" + "22" * 20}, {"job_id": bytes([5] * 32)}],
)
def test_a_delivery_for_another_place_does_not_open(private, sealed, change):
    with pytest.raises(DeliveryUnreadable):
        open_sealed(sealed, private.private_bytes_raw(), **{**PLACE, **change})


def test_another_key_does_not_open_it(sealed):
    other = X25519PrivateKey.generate().private_bytes_raw()
    with pytest.raises(DeliveryUnreadable):
        open_sealed(sealed, other, **PLACE)


@pytest.mark.parametrize("position", [0, 40, -1])
def test_a_changed_delivery_does_not_open(private, sealed, position):
    changed = bytearray(sealed)
    changed[position] ^= 1
    with pytest.raises(DeliveryUnreadable):
        open_sealed(bytes(changed), private.private_bytes_raw(), **PLACE)


def test_a_truncated_delivery_does_not_open(private, sealed):
    with pytest.raises(DeliveryUnreadable):
        open_sealed(sealed[:20], private.private_bytes_raw(), **PLACE)
