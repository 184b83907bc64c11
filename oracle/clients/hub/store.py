"""Durable profiles, jobs, leases and artifacts. Each method is one transaction."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from oracle.clients.hub.access_store import AccessStore, note
from oracle.clients.hub.errors import (
    ArtifactConflict,
    ArtifactUnknown,
    IdempotencyConflict,
    JobNotRunning,
    JobUnknown,
    NodeUnknown,
    ProfileOutdated,
)
from oracle.clients.hub.jobs import FINISHED, Job, Kept, Task, advance
from oracle.clients.hub.keys import HUB, Principal
from oracle.clients.hub.routing import Work
from oracle.clients.hub.tables import (
    artifacts,
    bundles,
    jobs,
    leases,
    nodes,
    profiles,
    requests,
)
from oracle.clients.hub.upload_store import UploadStore, keep_bundle
from settlement.hub.messages import (
    ArtifactName,
    DatasetProfile,
    Failure,
    JobState,
    Progress,
)
from settlement.models import JobTerms
from settlement.types import parse_bytes, to_hex

GRAIN = 15
"""Seconds, at most, within which it is not written down again that a node was heard of."""

_UNFINISHED = (JobState.FUNDED, JobState.RUNNING)


class Store(AccessStore, UploadStore):
    """The hub's memory on one engine."""

    def close(self) -> None:
        """Release the connections."""
        self._engine.dispose()

    def ping(self) -> None:
        """Return when the database answers.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: when it does not.
        """
        with self.read() as tx:
            tx.execute(select(1))

    # Nodes

    def put_profile(self, profile: DatasetProfile, by: Principal, now: int) -> None:
        """Publish, or replace, a node's profile."""
        key, document = str(profile.node_id), profile.model_dump_json()
        with self.write() as tx:
            self._see(tx, profile.node_id, now)
            known = tx.scalars(
                select(profiles.c.document).where(profiles.c.node_id == key).with_for_update()
            ).one_or_none()
            if known is None:
                row = {"node_id": key, "document": document, "updated_at": now}
                tx.execute(insert(profiles).values(**row))
            else:
                tx.execute(
                    update(profiles)
                    .where(profiles.c.node_id == key)
                    .values(document=document, updated_at=now, outdated=0)
                )
            if known != document:
                digest = to_hex(profile.dataset_digest)
                note(tx, by, now, "profile.publish", key, dataset=digest)

    def profiles(self) -> tuple[DatasetProfile, ...]:
        """Every published profile."""
        return tuple(profile for profile, _ in self.published())

    def published(self) -> tuple[tuple[DatasetProfile, int], ...]:
        """Every profile that counts, and when it was published."""
        with self.read() as tx:
            rows = tx.execute(select(profiles).where(profiles.c.outdated == 0)).all()
        return tuple((_profile(row.document), row.updated_at) for row in rows)

    def profile(self, node_id: int) -> DatasetProfile:
        """A node's profile.

        Raises:
            NodeUnknown: when it published none.
            ProfileOutdated: when what it published is of an older form.
        """
        query = select(profiles).where(profiles.c.node_id == str(node_id))
        with self.read() as tx:
            row = tx.execute(query).one_or_none()
        if row is None:
            raise NodeUnknown(node_id)
        if row.outdated:
            raise ProfileOutdated(node_id)
        return _profile(row.document)

    def outdated(self) -> frozenset[int]:
        """The nodes whose profile is of an older form."""
        query = select(profiles.c.node_id).where(profiles.c.outdated != 0)
        with self.read() as tx:
            return frozenset(map(int, tx.scalars(query)))

    def see(self, node_id: int, now: int, lease_until: int) -> None:
        """A node was heard of: its lease, if it has one, lasts until then; to `GRAIN` seconds, and
        to a quarter of what is left of a shorter one."""
        grain = min(GRAIN, (lease_until - now) // 4)
        known = (
            select(nodes.c.seen_at, leases.c.expires_at)
            .join_from(nodes, leases, leases.c.node_id == nodes.c.node_id, isouter=True)
            .where(nodes.c.node_id == str(node_id))
        )
        with self.read() as tx:
            row = tx.execute(known).one_or_none()
        leased = row.expires_at if row is not None else None
        lasts = leased is None or lease_until - leased < grain
        if row is not None and now - row.seen_at < grain and lasts:
            return
        with self.write() as tx:
            self._see(tx, node_id, now)
            tx.execute(
                update(leases)
                .where(leases.c.node_id == str(node_id))
                .values(expires_at=lease_until)
            )

    def seen(self) -> dict[int, int]:
        """When each node was last heard of."""
        with self.read() as tx:
            return {int(r.node_id): r.seen_at for r in tx.execute(select(nodes))}

    def work(self, now: int, *, patience: int, queue: int) -> dict[int, Work]:
        """What each node has to do; a quote costs nothing and so weighs nothing.

        A node not heard of for `patience` seconds is absent, one with `queue` unfinished jobs full.
        """
        unfinished = (
            select(jobs.c.node_id, func.count().label("jobs"))
            .where(jobs.c.state.in_(_UNFINISHED))
            .group_by(jobs.c.node_id)
        )
        with self.read() as tx:
            counts = {int(row.node_id): row.jobs for row in tx.execute(unfinished)}
            known = tx.execute(select(nodes)).all()
        return {
            int(row.node_id): Work(
                unfinished=counts.get(int(row.node_id), 0),
                assigned_at=row.assigned_at,
                absent_since=row.seen_at if row.seen_at + patience < now else None,
                full=counts.get(int(row.node_id), 0) >= queue,
            )
            for row in known
        }

    @staticmethod
    def _see(tx: Connection, node_id: int, now: int) -> None:
        key = str(node_id)
        if tx.execute(update(nodes).where(nodes.c.node_id == key).values(seen_at=now)).rowcount:
            return
        try:
            with tx.begin_nested():
                tx.execute(insert(nodes).values(node_id=key, seen_at=now, assigned_at=0))
        except IntegrityError:
            return  # it was heard of twice at once

    # Jobs

    def add_job(
        self,
        job: Job,
        bundle: bytes | None,
        by: Principal,
        *,
        key: str | None = None,
        request_digest: str = "",
    ) -> Job:
        """Keep a new job, with its bundle unless that is here already.

        Under an Idempotency-Key the first job stays the only one, and so does the first that takes
        another's place; it is given again.

        Raises:
            IdempotencyConflict: when the key came with another request.
        """
        try:
            with self.write() as tx:
                if key is not None and (known := self._asked(tx, job.tenant, key, request_digest)):
                    return known
                if bundle is not None:
                    keep_bundle(tx, job.bundle_digest, bundle)
                tx.execute(
                    insert(jobs).values(
                        job_id=to_hex(job.job_id),
                        tenant=job.tenant,
                        node_id=str(job.terms.node_id),
                        state=job.state,
                        terms=job.terms.model_dump_json(),
                        task=job.task.model_dump_json(),
                        route=job.route_json,
                        wish=job.wish,
                        replaces=to_hex(job.replaces) if job.replaces else None,
                        bundle_digest=to_hex(job.bundle_digest),
                        created_at=job.created_at,
                        checked_at=job.created_at,
                    )
                )
                if key is not None:
                    tx.execute(
                        insert(requests).values(
                            tenant=job.tenant,
                            key=key,
                            request_digest=request_digest,
                            job_id=to_hex(job.job_id),
                        )
                    )
                at = job.created_at
                instead = {"replaces": to_hex(job.replaces)} if job.replaces else {}
                note(tx, by, at, "job.quote", to_hex(job.job_id), node=job.terms.node_id, **instead)
                return job
        except IntegrityError:
            # Another such request came at the same moment; that one's job counts.
            if job.replaces is not None:
                same = self.replacement(job.replaces)
            else:
                same = self.asked(job.tenant, key, request_digest) if key is not None else None
            if same is None:
                raise
            return same

    def replacement(self, job_id: bytes) -> Job | None:
        """The job that takes the place of another."""
        with self.read() as tx:
            query = select(jobs).where(jobs.c.replaces == to_hex(job_id))
            row = tx.execute(query).one_or_none()
        return _job(row) if row is not None else None

    def asked(self, tenant: str, key: str, request_digest: str) -> Job | None:
        """The job that was asked for under an Idempotency-Key.

        Raises:
            IdempotencyConflict: when the key came with another request.
        """
        with self.read() as tx:
            return self._asked(tx, tenant, key, request_digest)

    @staticmethod
    def _asked(tx: Connection, tenant: str, key: str, request_digest: str) -> Job | None:
        query = (
            select(jobs, requests.c.request_digest)
            .join(requests, requests.c.job_id == jobs.c.job_id)
            .where(requests.c.tenant == tenant, requests.c.key == key)
        )
        row = tx.execute(query).one_or_none()
        if row is None:
            return None
        if row.request_digest != request_digest:
            raise IdempotencyConflict(key)
        return _job(row)

    def job(self, job_id: bytes) -> Job:
        """A job.

        Raises:
            JobUnknown: when there is none by that id.
        """
        with self.read() as tx:
            return self._found(tx, job_id)

    def jobs_of(
        self,
        *,
        tenant: str | None = None,
        node_id: int | None = None,
        state: JobState | None = None,
        before: tuple[int, str] | None = None,
        limit: int,
    ) -> tuple[Job, ...]:
        """Jobs of a developer or of a node, or all, the newest first; those older than `before`."""
        at, key = jobs.c.created_at, jobs.c.job_id
        query = select(jobs).order_by(at.desc(), key.desc()).limit(limit)
        if tenant is not None:
            query = query.where(jobs.c.tenant == tenant)
        if node_id is not None:
            query = query.where(jobs.c.node_id == str(node_id))
        if state is not None:
            query = query.where(jobs.c.state == state)
        if before is not None:
            query = query.where(or_(at < before[0], and_(at == before[0], key < before[1])))
        with self.read() as tx:
            return tuple(_job(row) for row in tx.execute(query))

    def unchecked(self, before: int, limit: int) -> tuple[Job, ...]:
        """Unfinished jobs that nobody asked the oracle about since `before`, the longest first."""
        query = (
            select(jobs)
            .where(jobs.c.state.not_in(FINISHED), jobs.c.checked_at < before)
            .order_by(jobs.c.checked_at)
            .limit(limit)
        )
        with self.read() as tx:
            return tuple(_job(row) for row in tx.execute(query))

    def durations(self, limit: int = 200) -> tuple[Job, ...]:
        """The jobs that were delivered last: how long work takes."""
        query = (
            select(jobs)
            .where(jobs.c.state == JobState.DELIVERED, jobs.c.started_at.is_not(None))
            .order_by(jobs.c.ended_at.desc())
            .limit(limit)
        )
        with self.read() as tx:
            return tuple(_job(row) for row in tx.execute(query))

    def bundle(self, job: Job) -> bytes:
        """A job's bundle."""
        return self.bundle_by_digest(job.bundle_digest)

    def bundle_by_digest(self, digest: bytes) -> bytes:
        """A kept bundle."""
        query = select(bundles.c.data).where(bundles.c.digest == to_hex(digest))
        with self.read() as tx:
            return bytes(tx.scalars(query).one())

    def running(self, node_id: int) -> Job | None:
        """The one job that a node is working on, if there is one."""
        return next(map(_job, self._in_state(node_id, JobState.RUNNING, limit=1)), None)

    def waiting(self, node_id: int, limit: int) -> Iterator[Job]:
        """A node's jobs that have not started: funded ones, then quotes not asked about longest.

        Each is read as it is looked at: the first is mostly the one.
        """
        funded = self._in_state(node_id, JobState.FUNDED, limit)
        yield from map(_job, funded)
        yield from map(_job, self._in_state(node_id, JobState.QUOTED, limit - len(funded)))

    def _in_state(self, node_id: int, state: JobState, limit: int) -> Sequence[Row[Any]]:
        query = (
            select(jobs)
            .where(jobs.c.node_id == str(node_id), jobs.c.state == state)
            .order_by(jobs.c.checked_at, jobs.c.created_at, jobs.c.job_id)
            .limit(limit)
        )
        with self.read() as tx:
            return tx.execute(query).all()

    def move(self, job: Job, state: JobState, failure: Failure | None, now: int) -> Job:
        """Put a job into a state, unless it has meanwhile left the one that `job` was read in.

        Returns the job as it now is, by whoever moved it.
        """
        if state is job.state and job.checked_at == now:
            return job
        with self.write() as tx:
            values = {"state": state, "failure": _text(failure), "checked_at": now}
            if state in FINISHED and job.state not in FINISHED:
                values["ended_at"] = now
            moved = tx.execute(
                update(jobs)
                .where(jobs.c.job_id == to_hex(job.job_id), jobs.c.state == job.state)
                .values(**values)
            ).rowcount
            if moved and state is not job.state:
                self._moved(tx, job, state, HUB, now, failure)
            return self._locked(tx, job.job_id)

    def checked(self, job_ids: Sequence[bytes], now: int) -> None:
        """The oracle was asked about these jobs, and they stay as they are."""
        if not job_ids:
            return
        keys = [to_hex(job_id) for job_id in job_ids]
        with self.write() as tx:
            tx.execute(update(jobs).where(jobs.c.job_id.in_(keys)).values(checked_at=now))

    def start(self, job: Job, by: Principal, now: int, lease_until: int) -> bool:
        """Lease a funded job to its node; False when it is no longer funded or the node is busy.

        Of two that try at once one succeeds: the database holds one lease for each job, and one for
        each node.
        """
        key = to_hex(job.job_id)
        started = (
            update(jobs)
            .where(
                jobs.c.job_id == key,
                jobs.c.state == JobState.FUNDED,
                jobs.c.node_id == str(job.node_id),
            )
            .values(state=JobState.RUNNING, started_at=now)
        )
        try:
            with self.write() as tx:
                if tx.execute(started).rowcount != 1:
                    return False
                tx.execute(
                    insert(leases).values(
                        job_id=key, node_id=str(job.node_id), expires_at=lease_until
                    )
                )
                tx.execute(
                    update(nodes).where(nodes.c.node_id == str(job.node_id)).values(assigned_at=now)
                )
                note(tx, by, now, "job.start", key, tenant=job.tenant)
                return True
        except IntegrityError:  # a lease of this job or of this node is there already
            return False

    def lease_until(self, job_id: bytes) -> int | None:
        """Until when the job's node is counted on, None when nobody works on it."""
        query = select(leases.c.expires_at).where(leases.c.job_id == to_hex(job_id))
        with self.read() as tx:
            return tx.scalars(query).one_or_none()

    @staticmethod
    def _moved(
        tx: Connection,
        job: Job,
        state: JobState,
        by: Principal,
        now: int,
        failure: Failure | None = None,
    ) -> None:
        """What goes with each change of state: no lease outlives its work, and it is on record."""
        if state is not JobState.RUNNING:
            tx.execute(delete(leases).where(leases.c.job_id == to_hex(job.job_id)))
        detail = {"failure": failure.code} if failure else {}
        action = f"job.{state.lower()}"
        note(tx, by, now, action, to_hex(job.job_id), tenant=job.tenant, **detail)

    def record_progress(self, job_id: bytes, progress: Progress) -> Job:
        """Keep the progress of a running job.

        Raises:
            JobNotRunning: when it is not running.
        """
        with self.write() as tx:
            job = self._running(tx, job_id)
            known = advance(job.progress, progress)
            self._update(tx, job_id, progress=_text(known))
            return self._locked(tx, job_id)

    def fail(self, job_id: bytes, failure: Failure, by: Principal, now: int) -> Job:
        """End a running job; one that has failed stays as it is.

        Raises:
            JobNotRunning: when it is neither.
        """
        with self.write() as tx:
            job = self._locked(tx, job_id)
            if job.state is JobState.FAILED:
                return job
            self._running(tx, job_id)
            self._update(tx, job_id, state=JobState.FAILED, failure=_text(failure), ended_at=now)
            self._moved(tx, job, JobState.FAILED, by, now, failure)
            return self._locked(tx, job_id)

    def artifact(self, job_id: bytes, name: ArtifactName) -> str:
        """The SHA-256 (hex) of an artifact.

        Raises:
            ArtifactUnknown: when it is not there.
        """
        with self.read() as tx:
            digest = self._artifacts(tx, job_id).get(name)
        if digest is None:
            raise ArtifactUnknown(job_id, name)
        return digest

    def artifacts(self, job_id: bytes) -> tuple[Kept, ...]:
        """Every artifact of a job."""
        query = select(artifacts).where(artifacts.c.job_id == to_hex(job_id))
        with self.read() as tx:
            return tuple(
                Kept(ArtifactName(row.name), row.sha256, row.size) for row in tx.execute(query)
            )

    def drop_artifacts(self, ended_before: int) -> tuple[str, ...]:
        """Forget deliveries of jobs that ended before; the SHA-256 of files that nobody needed
        then."""
        old = select(jobs.c.job_id).where(jobs.c.ended_at < ended_before)
        with self.write() as tx:
            gone = set(tx.scalars(select(artifacts.c.sha256).where(artifacts.c.job_id.in_(old))))
            tx.execute(delete(artifacts).where(artifacts.c.job_id.in_(old)))
            query = select(artifacts.c.sha256).where(artifacts.c.sha256.in_(gone))
            return tuple(sorted(gone - set(tx.scalars(query))))

    def is_kept(self, sha256: str) -> bool:
        """Whether any delivery has these bytes."""
        query = select(func.count()).where(artifacts.c.sha256 == sha256)
        with self.read() as tx:
            return bool(tx.scalars(query).one())

    def check_upload(self, job_id: bytes, name: ArtifactName) -> None:
        """Pass an upload that can be right: of a running job, or maybe the same again.

        Raises:
            JobNotRunning: for any other.
        """
        with self.read() as tx:
            if name not in self._artifacts(tx, job_id):
                job = self._found(tx, job_id)
                if job.state is not JobState.RUNNING:
                    raise JobNotRunning(job_id, job.state)

    def add_artifact(
        self,
        job_id: bytes,
        name: ArtifactName,
        sha256: str,
        size: int,
        by: Principal,
        now: int,
    ) -> Job:
        """Write an artifact once; the last of the four delivers the job.

        Raises:
            ArtifactConflict: when other bytes are there already.
            JobNotRunning: when the job is not running.
        """
        with self.write() as tx:
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
                self._update(tx, job_id, state=JobState.DELIVERED, ended_at=now)
                self._moved(tx, job, JobState.DELIVERED, by, now)
            return self._locked(tx, job_id)

    @staticmethod
    def _found(tx: Connection, job_id: bytes, *, lock: bool = False) -> Job:
        query = select(jobs).where(jobs.c.job_id == to_hex(job_id))
        row = tx.execute(query.with_for_update() if lock else query).one_or_none()
        if row is None:
            raise JobUnknown(job_id)
        return _job(row)

    def _locked(self, tx: Connection, job_id: bytes) -> Job:
        return self._found(tx, job_id, lock=True)

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
    def _update(tx: Connection, job_id: bytes, **values: Any) -> None:
        tx.execute(update(jobs).where(jobs.c.job_id == to_hex(job_id)).values(**values))


@lru_cache(maxsize=4096)
def _profile(document: str) -> DatasetProfile:
    """A profile from its text: each job is held against all, and reading one takes its digest."""
    return DatasetProfile.model_validate_json(document)


def _text(model: Progress | Failure | None) -> str | None:
    return model.model_dump_json() if model is not None else None


def _job(row: Row[Any]) -> Job:
    return Job(
        job_id=parse_bytes(row.job_id),
        tenant=row.tenant,
        terms=JobTerms.model_validate_json(row.terms),
        task=Task.model_validate_json(row.task),
        bundle_digest=parse_bytes(row.bundle_digest),
        state=JobState(row.state),
        progress=Progress.model_validate_json(row.progress) if row.progress else None,
        failure=Failure.model_validate_json(row.failure) if row.failure else None,
        node_id=int(row.node_id),
        route_json=row.route,
        wish=row.wish,
        replaces=parse_bytes(row.replaces) if row.replaces else None,
        created_at=row.created_at,
        checked_at=row.checked_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
    )
