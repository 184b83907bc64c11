"""Settings that all tests share."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from longrun import LONG

ROOT = Path(__file__).resolve().parent.parent

# nothing is read from or written to the home folder
os.environ.setdefault("APE_DATA_FOLDER", str(ROOT / ".cache/ape"))
os.environ.setdefault("VVM_BINARY_PATH", str(ROOT / ".cache/vvm"))
os.environ.setdefault("MPLCONFIGDIR", str(ROOT / ".cache/matplotlib"))

settings.register_profile(
    "default", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "long", deadline=None, max_examples=2_000, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `long(why)` run in `make test-long` alone."""
    if LONG:
        return
    for item in items:
        if (mark := item.get_closest_marker("long")) is not None:
            item.add_marker(pytest.mark.skip(reason=f"in make test-long: {mark.args[0]}"))
