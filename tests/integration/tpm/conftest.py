"""Emulated TPMs, endorsed by a local vendor."""

from collections.abc import Callable, Iterator

import pytest
from swtpm import Node, Swtpm, Vendor, emulated_tpm


@pytest.fixture(scope="session")
def vendor() -> Vendor:
    """The one vendor whom the verifier trusts."""
    return Vendor.create()


@pytest.fixture(scope="module")
def tpm() -> Iterator[Swtpm]:
    with emulated_tpm() as tpm:
        yield tpm


@pytest.fixture(scope="module")
def other_tpm() -> Iterator[Swtpm]:
    with emulated_tpm() as tpm:
        yield tpm


@pytest.fixture(scope="module")
def node_with(tpm: Swtpm, vendor: Vendor) -> Callable[..., Node]:
    """A node whose keys are of these kinds."""

    def build(ek: str = "rsa", ak: tuple[str, ...] = ("ecc", "ecdsa")) -> Node:
        endorsement = tpm.create_ek(ek)
        return Node(tpm, endorsement, tpm.create_ak(endorsement, *ak), vendor)

    return build


@pytest.fixture(scope="module")
def node(node_with: Callable[..., Node]) -> Node:
    return node_with()
