"""Governance changes how future earnings are split, within bounds that it cannot move."""

import pytest
from world import World, actor, reverts

from settlement.reverts import Revert

PAYEES = ("hospital", "node owner", "onboarder", "protocol")
RECORD = 100_000


def shares(world: World, node_id: int = 1) -> tuple[int, ...]:
    return tuple(world.nodes.payees(node_id)[4:])


def set_shares(world: World, *bps: int, node_id: int = 1) -> None:
    world.govern(world.nodes, "set_shares", node_id, *bps)


def earn(world: World, salt: int, records: int = 100) -> None:
    terms = world.terms(salt)
    world.open(terms)
    world.settle(world.claim(terms, records, complete=True))


def test_new_node_has_the_usual_shares(world: World) -> None:
    assert shares(world) == (2_000, 500, 500)
    earn(world, 1)
    world.distribute()
    assert [world.balance(name) // RECORD for name in PAYEES] == [70, 20, 5, 5]


def test_changed_shares_are_of_future_earnings_only(world: World) -> None:
    earn(world, 1)
    set_shares(world, 3_000, 1_000, 1_000)
    assert world.events(world.nodes)[1:] == [
        (
            "SharesChanged",
            {
                "node_id": 1,
                "node_owner_bps": 3_000,
                "onboarder_bps": 1_000,
                "protocol_bps": 1_000,
            },
        )
    ]
    assert [world.balance(name) // RECORD for name in PAYEES] == [70, 20, 5, 5]
    assert shares(world) == (3_000, 1_000, 1_000)
    earn(world, 2)
    world.distribute()
    assert [world.balance(name) // RECORD for name in PAYEES] == [120, 50, 15, 15]


@pytest.mark.parametrize(
    "bps", [(0, 0, 0), (5_000, 0, 0), (0, 5_000, 0), (4_000, 0, 1_000), (1, 4_999, 0)]
)
def test_shares_within_the_bounds_are_taken(world: World, bps: tuple[int, int, int]) -> None:
    set_shares(world, *bps)
    assert shares(world) == bps
    earn(world, 1)
    world.distribute()
    expected = [10_000_000 * share // 10_000 for share in bps]
    assert [world.balance(name) for name in PAYEES[1:]] == expected
    assert world.balance("hospital") == 10_000_000 - sum(expected) >= 5_000_000


TOP = 2**256 - 1


@pytest.mark.parametrize(
    "bps",
    [
        (5_001, 0, 0),
        (0, 5_001, 0),
        (2_501, 2_500, 0),
        (4_001, 0, 1_000),
        (10_000, 10_000, 0),
        (10_001, 0, 0),
        (0, 10_001, 0),
        (TOP, 2, 0),
        (2, TOP, 0),
        (TOP, TOP, 0),
    ],
)
def test_hospital_keeps_at_least_half(world: World, bps: tuple[int, int, int]) -> None:
    with reverts(Revert.NODES_HOSPITAL_SHARE_TOO_LOW):
        set_shares(world, *bps)
    assert shares(world) == (2_000, 500, 500)


@pytest.mark.parametrize("protocol", [1_001, 5_000, TOP])
def test_protocol_gets_at_most_a_tenth(world: World, protocol: int) -> None:
    with reverts(Revert.NODES_PROTOCOL_SHARE_TOO_HIGH):
        set_shares(world, 0, 0, protocol)
    assert shares(world) == (2_000, 500, 500)


@pytest.mark.parametrize("name", ["guardian", "registrar", "hospital", "node owner", "protocol"])
def test_nobody_but_the_owner_changes_shares(world: World, name: str) -> None:
    with reverts(Revert.OWNABLE_CALLER_IS_NOT_THE_OWNER):
        world.nodes.set_shares(1, 0, 0, 0, sender=actor(name).address)


@pytest.mark.parametrize("node_id", [0, 2, TOP])
def test_unregistered_node_has_no_shares_to_change(world: World, node_id: int) -> None:
    with reverts(Revert.NODES_NODE_IS_NOT_REGISTERED):
        set_shares(world, 0, 0, 0, node_id=node_id)


def test_shares_leave_status_treasury_and_other_nodes_alone(world: World) -> None:
    second = world.register_node(hospital="hospital 2")
    world.nodes.suspend(1, sender=actor("guardian").address)
    before = tuple(world.nodes.node(1))
    set_shares(world, 5_000, 0, 0)
    assert tuple(world.nodes.node(1)) == before
    assert shares(world, second) == (2_000, 500, 500)
    world.govern(world.nodes, "resume", 1)
    assert shares(world) == (5_000, 0, 0)
