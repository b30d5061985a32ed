"""A browser for pages, where there is one."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser import chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium; tests that ask for it are skipped without one."""
    with chromium() as browser:
        yield browser
