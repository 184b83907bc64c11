"""A node's earnings are split 70/20/5/5, exact to the unit."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from world import World, actor

from settlement.models import JobTerms

PAYEES = ("hospital", "node owner", "onboarder", "protocol")


def earn(world: World, amount: int, salt: int = 0, **changes: int) -> JobTerms:
    terms = world.terms(salt, price_per_record=1, price_per_epoch=0, budget=amount, **changes)
    world.open(terms)
    world.settle(world.claim(terms, amount, complete=True))
    return terms


def distribute(world: World, node_id: int = 1) -> int:
    return int(world.vault.distribute(node_id, sender=actor("anyone").address))


def test_round_amount_is_split_70_20_5_5(world: World) -> None:
    earn(world, 1_000_000)
    assert distribute(world) == 1_000_000
    assert world.events(world.vault) == [
        (
            "Distributed",
            {
                "node_id": 1,
                "hospital": actor("hospital").address,
                "node_owner": actor("node owner").address,
                "onboarder": actor("onboarder").address,
                "protocol": actor("protocol").address,
                "hospital_amount": 700_000,
                "node_owner_amount": 200_000,
                "onboarder_amount": 50_000,
                "protocol_amount": 50_000,
            },
        )
    ]
    assert [world.balance(name) for name in PAYEES] == [700_000, 200_000, 50_000, 50_000]
    assert world.vault.earnings(1) == 0
    assert world.vault.owed() == 1_000_000


@pytest.mark.parametrize(
    ("amount", "shares"),
    [
        (1, [1, 0, 0, 0]),
        (4, [4, 0, 0, 0]),
        (5, [4, 1, 0, 0]),
        (19, [16, 3, 0, 0]),
        (20, [14, 4, 1, 1]),
        (99, [72, 19, 4, 4]),
    ],
)
def test_rounding_goes_to_the_hospital(world: World, amount: int, shares: list[int]) -> None:
    earn(world, amount)
    distribute(world)
    assert [world.balance(name) for name in PAYEES] == shares


@settings(max_examples=25)
@given(st.integers(1, 2**64 - 1))
def test_shares_sum_exactly_for_any_amount(amount: int) -> None:
    with World.temporary() as world:
        world.fund(actor("payer"), 2**64)
        earn(world, amount)
        assert distribute(world) == amount
        shares = [world.balance(name) for name in PAYEES]
        assert sum(shares) == amount == world.vault.owed()
        assert shares[1:] == [amount * 2_000 // 10_000, amount // 20, amount // 20]


def test_second_distribution_moves_nothing(world: World) -> None:
    earn(world, 1_000)
    distribute(world)
    assert distribute(world) == 0
    assert world.events(world.vault) == []
    assert sum(world.balance(name) for name in PAYEES) == 1_000


@pytest.mark.parametrize("node_id", [0, 2, 2**256 - 1])
def test_unregistered_node_has_nothing_to_split(world: World, node_id: int) -> None:
    assert distribute(world, node_id) == 0


def test_nodes_do_not_share_with_each_other(world: World) -> None:
    second = world.register_node(hospital="hospital 2", owner="node owner 2")
    world.register_enclave(enclave_key=actor("enclave 2").address, node_id=second)
    earn(world, 1_000)
    terms = world.terms(1, node_id=second, price_per_record=1, budget=500)
    world.open(terms)
    world.settle(world.claim(terms, 500, signer=actor("enclave 2")))
    assert distribute(world, second) == 500
    assert (world.balance("hospital"), world.balance("hospital 2")) == (0, 350)
    assert world.vault.earnings(1) == 1_000


def test_payee_with_several_roles_gets_all_its_shares(world: World) -> None:
    world.nodes.transferFrom(
        actor("node owner").address,
        actor("hospital").address,
        1,
        sender=actor("node owner").address,
    )
    earn(world, 1_000)
    distribute(world)
    assert world.balance("hospital") == 900
    assert world.balance("node owner") == 0


def test_shares_of_several_distributions_add_up(world: World) -> None:
    for salt in range(3):
        earn(world, 1_000, salt)
        distribute(world)
    assert [world.balance(name) for name in PAYEES] == [2_100, 600, 150, 150]


def test_pause_and_suspension_do_not_stop_a_distribution(world: World) -> None:
    earn(world, 1_000)
    world.nodes.suspend(1, sender=actor("guardian").address)
    world.vault.pause(sender=actor("guardian").address)
    assert distribute(world) == 1_000


def test_blacklisted_payees_do_not_stop_a_distribution(world: World) -> None:
    earn(world, 1_000)
    for name in PAYEES:
        world.usdc.blacklist(actor(name).address, sender=actor("deployer").address)
    assert distribute(world) == 1_000
    assert [world.balance(name) for name in PAYEES] == [700, 200, 50, 50]
