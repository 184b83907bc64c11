"""Taking in quotes that the enclave registry itself checks: anyone may bring one."""

import structlog
from eth_utils import keccak

from oracle.errors import PlatformOfAnotherNode, QuoteUnknown, StaleChallenge
from oracle.facts import Chain
from oracle.messages import PlatformStatus, QuoteRequest, QuoteStatus, Status
from oracle.store.database import Store
from oracle.store.tables import QuoteRow
from settlement.dcap import split_quote
from settlement.errors import RaphaError
from settlement.reverts import ContractReverted, Revert
from settlement.types import to_hex

_log = structlog.get_logger(__name__)


class Quotes:
    """Keeps quotes for the relayer, and tells where they and their platforms stand."""

    def __init__(self, store: Store, chain: Chain, caller: str) -> None:
        """`caller` is the account that a quote is tried out from."""
        self._store = store
        self._chain = chain
        self._caller = caller

    def platform(self, platform: bytes) -> PlatformStatus:
        """A platform as the newest block has it, with the challenge for its next quote.

        Raises:
            ChainUnavailable: when the endpoint gives no answer.
        """
        found = self._chain.platform(platform)
        return PlatformStatus(platform=platform, **vars(found))

    def submit(self, request: QuoteRequest) -> QuoteStatus:
        """Keep a quote that the registry would take now.

        Idempotent by its attestation digest. What the registry refuses is not kept, so that no
        forgery can stand in a real quote's place.

        Raises:
            QuoteUnusable: when the registry cannot check such a quote.
            StaleChallenge: when it is not for the platform's present challenge, or these keys.
            PlatformOfAnotherNode: when the platform was judged for another node.
            ContractReverted: when the registry refuses it for another reason.
            ChainUnavailable: when the endpoint gives no answer.
        """
        parts = split_quote(request.quote)
        digest = keccak(parts.signed)
        with self._store.read() as session:
            known = session.get(QuoteRow, digest)
        if known and known.status != Status.REJECTED:
            return _status(known)
        call = self._chain.register_quote_call(
            parts, request.enclave_key, keccak(request.encryption_key)
        )
        try:
            self._chain.estimate_gas(call, self._caller)
        except ContractReverted as refusal:
            raise quote_refusal(refusal) from refusal
        judged_for = self._chain.platform(parts.platform).node_id
        if judged_for != request.node_id:
            raise PlatformOfAnotherNode(request.node_id, judged_for)
        row = QuoteRow(
            digest=digest,
            node_id=request.node_id,
            enclave_key=request.enclave_key,
            encryption_key=request.encryption_key,
            platform=parts.platform,
            quote=request.quote,
            status=Status.ACCEPTED,
            reason=None,
            detail=None,
            slot=None,
            transaction=None,
        )
        with self._store.write() as session:
            present = session.get(QuoteRow, digest)
            if present and present.status != Status.REJECTED:
                return _status(present)
            session.merge(row)
        _log.info("quote taken in", quote=to_hex(digest), node=row.node_id, enclave=row.enclave_key)
        return _status(row)

    def status(self, digest: bytes) -> QuoteStatus:
        """Where a quote stands. Raises QuoteUnknown."""
        with self._store.read() as session:
            row = session.get(QuoteRow, digest)
        if row is None:
            raise QuoteUnknown(digest)
        return _status(row)


def quote_refusal(refusal: ContractReverted) -> RaphaError:
    """What a refused quote's bringer is told: to quote anew where that helps."""
    if refusal.revert is Revert.ENCLAVES_QUOTE_BINDS_SOMETHING_ELSE:
        return StaleChallenge(
            "the quote is not for the platform's present challenge and these keys"
        )
    return refusal


def _status(row: QuoteRow) -> QuoteStatus:
    return QuoteStatus(
        digest=row.digest,
        node_id=row.node_id,
        enclave_key=row.enclave_key,
        platform=row.platform,
        status=Status(row.status),
        reason=row.reason,
        detail=row.detail,
        transaction=row.transaction,
    )
