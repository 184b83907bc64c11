"""A collateral service on this machine, and a development platform for it to speak of."""

from collections.abc import Iterator

import pytest
from integration.attestation.collateral_service import LOCAL_CHAIN, NOW, CollateralService

from oracle.clients.edge.devplatform import DevPlatform


@pytest.fixture
def service() -> Iterator[CollateralService]:
    service = CollateralService()
    yield service
    service.stop()


@pytest.fixture(scope="session")
def platform() -> DevPlatform:
    return DevPlatform.create(NOW, chain_id=LOCAL_CHAIN)
