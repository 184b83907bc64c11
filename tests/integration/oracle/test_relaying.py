"""The relayer through everything that a real pool and a real chain do to transactions."""

import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from anvil import Chain, key
from integration.oracle.scene import CAP, GWEI, PATIENCE, POLICY, Scene, url_of
from sqlalchemy import update

from oracle.batching import BatchPolicy
from oracle.chain import RpcChain
from oracle.errors import FundsTooLow, KeyInUse
from oracle.messages import Status
from oracle.store.intake_tables import LeaseRow
from scripts.chain import ROOT, rpc

SETTLED = (Status.SETTLED, None)
WORTH = 50_000  # of a record


def states(scene: Scene, nonce: int = 0, name: str = "relayer") -> list[tuple[str, str]]:
    """Kind and state of each attempt at a nonce."""
    return [(row.kind, row.state) for row in scene.attempts(nonce, name)]


def test_a_receipt_is_settled_and_its_transaction_final(scene: Scene) -> None:
    (job,) = scene.open(1)
    claim = scene.submit(job, 10)
    assert scene.tick()
    scene.finalize()
    scene.tick()
    assert scene.status(claim) == SETTLED
    assert scene.payments(job) == [10 * WORTH]
    assert states(scene) == [("settle", "FINAL")]
    assert scene.unfinished() == []


def test_a_dropped_transaction_is_sent_again_as_it_was(scene: Scene) -> None:
    (job,) = scene.open(1)
    scene.automine(False)
    claim = scene.submit(job, 10)
    scene.tick()
    (row,) = scene.attempts()
    scene.drop(row.hash)
    scene.mine()
    assert not scene.view.is_known(row.hash)
    scene.tick()
    assert scene.view.is_known(row.hash)
    scene.rounds(2)
    assert scene.status(claim) == SETTLED
    assert scene.payments(job) == [10 * WORTH]
    assert states(scene) == [("settle", "FINAL")]


def test_what_was_evicted_while_the_process_was_down_is_sent_first(scene: Scene) -> None:
    first, second = scene.open(1, 2)
    scene.automine(False)
    scene.submit(first, 10)
    scene.tick()
    scene.drop(scene.attempts()[0].hash)
    scene.restart()
    scene.submit(second, 20)
    scene.tick()
    assert [row.nonce for row in scene.unfinished()] == [0, 1]
    scene.rounds(2)
    assert (scene.payments(first), scene.payments(second)) == ([10 * WORTH], [20 * WORTH])
    assert states(scene, 0) == states(scene, 1) == [("settle", "FINAL")]


def test_in_a_fee_spike_it_bids_up_to_the_cap_waits_there_and_is_mined_after_it(
    scene: Scene,
) -> None:
    (job,) = scene.open(1)
    scene.automine(False)
    claim = scene.submit(job, 10)
    scene.tick()
    for _ in range(24):  # an eighth more each time, from 2 gwei to 100, takes no longer
        scene.mine(PATIENCE, base_fee=3 * CAP)
        scene.tick()
    attempts = scene.attempts()
    for lower, higher in pairwise(attempts):
        assert higher.max_fee * 8 >= lower.max_fee * 9
        assert higher.tip * 8 >= lower.tip * 9
    assert len({(row.nonce, row.data) for row in attempts}) == 1
    assert CAP * 8 // 9 < attempts[-1].max_fee <= CAP
    assert scene.status(claim)[0] == Status.SUBMITTED
    assert scene.payments(job) == []
    scene.mine(1, base_fee=GWEI)
    scene.rounds(2)
    assert scene.payments(job) == [10 * WORTH]
    assert states(scene)[-1] == ("settle", "FINAL")
    assert scene.unfinished() == []


def test_a_foreign_transaction_on_our_key_costs_the_nonce_and_nothing_else(scene: Scene) -> None:
    (job,) = scene.open(1)
    scene.automine(False)
    claim = scene.submit(job, 10)
    scene.tick()
    scene.push("relayer", None, nonce=0)
    scene.mine()
    scene.automine(True)
    scene.rounds()
    assert states(scene, 0) == [("settle", "LOST")]
    assert states(scene, 1) == [("settle", "FINAL")]
    assert scene.status(claim) == SETTLED
    assert scene.payments(job) == [10 * WORTH]


def test_a_foreign_transaction_that_waits_at_our_next_nonce_is_outbid(scene: Scene) -> None:
    (job,) = scene.open(1)
    scene.automine(False)
    scene.push("relayer", None, nonce=0, tip=2 * GWEI, max_fee=10 * GWEI)
    claim = scene.submit(job, 10)
    while not scene.attempts() or not scene.attempts()[-1].sent:
        scene.tick()  # an eighth more each time, until the pool takes it
    scene.mine()
    scene.rounds(2)
    assert states(scene, 0)[-1] == ("settle", "FINAL")
    assert scene.status(claim) == SETTLED
    assert scene.payments(job) == [10 * WORTH]


def test_a_nonce_that_nothing_uses_is_filled_so_that_later_ones_are_mined(scene: Scene) -> None:
    (job,) = scene.open(1)
    truth = scene.view.next_nonce
    # an endpoint that counts two transactions too many
    scene.view.next_nonce = lambda account, *, final: truth(account, final=final) + 2  # type: ignore[method-assign]
    claim = scene.submit(job, 10)
    scene.tick()
    scene.view.next_nonce = truth  # type: ignore[method-assign]
    assert [row.nonce for row in scene.unfinished()] == [2]
    scene.rounds()
    assert states(scene, 0) == states(scene, 1) == [("cancel", "FINAL")]
    assert states(scene, 2) == [("settle", "FINAL")]
    assert scene.status(claim) == SETTLED
    assert scene.payments(job) == [10 * WORTH]


def test_what_somebody_else_settled_first_is_cancelled_under_its_nonce(scene: Scene) -> None:
    (job,) = scene.open(1)
    scene.automine(False)
    claim = scene.submit(job, 10)
    scene.tick()
    scene.push("rival", scene.chain.payer.settle_call([claim]))
    for _ in range(4):  # too dear for ours
        scene.mine(1, base_fee=50 * GWEI)
    scene.watch()
    assert scene.status(claim) == SETTLED
    scene.tick()
    assert [kind for kind, _ in states(scene)] == ["settle", "cancel"]
    scene.mine(1, base_fee=GWEI)
    scene.rounds(2)
    assert states(scene)[-1] == ("cancel", "FINAL")
    assert scene.payments(job) == [10 * WORTH]
    assert scene.unfinished() == []


def pause(scene: Scene) -> None:
    """The guardian's pause goes before whatever waits in the pool."""
    scene.push("guardian", scene.chain.payer.vault.functions.pause())


def unpause(scene: Scene) -> None:
    """The pause ends by time."""
    until = scene.chain.payer.vault.functions.paused_until().call()
    scene.chain.pass_time(until)


def test_a_batch_that_reverts_in_its_block_since_the_vault_was_paused_is_paid_once_after_it(
    scene: Scene,
) -> None:
    first, second = scene.open(1, 2)
    scene.automine(False)
    claims = [scene.submit(first, 10), scene.submit(second, 20)]
    scene.tick()
    pause(scene)
    scene.mine()
    scene.automine(True)
    scene.finalize()
    assert not scene.tick()
    assert states(scene) == [("settle", "REVERTED")]
    assert [scene.status(claim) for claim in claims] == [(Status.ACCEPTED, None)] * 2
    assert not scene.tick()
    unpause(scene)
    scene.rounds(2)
    assert [scene.status(claim) for claim in claims] == [SETTLED] * 2
    assert (scene.payments(first), scene.payments(second)) == ([10 * WORTH], [20 * WORTH])


def test_receipts_of_a_reverted_batch_are_told_apart_in_halves(
    quick: Chain, tmp_path: Path
) -> None:
    policy = replace(POLICY, batch=BatchPolicy(max_batch=2))
    scene = Scene.create(quick, tmp_path, policy=policy)
    jobs = scene.open(1, 2)
    scene.automine(False)
    for job in jobs:
        scene.submit(job, 10)
    scene.tick()
    pause(scene)
    scene.mine()
    scene.automine(True)
    unpause(scene)
    scene.finalize()
    scene.tick()
    scene.rounds(1)
    assert [states(scene, nonce) for nonce in (0, 1, 2)] == [
        [("settle", "REVERTED")],
        [("settle", "FINAL")],
        [("settle", "FINAL")],
    ]
    assert [scene.payments(job) for job in jobs] == [[10 * WORTH]] * 2


def test_what_waits_unmined_while_the_vault_is_paused_is_cancelled_and_paid_after_it(
    scene: Scene,
) -> None:
    (job,) = scene.open(1)
    scene.automine(False)
    claim = scene.submit(job, 10)
    scene.tick()
    pause(scene)
    scene.mine(PATIENCE, base_fee=50 * GWEI)  # the pause pays that, ours does not
    scene.tick()
    assert [kind for kind, _ in states(scene)] == ["settle", "cancel"]
    assert scene.status(claim) == (Status.ACCEPTED, None)
    scene.mine(1, base_fee=GWEI)
    scene.automine(True)
    scene.finalize()
    scene.tick()
    assert states(scene)[-1] == ("cancel", "FINAL")
    unpause(scene)
    scene.rounds(2)
    assert scene.status(claim) == SETTLED
    assert scene.payments(job) == [10 * WORTH]


def test_an_enclave_revoked_while_its_receipt_is_on_the_way_is_paid_no_more(scene: Scene) -> None:
    (job,) = scene.open(1)
    paid = scene.submit(job, 10)
    scene.tick()
    scene.finalize()
    scene.automine(False)
    late = scene.submit(job, 30)
    scene.tick()
    revoke = scene.chain.payer.enclaves.functions.revoke(key("enclave").address)
    scene.push("guardian", revoke)
    scene.mine()
    scene.automine(True)
    scene.rounds(2)
    assert scene.status(paid) == SETTLED
    assert scene.status(late) == (Status.REJECTED, "EnclaveRevoked")
    assert scene.payments(job) == [10 * WORTH]
    assert states(scene, 1) == [("settle", "FINAL")]
    assert scene.unfinished() == []


def test_a_deep_reorganisation_takes_nothing_and_pays_nothing_twice(scene: Scene) -> None:
    (job,) = scene.open(1)
    claim = scene.submit(job, 10)
    scene.tick()
    scene.mine()
    rpc(scene.chain.w3, "anvil_reorg", 2, [])
    scene.rounds()
    assert scene.status(claim) == SETTLED
    assert scene.payments(job) == [10 * WORTH]
    assert scene.unfinished() == []


# Several keys


def test_several_keys_share_the_work_and_no_receipt_goes_twice(
    quick: Chain, tmp_path: Path
) -> None:
    scene = Scene.create(quick, tmp_path, keys=("relayer", "second", "third"))
    jobs = scene.open(1, 2, 3)
    scene.automine(False)
    for job in jobs:
        scene.submit(job, 10)
        scene.tick()
    assert {row.sender for row in scene.unfinished()} == {key(name).address for name in scene.keys}
    assert [row.nonce for row in scene.unfinished()] == [0, 0, 0]
    scene.rounds(2)
    assert [scene.payments(job) for job in jobs] == [[10 * WORTH]] * 3
    assert scene.unfinished() == []


def test_a_key_without_gas_money_leaves_its_work_to_the_other(quick: Chain, tmp_path: Path) -> None:
    scene = Scene.create(quick, tmp_path, keys=("relayer", "second"))
    (job,) = scene.open(1)
    scene.automine(False)
    claim = scene.submit(job, 10)
    scene.tick()
    assert [row.sender for row in scene.unfinished()] == [key("relayer").address]
    # the pool forgets it, and the key cannot pay for sending it again
    scene.drop(scene.attempts()[0].hash)
    scene.fund("relayer", 1)
    scene.mine()
    scene.tick()
    assert [kind for kind, _ in states(scene)] == ["settle", "cancel"]
    assert states(scene, 0, "second") == [("settle", "PENDING")]
    assert scene.keyring is not None
    poor, rich = scene.keyring.states()
    assert poor.trouble is not None
    assert poor.trouble.startswith("FundsTooLow")
    assert (poor.low, rich.low, rich.trouble) == (True, False, None)
    scene.mine()
    scene.finalize()
    scene.tick()
    assert scene.status(claim) == SETTLED
    # refilled, it finishes its nonce, which carries nothing any more
    scene.fund("relayer")
    scene.rounds(2)
    assert states(scene)[-1] == ("cancel", "FINAL")
    assert scene.payments(job) == [10 * WORTH]
    assert scene.unfinished() == []


def test_the_only_key_without_gas_money_loses_nothing(scene: Scene) -> None:
    (job,) = scene.open(1)
    scene.fund("relayer", 1)
    claim = scene.submit(job, 10)
    with pytest.raises(FundsTooLow):
        scene.tick()
    assert scene.status(claim) == (Status.ACCEPTED, None)
    assert scene.unfinished() == []
    scene.fund("relayer")
    scene.rounds(2)
    assert scene.status(claim) == SETTLED
    assert scene.payments(job) == [10 * WORTH]


def test_what_a_retired_key_left_is_settled_by_its_successor(scene: Scene) -> None:
    (job,) = scene.open(1)
    scene.automine(False)
    claim = scene.submit(job, 10)
    scene.tick()
    scene.drop(scene.attempts()[0].hash)
    scene.fund("successor")
    scene.restart(keys=("successor",))
    assert scene.keyring is not None
    scene.keyring.prepare()
    assert scene.status(claim) == (Status.ACCEPTED, None)
    scene.automine(True)
    scene.rounds(2)
    assert scene.status(claim) == SETTLED
    assert scene.payments(job) == [10 * WORTH]


def test_a_second_process_on_one_sqlite_store_is_refused(scene: Scene) -> None:
    assert scene.keyring is not None
    scene.keyring.prepare()
    program = (
        "import sys\n"
        "from oracle.lease import KeyLease\n"
        "from oracle.store.database import Store\n"
        "from oracle.errors import KeyInUse\n"
        "try:\n"
        "    KeyLease(Store(sys.argv[1]), sys.argv[2]).acquire()\n"
        "except KeyInUse as error:\n"
        "    print(error.code)\n"
        "else:\n"
        "    print('taken')\n"
    )
    command = [sys.executable, "-c", program, str(scene.store.engine.url), key("relayer").address]

    def other() -> str:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()[-1]

    assert other() == "KeyInUse"
    scene.keyring.close()
    assert other() == "taken"


def test_a_process_whose_key_was_taken_writes_no_nonce(scene: Scene) -> None:
    (job,) = scene.open(1)
    claim = scene.submit(job, 10)
    scene.tick()
    second = scene.submit(job, 20)
    with scene.store.write() as session:  # what another process does that takes the key
        session.execute(update(LeaseRow).values(epoch=LeaseRow.epoch + 1))
    with pytest.raises(KeyInUse):
        scene.tick()
    assert scene.status(second) == (Status.ACCEPTED, None)
    assert [row.nonce for row in scene.unfinished()] == [0]
    scene.finalize()
    assert scene.status(claim) == SETTLED
    scene.rounds(2)
    assert scene.payments(job) == [10 * WORTH, 10 * WORTH]


def test_balances_and_known_transactions_are_the_chains(scene: Scene) -> None:
    view = RpcChain(url_of(scene.chain), scene.chain.deployment)
    scene.fund("relayer", 12345)
    assert view.balance(key("relayer").address) == 12345
    assert not view.is_known(bytes(32))
