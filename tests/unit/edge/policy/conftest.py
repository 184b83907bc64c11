"""One engine for the tests of this folder, and a job at a hospital's guard."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from oracle.clients.edge.bundle import Bundle
from oracle.clients.edge.dataset import CommittedDataset
from oracle.clients.edge.policy.digest import policy_digest
from oracle.clients.edge.policy.engine import Engine
from oracle.clients.edge.policy.guard import Guard, JobGates
from oracle.clients.edge.policy.privacy import Accountant, PrivacyLedger
from oracle.clients.edge.policy.settings import PolicySettings
from oracle.clients.edge.sandbox.limits import ChildLimits
from settlement.digests import result_key_digest
from settlement.hub.messages import JobAssignment, OutputPolicy
from settlement.models import JobTerms, Work

IMAGE = bytes([5] * 32)
PAYER = "0x" + "99" * 20


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    with Engine(timeout=120) as started:
        yield started


@pytest.fixture
def make_gates(
    engine: Engine,
    committed: CommittedDataset,
    make_bundle: Callable[..., Bundle],
    policy: OutputPolicy,
    tmp_path: Path,
) -> Callable[..., JobGates]:
    """The gates of a job of two epochs, deadline 2000; `settings` are `PolicySettings`."""

    def make(
        bundle: Bundle | None = None,
        *,
        agreed: OutputPolicy = policy,
        epochs: int = 2,
        job: int = 1,
        payer: str = PAYER,
        dataset: bytes = committed.digest,
        limits: ChildLimits | None = None,
        output_limit: int = 1 << 20,
        accountant: Accountant | None = None,
        **settings: object,
    ) -> JobGates:
        bundle = bundle or make_bundle()
        guard = Guard(
            PolicySettings(**settings),
            committed,
            image=IMAGE,
            limits=limits or ChildLimits(),
            output_limit=output_limit,
            ledger=PrivacyLedger(tmp_path / "privacy"),
            accountant=accountant,
            engine=engine,
        )
        terms = JobTerms(
            payer=payer,
            node_id=7,
            price_per_record=1,
            price_per_epoch=1,
            budget=1000,
            deadline=2000,
            work=Work(
                model_digest=bundle.digest,
                dataset_digest=dataset,
                policy_digest=policy_digest(agreed),
                result_key_digest=result_key_digest(bytes(32)),
            ),
            salt=bytes(32),
        )
        assignment = JobAssignment(
            job_id=bytes([job] * 32),
            terms=terms,
            bundle=bundle.to_zip(),
            policy=agreed,
            epochs=epochs,
            result_key=bytes(32),
        )
        record = tmp_path / f"job-{job}"
        record.mkdir(exist_ok=True)
        return guard.job(assignment, bundle, record)

    return make
