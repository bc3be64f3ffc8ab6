"""What all tests share: how hard the properties search, and where data from outside the project lies."""

import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

# No deadlines: a machine under load is slow, and that is no fault of the code.
settings.register_profile(
    "default", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("nightly", settings.get_profile("default"), max_examples=2_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real meter data, telegrams and JSON-RPC schemas; without it the test is skipped."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no folder {SHARED_DATA.parent.name}/{SHARED_DATA.name} beside the project")
    return SHARED_DATA


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How much those tests have executed that count it (`record_property("played: ...", count)`)."""
    played = Counter[str]()
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if name.startswith("played: "):
                played[name] += int(str(value))
    for name, count in sorted(played.items()):
        terminalreporter.write_line(f"{name}, {count:,}")
