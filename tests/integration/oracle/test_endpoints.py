"""Several endpoints, some of them faulty, before one anvil: who is gone by, and what is paid."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import structlog
from anvil import Chain
from faulty_rpc import Faults, FaultyRpc, faulty_rpc
from integration.oracle.scene import Scene, url_of
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.registry import Collector

from oracle.chain import RpcChain
from oracle.endpoints import FIRST_PAUSE, EndpointPolicy, Endpoints, Fault, names_of
from oracle.errors import ChainUnavailable, EndpointBusy, EndpointsDisagree
from oracle.messages import Status
from oracle.metrics import endpoint_metrics
from settlement.contracts import WrongChain

SETTLED = (Status.SETTLED, None)
WORTH = 50_000
RECEIPT = "eth_getTransactionReceipt"


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Bench:
    """Three endpoints, and the oracle that reads from them."""

    proxies: list[FaultyRpc]
    endpoints: Endpoints
    scene: Scene
    clock: Clock

    def faults(self) -> list[Fault | None]:
        """What is wrong with each endpoint."""
        return [state.fault for state in self.endpoints.states()]

    def counts(self, index: int) -> dict[Fault, int]:
        """How often an endpoint had each fault."""
        return self.endpoints.states()[index].faults

    def wait(self) -> None:
        """Until whatever was put aside may be asked again."""
        self.clock.now += 100


def endpoints_over(
    proxies: list[FaultyRpc], chain: Chain, policy: EndpointPolicy, clock: Clock
) -> Endpoints:
    chains = [RpcChain(proxy.url, chain.deployment, attempts=1, timeout=4) for proxy in proxies]
    names = names_of([proxy.url for proxy in proxies])
    return Endpoints(list(zip(names, chains, strict=True)), policy, clock)


@pytest.fixture
def proxies(quick: Chain) -> Iterator[list[FaultyRpc]]:
    with ExitStack() as stack:
        yield [stack.enter_context(faulty_rpc(url_of(quick))) for _ in range(3)]


@pytest.fixture
def bench(quick: Chain, proxies: list[FaultyRpc], tmp_path: Path) -> Iterator[Bench]:
    clock = Clock()
    endpoints = endpoints_over(proxies, quick, EndpointPolicy(max_lag=3), clock)
    endpoints.check()
    scene = Scene.create(quick, tmp_path, view=endpoints)
    yield Bench(proxies, endpoints, scene, clock)
    assert scene.keyring is not None
    scene.keyring.close()
    scene.store.close()


NOTHING_SAID = {
    "hangs": (Faults(hang=True), Fault.UNAVAILABLE),
    "answers HTTP 500": (Faults(status=500), Fault.UNAVAILABLE),
    "answers HTTP 429": (Faults(status=429), Fault.RATE_LIMITED),
    "answers -32005": (
        Faults(error={"code": -32005, "message": "limit exceeded"}),
        Fault.RATE_LIMITED,
    ),
    "answers an error": (
        Faults(error={"code": -32603, "message": "internal error"}),
        Fault.UNAVAILABLE,
    ),
    "answers no JSON": (Faults(garbage=b"<html>hello</html>"), Fault.UNAVAILABLE),
    "answers other JSON": (Faults(garbage=b"[1, 2]"), Fault.UNAVAILABLE),
    "answers an empty object": (Faults(garbage=b"{}"), Fault.UNAVAILABLE),
    "answers nonsense": (
        Faults(garbage=b'{"jsonrpc": "2.0", "id": 1, "result": "nonsense"}'),
        Fault.UNAVAILABLE,
    ),
    "answers null": (
        Faults(garbage=b'{"jsonrpc": "2.0", "id": 1, "result": null}'),
        Fault.UNAVAILABLE,
    ),
}


@pytest.mark.parametrize(
    ("which", "index"), [*((which, 0) for which in NOTHING_SAID), ("hangs", 2)]
)
def test_an_endpoint_that_gives_no_answer_is_put_aside_and_all_is_paid_once(
    bench: Bench, which: str, index: int
) -> None:
    faults, fault = NOTHING_SAID[which]
    (job,) = bench.scene.open(1)
    bench.proxies[index].faults = faults
    claim = bench.scene.submit(job, 10)
    bench.scene.rounds(2)
    assert bench.faults()[index] is fault
    assert bench.scene.status(claim) == SETTLED
    assert bench.scene.payments(job) == [10 * WORTH]
    asked = sum(bench.proxies[index].asked.values())
    bench.scene.rounds(1)
    assert sum(bench.proxies[index].asked.values()) == asked  # left alone for a while
    bench.proxies[index].heal()
    bench.wait()
    bench.scene.rounds(1)
    assert bench.faults() == [None, None, None]


def test_an_endpoint_that_stops_following_lags_and_is_not_read_from(bench: Bench) -> None:
    (job,) = bench.scene.open(1)
    bench.proxies[0].faults = Faults(height=bench.scene.chain.w3.eth.block_number)
    claim = bench.scene.submit(job, 10)
    bench.scene.mine(4)
    bench.scene.rounds(2)
    assert bench.faults() == [Fault.LAGS, None, None]
    before = bench.proxies[0].asked["eth_feeHistory"]
    bench.scene.rounds(1)
    assert bench.proxies[0].asked["eth_feeHistory"] == before
    assert bench.scene.status(claim) == SETTLED
    assert bench.scene.payments(job) == [10 * WORTH]
    lag = bench.endpoints.states()[0].lag
    assert lag is not None
    assert lag > 3
    bench.proxies[0].heal()
    bench.scene.rounds(1)
    assert bench.faults() == [None, None, None]


def test_an_old_final_block_of_one_endpoint_holds_nothing_up(bench: Bench) -> None:
    (job,) = bench.scene.open(1)
    old = bench.scene.chain.w3.eth.get_block(1)
    bench.proxies[1].faults = Faults(
        lies={
            "eth_getBlockByNumber": lambda asked, true: (
                {**true, "number": "0x1", "hash": "0x" + old["hash"].hex()}
                if asked[0] == "finalized"
                else true
            )
        }
    )
    claim = bench.scene.submit(job, 10)
    bench.scene.rounds(2)
    assert bench.faults()[1] is Fault.LAGS
    assert bench.scene.status(claim) == SETTLED
    assert bench.scene.payments(job) == [10 * WORTH]


def another_hash(asked: list[object], true: dict[str, object]) -> dict[str, object]:
    """A block of another chain's."""
    return {**true, "hash": "0x" + "ab" * 32} if true else true


def test_endpoints_that_disagree_on_a_final_block_stop_everything_until_they_agree(
    bench: Bench,
) -> None:
    (job,) = bench.scene.open(1)
    claim = bench.scene.submit(job, 10)
    block = bench.scene.watcher
    bench.scene.mine(2)
    bench.proxies[2].faults = Faults(lies={"eth_getBlockByNumber": another_hash})
    sent = bench.proxies[0].asked["eth_sendRawTransaction"]
    for decide in (bench.scene.tick, block.tick):
        with pytest.raises(EndpointsDisagree, match="take the wrong one out") as caught:
            decide()
        assert set(caught.value.answers) == {proxy.name for proxy in bench.proxies}
    assert bench.faults() == [Fault.DISAGREES] * 3
    assert bench.proxies[0].asked["eth_sendRawTransaction"] == sent
    assert bench.scene.status(claim) == (Status.ACCEPTED, None)
    assert bench.scene.payments(job) == []
    bench.proxies[2].heal()
    bench.scene.rounds(2)
    assert bench.faults() == [None, None, None]
    assert bench.scene.payments(job) == [10 * WORTH]


def test_an_event_that_one_endpoint_leaves_out_is_not_overlooked(bench: Bench) -> None:
    bench.proxies[0].faults = Faults(lies={"eth_getLogs": lambda asked, true: []})
    job = bench.scene.chain.open(bench.scene.chain.terms())
    bench.scene.mine(4)
    with pytest.raises(EndpointsDisagree, match="the events of blocks"):
        bench.scene.watch()
    bench.proxies[0].heal()
    bench.scene.watch()
    claim = bench.scene.submit(job, 10)
    bench.scene.rounds(2)
    assert bench.scene.status(claim) == SETTLED
    assert bench.scene.payments(job) == [10 * WORTH]


def test_an_invented_event_pays_nothing(bench: Bench) -> None:
    """One endpoint shows a job twice over; alone it is not believed."""
    (job,) = bench.scene.open(1)
    bench.scene.submit(job, 10)
    bench.scene.tick()
    bench.scene.mine(4)
    bench.proxies[1].faults = Faults(lies={"eth_getLogs": lambda asked, true: [*true, *true]})
    with pytest.raises(EndpointsDisagree):
        bench.scene.watch()
    bench.proxies[1].heal()
    bench.scene.rounds(2)
    assert bench.scene.payments(job) == [10 * WORTH]


def test_a_receipt_that_one_endpoint_denies_or_invents_is_settled_by_the_facts(
    bench: Bench,
) -> None:
    (job,) = bench.scene.open(1)
    claim = bench.scene.submit(job, 10)
    bench.scene.tick()
    bench.scene.finalize()
    bench.proxies[0].faults = Faults(lies={RECEIPT: lambda asked, true: None})
    bench.scene.tick()  # the two others know better
    (row,) = bench.scene.attempts()
    assert row.state == "FINAL"
    assert bench.scene.status(claim) == SETTLED
    # a failure that never was sends nothing again
    bench.proxies[0].faults = Faults(lies={RECEIPT: lambda asked, true: {**true, "status": "0x0"}})
    mined = bench.endpoints.mined(row.hash)
    assert mined is not None
    assert mined.success
    bench.proxies[1].faults = Faults(lies={RECEIPT: lambda asked, true: None})
    with pytest.raises(EndpointsDisagree, match="the receipt of"):
        bench.endpoints.mined(row.hash)
    assert bench.scene.payments(job) == [10 * WORTH]


def test_no_receipt_is_rejected_on_one_endpoints_word(bench: Bench) -> None:
    (job,) = bench.scene.open(1)
    claim = bench.scene.submit(job, 10)
    refused = 4  # ENCLAVE_REFUSED
    bench.proxies[0].faults = Faults(lies={"eth_call": lambda asked, true: _outcome(true, refused)})
    with pytest.raises(ChainUnavailable, match="differ about the newest block"):
        bench.scene.tick()
    assert bench.scene.status(claim) == (Status.ACCEPTED, None)
    bench.proxies[0].heal()
    bench.scene.rounds(2)
    assert bench.scene.payments(job) == [10 * WORTH]


def _outcome(true: str, code: int) -> str:
    """Another outcome for a settling call, which is the only one whose answer is this one word."""
    return "0x" + code.to_bytes(32, "big").hex() if true == "0x" + bytes(32).hex() else true


def test_a_transaction_goes_to_all_endpoints_and_one_that_takes_it_is_enough(
    bench: Bench,
) -> None:
    (job,) = bench.scene.open(1)
    sending = frozenset({"eth_sendRawTransaction"})
    for proxy in bench.proxies[:2]:
        refusal = {"code": -32000, "message": "transaction pool is full"}
        proxy.faults = Faults(error=refusal, only=sending)
    claim = bench.scene.submit(job, 10)
    bench.scene.rounds(2)
    assert [proxy.asked["eth_sendRawTransaction"] > 0 for proxy in bench.proxies] == [True] * 3
    assert bench.scene.status(claim) == SETTLED
    assert bench.scene.payments(job) == [10 * WORTH]


def test_with_too_few_endpoints_nothing_is_decided_and_later_nothing_is_lost(
    bench: Bench,
) -> None:
    (job,) = bench.scene.open(1)
    claim = bench.scene.submit(job, 10)
    for proxy in bench.proxies[1:]:
        proxy.faults = Faults(status=503)
    with pytest.raises(ChainUnavailable, match="1 of 2 endpoints answer"):
        bench.scene.tick()
    with pytest.raises(ChainUnavailable, match="1 of 2 endpoints answer"):
        bench.scene.watch()
    assert bench.scene.payments(job) == []
    for proxy in bench.proxies:
        proxy.heal()
    bench.wait()
    bench.scene.rounds(2)
    assert bench.scene.status(claim) == SETTLED
    assert bench.scene.payments(job) == [10 * WORTH]


def test_an_endpoint_that_comes_back_as_another_chain_is_not_believed(bench: Bench) -> None:
    bench.proxies[0].faults = Faults(status=503)
    bench.endpoints.finalized()
    bench.proxies[0].faults = Faults(lies={"eth_chainId": lambda asked, true: "0x89"})
    bench.wait()
    before = bench.proxies[0].asked["eth_feeHistory"]
    (job,) = bench.scene.open(1)
    bench.scene.submit(job, 10)
    bench.scene.rounds(2)
    assert bench.faults() == [Fault.WRONG_CHAIN, None, None]
    assert bench.proxies[0].asked["eth_feeHistory"] == before
    assert bench.scene.payments(job) == [10 * WORTH]


@pytest.mark.parametrize("method", ["eth_chainId", "eth_getCode"])
def test_one_endpoint_of_another_chain_or_without_the_contracts_is_refused_at_the_start(
    quick: Chain, proxies: list[FaultyRpc], method: str
) -> None:
    wrong = {"eth_chainId": "0x89", "eth_getCode": "0x"}[method]
    proxies[2].faults = Faults(lies={method: lambda asked, true: wrong})
    endpoints = endpoints_over(proxies, quick, EndpointPolicy(), Clock())
    with pytest.raises(WrongChain):
        endpoints.check()


def test_an_endpoint_that_is_down_at_the_start_holds_nothing_up(
    quick: Chain, proxies: list[FaultyRpc]
) -> None:
    proxies[0].faults = Faults(status=503)
    endpoints = endpoints_over(proxies, quick, EndpointPolicy(), Clock())
    endpoints.check()
    assert endpoints.finalized().number >= 0
    for proxy in proxies:
        proxy.faults = Faults(status=503)
    with pytest.raises(ChainUnavailable):
        endpoints_over(proxies, quick, EndpointPolicy(), Clock()).check()


def test_two_endpoints_that_disagree_stop_deciding_even_where_one_would_be_enough(
    quick: Chain, proxies: list[FaultyRpc]
) -> None:
    endpoints = endpoints_over(proxies[:2], quick, EndpointPolicy(), Clock())
    endpoints.finalized()
    proxies[0].faults = Faults(lies={"eth_getBlockByNumber": another_hash})
    with pytest.raises(EndpointsDisagree):
        endpoints.finalized()


def test_a_limited_endpoint_is_left_alone_as_long_as_it_asks(
    quick: Chain, proxies: list[FaultyRpc]
) -> None:
    clock = Clock()
    endpoints = endpoints_over(proxies[:1], quick, EndpointPolicy(), clock)
    proxies[0].faults = Faults(status=429, headers={"Retry-After": "45"})
    with pytest.raises(EndpointBusy):
        endpoints.fees()
    asked = sum(proxies[0].asked.values())
    clock.now = 44
    proxies[0].heal()
    with pytest.raises(ChainUnavailable, match="rate limited"):
        endpoints.fees()
    assert sum(proxies[0].asked.values()) == asked
    clock.now = 46
    assert endpoints.fees().base_fee > 0


def test_pauses_double_with_each_failure_in_a_row(quick: Chain, proxies: list[FaultyRpc]) -> None:
    clock = Clock()
    endpoints = endpoints_over(proxies, quick, EndpointPolicy(), clock)
    proxies[0].faults = Faults(status=503)
    asked = []
    for _ in range(12):
        endpoints.finalized()
        asked.append(sum(proxies[0].asked.values()))
        clock.now += FIRST_PAUSE
    again = [second for second in range(1, 12) if asked[second] > asked[second - 1]]
    assert again == [1, 3, 7]


def test_neither_logs_nor_metrics_nor_errors_show_an_endpoints_url(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    for proxy in bench.proxies:
        proxy.faults = Faults(status=503)
    with structlog.testing.capture_logs() as logs, pytest.raises(ChainUnavailable) as caught:
        bench.scene.tick()
    metrics = exposition(bench)
    shown = f"{logs} {caught.value} {caught.value.__cause__} {metrics} {bench.endpoints.states()}"
    assert "secret" not in shown
    assert bench.proxies[0].name in shown
    down = f'rapha_oracle_endpoint_up{{endpoint="{bench.proxies[0].name}"}} 0.0'
    assert down in metrics
    count = (
        f'rapha_oracle_endpoint_faults_total{{endpoint="{bench.proxies[0].name}",'
        'fault="unavailable"}'
    )
    assert count in metrics


def exposition(bench: Bench) -> str:
    """The endpoints' metrics as text."""

    class Once(Collector):
        def collect(self) -> Iterator[object]:  # type: ignore[override]
            yield from endpoint_metrics(bench.endpoints.states())

    registry = CollectorRegistry()
    registry.register(Once())
    return generate_latest(registry).decode()


def test_endpoints_are_named_by_host_alone() -> None:
    urls = [
        "https://user:word@polygon.test/v2/key?token=1",
        "https://polygon.test/other",
        "http://127.0.0.1:8545",
        "not a url",
    ]
    assert names_of(urls) == ["polygon.test", "polygon.test#2", "127.0.0.1:8545", "endpoint"]
    policy = EndpointPolicy()
    assert [policy.needed(count) for count in (1, 2, 3, 5)] == [1, 1, 2, 2]
    assert replace(policy, agree=3).needed(3) == 3
