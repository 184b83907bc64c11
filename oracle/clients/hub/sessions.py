"""Signing in with a wallet (EIP-4361), and the browser's session that follows.

A session is a random token in a cookie that scripts cannot read and other sites cannot send. What
it changes takes a second token besides, which only this hub's own pages learn.
"""

import hashlib
import hmac
import secrets
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

from eth_utils import keccak
from pydantic import ValidationError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its grammar redefines RFC 5234's core rules, to the same
    from siwe import SiweMessage
    from siwe.siwe import ISO8601Datetime

from oracle.clients.hub.access_store import AccessStore, OpenSession
from oracle.clients.hub.chain import ChainView
from oracle.clients.hub.errors import CsrfRefused, SignInRefused
from settlement.deployment import Deployment
from settlement.eip712 import recover_signer
from settlement.errors import InvalidInput, InvalidSignature
from settlement.hub.account import SignIn, SignInChallenge

CHALLENGE_SECONDS = 600
STATEMENT = "Sign in to the Rapha hub. This costs nothing and moves nothing."
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True)
class Site:
    """Where browsers see the hub: its origin, which is what they sign in to."""

    origin: str

    @classmethod
    def at(cls, url: str) -> "Site":
        """The site of a URL.

        Raises:
            InvalidInput: when it is neither https nor on this machine: cookies would travel openly.
        """
        parts = urlsplit(url)
        if parts.scheme != "https" and (parts.scheme != "http" or parts.hostname not in LOOPBACK):
            raise InvalidInput(f"the public URL {url} must be https, or on this machine")
        return cls(f"{parts.scheme}://{parts.netloc}")

    @property
    def domain(self) -> str:
        """Host and port, as EIP-4361 has it."""
        return urlsplit(self.origin).netloc

    @property
    def secure(self) -> bool:
        """Whether cookies are for https alone."""
        return self.origin.startswith("https:")

    @property
    def cookie(self) -> str:
        """The session cookie's name; with the prefix a browser binds it to this very host."""
        return "__Host-rapha_session" if self.secure else "rapha_session"


class Sessions:
    """Opens, finds and ends sessions."""

    def __init__(
        self,
        store: AccessStore,
        deployment: Deployment,
        site: Site,
        hash_key: bytes,
        chain: ChainView | None,
        *,
        lifetime: int,
        clock: Callable[[], int],
    ) -> None:
        """Without `chain` smart wallets cannot sign in: only their contracts know who may."""
        self.site = site
        self._store = store
        self._deployment = deployment
        self._hash_key = hash_key
        self._chain = chain
        self._lifetime = lifetime
        self._clock = clock

    def challenge(self, address: str) -> SignInChallenge:
        """The message that a wallet signs to get a session; good once, and for ten minutes."""
        now, nonce = self._clock(), secrets.token_hex(16)
        expires_at = now + CHALLENGE_SECONDS
        self._store.add_challenge(nonce, expires_at, now)
        message = SiweMessage(
            domain=self.site.domain,
            address=address,
            statement=STATEMENT,
            uri=self.site.origin,
            version="1",
            chain_id=self._deployment.chain_id,
            nonce=nonce,
            issued_at=_text(now),
            expiration_time=_text(expires_at),
        )
        return SignInChallenge(
            message=message.prepare_message(), nonce=nonce, expires_at=expires_at
        )

    def open(self, request: SignIn) -> tuple[str, OpenSession]:
        """A session for the wallet that signed, and its token, which is for the cookie alone.

        Raises:
            SignInRefused: by reason, when the message is not one of this hub's, or not now, or not
                signed by who it speaks of.
            ChainUnavailable: when a smart wallet's contract cannot be asked.
        """
        message = self._parse(request.message)
        now = self._clock()
        self._check(message, now)
        if not self._signed(message, request):
            raise SignInRefused(
                "signature",
                f"the message is not signed by {message.address}"
                + ("" if self._chain else "; smart wallets cannot sign in at this hub"),
            )
        # Last, so that only who holds the wallet can use a challenge up.
        if not self._store.take_challenge(message.nonce, now):
            raise SignInRefused(
                "nonce", "the nonce is not of this hub, or was used: ask for another challenge"
            )
        token = secrets.token_urlsafe(32)
        session = OpenSession(str(message.address), now, now + self._lifetime)
        self._store.add_session(self._digest(token), session)
        return token, session

    def find(self, token: str) -> OpenSession | None:
        """The session with this token, unless it has ended."""
        session = self._store.session(self._digest(token))
        return session if session is not None and self._clock() < session.expires_at else None

    def end(self, token: str) -> None:
        """End a session now."""
        self._store.end_session(self._digest(token))

    def csrf_token(self, token: str) -> str:
        """What comes in `X-CSRF-Token` with each change in this session."""
        return hmac.new(self._hash_key, b"rapha.csrf.v1" + token.encode(), "sha256").hexdigest()

    def check_csrf(self, token: str, given: str | None, origin: str | None) -> None:
        """Pass a change that this hub's own page makes.

        Raises:
            CsrfRefused: for any other.
        """
        self.check_origin(origin)
        if not hmac.compare_digest((given or "").encode(), self.csrf_token(token).encode()):
            raise CsrfRefused("the header X-CSRF-Token is missing or not this session's")

    def check_origin(self, origin: str | None) -> None:
        """Pass what comes from no page, or from one of this hub's. Raises CsrfRefused."""
        if origin is not None and origin != self.site.origin:
            raise CsrfRefused(f"it comes from {origin[:200]}")

    def _digest(self, token: str) -> str:
        return hashlib.blake2b(
            token.encode(), key=self._hash_key, digest_size=32, person=b"rapha.session.v1"
        ).hexdigest()

    def _parse(self, text: str) -> SiweMessage:
        try:
            return SiweMessage.from_message(text)
        except (ValueError, ValidationError) as error:
            raise SignInRefused("message", "this is not an EIP-4361 message") from error

    def _check(self, message: SiweMessage, now: int) -> None:
        expected = {
            "domain": self.site.domain,
            "uri": self.site.origin,
            "chain_id": self._deployment.chain_id,
        }
        for field, value in expected.items():
            if getattr(message, field) != value:
                raise SignInRefused(
                    field, f"the message's {field} is {getattr(message, field)}, not {value}"
                )
        if message.scheme not in (None, urlsplit(self.site.origin).scheme):
            raise SignInRefused("scheme", f"the message's scheme is {message.scheme}")
        if message.expiration_time is None or _seconds(message.expiration_time) <= now:
            raise SignInRefused("expired", "the message has expired: ask for another challenge")
        if message.not_before is not None and now < _seconds(message.not_before):
            raise SignInRefused("not_before", "the message is not valid yet")

    def _signed(self, message: SiweMessage, request: SignIn) -> bool:
        # Over the text as it came: what a parser made of it is not what was signed.
        digest = _personal_digest(request.message.encode())
        try:
            if recover_signer(digest, request.signature) == message.address:
                return True
        except InvalidSignature:
            pass
        if self._chain is None:
            return False
        return self._chain.is_valid_signature(str(message.address), digest, request.signature)


def _personal_digest(message: bytes) -> bytes:
    """What `personal_sign` signs (EIP-191, version 0x45)."""
    return keccak(b"\x19Ethereum Signed Message:\n" + str(len(message)).encode() + message)


def _text(seconds: int) -> str:
    return str(ISO8601Datetime.from_datetime(datetime.fromtimestamp(seconds, UTC), "seconds"))


def _seconds(text: str) -> float:
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    # RFC 3339 has an offset always; where there is none, no moment is meant.
    return moment.timestamp() if moment.tzinfo is not None else 0
