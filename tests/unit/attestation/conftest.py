"""A development platform, and verifiers that trust it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from oracle.attestation.policy import TcbPolicy
from oracle.attestation.quote import Quote
from oracle.attestation.verify import QuoteVerifier
from oracle.clients.edge.devplatform import DevPlatform

LOCAL_CHAIN = 31337


class GivenCollateral:
    """Collateral that the verifier already holds."""

    def __init__(self, text: str) -> None:
        self.text = text

    def collateral(self, quote: Quote) -> str:
        return self.text


@pytest.fixture(scope="session")
def vectors() -> Path:
    return Path(__file__).parents[2] / "vectors" / "attestation"


@pytest.fixture(scope="session")
def independent(vectors: Path) -> dict[str, Any]:
    """The vectors' own development platform, made by another generator."""
    return dict(json.loads((vectors / "dev" / "dev_platform.json").read_text()))


@pytest.fixture(scope="session")
def given() -> type[GivenCollateral]:
    return GivenCollateral


@pytest.fixture(scope="session")
def now() -> int:
    return 1_800_000_000


@pytest.fixture(scope="session")
def platform(now: int) -> DevPlatform:
    return DevPlatform.create(now, chain_id=LOCAL_CHAIN)


@pytest.fixture(scope="session")
def dev_quote(platform: DevPlatform) -> bytes:
    return platform.quote(bytes(range(32)), bytes(range(64, 128)))


@pytest.fixture(scope="session")
def verifier_of() -> Callable[..., QuoteVerifier]:
    """A verifier that trusts the given platform and holds its collateral."""

    def build(platform: DevPlatform, policy: TcbPolicy | None = None) -> QuoteVerifier:
        return QuoteVerifier(
            chain_id=LOCAL_CHAIN,
            collateral=GivenCollateral(platform.collateral_json()),
            policy=policy,
            development_root=platform.root_der,
        )

    return build
