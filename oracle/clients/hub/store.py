"""Durable profiles, jobs, artifacts and key hashes. Each method is one transaction."""

from collections.abc import Iterable

from sqlalchemy import Connection, Engine, Row, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from oracle.clients.hub.errors import (
    AlreadyRegistered,
    ArtifactConflict,
    ArtifactUnknown,
    JobNotRunning,
    JobUnknown,
    NameTaken,
    RegistrationRaced,
    RegistrationUnknown,
    WalletTaken,
)
from oracle.clients.hub.identity import Identity, refuse_taken
from oracle.clients.hub.jobs import Job, Task, advance
from oracle.clients.hub.keys import KeyRecord, Role
from oracle.clients.hub.messages import ArtifactName, DatasetProfile, Failure, JobState, Progress
from oracle.clients.hub.registration import Registration, RegistrationState
from oracle.clients.hub.tables import (
    api_keys,
    artifacts,
    bundles,
    jobs,
    profiles,
    registrations,
)
from settlement.models import JobTerms
from settlement.types import parse_bytes, to_hex


class Store:
    """The hub's memory on one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def close(self) -> None:
        """Release the connections."""
        self._engine.dispose()

    def ping(self) -> None:
        """Return when the database answers.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: when it does not.
        """
        with self._engine.begin() as tx:
            tx.execute(select(1))

    def replace_api_keys(self, records: Iterable[KeyRecord]) -> None:
        """Know exactly these keys, beside those of approved registrations."""
        with self._engine.begin() as tx:
            tx.execute(delete(api_keys).where(api_keys.c.registration_id.is_(None)))
            for record in records:
                tx.execute(
                    insert(api_keys).values(
                        digest=record.digest.hex(), role=record.role, subject=record.subject
                    )
                )

    def api_keys(self) -> tuple[KeyRecord, ...]:
        """Every key hash that is known."""
        with self._engine.begin() as tx:
            rows = tx.execute(select(api_keys)).all()
        return tuple(KeyRecord(bytes.fromhex(r.digest), Role(r.role), r.subject) for r in rows)

    def add_registration(self, registration: Registration, identity: Identity) -> Registration:
        """Keep a registration, or give the standing one of the same account, name and wallet.

        Raises:
            IdentityTaken: when the account is bound to another wallet.
            AlreadyRegistered, NameTaken, WalletTaken: when something else stands in the way.
            RegistrationRaced: when it came to be so at the same moment.
        """
        nullifier, standing = to_hex(identity.nullifier), registrations.c.state != "REJECTED"
        named = select(api_keys.c.subject).where(
            api_keys.c.role == Role.DEVELOPER, api_keys.c.subject == registration.name
        )
        try:
            with self._engine.begin() as tx:
                rows = tx.execute(select(registrations).where(standing)).all()
                mine = next((row for row in rows if row.nullifier == nullifier), None)
                if mine is not None:
                    refuse_taken(identity, mine.wallet)
                    if mine.name != registration.name:
                        raise AlreadyRegistered(mine.name)
                    return _registration(mine)
                if any(row.wallet == registration.wallet for row in rows):
                    raise WalletTaken(registration.wallet)
                taken = any(row.name == registration.name for row in rows)
                if taken or tx.execute(named).first() is not None:
                    raise NameTaken(registration.name)
                tx.execute(
                    insert(registrations).values(
                        **registration.model_dump(mode="json"),
                        nullifier=nullifier,
                        proof_digest=to_hex(identity.digest),
                    )
                )
        except IntegrityError as error:
            raise RegistrationRaced from error
        return registration

    def registration(self, registration_id: bytes) -> Registration:
        """A registration.

        Raises:
            RegistrationUnknown: when there is none by that id.
        """
        with self._engine.begin() as tx:
            return _registration(self._registered(tx, registration_id))

    def registrations(self) -> tuple[Registration, ...]:
        """Every registration, the oldest first."""
        query = select(registrations).order_by(
            registrations.c.requested_at, registrations.c.registration_id
        )
        with self._engine.begin() as tx:
            return tuple(_registration(row) for row in tx.execute(query))

    def approve(self, registration_id: bytes, key: bytes, now: int) -> Registration:
        """Give a registration the API key with this hash; an earlier key of it counts no more.

        Raises:
            RegistrationUnknown: when there is none by that id.
            NameTaken, RegistrationRaced: when it was rejected and another took its place.
        """
        try:
            with self._engine.begin() as tx:
                row = self._registered(tx, registration_id)
                of_file = select(api_keys.c.digest).where(
                    api_keys.c.role == Role.DEVELOPER,
                    api_keys.c.subject == row.name,
                    api_keys.c.registration_id.is_(None),
                )
                if tx.execute(of_file).first() is not None:
                    raise NameTaken(row.name)
                self._decide(tx, registration_id, RegistrationState.APPROVED, now)
                tx.execute(
                    insert(api_keys).values(
                        digest=key.hex(),
                        role=Role.DEVELOPER,
                        subject=row.name,
                        registration_id=to_hex(registration_id),
                    )
                )
                return _registration(self._registered(tx, registration_id))
        except IntegrityError as error:
            raise RegistrationRaced from error

    def reject(self, registration_id: bytes, now: int) -> Registration:
        """Turn a registration down, or end it: its key counts no more, its name is free.

        Raises:
            RegistrationUnknown: when there is none by that id.
        """
        with self._engine.begin() as tx:
            self._registered(tx, registration_id)
            self._decide(tx, registration_id, RegistrationState.REJECTED, now)
            return _registration(self._registered(tx, registration_id))

    def bound_wallet(self, tenant: str) -> str | None:
        """The wallet that a registered developer proved; None for keys of the keys file."""
        query = select(registrations.c.wallet).where(
            registrations.c.name == tenant, registrations.c.state == RegistrationState.APPROVED
        )
        with self._engine.begin() as tx:
            return tx.scalars(query).one_or_none()

    @staticmethod
    def _decide(tx: Connection, registration_id: bytes, state: RegistrationState, now: int) -> None:
        key = to_hex(registration_id)
        tx.execute(delete(api_keys).where(api_keys.c.registration_id == key))
        tx.execute(
            update(registrations)
            .where(registrations.c.registration_id == key)
            .values(state=state, decided_at=now)
        )

    @staticmethod
    def _registered(tx: Connection, registration_id: bytes) -> Row[tuple[object, ...]]:
        query = select(registrations).where(
            registrations.c.registration_id == to_hex(registration_id)
        )
        row = tx.execute(query.with_for_update()).one_or_none()
        if row is None:
            raise RegistrationUnknown(registration_id)
        return row

    def put_profile(self, profile: DatasetProfile, now: int) -> None:
        """Publish, or replace, a node's profile."""
        with self._engine.begin() as tx:
            key = str(profile.node_id)
            tx.execute(delete(profiles).where(profiles.c.node_id == key))
            tx.execute(
                insert(profiles).values(
                    node_id=key, document=profile.model_dump_json(), updated_at=now
                )
            )

    def profiles(self) -> tuple[DatasetProfile, ...]:
        """Every published profile."""
        with self._engine.begin() as tx:
            documents = tx.scalars(select(profiles.c.document)).all()
        return tuple(DatasetProfile.model_validate_json(document) for document in documents)

    def load(self) -> dict[int, int]:
        """Funded and running jobs per node; a quote costs nothing and so weighs nothing."""
        query = (
            select(jobs.c.node_id, func.count().label("jobs"))
            .where(jobs.c.state.in_([JobState.FUNDED, JobState.RUNNING]))
            .group_by(jobs.c.node_id)
        )
        with self._engine.begin() as tx:
            return {int(row.node_id): row.jobs for row in tx.execute(query)}

    def add_job(self, job: Job, bundle: bytes) -> None:
        """Keep a new job with its bundle; equal bundles are kept once."""
        digest = to_hex(job.bundle_digest)
        with self._engine.begin() as tx:
            if not tx.scalar(select(func.count()).where(bundles.c.digest == digest)):
                tx.execute(insert(bundles).values(digest=digest, data=bundle))
            tx.execute(
                insert(jobs).values(
                    job_id=to_hex(job.job_id),
                    tenant=job.tenant,
                    node_id=str(job.terms.node_id),
                    state=job.state,
                    terms=job.terms.model_dump_json(),
                    task=job.task.model_dump_json(),
                    bundle_digest=digest,
                    created_at=job.created_at,
                    checked_at=job.created_at,
                )
            )

    def job(self, job_id: bytes) -> Job:
        """A job.

        Raises:
            JobUnknown: when there is none by that id.
        """
        with self._engine.begin() as tx:
            return self._locked(tx, job_id)

    def bundle(self, job: Job) -> bytes:
        """A job's bundle."""
        query = select(bundles.c.data).where(bundles.c.digest == to_hex(job.bundle_digest))
        with self._engine.begin() as tx:
            return bytes(tx.scalars(query).one())

    def running(self, node_id: int) -> Job | None:
        """The one job that a node is working on, if there is one."""
        return next(iter(self._in_state(node_id, JobState.RUNNING, limit=1)), None)

    def waiting(self, node_id: int, limit: int) -> tuple[Job, ...]:
        """A node's jobs that have not started: funded ones, then quotes not asked about longest."""
        funded = self._in_state(node_id, JobState.FUNDED, limit)
        return funded + self._in_state(node_id, JobState.QUOTED, limit - len(funded))

    def _in_state(self, node_id: int, state: JobState, limit: int) -> tuple[Job, ...]:
        query = (
            select(jobs)
            .where(jobs.c.node_id == str(node_id), jobs.c.state == state)
            .order_by(jobs.c.checked_at, jobs.c.created_at, jobs.c.job_id)
            .limit(limit)
        )
        with self._engine.begin() as tx:
            return tuple(_job(row) for row in tx.execute(query))

    def move(self, job: Job, state: JobState, failure: Failure | None, now: int) -> Job:
        """Put a job into a state, unless it has meanwhile left the one that `job` was read in.

        Returns the job as it now is, by whoever moved it.
        """
        with self._engine.begin() as tx:
            tx.execute(
                update(jobs)
                .where(jobs.c.job_id == to_hex(job.job_id), jobs.c.state == job.state)
                .values(state=state, failure=_text(failure), checked_at=now)
            )
            return self._locked(tx, job.job_id)

    def start(self, job: Job) -> bool:
        """Set a funded job running; False when it is no longer funded or its node is busy."""
        query = (
            update(jobs)
            .where(jobs.c.job_id == to_hex(job.job_id), jobs.c.state == JobState.FUNDED)
            .values(state=JobState.RUNNING)
        )
        try:
            with self._engine.begin() as tx:
                return tx.execute(query).rowcount == 1
        except IntegrityError:  # uq_jobs_running: the node already has a running job
            return False

    def record_progress(self, job_id: bytes, progress: Progress) -> Job:
        """Keep the progress of a running job.

        Raises:
            JobNotRunning: when it is not running.
        """
        with self._engine.begin() as tx:
            job = self._running(tx, job_id)
            known = advance(job.progress, progress)
            self._update(tx, job_id, progress=_text(known))
            return self._locked(tx, job_id)

    def fail(self, job_id: bytes, failure: Failure) -> Job:
        """End a running job; one that has failed stays as it is.

        Raises:
            JobNotRunning: when it is neither.
        """
        with self._engine.begin() as tx:
            job = self._locked(tx, job_id)
            if job.state is JobState.FAILED:
                return job
            self._running(tx, job_id)
            self._update(tx, job_id, state=JobState.FAILED, failure=_text(failure))
            return self._locked(tx, job_id)

    def artifact(self, job_id: bytes, name: ArtifactName) -> str:
        """The SHA-256 (hex) of an artifact.

        Raises:
            ArtifactUnknown: when it is not there.
        """
        with self._engine.begin() as tx:
            digest = self._artifacts(tx, job_id).get(name)
        if digest is None:
            raise ArtifactUnknown(job_id, name)
        return digest

    def check_upload(self, job_id: bytes, name: ArtifactName) -> None:
        """Pass an upload that can be right: of a running job, or maybe the same again.

        Raises:
            JobNotRunning: for any other.
        """
        with self._engine.begin() as tx:
            if name not in self._artifacts(tx, job_id):
                self._running(tx, job_id)

    def add_artifact(self, job_id: bytes, name: ArtifactName, sha256: str, size: int) -> Job:
        """Write an artifact once; the last of the four delivers the job.

        Raises:
            ArtifactConflict: when other bytes are there already.
            JobNotRunning: when the job is not running.
        """
        with self._engine.begin() as tx:
            job = self._locked(tx, job_id)
            known = self._artifacts(tx, job_id)
            if name in known:
                if known[name] != sha256:
                    raise ArtifactConflict(job_id, name)
                return job
            self._running(tx, job_id)
            tx.execute(
                insert(artifacts).values(job_id=to_hex(job_id), name=name, sha256=sha256, size=size)
            )
            if {*known, name} == set(ArtifactName):
                self._update(tx, job_id, state=JobState.DELIVERED)
            return self._locked(tx, job_id)

    @staticmethod
    def _locked(tx: Connection, job_id: bytes) -> Job:
        query = select(jobs).where(jobs.c.job_id == to_hex(job_id)).with_for_update()
        row = tx.execute(query).one_or_none()
        if row is None:
            raise JobUnknown(job_id)
        return _job(row)

    def _running(self, tx: Connection, job_id: bytes) -> Job:
        job = self._locked(tx, job_id)
        if job.state is not JobState.RUNNING:
            raise JobNotRunning(job_id, job.state)
        return job

    @staticmethod
    def _artifacts(tx: Connection, job_id: bytes) -> dict[ArtifactName, str]:
        query = select(artifacts).where(artifacts.c.job_id == to_hex(job_id))
        return {ArtifactName(row.name): row.sha256 for row in tx.execute(query)}

    @staticmethod
    def _update(tx: Connection, job_id: bytes, **values: str | None) -> None:
        tx.execute(update(jobs).where(jobs.c.job_id == to_hex(job_id)).values(**values))


def _registration(row: Row[tuple[object, ...]]) -> Registration:
    return Registration.model_validate(
        {name: getattr(row, name) for name in Registration.model_fields}
    )


def _text(model: Progress | Failure | None) -> str | None:
    return model.model_dump_json() if model is not None else None


def _job(row: Row[tuple[object, ...]]) -> Job:
    return Job(
        job_id=parse_bytes(row.job_id),
        tenant=row.tenant,
        terms=JobTerms.model_validate_json(row.terms),
        task=Task.model_validate_json(row.task),
        bundle_digest=parse_bytes(row.bundle_digest),
        state=JobState(row.state),
        progress=Progress.model_validate_json(row.progress) if row.progress else None,
        failure=Failure.model_validate_json(row.failure) if row.failure else None,
        created_at=row.created_at,
    )
