"""A node's earnings are split 70/20/5/5, exact to the unit."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from world import World, actor, reverts

from settlement.models import MAX_BUDGET, JobTerms
from settlement.reverts import Revert

PAYEES = ("hospital", "node owner", "onboarder", "protocol")


def earn(world: World, amount: int, salt: int = 0, **changes: int) -> JobTerms:
    terms = world.terms(salt, price_per_record=1, price_per_epoch=0, budget=amount, **changes)
    world.open(terms)
    world.settle(world.claim(terms, amount, complete=True))
    return terms


def test_round_amount_is_split_70_20_5_5(world: World) -> None:
    earn(world, 1_000_000)
    assert world.distribute() == 1_000_000
    assert world.events(world.vault) == [
        (
            "Distributed",
            {
                "node_id": 1,
                "hospital": actor("hospital").address,
                "version": 0,
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
    assert world.earnings().total == 0
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
    world.distribute()
    assert [world.balance(name) for name in PAYEES] == shares


@settings(max_examples=25)
@given(st.integers(1, MAX_BUDGET))
def test_shares_sum_exactly_for_any_amount(amount: int) -> None:
    with World.temporary() as world:
        world.fund(actor("payer"), MAX_BUDGET)
        earn(world, amount)
        assert world.distribute() == amount
        shares = [world.balance(name) for name in PAYEES]
        assert sum(shares) == amount == world.vault.owed()
        assert shares[1:] == [amount * 2_000 // 10_000, amount // 20, amount // 20]


def test_second_distribution_moves_nothing(world: World) -> None:
    earn(world, 1_000)
    world.distribute()
    assert world.distribute() == 0
    assert world.events(world.vault) == []
    assert sum(world.balance(name) for name in PAYEES) == 1_000


@pytest.mark.parametrize("node_id", [0, 2, 2**256 - 1])
def test_unregistered_node_has_nothing_to_split(world: World, node_id: int) -> None:
    assert world.distribute(node_id) == 0


def test_nodes_do_not_share_with_each_other(world: World) -> None:
    second = world.register_node(hospital="hospital 2", owner="node owner 2")
    world.register_enclave(enclave_key=actor("enclave 2").address, node_id=second)
    earn(world, 1_000)
    terms = world.terms(1, node_id=second, price_per_record=1, budget=500)
    world.open(terms)
    world.settle(world.claim(terms, 500, signer=actor("enclave 2")))
    assert world.distribute(second) == 500
    assert (world.balance("hospital"), world.balance("hospital 2")) == (0, 350)
    assert world.earnings().total == 1_000


def test_payee_with_several_roles_gets_all_its_shares(world: World) -> None:
    world.nodes.transferFrom(
        actor("node owner").address,
        actor("hospital").address,
        1,
        sender=actor("node owner").address,
    )
    earn(world, 1_000)
    world.distribute()
    assert world.balance("hospital") == 900
    assert world.balance("node owner") == 0


def test_shares_of_several_distributions_add_up(world: World) -> None:
    for salt in range(3):
        earn(world, 1_000, salt)
        world.distribute()
    assert [world.balance(name) for name in PAYEES] == [2_100, 600, 150, 150]


def test_pause_and_suspension_do_not_stop_a_distribution(world: World) -> None:
    earn(world, 1_000)
    world.nodes.suspend(1, sender=actor("guardian").address)
    world.vault.pause(sender=actor("guardian").address)
    assert world.distribute() == 1_000


def test_blacklisted_payees_do_not_stop_a_distribution(world: World) -> None:
    earn(world, 1_000)
    for name in PAYEES:
        world.usdc.blacklist(actor(name).address, sender=actor("deployer").address)
    assert world.distribute() == 1_000
    assert [world.balance(name) for name in PAYEES] == [700, 200, 50, 50]


# many nodes at once


def create_earning_nodes(world: World) -> None:
    """Nodes 1 to 3 have earned 1,000, 0 and 500."""
    for node in (2, 3):
        world.register_node(hospital=f"hospital {node}")
    world.register_enclave(enclave_key=actor("enclave 3").address, node_id=3)
    earn(world, 1_000)
    terms = world.terms(3, node_id=3, price_per_record=1, budget=500)
    world.open(terms)
    world.settle(world.claim(terms, 500, signer=actor("enclave 3")))


def distribute_many(world: World, *nodes: int) -> int:
    return int(world.vault.distribute_many(list(nodes), sender=actor("anyone").address))


def test_many_nodes_are_split_in_one_call(world: World) -> None:
    create_earning_nodes(world)
    assert distribute_many(world, 1, 2, 3) == 1_500
    events = world.events(world.vault)
    assert [(name, args["node_id"]) for name, args in events] == [
        ("Distributed", 1),
        ("Distributed", 3),
    ]
    hospitals = ("hospital", "hospital 2", "hospital 3")
    assert [world.balance(name) for name in hospitals] == [700, 0, 350]
    assert world.balance("node owner") == 300
    assert distribute_many(world, 1, 2, 3) == 0
    assert world.vault.owed() == 1_500


def test_node_named_twice_is_split_once(world: World) -> None:
    create_earning_nodes(world)
    assert distribute_many(world, 3, 3, 1, 3) == 1_500
    assert world.balance("hospital 3") == 350


def test_unregistered_nodes_among_many_stop_no_other(world: World) -> None:
    create_earning_nodes(world)
    assert distribute_many(world, 0, 9, 1, 2**256 - 1) == 1_000
    assert distribute_many(world) == 0


def test_fifty_nodes_are_split_and_fifty_one_are_no_valid_call(world: World) -> None:
    earn(world, 1_000)
    with reverts(None):
        distribute_many(world, *range(1, 52))
    assert world.earnings().total == 1_000
    assert distribute_many(world, *range(50, 0, -1)) == 1_000


def test_retired_and_suspended_nodes_are_split_in_a_pause(world: World) -> None:
    create_earning_nodes(world)
    world.nodes.retire(1, sender=actor("hospital").address)
    world.nodes.suspend(3, sender=actor("guardian").address)
    world.vault.pause(sender=actor("guardian").address)
    with reverts(Revert.VAULT_PAUSED):
        world.settle()
    assert distribute_many(world, 1, 3) == 1_500


def test_no_payee_can_be_named_for_a_split(world: World) -> None:
    """The caller chooses the node and nothing else."""
    create_earning_nodes(world)
    world.vault.distribute_many([1, 3], sender=actor("thief").address)
    world.vault.distribute(1, sender=actor("thief").address)
    assert world.balance("thief") == 0
