"""What must always hold, read from the contracts after each action."""

from stateful.bench import ACCOUNTS, PAYERS, Bench, Disagreement
from stateful.decoding import fast_events
from stateful.evm import words
from stateful.reference import VAULT

from settlement.events import Event, decode_events
from settlement.ledger import Ledger


class Checked(Bench):
    """A bench that compares everything."""

    def check(self) -> None:
        """All that the contracts say is what the reference says, and the invariants hold in it."""
        reference = self.reference
        reference.check()
        self._follow()
        dispute_words = []
        for number in range(1, reference.dispute_count + 1):
            dispute = reference.disputes.get(number)
            dispute_words.append(
                self.person(dispute.funder).word
                + words(dispute.node, dispute.version, dispute.amount, dispute.answer_until)
                if dispute
                else bytes(160)
            )
        owed = reference.owed
        expected = b"".join(
            (
                words(
                    reference.in_vault,
                    owed,
                    reference.paused_until,
                    reference.dispute_count,
                    self.number(reference.arbiter),
                    reference.committee.epoch,
                    *[reference.wallets[name] for name in ACCOUNTS],
                    *[reference.balances[name] for name in (*ACCOUNTS, VAULT)],
                    *[reference.withdrawals[name] for name in PAYERS],
                ),
                *[job.view() for job in reference.jobs.values()],
                *[reference.earnings_view(*key) for key in self._payee_sets],
                *dispute_words,
            )
        )
        views = self._fixed_views + self._job_views + self._payee_views + self._dispute_views
        found = self.chain.read(bytes(views))
        if found != expected:
            self._explain(bytes(views), found, expected)

    def _follow(self) -> None:
        """Ask for what has come into being since the last time."""
        reference, vault = self.reference, self.vault
        known = len(self._job_views) // 192
        if known < len(reference.jobs):
            for job_id in list(reference.jobs)[known:]:
                self._job_views += vault.view("job", 9, int.from_bytes(job_id, "big"))
        sets = sum(len(node.sets) for node in reference.nodes.values())
        if sets != len(self._payee_sets):
            self._payee_sets = [
                (number, version)
                for number, node in reference.nodes.items()
                for version in range(len(node.sets))
            ]
            self._payee_views = bytearray()
            for number, version in self._payee_sets:
                if version == reference.nodes[number].version:
                    self._payee_views += vault.view("earnings_of", 6, number)
                else:
                    self._payee_views += vault.view("past_earnings_of", 6, number, version)
        for number in range(len(self._dispute_views) // 192, reference.dispute_count):
            self._dispute_views += vault.view("disputes", 5, number + 1)

    def _explain(self, views: bytes, found: bytes, expected: bytes) -> None:
        """Name the first view that answers otherwise."""
        position = 0
        for index in range(0, len(views), 192):
            size = int.from_bytes(views[index + 64 : index + 96], "big")
            answer, wanted = found[position : position + size], expected[position : position + size]
            position += size
            if answer != wanted:
                numbers = [
                    [int.from_bytes(part[i : i + 32], "big") for i in range(0, size, 32)]
                    for part in (answer, wanted)
                ]
                call = views[index + 96 : index + 192].hex()
                raise Disagreement(f"answer {numbers[0]} to {call}", str(numbers[1]))
        raise Disagreement(f"answer {len(found)} bytes", f"{len(expected)}")

    def events(self, *, by_sdk: bool) -> list[tuple[Event, int]]:
        """The events of the vault and the node registry so far, each with its block's time.

        `by_sdk` decodes them with `settlement.events`, which takes many times as long.
        """
        if by_sdk:
            logs = self.chain.logs()
            times = {log["blockNumber"]: time for time, log in logs}
            decoded = decode_events(self.deployment, [log for _, log in logs])
            return [(event, times[event.block]) for event in decoded]
        return fast_events(self.deployment, self.chain.raw_logs())

    def compare_ledger(self, *, by_sdk: bool) -> None:
        """`settlement.ledger` rebuilds from the logs alone what the reference knows."""
        reference, now = self.reference, self.chain.now
        ledger = Ledger(self.deployment)
        for event, time in self.events(by_sdk=by_sdk):
            self.count(f"event: {event.name}")
            ledger.apply(event, time)
        assert ledger.owed == reference.owed
        assert ledger.paused_until == reference.paused_until
        assert ledger.dispute_count == reference.dispute_count
        assert ledger.arbiter == self.person(reference.arbiter).address
        assert list(ledger.jobs) == list(reference.jobs)
        for job_id, job in reference.jobs.items():
            found, status = ledger.jobs[job_id], ledger.job_status(job_id)
            fields = [int(value) for value in status.model_dump().values()]
            assert words(*fields) == job.view()
            assert (found.refunded, found.returned) == (job.refunded, job.returned)
            assert found.funder == self.person(job.funder).address
            if job.is_open:
                assert found.payable_until == job.payable_until
            for version in range(reference.nodes[job.node].version + 1 if job.node else 0):
                frozen = sum(parcel.amount for parcel in reference.parcels_of(job, version))
                assert ledger.disputable(job_id, now, version) == frozen
        for number, version in self._payee_sets:
            past = None if version == reference.nodes[number].version else version
            earnings = ledger.earnings(number, now, past)
            expected = reference.earnings_view(number, version)
            assert words(*earnings.model_dump().values()) == expected
        for number, node in reference.nodes.items():
            payees = ledger.payees(number)
            people = [self.person(name).address for name in (node.hospital, node.owner)]
            assert [payees.hospital, payees.node_owner] == people
            shares = payees.node_owner_bps, payees.onboarder_bps, payees.protocol_bps
            assert shares == node.shares
            assert ledger.nodes[number].status.name.lower() == node.status
        assert {i: dispute.amount for i, dispute in ledger.disputes.items()} == {
            i: dispute.amount for i, dispute in reference.disputes.items()
        }
        names = {self.person(name).address: name for name in (*ACCOUNTS, VAULT)}
        for address, balance in ledger.balances.items():
            assert balance == reference.balances[names[address]]
