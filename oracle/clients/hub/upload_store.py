"""Durable resumable uploads. What has come is kept with its offset, in one transaction."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from oracle.clients.hub.access_store import note
from oracle.clients.hub.database import Tables
from oracle.clients.hub.errors import TooManyUploads, UploadMisplaced, UploadUnknown
from oracle.clients.hub.keys import Principal
from oracle.clients.hub.tables import bundles, jobs, upload_parts, uploads
from settlement.hub.market import BundleFaultReport
from settlement.types import parse_bytes, to_hex

MAX_UPLOADS = 16
"""Uploads that one developer may have open."""


@dataclass(frozen=True)
class Upload:
    """An upload as kept: `offset` bytes of `length` are here. Times are Unix seconds."""

    upload_id: bytes
    tenant: str
    length: int
    offset: int
    expires_at: int
    bundle_digest: bytes | None = None
    fault: BundleFaultReport | None = None

    @property
    def complete(self) -> bool:
        """Whether all has come."""
        return self.offset == self.length


class UploadStore(Tables):
    """The bundles that are on their way."""

    def add_upload(self, upload: Upload, by: Principal, now: int) -> None:
        """Begin an upload.

        Raises:
            TooManyUploads: when its developer has `MAX_UPLOADS` open.
        """
        with self.write() as tx:
            self._drop_expired(tx, now)
            mine = select(func.count()).where(uploads.c.tenant == upload.tenant)
            if tx.scalars(mine).one() >= MAX_UPLOADS:
                raise TooManyUploads(MAX_UPLOADS)
            tx.execute(
                insert(uploads).values(
                    upload_id=to_hex(upload.upload_id),
                    tenant=upload.tenant,
                    length=upload.length,
                    offset=0,
                    expires_at=upload.expires_at,
                )
            )
            note(tx, by, now, "upload.begin", to_hex(upload.upload_id), bytes=upload.length)

    def upload(self, tenant: str, upload_id: bytes, now: int) -> Upload:
        """A developer's upload.

        Raises:
            UploadUnknown: when there is none, it is another's, or it has expired.
        """
        with self.read() as tx:
            return self._own(tx, tenant, upload_id, now)

    def append(self, tenant: str, upload_id: bytes, offset: int, data: bytes, now: int) -> Upload:
        """Keep the bytes that continue an upload; of two at once one goes in.

        Raises:
            UploadUnknown: as `upload`.
            UploadMisplaced: when they do not begin where it ends, or go beyond its length.
        """
        moved = (
            update(uploads)
            .where(
                uploads.c.upload_id == to_hex(upload_id),
                uploads.c.tenant == tenant,
                uploads.c.expires_at > now,
                uploads.c.offset == offset,
                uploads.c.length >= offset + len(data),
            )
            .values(offset=offset + len(data))
        )
        with self.write() as tx:
            if tx.execute(moved).rowcount != 1:
                raise UploadMisplaced(self._own(tx, tenant, upload_id, now).offset)
            if data:
                tx.execute(
                    insert(upload_parts).values(
                        upload_id=to_hex(upload_id), offset=offset, data=data
                    )
                )
            return self._own(tx, tenant, upload_id, now)

    def content(self, upload_id: bytes) -> bytes:
        """What has come of an upload."""
        return b"".join(self._parts(upload_id))

    def finish_upload(
        self,
        upload: Upload,
        result: tuple[bytes, bytes] | BundleFaultReport,
        by: Principal,
        now: int,
    ) -> Upload:
        """Keep what a complete upload turned out to be: digest and bytes of a bundle, or a fault.

        The parts go: a bundle is kept once, whoever sent it.
        """
        key = to_hex(upload.upload_id)
        with self.write() as tx:
            known = self._own(tx, upload.tenant, upload.upload_id, now, lock=True)
            if known.bundle_digest is not None or known.fault is not None:
                return known  # another looked at it at the same moment
            values: dict[str, Any]
            if isinstance(result, BundleFaultReport):
                values = {"fault": result.model_dump_json()}
                note(tx, by, now, "upload.refused", key, reason=result.reason)
            else:
                digest, data = result
                keep_bundle(tx, digest, data)
                values = {"bundle_digest": to_hex(digest)}
                note(tx, by, now, "upload.complete", key, bundle=to_hex(digest))
            tx.execute(update(uploads).where(uploads.c.upload_id == key).values(**values))
            tx.execute(delete(upload_parts).where(upload_parts.c.upload_id == key))
            return self._own(tx, upload.tenant, upload.upload_id, now)

    def drop_upload(self, tenant: str, upload_id: bytes, by: Principal, now: int) -> None:
        """Forget an upload.

        Raises:
            UploadUnknown: as `upload`.
        """
        with self.write() as tx:
            found = self._own(tx, tenant, upload_id, now, lock=True)
            self._drop(tx, [to_hex(found.upload_id)])
            note(tx, by, now, "upload.delete", to_hex(upload_id))

    def drop_expired_uploads(self, now: int) -> None:
        """Forget uploads whose time is over, and bundles that nothing speaks of any more."""
        with self.write() as tx:
            self._drop_expired(tx, now)
            used = select(jobs.c.bundle_digest).union(
                select(uploads.c.bundle_digest).where(uploads.c.bundle_digest.is_not(None))
            )
            tx.execute(delete(bundles).where(bundles.c.digest.not_in(used)))

    def _drop_expired(self, tx: Connection, now: int) -> None:
        query = select(uploads.c.upload_id).where(uploads.c.expires_at <= now)
        self._drop(tx, list(tx.scalars(query)))

    @staticmethod
    def _drop(tx: Connection, keys: list[str]) -> None:
        tx.execute(delete(upload_parts).where(upload_parts.c.upload_id.in_(keys)))
        tx.execute(delete(uploads).where(uploads.c.upload_id.in_(keys)))

    def _parts(self, upload_id: bytes) -> Iterator[bytes]:
        query = (
            select(upload_parts.c.data)
            .where(upload_parts.c.upload_id == to_hex(upload_id))
            .order_by(upload_parts.c.offset)
        )
        with self.read() as tx:
            yield from (bytes(data) for data in tx.scalars(query))

    @staticmethod
    def _own(
        tx: Connection, tenant: str, upload_id: bytes, now: int, *, lock: bool = False
    ) -> Upload:
        query = select(uploads).where(
            uploads.c.upload_id == to_hex(upload_id),
            uploads.c.tenant == tenant,
            uploads.c.expires_at > now,
        )
        query = query.with_for_update() if lock else query
        row = tx.execute(query).one_or_none()
        if row is None:
            raise UploadUnknown(upload_id)
        return _upload(row)


def keep_bundle(tx: Connection, digest: bytes, data: bytes) -> None:
    """Keep a bundle; equal ones are kept once."""
    key = to_hex(digest)
    if tx.scalars(select(func.count()).where(bundles.c.digest == key)).one():
        return
    try:
        with tx.begin_nested():
            tx.execute(insert(bundles).values(digest=key, data=data))
    except IntegrityError:
        return  # another brought the same one at the same moment


def _upload(row: Row[Any]) -> Upload:
    return Upload(
        upload_id=parse_bytes(row.upload_id),
        tenant=row.tenant,
        length=row.length,
        offset=row.offset,
        expires_at=row.expires_at,
        bundle_digest=parse_bytes(row.bundle_digest) if row.bundle_digest else None,
        fault=BundleFaultReport.model_validate(json.loads(row.fault)) if row.fault else None,
    )
