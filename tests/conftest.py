"""What several test files share."""

from pathlib import Path

import pytest

_PROJECT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def speech() -> Path:
    """The folder of real recordings beside the project; tests that ask for it are skipped without it."""
    folder = _PROJECT.parent / "shared" / "speech"
    if not folder.is_dir():
        pytest.skip("no real speech: expected the folder ../shared/speech beside the project")
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that asks for real speech, so that `-m "not speech"` leaves them out."""
    for item in items:
        if "speech" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.speech)
