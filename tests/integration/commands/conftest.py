"""One chain for all commands, rolled back after each test."""

from pathlib import Path

import pytest
from anvil import Chain
from integration.commands.scene import Shell


@pytest.fixture
def shell(chain: Chain, tmp_path: Path) -> Shell:
    """Commands on the shared chain."""
    return Shell(chain, tmp_path)


@pytest.fixture
def slow(waiting: Chain, tmp_path: Path) -> Shell:
    """The same where fresh earnings wait."""
    return Shell(waiting, tmp_path)
