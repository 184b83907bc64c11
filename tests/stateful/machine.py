"""Everything that can happen to the vault, each time first predicted and then done.

An action's arguments are plain values, so that Hypothesis and a seeded walk can both choose them.
"""

from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

from stateful.bench import (
    ACCOUNTS,
    CURVE_ORDER,
    DAY,
    DEPOSIT,
    FUNDERS,
    HOSPITALS,
    HOUR,
    KEYED_PAYERS,
    MEASUREMENTS,
    MOST_NODES,
    OPERATORS,
    OUTPUT,
    OWNERS,
    PAYERS,
    TYPES,
    WINDOWS,
)
from stateful.checks import Checked
from stateful.choices import (
    SELDOM,
    YES_OR_NO,
    AnyOf,
    Between,
    Each,
    OneOf,
    Several,
    action,
    actions_of,
)
from stateful.evm import Contract, Tail, actor, keccak, word, words
from stateful.reference import (
    GRACE,
    MAX_BUDGET,
    MAX_DURATION,
    VAULT,
    Committee,
    Enclave,
    Job,
    Node,
    Receipt,
    Refusal,
    Terms,
)

from settlement.contracts import JobState, Outcome
from settlement.reverts import Revert

NODE = OneOf((0, 0, 1, 1, 1, 2, 2, 3, 3, 4))
JOB = Between(0, 127)
PRICES = OneOf(
    (
        *[(100_000, 1_000_000)] * 4,
        (100_000, 0),
        (1, 0),
        (0, 7),
        (0, 0),
        (999_983, 1),
        (2**64 - 1, 2**63),
    )
)
BUDGET = AnyOf(
    (
        Between(1, 200),
        Between(1_000_000, 50_000_000),
        Between(1_000_000, 50_000_000),
        OneOf((0, 1, MAX_BUDGET, MAX_BUDGET + 1, 2**256 - 1)),
    )
)
LIFETIME = OneOf(
    (
        1,
        600,
        5 * HOUR,
        *[DAY] * 3,
        *[4 * DAY] * 3,
        *[10 * DAY] * 3,
        0,
        MAX_DURATION,
        MAX_DURATION + 1,
    )
)
# a negative count is so many more than are paid for
RECORDS = AnyOf(
    (
        Between(-60, -1),
        Between(-60, -1),
        Between(-60, -1),
        Between(0, 1_200),
        OneOf((0, 2**64 - 1, 2**64 - 1, 2**64)),
    )
)
CLAIM_FLAWS = (
    *[""] * 8,
    "forged",
    "another node's key",
    "key of the one before",
    "unusable key",
    "malleated",
    "nobody",
    "tampered terms",
    "tampered counters",
    "no output",
    "malformed",
)
CLAIM = Each((JOB, RECORDS, Between(0, 4), OneOf((*[False] * 9, True)), OneOf(CLAIM_FLAWS)))
COMMITTEE_FLAWS = (
    *[""] * 10,
    "all",
    "too few",
    "unsorted",
    "twice",
    "stranger",
    "cut",
    "malformed",
    "other epoch",
)
SIGNATURE_FLAWS = ("", "", "", "", "", "thief", "other amount", "malformed")
AUTHORIZATION_FLAWS = (*SIGNATURE_FLAWS, "expired", "not yet")


class Machine(Checked):
    """A deployment with three nodes, good and bad keys, and a first job."""

    def __init__(self, window: int, creation: dict[str, bytes] | None = None) -> None:
        super().__init__(window, creation)
        for node in (1, 2, 3):
            self.register_node()
            self.register_enclave(node, 20 * DAY, 1, "", False)
            self.revoke_enclave(node)
            self.register_enclave(node, 60, 1, "", False)
            self.register_enclave(node, 20 * DAY, 1 + node % 2, "", False)
        self.open_job("payer 1", 1, (100_000, 1_000_000), 30_000_000, 2 * DAY, "allowance", "")
        self.check()

    # money in

    @action(
        12,
        payer=OneOf(PAYERS),
        node=NODE,
        prices=PRICES,
        budget=BUDGET,
        lifetime=LIFETIME,
        way=OneOf(("allowance", "permit", "authorization", "authorization")),
        flaw=OneOf((*AUTHORIZATION_FLAWS, "brought before", "price")),
    )
    def open_job(
        self,
        payer: str,
        node: int,
        prices: tuple[int, int],
        budget: int,
        lifetime: int,
        way: str,
        flaw: str,
    ) -> None:
        """Open by the payer's allowance, permit or EIP-3009 authorisation."""
        if flaw == "price":
            prices = prices[0], 2**64
        self.open_terms(self.new_terms(payer, node, prices, budget, lifetime), way, flaw)

    def open_terms(self, terms: Terms, way: str, flaw: str) -> None:
        reference, payer = self.reference, terms.payer
        if way == "authorization" or payer == "wallet":
            after, before, signature, worth = self.authorization(
                payer, terms.budget, terms.job_id, flaw
            )
            self.ask(
                "relayer",
                "open_job_with_authorization",
                self.person(payer).word,
                terms.order,
                after,
                before,
                Tail.of_bytes(signature),
                predict=self.opens(
                    reference.open_job_with_authorization, terms, after, before, worth
                ),
            )
        elif way == "allowance":
            if not flaw and reference.allowances[payer] < terms.budget < 2**255:
                self.approve(payer, 2**256 - 1)
            self.ask(payer, "open_job", terms.order, predict=self.opens(reference.open_job, terms))
        else:
            self.open_with_permit(terms, flaw)

    def opens(self, operation: Callable[..., None], terms: Terms, *rest: Any) -> Callable[[], Any]:
        """Predict an operation that answers the job id."""

        def predict() -> bytes:
            operation(terms, *rest)
            return terms.job_id

        return predict

    def open_with_permit(self, terms: Terms, flaw: str) -> None:
        reference, payer = self.reference, terms.payer
        nonce = reference.permits[payer]
        deadline = self.chain.now - (flaw == "expired")
        amount = terms.budget
        signed = amount ^ 1 if flaw == "other amount" else amount
        message = self.person(payer).word + self.vault.word + words(signed, nonce, deadline)
        digest = self.digest(self._usdc_domain, keccak(TYPES["Permit"] + message))
        signature = self.person("thief" if flaw == "thief" else payer).sign(digest)
        signer = "nobody" if flaw in ("thief", "other amount") else payer
        r, s, v = signature[:32], signature[32:64], signature[64]
        if flaw == "malformed":
            v, signer = 1, "nobody"
        if flaw == "brought before" and reference.permit(payer, amount, deadline, nonce, signer):
            # somebody saw it on its way, and it has done its work all the same
            data = self.usdc.data(
                "permit",
                self.person(payer).word,
                self.vault.word,
                amount,
                deadline,
                Tail.of_bytes(signature),
            )
            self.chain.call(actor("thief").address, self.usdc, data)
        self.ask(
            payer,
            "open_job_with_permit",
            terms.order,
            deadline,
            v,
            r,
            s,
            predict=self.opens(reference.open_job_with_permit, terms, deadline, nonce, signer),
        )

    @action(2, index=JOB, way=OneOf(("allowance", "permit", "authorization", "batch")))
    def open_again(self, index: int, way: str) -> None:
        """Terms of before, whatever became of the job."""
        terms = self.job(index).terms
        if way == "batch":
            self.open_batch(terms.payer, [terms], True, "")
        else:
            self.open_terms(terms, way, "")

    @action(
        8,
        payer=OneOf(PAYERS),
        orders=Several(Each((NODE, PRICES, Between(1, 2_000_000), LIFETIME)), 0, 5),
        signed=YES_OR_NO,
        flaw=OneOf((*SIGNATURE_FLAWS, "one twice", "too large", "old among them")),
        topped=OneOf((True, True, False)),
    )
    def open_jobs(
        self,
        payer: str,
        orders: list[tuple[int, tuple[int, int], int, int]],
        signed: bool,
        flaw: str,
        topped: bool,
    ) -> None:
        """Open a batch from a balance, mostly one that is there."""
        batch = [self.new_terms(payer, *item) for item in orders]
        if flaw == "one twice":
            batch += batch[:1]
        elif flaw == "too large" and batch:
            batch.append(self.new_terms(payer, 1, (1, 1), MAX_BUDGET + 1, DAY))
        elif flaw == "old among them":
            batch += [job.terms for job in self.reference.jobs.values() if job.payer == payer][:1]
        lacking = sum(terms.budget for terms in batch) - self.reference.balances[payer]
        if topped and lacking > 0:
            self.deposit(payer, payer, lacking, True, "")
        self.open_batch(payer, batch, signed or payer == "wallet", flaw)

    def open_batch(self, payer: str, batch: list[Terms], signed: bool, flaw: str) -> None:
        signature, worth = b"", None
        if signed:
            hashes = b"".join(terms.struct_hash for terms in batch)
            if flaw == "other amount":
                hashes += hashes[:32] or word(1)
            digest = self.digest(self._vault_domain, keccak(TYPES["OpenJobs"] + keccak(hashes)))
            signature, worth = self.sign(payer, digest, flaw)
        self.ask(
            "relayer" if signed else payer,
            "open_jobs",
            self.person(payer).word,
            Tail.of_items([terms.order for terms in batch]),
            Tail.of_bytes(signature),
            predict=partial(self.reference.open_jobs, payer, batch, worth),
        )

    @action(
        8,
        sponsor=OneOf(FUNDERS),
        payer=OneOf(PAYERS),
        node=NODE,
        prices=PRICES,
        budget=BUDGET,
        lifetime=LIFETIME,
        flaw=OneOf(SIGNATURE_FLAWS),
    )
    def sponsor_job(
        self,
        sponsor: str,
        payer: str,
        node: int,
        prices: tuple[int, int],
        budget: int,
        lifetime: int,
        flaw: str,
    ) -> None:
        """Open somebody else's job."""
        terms = self.new_terms(payer, node, prices, budget, lifetime)
        named = "payer 1" if flaw == "other amount" and sponsor != "payer 1" else sponsor
        if flaw == "other amount" and named == sponsor:
            named = "sponsor"
        message = TYPES["Sponsorship"] + terms.struct_hash + self.person(named).word
        signature, worth = self.sign(payer, self.digest(self._vault_domain, keccak(message)), flaw)
        if not flaw and self.reference.allowances[sponsor] < budget < 2**255:
            self.approve(sponsor, 2**256 - 1)
        self.ask(
            sponsor,
            "sponsor_job",
            self.person(payer).word,
            terms.order,
            Tail.of_bytes(signature),
            predict=self.opens(partial(self.reference.sponsor_job, sponsor), terms, worth),
        )

    @action(
        6,
        index=JOB,
        amount=AnyOf((Between(1, 5_000_000), OneOf((0, 1, MAX_BUDGET, 2**256 - 1)))),
        from_balance=YES_OR_NO,
        caller=OneOf(("funder", "funder", "funder", "payer", "thief")),
        tampered=SELDOM,
    )
    def top_up(
        self, index: int, amount: int, from_balance: bool, caller: str, tampered: bool
    ) -> None:
        """Add to a job's escrow."""
        job = self.job(index)
        terms = self.tampered(job.terms) if tampered else job.terms
        self.add_to(terms, amount, from_balance, self.caller(job, caller))

    def add_to(self, terms: Terms, amount: int, from_balance: bool, name: str) -> None:
        self.ask(
            name,
            "top_up",
            terms.reference,
            amount,
            int(from_balance),
            predict=partial(self.reference.top_up, name, terms, amount, from_balance),
        )

    def caller(self, job: Job, role: str) -> str:
        """Who calls in a role; a smart wallet sends nothing, so a stranger does."""
        name = {"funder": job.funder, "payer": job.payer}.get(role, role)
        return "thief" if name == "wallet" else name

    @action(2, payer=OneOf(KEYED_PAYERS), index=JOB, existing=YES_OR_NO, lifetime=LIFETIME)
    def void_job(self, payer: str, index: int, existing: bool, lifetime: int) -> None:
        """Void what was signed, and see that it cannot be opened any more."""
        terms = self.new_terms(payer, 1, (1, 1), 1_000, lifetime)
        if existing and (found := self.job(index)).payer in KEYED_PAYERS:
            terms, payer = found.terms, found.payer
        self.ask(payer, "void_job", terms.order, predict=partial(self.reference.void_job, terms))
        self.open_terms(terms, "authorization", "")

    @action(
        5,
        account=OneOf((*PAYERS, *PAYERS, "sponsor", "hospital 1", VAULT)),
        depositor=OneOf(FUNDERS),
        amount=AnyOf((Between(1, 20_000_000), OneOf((0, 2**56 - 1, 2**56)))),
        signed=YES_OR_NO,
        flaw=OneOf((*AUTHORIZATION_FLAWS, "zero account")),
    )
    def deposit(self, account: str, depositor: str, amount: int, signed: bool, flaw: str) -> None:
        """Add to a balance, by allowance or by EIP-3009."""
        if not signed or account == VAULT:
            to = None if flaw == "zero account" else account
            self.ask(
                depositor if depositor != "wallet" else "sponsor",
                "deposit",
                self.person(account).word if to else 0,
                amount,
                predict=partial(self.reference.deposit, depositor, to, amount),
            )
            return
        self._salt += 1
        message = DEPOSIT + self.person(account).word + words(amount, self._salt)
        nonce = self.digest(self._vault_domain, keccak(message))
        after, before, signature, worth = self.authorization(account, amount, nonce, flaw)
        for _ in range(1 + (flaw == "")):
            # the second time it has been used
            self.ask(
                "relayer",
                "deposit_with_authorization",
                self.person(account).word,
                amount,
                after,
                before,
                self._salt,
                Tail.of_bytes(signature),
                predict=partial(
                    self.reference.deposit_with_authorization,
                    account,
                    amount,
                    after,
                    before,
                    nonce,
                    worth,
                ),
            )

    @action(2, name=OneOf((*KEYED_PAYERS, "sponsor")), amount=OneOf((0, 1_000, 2**256 - 1)))
    def change_allowance(self, name: str, amount: int) -> None:
        """What USDC lets the vault take."""
        self.approve(name, amount)

    @action(1, name=OneOf((*KEYED_PAYERS, "sponsor")), amount=Between(1, 1_000))
    def donate(self, name: str, amount: int) -> None:
        """A transfer that nobody asked for."""

        def predict() -> bool:
            self.reference.donate(name, amount)
            return True

        self.send(name, self.usdc, self.usdc.data("transfer", self.vault.word, amount), predict)

    # work

    @action(
        8,
        index=JOB,
        node=OneOf((1, 1, 1, 2, 2, 2, 3, 3, 3, 0, 4)),
        flaw=OneOf(COMMITTEE_FLAWS),
        waiting=OneOf((True, True, True, False)),
        tampered=SELDOM,
    )
    def assign(self, index: int, node: int, flaw: str, waiting: bool, tampered: bool) -> None:
        """Give a job to a node, mostly one that waits for it."""
        job = self.job(index)
        jobs = [job for job in self.reference.jobs.values() if job.state == JobState.OPEN]
        if waiting and jobs:
            job = jobs[index % len(jobs)]
        self.assign_to(self.tampered(job.terms) if tampered else job.terms, node, flaw)

    def assign_to(self, terms: Terms, node: int, flaw: str) -> None:
        message = terms.job_id + words(node, self.reference.committee.epoch)
        digest = self.digest(self._vault_domain, keccak(TYPES["Assignment"] + message))
        signatures, refusal = self.co_sign(digest, flaw)
        self.ask(
            "relayer",
            "assign",
            terms.reference,
            node,
            signatures,
            predict=partial(self.reference.assign, terms, node, refusal),
        )

    @action(28, batch=Several(CLAIM, 1, 5), one=YES_OR_NO)
    def settle(self, batch: list[tuple[int, int, int, bool, str]], one: bool) -> None:
        """Receipts good and bad, all of which are kept for replay."""
        jobs = [self.job(index) for index, *_ in batch]
        if not batch[0][-1] and self.newest_key(jobs[0].node) == "thief" and jobs[0].node:
            self.register_enclave(jobs[0].node, DAY, 1, "", False)
        items: list[tuple[bytes, Receipt]] = []
        for job, (_, records, epochs, complete, flaw) in zip(jobs, batch, strict=True):
            before = items[-1][1].signer if items else None
            signer = before if flaw == "key of the one before" else None
            items.append(self.prepare(job, records, epochs, complete, flaw, signer))
        self.hand_in(items, one)

    @action(
        4,
        index=JOB,
        change=OneOf(("sale", "treasury", "shares")),
        disputes=Several(OneOf((0, 1, 1)), 0, 3),
        seconds=OneOf((0, 0, 60, HOUR, 2 * HOUR)),
    )
    def earn_across_a_change(
        self, index: int, change: str, disputes: list[int], seconds: int
    ) -> None:
        """A job earns for two payee sets in a row; perhaps either is disputed, perhaps twice."""
        job = self.job(index)
        node = self.reference.nodes.get(job.node)
        if node is None:
            return
        self.hand_in([self.prepare(job, -30, 0, False, "")], True)
        if change == "sale":
            self.transfer_node(job.node, OWNERS[node.owner == OWNERS[0]], "owner")
        elif change == "treasury":
            treasury = HOSPITALS[node.hospital == HOSPITALS[0]]
            self.change_treasury(job.node, treasury, "hospital", "it")
        else:
            self.set_shares(job.node, (3_333, 777, 890), "timelock")
        self.travel(self.chain.now + seconds)
        self.hand_in([self.prepare(job, -30, 0, False, "")], True)
        for back in disputes:
            self.dispute_version(job.terms, max(0, job.version - back), "guardian")

    @action(2, index=JOB, before=Between(-60, -1), records=Between(-60, 60))
    def pay_and_complete(self, index: int, before: int, records: int) -> None:
        """A good receipt and then the completing one, whose counters may be lower."""
        job = self.job(index)
        self.hand_in([self.prepare(job, before, 0, False, "")], True)
        self.hand_in([self.prepare(job, records, 0, True, "")], True)

    @action(4, picks=Several(Between(0, 999), 1, 8), one=YES_OR_NO)
    def replay(self, picks: list[int], one: bool) -> None:
        """Receipts of before, in any order, some twice."""
        if self._claims:
            self.hand_in([self._claims[pick % len(self._claims)] for pick in picks], one)

    def newest_key(self, node: int) -> str:
        """The node's newest key that counts now; the thief's where there is none."""
        keys = reversed(self._keys_of.get(node, []))
        return next((key for key in keys if self.reference.is_valid(key, node)), "thief")

    def prepare(
        self,
        job: Job,
        records: int,
        epochs: int,
        complete: bool,
        flaw: str,
        signer: str | None = None,
    ) -> tuple[bytes, Receipt]:
        """A claim and what it is worth; by the node's newest key unless told otherwise."""
        terms, node = job.terms, job.node
        signer = signer or self.newest_key(node)
        if records < 0:
            records = job.paid // max(1, terms.price_per_record) - records
        flag, output = int(complete), OUTPUT if complete else bytes(32)
        if flaw == "forged":
            signer = "thief"
        elif flaw == "another node's key":
            signer = self.newest_key(node % 3 + 1)
        elif flaw == "unusable key":
            keys = self._keys_of.get(node, [])
            unusable = (key for key in keys if not self.reference.is_valid(key, node))
            signer = next(unusable, "thief")
        elif flaw == "tampered terms":
            terms = self.tampered(terms)
        elif flaw == "no output":
            flag, output = 1, bytes(32)
        elif flaw == "malformed":
            flag = 2
        root = keccak(word(records))
        fields = words(records, epochs) + root + output + word(flag)
        digest = self.digest(self._vault_domain, keccak(TYPES["Receipt"] + terms.job_id + fields))
        signature = actor(signer).sign(digest)
        r, s = signature[:32], int.from_bytes(signature[32:64], "big")
        v = signature[64] - 27
        worth: str | None = signer
        if flaw == "malleated":
            s, v, worth = CURVE_ORDER - s, 1 - v, None
        elif flaw == "nobody":
            r, worth = bytes(32), None
        elif flaw == "tampered counters":
            records, worth = records + 1, None
            fields = words(records) + fields[32:]
        claim = terms.reference + fields + r + word((s % 2**255) | v << 255)
        has_output = output != bytes(32)
        receipt = Receipt(terms.job_id, records, epochs, flag, has_output, worth)
        if len(self._claims) < 999:
            self._claims.append((claim, receipt))
        return claim, receipt

    def hand_in(self, items: list[tuple[bytes, Receipt]], one: bool) -> None:
        """By one `settle` each, or all by `settle_many`."""
        reference = self.reference
        if one:
            for claim, receipt in items:
                outcome = self.ask(
                    "relayer",
                    "settle",
                    claim,
                    predict=partial(reference.settle_one, receipt),
                )
                if outcome is not None:
                    self.count(f"outcome: {Outcome(outcome).name}")
            return
        outcomes = self.ask(
            "relayer",
            "settle_many",
            Tail.of_items([claim for claim, _ in items]),
            predict=partial(reference.settle_many, [receipt for _, receipt in items]),
        )
        for outcome in outcomes or []:
            self.count(f"outcome: {Outcome(outcome).name}")

    # how jobs end without finished work

    @action(
        4,
        index=JOB,
        caller=OneOf(("payer", "payer", "funder", "funder", "thief")),
        tampered=SELDOM,
    )
    def cancel(self, index: int, caller: str, tampered: bool) -> None:
        """The wish to end a job."""
        job = self.job(index)
        terms = self.tampered(job.terms) if tampered else job.terms
        name = self.caller(job, caller)
        self.ask(
            name,
            "cancel",
            terms.reference,
            predict=partial(self.reference.cancel, name, terms),
        )

    @action(6, index=JOB, tampered=SELDOM)
    def refund(self, index: int, tampered: bool) -> None:
        """By a stranger; mostly of a job whose time is over."""
        jobs = [
            job
            for job in self.reference.jobs.values()
            if job.is_open and job.payable_until < self.chain.now
        ]
        job = jobs[index % len(jobs)] if jobs and index % 4 else self.job(index)
        terms = self.tampered(job.terms) if tampered else job.terms
        self.ask("anyone", "refund", terms.reference, predict=partial(self.reference.refund, terms))

    # disputes

    @action(
        8,
        index=JOB,
        back=OneOf((0, 0, 0, 1, 1, 2, -1)),
        caller=OneOf(("guardian", "guardian", "payer", "funder", "thief")),
        tampered=SELDOM,
        earning=OneOf((True, True, True, False)),
    )
    def dispute(self, index: int, back: int, caller: str, tampered: bool, earning: bool) -> None:
        """Freeze a job's fresh earnings, of its own payee set or of one before."""
        reference, job = self.reference, self.job(index)
        if earning:
            fresh = sorted(
                {
                    (parcel.job, parcel.version)
                    for node in reference.nodes.values()
                    for payee_set in node.sets
                    for parcel in payee_set.parcels
                }
            )
            if fresh:
                job_id, version = fresh[index % len(fresh)]
                job, back = reference.jobs[job_id], reference.jobs[job_id].version - version
        terms = self.tampered(job.terms) if tampered else job.terms
        self.dispute_version(terms, max(0, job.version - back), self.caller(job, caller))

    def dispute_version(self, terms: Terms, version: int, name: str) -> None:
        self.ask(
            name,
            "dispute",
            terms.reference,
            version,
            predict=partial(self.reference.dispute, name, terms, version),
        )

    @action(
        5,
        index=Between(0, 63),
        share=OneOf((0, 1, 50, 100, 101)),
        caller=OneOf(("arbiter", "arbiter", "arbiter", "arbiter 2", "thief")),
    )
    def resolve(self, index: int, share: int, caller: str) -> None:
        """The arbiter's answer, in percent of what is disputed."""
        dispute_id = self.dispute_of(index)
        dispute = self.reference.disputes.get(dispute_id)
        amount = dispute.amount if dispute else 0
        returned = amount + 1 if share == 101 else amount * share // 100
        self.resolve_dispute(dispute_id, returned, caller)

    def resolve_dispute(self, dispute_id: int, returned: int, caller: str) -> None:
        self.ask(
            caller,
            "resolve",
            dispute_id,
            returned,
            predict=partial(self.reference.resolve, caller, dispute_id, returned),
        )

    @action(3, index=Between(0, 63))
    def release(self, index: int) -> None:
        """By a stranger."""
        self.release_dispute(self.dispute_of(index))

    def release_dispute(self, dispute_id: int) -> None:
        self.ask(
            "anyone",
            "release",
            dispute_id,
            predict=partial(self.reference.release, dispute_id),
        )

    def dispute_of(self, index: int) -> int:
        """Mostly an open one."""
        waiting = list(self.reference.disputes)
        if waiting and index % 8:
            return waiting[index % len(waiting)]
        return index % (self.reference.dispute_count + 2)

    # money out

    @action(5, node=NODE, back=OneOf((0, 0, 1, 2)), many=YES_OR_NO)
    def distribute(self, node: int, back: int, many: bool) -> None:
        """To present payees, to earlier ones, or of several nodes at once."""
        reference = self.reference
        if back:
            version = max(0, reference.nodes[node].version - back) if node in reference.nodes else 0
            self.ask(
                "anyone",
                "distribute_past",
                node,
                version,
                predict=partial(reference.distribute, node, version),
            )
        elif many:
            nodes = [node, *reference.nodes]
            self.ask(
                "anyone",
                "distribute_many",
                Tail.of_items([word(number) for number in nodes]),
                predict=lambda: sum(reference.distribute(number) for number in nodes),
            )
        else:
            predict = partial(reference.distribute, node)
            self.ask("anyone", "distribute", node, predict=predict)

    def creditor(self, index: int) -> str:
        """Mostly somebody to whom something is owed."""
        names = [name for name in ACCOUNTS if self.reference.balances[name]]
        return names[index % len(names)] if names and index % 8 else ACCOUNTS[index % len(ACCOUNTS)]

    def creditor_or_vault(self, index: int) -> str:
        """Sometimes the vault itself, which never has a balance."""
        return VAULT if index % 16 == 5 else self.creditor(index)

    @action(5, index=Between(0, 127), pushed=YES_OR_NO)
    def withdraw(self, index: int, pushed: bool) -> None:
        """All of it, by the account itself or by a stranger."""
        reference, name = self.reference, self.creditor_or_vault(index)
        if pushed or name in ("wallet", VAULT):
            self.ask(
                "anyone",
                "withdraw_for",
                self.person(name).word,
                predict=lambda: reference.withdraw(name, name, reference.balances[name]),
            )
        else:
            self.ask(
                name,
                "withdraw",
                predict=lambda: reference.withdraw(name, name, reference.balances[name]),
            )

    @action(3, indices=Several(Between(0, 127), 0, 8))
    def withdraw_for_many(self, indices: list[int]) -> None:
        """Pushed by a stranger; who is refused stops no other."""
        names = [self.creditor_or_vault(index) for index in indices]
        self.ask(
            "anyone",
            "withdraw_for_many",
            Tail.of_items([self.person(name).word for name in names]),
            predict=partial(self.reference.withdraw_for_many, names),
        )

    @action(
        4,
        index=Between(0, 127),
        to=OneOf(("payer 1", "hospital 1", "owner 1", "wallet", VAULT, None)),
        share=OneOf((0, 1, 50, 100, 101)),
    )
    def withdraw_to(self, index: int, to: str | None, share: int) -> None:
        """A part of it, to anybody."""
        name = self.creditor(index)
        name = "payer 1" if name == "wallet" else name
        amount = self.part_of_balance(name, share)
        self.ask(
            name,
            "withdraw_to",
            self.person(to).word if to else 0,
            amount,
            predict=partial(self.reference.withdraw_to, name, to, amount),
        )

    def part_of_balance(self, name: str, share: int) -> int:
        balance = self.reference.balances[name]
        return balance + 1 if share == 101 else balance * share // 100

    @action(
        4,
        index=Between(0, 127),
        to=OneOf(("payer 1", "owner 1", "wallet", VAULT)),
        share=OneOf((0, 1, 50, 100, 101)),
        flaw=OneOf((*SIGNATURE_FLAWS, "late", "nonce")),
        twice=YES_OR_NO,
    )
    def withdraw_by_signature(
        self, index: int, to: str, share: int, flaw: str, twice: bool
    ) -> None:
        """A part of it by signature, which counts once."""
        name = self.creditor(index)
        if index % 3 == 0:
            name = PAYERS[index % len(PAYERS)]
        amount = self.part_of_balance(name, share)
        deadline = self.chain.now - (flaw == "late")
        nonce = self.reference.withdrawals[name] + (flaw == "nonce")
        signed = amount + 1 if flaw == "other amount" else amount
        message = self.person(name).word + self.person(to).word + words(signed, nonce, deadline)
        digest = self.digest(self._vault_domain, keccak(TYPES["Withdrawal"] + message))
        signature, worth = self.sign(name, digest, flaw)
        for _ in range(1 + twice):
            self.ask(
                "relayer",
                "withdraw_by_signature",
                self.person(name).word,
                self.person(to).word,
                amount,
                deadline,
                Tail.of_bytes(signature),
                predict=partial(
                    self.reference.withdraw_by_signature,
                    name,
                    to,
                    amount,
                    deadline,
                    nonce,
                    worth,
                ),
            )

    @action(
        1,
        caller=OneOf(("timelock", "timelock", "guardian", "thief")),
        to=OneOf(("timelock", "timelock", VAULT)),
    )
    def recover(self, caller: str, to: str) -> None:
        """Donations can be taken out, and nothing else."""
        self.ask(
            caller,
            "recover",
            self.usdc.word,
            self.person(to).word,
            predict=partial(self.reference.recover, caller, to),
        )

    # nodes

    @action(1)
    def register_node(self) -> None:
        """One more, up to a few."""
        count = len(self.reference.nodes)
        if count == MOST_NODES:
            return
        hospital, owner = HOSPITALS[count % 3], OWNERS[count % 4]
        people = [self.person(name).word for name in (owner, hospital, "onboarder")]
        hardware = keccak(b"hardware" + bytes([count]))
        data = self.nodes.data("register_node", *people, hardware)
        self.send("registrar", self.nodes, data, lambda: count + 1)
        self.reference.nodes[count + 1] = Node(hospital, owner)

    @action(
        4, node=NODE, to=OneOf((*OWNERS, VAULT)), caller=OneOf(("owner", "owner", "owner", "thief"))
    )
    def transfer_node(self, node: int, to: str, caller: str) -> None:
        """Sell a node's token."""
        known = self.reference.nodes.get(node)
        owner = known.owner if known else "owner 1"
        name = owner if caller == "owner" else caller
        data = self.nodes.data("transferFrom", self.person(owner).word, self.person(to).word, node)
        predict = partial(self.reference.transfer_node, name, to, node)
        self.send(name, self.nodes, data, predict)

    @action(
        3,
        node=NODE,
        treasury=OneOf((*HOSPITALS, None)),
        caller=OneOf(("hospital", "hospital", "hospital", "thief")),
        accepted=OneOf(("it", "it", "it", "not", "thief")),
    )
    def change_treasury(self, node: int, treasury: str | None, caller: str, accepted: str) -> None:
        """Propose another treasury, which accepts at once, later or not at all."""
        reference, known = self.reference, self.reference.nodes.get(node)
        name = known.hospital if known and caller == "hospital" else "thief"
        proposed = self.person(treasury).word if treasury else 0
        data = self.nodes.data("propose_treasury", node, proposed)
        predict = partial(reference.propose_treasury, name, node, treasury)
        self.send(name, self.nodes, data, predict)
        if accepted != "not":
            name = "thief" if accepted == "thief" or treasury is None else treasury
            data = self.nodes.data("accept_treasury", node)
            self.send(name, self.nodes, data, partial(reference.accept_treasury, name, node))

    @action(
        3,
        node=NODE,
        shares=OneOf(
            (
                (2_000, 500, 500),
                (0, 0, 0),
                (3_333, 777, 890),
                (4_000, 0, 1_000),
                (4_001, 0, 1_000),
                (0, 0, 1_001),
            )
        ),
        caller=OneOf(("timelock", "timelock", "timelock", "guardian")),
    )
    def set_shares(self, node: int, shares: tuple[int, int, int], caller: str) -> None:
        """Split future earnings in another way."""
        data = self.nodes.data("set_shares", node, *shares)
        self.send(
            caller, self.nodes, data, partial(self.reference.set_shares, caller, node, shares)
        )

    @action(
        3,
        node=NODE,
        status=OneOf(("suspended", "suspended", "active", "active", "active", "retired")),
        caller=OneOf(("timelock", "guardian", "timelock", "hospital", "thief")),
        surely=OneOf((False, False, False, True)),
    )
    def set_status(self, node: int, status: str, caller: str, surely: bool) -> None:
        """Suspend, resume, or, seldom, retire a node."""
        if status == "retired" and not surely:
            status = "active"
        known = self.reference.nodes.get(node)
        name = known.hospital if known and caller == "hospital" else caller
        name = "thief" if name == "hospital" else name
        function = {"suspended": "suspend", "active": "resume", "retired": "retire"}[status]
        predict = partial(self.reference.set_status, name, node, status)
        self.send(name, self.nodes, self.nodes.data(function, node), predict)

    # enclaves and committee

    @action(
        5,
        node=OneOf((0, 1, 2, 3, 4, 5, 1, 2, 3)),
        lifetime=OneOf((0, 60, HOUR, DAY, 20 * DAY, 20 * DAY, 20 * DAY, 32 * DAY)),
        measurement=OneOf((1, 2)),
        flaw=OneOf((*COMMITTEE_FLAWS, "", "", "old epoch")),
        renewed=SELDOM,
    )
    def register_enclave(
        self, node: int, lifetime: int, measurement: int, flaw: str, renewed: bool
    ) -> None:
        """A key vouched for by the committee: a new one, or a known one once more."""
        reference = self.reference
        self._keys += 1
        key = f"enclave {self._keys}"
        if renewed and (known := self._keys_of.get(node or 1)):
            key = known[-1]
        epoch = reference.committee.epoch - (flaw == "old epoch")
        enclave = Enclave(node, self.chain.now + lifetime, measurement)
        fields = (
            actor(key).word
            + word(node)
            + MEASUREMENTS[measurement]
            + keccak(b"quote")
            + keccak(b"encryption key")
            + words(enclave.expiry, epoch)
        )
        digest = self.digest(self._enclave_domain, keccak(TYPES["EnclaveRegistration"] + fields))
        signatures, refusal = self.co_sign(digest, flaw)
        taken = self.send(
            "relayer",
            self.enclaves,
            self.enclaves.data("register", fields, signatures),
            partial(reference.register_enclave, key, enclave, epoch, refusal),
        )
        if taken and key not in self._keys_of.setdefault(node, []):
            self._keys_of[node].append(key)

    @action(1, node=OneOf((1, 2, 3)))
    def revoke_enclave(self, node: int) -> None:
        """The node's newest key, at once and for good."""
        key = self.newest_key(node)
        if key != "thief":
            data = self.enclaves.data("revoke", actor(key).word)
            self.send("guardian", self.enclaves, data, lambda: None)
            self.reference.enclaves[key].revoked = True

    @action(2, measurement=OneOf((1, 2)), revoked=OneOf((False, False, True)))
    def change_measurement(self, measurement: int, revoked: bool) -> None:
        """Revoke it, or allow it again."""
        allowed = self.reference.measurements
        digest = MEASUREMENTS[measurement]
        if revoked == (measurement not in allowed):
            return
        if revoked:
            data = self.enclaves.data("revoke_measurement", digest)
            self.send("guardian", self.enclaves, data, lambda: None)
        else:
            data = self.enclaves.data("allow_measurement", digest)
            self.send("timelock", self.enclaves, data, lambda: None)
        allowed ^= {measurement}

    @action(1, first=Between(0, 4), size=OneOf((1, 2, 3, 3)), threshold=Between(1, 3))
    def change_committee(self, first: int, size: int, threshold: int) -> None:
        """A new committee, and with it a new epoch."""
        names = sorted(
            (OPERATORS[(first + i) % 5] for i in range(size)), key=lambda name: actor(name).number
        )
        threshold = min(threshold, size)
        committee = self.create_committee(names, threshold)
        data = self.enclaves.data("set_committee", committee.word)
        self.send("timelock", self.enclaves, data, lambda: None)
        epoch = self.reference.committee.epoch + 1
        self.reference.committee = Committee(tuple(names), threshold, epoch)

    # what happens around it

    @action(1, caller=OneOf(("guardian", "timelock", "thief")))
    def pause(self, caller: str) -> None:
        """For half a grace."""
        self.ask(caller, "pause", predict=partial(self.reference.pause, caller))

    @action(3, caller=OneOf(("timelock", "timelock", "guardian")))
    def unpause(self, caller: str) -> None:
        """Early."""
        self.ask(caller, "unpause", predict=partial(self.reference.unpause, caller))

    @action(1, name=OneOf(("arbiter", "arbiter 2")))
    def set_arbiter(self, name: str) -> None:
        """Another arbiter, also for disputes that are open."""

        def predict() -> None:
            self.reference.arbiter = name

        self.ask("timelock", "set_arbiter", self.person(name).word, predict=predict)

    @action(2, name=OneOf((*ACCOUNTS[:-1], VAULT)), forgiven=YES_OR_NO)
    def blacklist(self, name: str, forgiven: bool) -> None:
        """USDC blacklists an account, or forgives everybody."""
        listed = self.reference.blacklisted
        if forgiven:
            for forgotten in sorted(listed):
                self.circle("unBlacklist", self.person(forgotten).word)
            listed.clear()
        else:
            self.circle("blacklist", self.person(name).word)
            listed.add(name)

    @action(1, paused=OneOf((False, False, True)))
    def pause_usdc(self, paused: bool) -> None:
        """USDC stops, or goes on."""
        self.circle("pause" if paused else "unpause")
        self.reference.usdc_paused = paused

    @action(
        10,
        seconds=OneOf((1, 1, 60, 60, 600, 600, HOUR, HOUR, HOUR, 2 * HOUR, 4 * HOUR, GRACE // 2)),
    )
    def pass_time(self, seconds: int) -> None:
        """A while."""
        self.travel(self.chain.now + seconds)

    @action(
        6,
        edge=OneOf(("deadline", "end", "window", "window", "window", "answer", "pause", "key")),
        index=JOB,
        beyond=OneOf((0, 1)),
    )
    def go_to_an_edge(self, edge: str, index: int, beyond: int) -> None:
        """To the last second in which something holds, or to the one after, and try it there."""
        reference, job = self.reference, self.job(index)
        ahead = [
            job
            for job in reference.jobs.values()
            if job.is_open and self.chain.now <= self.edge_of(job, edge)
        ]
        job = min(ahead, key=lambda job: self.edge_of(job, edge), default=job)
        if edge == "deadline":
            self.travel(job.terms.deadline + beyond)
            self.add_to(job.terms, 1_000, False, self.caller(job, "funder"))
            self.assign_to(job.terms, 1, "")
        elif edge == "end":
            self.travel(job.payable_until + beyond)
            self.hand_in([self.prepare(job, -60, 1, False, "")], True)
            self.ask(
                "anyone",
                "refund",
                job.terms.reference,
                predict=partial(reference.refund, job.terms),
            )
        elif edge == "window" and reference.window:
            passed = self.chain.now // reference.window
            self.travel((passed + 1) * reference.window - 1 + beyond)
            self.dispute(index, 0, "guardian", False, True)
            self.distribute(job.node, 0, False)
        elif edge == "answer" and reference.disputes:
            number, dispute = min(reference.disputes.items(), key=lambda item: item[1].answer_until)
            self.travel(dispute.answer_until + beyond)
            # one of the two is too early or too late
            for function in ("release", "resolve") if index % 2 else ("resolve", "release"):
                if function == "release":
                    self.release_dispute(number)
                else:
                    self.resolve_dispute(number, dispute.amount // 2, reference.arbiter)
        elif edge == "pause":
            self.travel(reference.paused_until - 1 + beyond)
            self.deposit("payer 1", "payer 1", 1_000, False, "")
        elif edge == "key" and (key := self.newest_key(job.node)) != "thief":
            self.travel(reference.enclaves[key].expiry - 1 + beyond)
            self.hand_in([self.prepare(job, -50, 2, False, "", key)], False)

    @staticmethod
    def edge_of(job: Job, edge: str) -> int:
        return job.terms.deadline if edge == "deadline" else job.payable_until

    # what the thief tries

    @action(5, index=JOB, attempt=Between(0, 99))
    def thief(self, index: int, attempt: int) -> None:
        """All that is refused to whoever has no part in it."""
        job, thief = self.job(index), self.person("thief").word
        victim = self.person(self.creditor(index))
        registry, vault, enclaves, usdc = self.nodes, self.vault, self.enclaves, self.usdc
        guardian = Revert.GOVERNANCE_CALLER_IS_NOT_THE_GUARDIAN
        owner = Revert.OWNABLE_CALLER_IS_NOT_THE_OWNER
        forged = Tail.of_bytes(actor("thief").sign(keccak(job.terms.job_id)))
        attempts: list[tuple[Contract, bytes, Revert]] = [
            (vault, vault.data("withdraw"), Revert.VAULT_NOTHING_TO_WITHDRAW),
            (vault, vault.data("withdraw_to", thief, 1), Revert.VAULT_BALANCE_TOO_LOW),
            (
                vault,
                vault.data("withdraw_by_signature", victim.word, thief, 1, self.chain.now, forged),
                Revert.VAULT_INVALID_SIGNATURE,
            ),
            (vault, vault.data("recover", usdc.word, thief), owner),
            (vault, vault.data("pause"), guardian),
            (vault, vault.data("unpause"), owner),
            (vault, vault.data("set_arbiter", thief), owner),
            (vault, vault.data("set_guardian", thief), owner),
            (vault, vault.data("transfer_ownership", thief), owner),
            (
                vault,
                vault.data("accept_ownership"),
                Revert.OWNABLE_CALLER_IS_NOT_THE_NEW_OWNER,
            ),
            (vault, vault.data("checkpoint", 1), Revert.VAULT_CALLER_IS_NOT_REGISTRY),
            (vault, vault.data("set_active", 1, 0), Revert.VAULT_CALLER_IS_NOT_REGISTRY),
            (vault, vault.data("resolve", 1, 0), Revert.VAULT_CALLER_IS_NOT_THE_ARBITER),
            (
                vault,
                vault.data("dispute", job.terms.reference, job.version),
                Revert.VAULT_CALLER_CANNOT_DISPUTE,
            ),
            (
                vault,
                vault.data("cancel", job.terms.reference),
                Revert.VAULT_CALLER_IS_NOT_THE_PAYER,
            ),
            (
                registry,
                registry.data("transferFrom", self.person(OWNERS[0]).word, thief, 1),
                Revert.ERC721_CALLER_IS_NOT_OWNER_OR_APPROVED,
            ),
            (
                registry,
                registry.data("propose_treasury", 1, thief),
                Revert.NODES_CALLER_IS_NOT_THE_HOSPITAL,
            ),
            (registry, registry.data("accept_treasury", 1), Revert.NODES_CALLER_IS_NOT_PROPOSED),
            (registry, registry.data("set_shares", 1, 0, 0, 0), owner),
            (registry, registry.data("suspend", 1), guardian),
            (registry, registry.data("resume", 1), owner),
            (registry, registry.data("retire", 1), Revert.NODES_CALLER_IS_NOT_THE_HOSPITAL),
            (
                registry,
                registry.data("register_node", thief, thief, thief, keccak(b"new")),
                Revert.NODES_CALLER_IS_NOT_THE_REGISTRAR,
            ),
            (registry, registry.data("set_registrar", thief), owner),
            (enclaves, enclaves.data("revoke", thief), guardian),
            (enclaves, enclaves.data("revoke_measurement", MEASUREMENTS[1]), guardian),
            (enclaves, enclaves.data("allow_measurement", keccak(b"thief's")), owner),
            (enclaves, enclaves.data("set_committee", enclaves.word), owner),
        ]
        contract, data, refusal = attempts[attempt % len(attempts)]

        def predict() -> None:
            raise Refusal(refusal)

        self.send("thief", contract, data, predict)

    # the end

    def everybody_leaves(self) -> None:
        """Nobody is stuck: by time alone, by a stranger's hand, even in the middle of a pause."""
        reference = self.reference
        ends = [job.payable_until for job in reference.jobs.values() if job.is_open]
        answers = [dispute.answer_until for dispute in reference.disputes.values()]
        pause_end = reference.paused_until + GRACE
        last = max([*ends, *answers, pause_end, self.chain.now]) + 1
        self.travel(last + 2 * reference.window)
        self.pause("guardian")
        self.pause_usdc(False)
        if VAULT in reference.blacklisted:
            self.circle("unBlacklist", self.vault.word)
            reference.blacklisted.remove(VAULT)
        for job in reference.jobs.values():
            if job.is_open:
                predict = partial(reference.refund, job.terms)
                assert (
                    self.ask("anyone", "refund", job.terms.reference, predict=predict) is not None
                )
        for dispute_id in list(reference.disputes):
            assert self.ask(
                "anyone",
                "release",
                dispute_id,
                predict=partial(reference.release, dispute_id),
            )
        for number, node in reference.nodes.items():
            self.distribute(number, 0, False)
            for version in range(node.version):
                self.ask(
                    "anyone",
                    "distribute_past",
                    number,
                    version,
                    predict=partial(reference.distribute, number, version),
                )
        for name in ACCOUNTS:
            if reference.balances[name]:
                self.ask(
                    "anyone",
                    "withdraw_for",
                    self.person(name).word,
                    predict=partial(reference.withdraw, name, name, reference.balances[name]),
                )
        self.check()
        stuck = sum(reference.balances[name] for name in reference.blacklisted)
        assert reference.owed == stuck
        assert reference.in_vault == reference.donated + stuck
        for job in reference.jobs.values():
            assert job.state == JobState.CLOSED
            assert job.paid + job.refunded == job.funded


ACTIONS = actions_of(Machine)
_WEIGHTS = [action.weight for action in ACTIONS]


def walk(seed: int, steps: int, creation: dict[str, bytes] | None = None) -> Machine:
    """A history chosen by a seed alone, checked after each step and to its end."""
    random = Random(seed)
    machine = Machine(WINDOWS[seed % len(WINDOWS)], creation)
    for chosen in random.choices(ACTIONS, _WEIGHTS, k=steps):
        getattr(machine, chosen.method)(**chosen.pick(random))
        machine.check()
    machine.compare_ledger(by_sdk=False)
    machine.everybody_leaves()
    machine.compare_ledger(by_sdk=False)
    return machine
