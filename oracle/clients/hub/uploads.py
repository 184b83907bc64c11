"""Bundles on their way in: taken in parts, checked when they are whole. Free of HTTP."""

import secrets
from collections.abc import Callable

import structlog

from oracle.clients.hub.errors import BodyTooLarge, UploadUnfit
from oracle.clients.hub.keys import Principal
from oracle.clients.hub.upload_store import Upload, UploadStore
from settlement.bundle import (
    MAX_ARCHIVE_BYTES,
    BundleRefused,
    read_manifest,
    unpack_bundle,
)
from settlement.digests import bundle_digest
from settlement.hub.market import BundleFaultReport, BundleReport, UploadView

log = structlog.get_logger("rapha.hub")


class Uploads:
    """Each developer's uploads; every method raises `UploadUnknown` for those of others."""

    def __init__(
        self,
        store: UploadStore,
        bundle: Callable[[bytes], bytes],
        *,
        lifetime: int,
        clock: Callable[[], int],
    ) -> None:
        """`bundle` gives a kept bundle by its digest, `lifetime` is seconds."""
        self._store = store
        self._bundle = bundle
        self._lifetime = lifetime
        self._clock = clock

    def begin(self, by: Principal, length: int) -> Upload:
        """A place for so many bytes.

        Raises:
            BodyTooLarge: for more than a bundle may have.
            TooManyUploads: when as many are open as one developer may have.
        """
        if length > MAX_ARCHIVE_BYTES:
            raise BodyTooLarge(MAX_ARCHIVE_BYTES)
        now = self._clock()
        upload = Upload(secrets.token_bytes(32), by.subject, length, 0, now + self._lifetime)
        self._store.add_upload(upload, by, now)
        return upload if length else self._scan(upload, by)

    def find(self, by: Principal, upload_id: bytes) -> Upload:
        """How far an upload is."""
        return self._store.upload(by.subject, upload_id, self._clock())

    def append(self, by: Principal, upload_id: bytes, offset: int, data: bytes) -> Upload:
        """Keep the bytes at `offset`; the last ones have the bundle checked.

        Raises:
            UploadMisplaced: when the upload does not go on there, or would outgrow its length.
        """
        upload = self._store.append(by.subject, upload_id, offset, data, self._clock())
        done = upload.bundle_digest is not None or upload.fault is not None
        return self._scan(upload, by) if upload.complete and not done else upload

    def drop(self, by: Principal, upload_id: bytes) -> None:
        """Forget an upload."""
        self._store.drop_upload(by.subject, upload_id, by, self._clock())

    def view(self, by: Principal, upload_id: bytes) -> UploadView:
        """How far an upload is, and once it is complete what was found in it."""
        upload = self.find(by, upload_id)
        if upload.complete and upload.bundle_digest is None and upload.fault is None:
            upload = self._scan(upload, by)  # the hub was stopped between the two
        return UploadView(
            upload_id=upload.upload_id,
            length=upload.length,
            offset=upload.offset,
            expires_at=upload.expires_at,
            bundle=report(self._bundle(upload.bundle_digest)) if upload.bundle_digest else None,
            fault=upload.fault,
        )

    def bundle_of(self, by: Principal, upload_id: bytes) -> bytes:
        """The checked bundle of a complete upload.

        Raises:
            UploadUnfit: when it is not complete, or is no bundle that can be trained.
        """
        view = self.view(by, upload_id)
        if view.fault is not None:
            raise UploadUnfit(view.fault.detail, reason=view.fault.reason, path=view.fault.path)
        digest = self.find(by, upload_id).bundle_digest
        if digest is None:
            raise UploadUnfit(
                f"{view.offset} of {view.length} bytes are here; upload the rest first",
                offset=view.offset,
            )
        return self._bundle(digest)

    def _scan(self, upload: Upload, by: Principal) -> Upload:
        data = self._store.content(upload.upload_id)
        result: tuple[bytes, bytes] | BundleFaultReport
        try:
            result = (bundle_digest(unpack_bundle(data)), data)
        except BundleRefused as error:
            result = BundleFaultReport(
                reason=error.reason, detail=str(error)[:2000], path=error.path
            )
        log.info(
            "bundle scanned", tenant=upload.tenant, refused=isinstance(result, BundleFaultReport)
        )
        return self._store.finish_upload(upload, result, by, self._clock())


def report(bundle: bytes) -> BundleReport:
    """What is in a checked bundle."""
    files = unpack_bundle(bundle)
    manifest = read_manifest(files)
    return BundleReport(
        digest=bundle_digest(files),
        framework=manifest.framework,
        entry_point=manifest.entry_point,
        files={path: len(content) for path, content in sorted(files.items())},
        outputs=tuple(sorted(manifest.outputs or ())),
    )
