"""One node per job, and a reason about every other."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oracle.clients.hub.errors import BudgetTooSmall, DeadlineTooSoon, NoNodeAvailable, in_usdc
from oracle.clients.hub.routing import Standing, Wish, Work, check_deadline
from oracle.clients.hub.routing import route as route_wish
from settlement.hub.messages import DatasetProfile, JobRequest, OutputPolicy, Route

GOOD = Standing(2_000_000_000, ())


def route(
    request: JobRequest,
    profiles: Iterable[DatasetProfile],
    standings: Mapping[int, Standing],
    load: Mapping[int, int],
) -> tuple[DatasetProfile, Route]:
    """Nodes that differ by what they have to do and nothing else of that."""
    work = {node_id: Work(unfinished=jobs) for node_id, jobs in load.items()}
    return route_wish(Wish.of(request), profiles, standings, work)


MakeProfile = Callable[..., DatasetProfile]
MakeRequest = Callable[..., JobRequest]


def test_fitting_node_is_chosen_with_its_reasons(
    make_profile: MakeProfile, make_request: MakeRequest
) -> None:
    profile, chosen = route(make_request(), [make_profile(1)], {1: GOOD}, {})
    assert profile.node_id == chosen.node_id == 1
    assert chosen.why == (
        "modality tabular with 569 records",
        "its attestation is valid now",
        "it can cost up to 5.79 USDC (5790000 base units), within the budget",
        "its turn: of 1 fitting nodes it has the least to do, or waits longest",
    )


@pytest.mark.parametrize(
    ("changes", "standings", "why"),
    [
        ({"modality": "imaging"}, {1: GOOD}, "its modality is imaging, not tabular"),
        ({"record_count": 499}, {1: GOOD}, "it has 499 records, not 500"),
        ({}, {2: GOOD}, "its attestation is not valid now (enclave_missing)"),
        (
            {},
            {1: Standing(None, ("enclave_expired", "tpm_missing"))},
            "its attestation is not valid now (enclave_expired, tpm_missing)",
        ),
    ],
)
def test_node_that_does_not_fit_is_told_why(
    make_profile: MakeProfile,
    make_request: MakeRequest,
    changes: dict[str, Any],
    standings: dict[int, Standing],
    why: str,
) -> None:
    with pytest.raises(NoNodeAvailable) as caught:
        route(make_request(), [make_profile(1, **changes)], standings, {})
    assert caught.value.quotes[0].why == (why,)
    assert caught.value.final is False
    assert why in str(caught.value)


def test_policy_that_wants_more_records_than_there_are_excludes_the_node(
    make_profile: MakeProfile, make_request: MakeRequest
) -> None:
    policy = OutputPolicy(
        min_records=600,
        max_output_bytes=1,
        max_tensors=1,
        allowed_dtypes=("F32",),
        allowed_metrics=(),
    )
    with pytest.raises(NoNodeAvailable) as caught:
        route(make_request(policy=policy), [make_profile(1)], {1: GOOD}, {})
    assert caught.value.quotes[0].why == (
        "the policy wants an output to rest on 600 records, it has 569",
    )


def test_without_profiles_there_is_no_node(make_request: MakeRequest) -> None:
    with pytest.raises(NoNodeAvailable, match="no dataset profile is published"):
        route(make_request(), [], {}, {})


def test_budget_below_the_cheapest_worst_case_names_both_amounts(
    make_profile: MakeProfile, make_request: MakeRequest
) -> None:
    dear, dearer = make_profile(1), make_profile(2, price_per_record=20_000)
    with pytest.raises(BudgetTooSmall) as caught:
        route(make_request(budget=5_789_999), [dearer, dear], {1: GOOD, 2: GOOD}, {})
    assert (caught.value.needed, caught.value.given) == (5_790_000, 5_789_999)
    assert str(caught.value) == (
        "the job can cost up to 5.79 USDC (5790000 base units), "
        "the budget is 5.789999 USDC (5789999 base units)"
    )


def test_budget_equal_to_the_worst_case_is_enough(
    make_profile: MakeProfile, make_request: MakeRequest
) -> None:
    assert route(make_request(budget=5_790_000), [make_profile(1)], {1: GOOD}, {})[1].node_id == 1


@pytest.mark.parametrize(
    ("load", "prices", "node_id"),
    [
        ({1: 1}, (10_000, 12_000), 2),
        ({}, (12_000, 10_000), 2),
        ({}, (10_000, 10_000), 1),
        ({1: 2, 2: 2}, (10_000, 10_000), 1),
    ],
)
def test_least_loaded_then_cheapest_then_lowest_id_is_chosen(
    make_profile: MakeProfile,
    make_request: MakeRequest,
    load: dict[int, int],
    prices: tuple[int, int],
    node_id: int,
) -> None:
    profiles = [make_profile(i, price_per_record=p) for i, p in enumerate(prices, start=1)]
    assert route(make_request(), profiles, {1: GOOD, 2: GOOD}, load)[0].node_id == node_id


def test_deadline_must_lie_far_enough_ahead() -> None:
    check_deadline(1_060, now=1_000, shortest=60)
    with pytest.raises(DeadlineTooSoon, match="the deadline 1059 must not be before 1060"):
        check_deadline(1_059, now=1_000, shortest=60)


@pytest.mark.parametrize(
    ("amount", "words"),
    [
        (0, "0 USDC (0 base units)"),
        (1, "0.000001 USDC (1 base units)"),
        (1_500_000, "1.5 USDC (1500000 base units)"),
        (2_000_000, "2 USDC (2000000 base units)"),
    ],
)
def test_amounts_in_words(amount: int, words: str) -> None:
    assert in_usdc(amount) == words


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    nodes=st.lists(
        st.tuples(
            st.sampled_from(["tabular", "imaging"]),
            st.integers(1, 2**64 - 1),
            st.integers(0, 2**64 - 1),
            st.integers(0, 20_000),
            st.booleans(),
            st.integers(0, 3),
        ),
        max_size=6,
    ),
    budget=st.integers(1, 2**64 - 1),
    epochs=st.integers(1, 100),
)
def test_a_route_always_fits_and_a_refusal_is_always_right(
    make_profile: MakeProfile,
    make_request: MakeRequest,
    nodes: list[tuple[str, int, int, int, bool, int]],
    budget: int,
    epochs: int,
) -> None:
    profiles = {
        i: make_profile(
            i, modality=kind, record_count=count, price_per_record=price, price_per_epoch=epoch
        )
        for i, (kind, count, price, epoch, _, _) in enumerate(nodes, start=1)
    }
    attested = {i for i, node in enumerate(nodes, start=1) if node[4]}
    standings = dict.fromkeys(attested, GOOD)
    load = {i: node[5] for i, node in enumerate(nodes, start=1)}
    request = make_request(budget=budget, epochs=epochs)
    fits = {
        i: profile.worst_case(epochs)
        for i, profile in profiles.items()
        if profile.modality == "tabular" and profile.record_count >= 500 and i in attested
    }
    affordable = [i for i, cost in fits.items() if cost <= budget]
    if affordable:
        profile, chosen = route(request, profiles.values(), standings, load)
        assert profile.node_id == chosen.node_id
        assert profile.node_id in affordable
        assert load[profile.node_id] == min(load[i] for i in affordable)
        free = {quote.node_id for quote in chosen.quotes if not quote.why}
        assert free == set(affordable)
    elif fits:
        with pytest.raises(BudgetTooSmall) as dear:
            route(request, profiles.values(), standings, load)
        assert (dear.value.needed, dear.value.given) == (min(fits.values()), budget)
    else:
        with pytest.raises(NoNodeAvailable) as none:
            route(request, profiles.values(), standings, load)
        assert [quote.node_id for quote in none.value.quotes] == list(profiles)
        assert all(quote.why for quote in none.value.quotes)
