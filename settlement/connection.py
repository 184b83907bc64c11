"""The one way to a chain's endpoint."""

from web3 import HTTPProvider, Web3
from web3.middleware import ExtraDataToPOAMiddleware

TIMEOUT = 30.0
"""Seconds that an endpoint has for one request."""


def connect(rpc_url: str, *, timeout: float = TIMEOUT) -> Web3:
    """A connection that reads Polygon's headers too, and repeats no request behind one's back.

    Nothing is asked yet. Whoever sends transactions must know how often it did, so retries are the
    caller's.
    """
    provider = HTTPProvider(
        rpc_url, request_kwargs={"timeout": timeout}, exception_retry_configuration=None
    )
    w3 = Web3(provider)
    # Polygon's extraData is longer than the 32 bytes that web3.py allows otherwise
    w3.middleware_onion.inject(ExtraDataToPOAMiddleware, layer=0)
    return w3
